"""Whether a request to haproxy_py costs the same with two workers, with many replicas, with many instances."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.load import Generators, LoadError
from benchmarks.machine import FOLDER, Cores, UnavailableError
from benchmarks.progress import Progress
from benchmarks.proxies import Job, Proxy, RunningProxy, fill
from benchmarks.results import Cost, Results
from benchmarks.scenarios import find_scenario, host_name
from benchmarks.session import check_answers, count_wrong, sample_time

HOSTS = 1000
"""Hosts that are asked for in turn, in the base too, so that the load is the same for all."""

START = 3.0
"""Seconds that starting haproxy_py in one setting and ending it takes, about."""

LIMIT = 1.10
"""CPU per request against the base, at most."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How haproxy_py is set up."""

    name: str
    workers: int = 1
    replicas: int = 2
    instances: int = 1
    hosts: int = HOSTS  # asked for in turn


BASE = Setting("1 worker, 2 replicas, 1 instance")
SETTINGS = (
    BASE,
    Setting("2 workers", workers=2),
    Setting("200 replicas", replicas=200),
    Setting("1,000 instances, one asked", instances=HOSTS, hosts=1),  # the Host table alone
    Setting("1,000 instances, all asked", instances=HOSTS),  # with a pool of connections each, which are cold
)


def expect(rounds: int, seconds: float) -> float:
    """Seconds that it will take."""
    return len(SETTINGS) * (START + rounds * (1 + sample_time(seconds)))


def write_config(setting: Setting, replicas: tuple[int, ...], template: str) -> str:
    """haproxy_py's configuration of the suite, in another setting. {listen} and {ops} stay to be filled in."""
    text = fill(template, {"listen": "1", "ops": "2", "replica_1": "3", "replica_2": "4"})
    config = yaml.safe_load("".join(line for line in text.splitlines(keepends=True) if "# tls" not in line))
    [instance] = config["instances"]
    instance["replicas"] = {"static": [f"http://127.0.0.1:{port}" for port in replicas[: setting.replicas]]}
    if setting.instances > 1:
        config["instances"] = [
            instance | {"name": f"bench-{number}", "hosts": [host_name(number)]} for number in range(setting.instances)
        ]
    config["workers"] = setting.workers
    config["listen"] = [{"address": "127.0.0.1:{listen}"}]
    config["ops"] = {"address": "127.0.0.1:{ops}"}
    written: str = yaml.safe_dump(config, sort_keys=False, width=1000)
    return written


def measure_flatness(
    proxy: Proxy,
    folder: Path,
    replicas: tuple[int, ...],
    cores: Cores,
    generators: Generators,
    results: Results,
    progress: Progress,
    rounds: int,
    seconds: float,
) -> None:
    """Small GETs in every setting, in turn, round after round; into the results."""
    scenario = find_scenario("small")
    template = (FOLDER / "peers" / proxy.config).read_text()
    try:
        generators.check(scenario)
    except UnavailableError as problem:
        results.remarks.append(f"costs by setting are left out: {problem}")
        progress.say(results.remarks[-1])
        return
    with ExitStack() as ends:
        started: list[tuple[Setting, RunningProxy]] = []
        for setting in SETTINGS:
            own = cores.workers if setting.workers > 1 else cores.proxy
            job = Job(folder / setting.name.replace(" ", "-"), replicas, own)
            try:
                running = proxy.start(job, write_config(setting, replicas, template))
            except UnavailableError as problem:
                results.remarks.append(f"haproxy_py with {setting.name} is left out: {problem}")
                progress.say(results.remarks[-1])
                continue
            ends.callback(running.stop)
            started.append((setting, running))
        for round_ in range(1, rounds + 1):
            for setting, running in started:
                progress.begin(f"costs by setting, round {round_} of {rounds}, {setting.name}", sample_time(seconds))
                try:
                    generators.run(scenario, running.port, 1, setting.hosts)
                    before = running.cpu()
                    load = generators.run(scenario, running.port, seconds, setting.hosts)
                    used = running.cpu() - before
                    check_answers(load, count_wrong(scenario, load))
                except LoadError as problem:
                    results.remarks.append(f"haproxy_py with {setting.name}, round {round_}: {problem}")
                    progress.say(results.remarks[-1])
                    continue
                results.costs.append(Cost(setting.name, round_, used / load.requests * 1e6, load.requests))
