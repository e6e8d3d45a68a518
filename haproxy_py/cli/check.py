"""`haproxy-py check`: is this configuration file right, and what would run?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from haproxy_py.config import Config, Instance, KubernetesSelector
from haproxy_py.config_file import ConfigError, load, name_source
from haproxy_py.config_values import spell_address, spell_duration
from haproxy_py.control.certificates import check_certificates, find_untimely
from haproxy_py.control.private_files import find_exposed
from haproxy_py.control.token import TokenError, find_token_file
from haproxy_py.node_red.admin_surface import build_gate_rules, find_open_root
from haproxy_py.node_red.open_editor import warn_of_open_editor

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers

EXAMPLES = """\
examples:
  haproxy-py check haproxy-py.yaml
  haproxy-py config example | haproxy-py check -
  haproxy-py check new.yaml && mv new.yaml haproxy-py.yaml    put a changed file in place only if it is right

exit codes: 0 the file is right, warnings or not; 2 it is not, and every error is on standard error: where, what, what was
expected
"""

SHOWN = 10
"""Instances, hosts or replicas that the summary names before it only counts."""


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser(
        "check",
        help="check a configuration file",
        description="Read a configuration file and tell every error in it, or what would run. Starts nothing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the configuration file (YAML); - for standard input")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the errors, or the summary."""
    try:
        config = load(args.file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if complaints := check_files(config):
        for complaint in complaints:
            print(f"{name_source(args.file)}: {complaint}", file=sys.stderr)
        return 2
    print(f"{name_source(args.file)} is right. {summarize(config)}")
    for warning in find_warnings(config):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def find_warnings(config: Config) -> list[str]:
    """What is right and yet less safe than it could be."""
    gates = [(f"instance {instance.name}", instance.gate) for instance in config.instances if instance.ha is not False]
    if config.instances_from is not None:
        gates.append(("instances_from", config.instances_from.gate))
    where: dict[str, list[str]] = {}
    for name, gate in gates:
        if warning := find_open_root(build_gate_rules(gate)):
            where.setdefault(warning, []).append(name)
    return [
        *find_exposed(config),
        *find_untimely(config),
        *(f"{_enumerate(names)}: {warning}" for warning, names in where.items()),
    ]


def check_files(config: Config) -> list[str]:
    """What is wrong with the files that the configuration names, all of it: each with its place."""
    complaints = check_certificates(config)
    if token_file := find_token_file(config.ops):
        try:
            token_file.read()
        except TokenError as error:
            complaints.append(str(error))
    clusters = [
        (f"instances[{i}].replicas", one.kubernetes.cluster) for i, one in enumerate(config.instances) if one.kubernetes
    ]
    if config.instances_from is not None:
        clusters.append(("instances_from", config.instances_from.kubernetes.cluster))
    for place, cluster in clusters:
        if cluster.kubeconfig and not Path(cluster.kubeconfig).is_file():
            complaints.append(f"{place}.kubernetes.kubeconfig: {cluster.kubeconfig} does not exist")
    return complaints


def summarize(config: Config) -> str:
    """One paragraph: what would run."""
    listeners = _enumerate([spell_address(listen.host, listen.port) for listen in config.listen])
    workers = _count(config.workers, "worker") if config.workers else "one worker per CPU"
    instances = [_summarize_instance(instance) for instance in config.instances]
    served = [f"{_count(len(instances), 'instance')}: {_enumerate(instances, '; ')}"] if instances else []
    if config.instances_from is not None:
        served.append(_summarize_source(config.instances_from.kubernetes))
    return (
        f"It would listen on {listeners} with {workers}, have the operators' port on "
        f"{spell_address(config.ops.host, config.ops.port)}, and serve {'; and '.join(served)}. "
        f"On SIGTERM it would go on accepting for {spell_duration(config.drain.delay)} "
        f"and end {spell_duration(config.drain.deadline)} after the signal at the latest."
    )


def _summarize_instance(instance: Instance) -> str:
    hosts = _enumerate(list(instance.hosts)) if instance.hosts else "any host"
    mode = {
        True: "in HA mode (editor and admin API: 403)",
        False: "not in HA mode (editor and admin API pass)",
        None: "in HA mode if its Service says so",
    }[instance.ha]
    warning = warn_of_open_editor(ha=instance.ha, replicas=len(instance.static))
    return (
        f"{instance.name} for {hosts}, {mode}, over {_summarize_replicas(instance)} by {instance.balance.policy}"
        f"{f' (warning: {warning})' if warning else ''}"
    )


def _summarize_replicas(instance: Instance) -> str:
    name = instance.dns
    if name is not None:
        kind = "A" if name.family == "ipv4" else "AAAA"
        records = f"its {kind} records at port {name.port}" if name.port else "its SRV records"
        return f"what {name.name} stands for in the DNS ({records})"
    service = instance.kubernetes
    if service is not None:
        port = f"port {service.port}" if service.port else "the only port"
        return f"{service.source} ({port}) of Service {service.namespace or '(own namespace)'}/{service.service}"
    replicas = _enumerate([spell_address(replica.host, replica.port) for replica in instance.static])
    return f"{_count(len(instance.static), 'replica')} ({replicas})"


def _summarize_source(source: KubernetesSelector) -> str:
    namespaces = _enumerate(list(source.namespaces)) or "the own namespace"
    return f"every Service that {source.selector} selects in {namespaces}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _enumerate(words: list[str], separator: str = ", ") -> str:
    if len(words) <= SHOWN:
        return separator.join(words)
    return separator.join([*words[:SHOWN], f"and {len(words) - SHOWN} more"])
