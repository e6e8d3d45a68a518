"""`make bench`: every proxy under every load, in turn, round after round; then the table.

Two cores are used where there are two: the proxy alone on one, the load and the replicas on the other. CPU per request is the
proxy's own time by the scheduler's accounting, divided by the requests that were answered; it is steady where throughput is
not, because it does not count what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.load import LoadError, run_load
from benchmarks.proxies import (
    Proxy,
    UnavailableError,
    compile_c,
    free_port,
    list_proxies,
    pin,
    wait_for,
)
from benchmarks.report import Sample, best_ratio, write_json, write_markdown
from benchmarks.scenarios import SCENARIOS, Scenario

RESULTS = Path(__file__).parent / "results"


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds of 2 s, without Caddy, Envoy and aiohttp")
    parser.add_argument("--rounds", type=int, help="rounds (default 5, quick 2)")
    parser.add_argument("--seconds", type=float, help="load per proxy, scenario and round (default 4, quick 2)")
    parser.add_argument("--scenario", action="append", help="only this one; may be repeated", metavar="NAME")
    parser.add_argument("--only", action="append", help="only this proxy; may be repeated", metavar="NAME")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another build of a peer, e.g. haproxy-3.5=/opt/haproxy/haproxy",
    )
    parser.add_argument("--out", default="latest", help="name of the files in benchmarks/results (default latest)")
    return parser.parse_args()


def choose_cores() -> tuple[int | None, int | None]:
    """The core for the proxy and the one for load and replicas; None where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("only one core: proxy and load share it, figures say little", file=sys.stderr)
        return None, None
    return cores[0], cores[1]


def start_all(proxies: list[Proxy], folder: Path, replicas: tuple[int, int], core: int | None) -> list[Proxy]:
    """Start what can be started; say why the rest takes no part."""
    running = []
    for proxy in proxies:
        own = folder / "run" / proxy.name
        own.mkdir(parents=True)
        try:
            proxy.start(own, replicas, core)
        except (UnavailableError, OSError) as problem:
            print(f"{proxy.name} takes no part: {problem}", file=sys.stderr)
            proxy.stop()
        else:
            running.append(proxy)
    return running


def take_sample(
    proxy: Proxy, scenario: Scenario, round_: int, seconds: float, core: int | None, folder: Path
) -> Sample:
    """One proxy under one load."""
    run_load(scenario, proxy.port, 1, core, folder)  # connections to replicas stand, caches are warm
    before = proxy.cpu()
    load = run_load(scenario, proxy.port, seconds, core, folder)
    used = proxy.cpu() - before
    wrong = load.wrong if scenario.status < 400 else load.requests - load.wrong
    return Sample(
        scenario.name, proxy.name, round_, used / max(1, load.requests) * 1e6, load.requests / load.seconds,
        proxy.memory(), load.requests, wrong, load.errors,
    )  # fmt: skip


def main() -> int:
    """Run it all. 0, or 1 if nothing could be measured."""
    options = read_arguments()
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (2 if options.quick else 4)
    scenarios = [s for s in SCENARIOS if not options.scenario or s.name in options.scenario]
    unknown = set(options.scenario or ()) - {s.name for s in SCENARIOS}
    if unknown:
        print(
            f"no such scenario: {', '.join(unknown)}; there are {', '.join(s.name for s in SCENARIOS)}", file=sys.stderr
        )
        return 2
    proxy_core, load_core = choose_cores()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="haproxy-py-bench-") as name:
        folder = Path(name)
        others = dict(peer.partition("=")[::2] for peer in options.peer)
        replica_ports = (free_port(), free_port())
        compile_c("relay", folder)
        program = compile_c("replica", folder)
        replicas = [subprocess.Popen([*pin(load_core), str(program), str(port)]) for port in replica_ports]
        for process, port in zip(replicas, replica_ports, strict=True):
            wait_for(port, process)
        proxies = list_proxies(folder, others)
        if options.only:
            proxies = [proxy for proxy in proxies if proxy.name in options.only]
        elif options.quick:
            proxies = [proxy for proxy in proxies if proxy.name not in ("caddy", "envoy", "aiohttp")]
        try:
            proxies = start_all(proxies, folder, replica_ports, proxy_core)
            versions = {proxy.name: proxy.version for proxy in proxies}
            for round_ in range(1, rounds + 1):
                for scenario in scenarios:
                    for proxy in proxies:
                        if not proxy.looks_at_http and not scenario.plain:
                            continue
                        print(f"\rround {round_}/{rounds}  {scenario.name:12} {proxy.name:12}", end="", file=sys.stderr)
                        try:
                            samples.append(take_sample(proxy, scenario, round_, seconds, load_core, folder))
                        except (LoadError, subprocess.TimeoutExpired) as problem:
                            print(f"\n{proxy.name}, {scenario.name}: {problem}", file=sys.stderr)
            print(file=sys.stderr)
        finally:
            for proxy in proxies:
                proxy.stop()
            for process in replicas:
                process.kill()
                process.wait()
    if not samples:
        print("nothing could be measured", file=sys.stderr)
        return 1
    table = write_markdown(samples, {s.name: (s.about, s.limit) for s in scenarios}, versions)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.out}.md").write_text(table)
    (RESULTS / f"{options.out}.json").write_text(write_json(samples, versions))
    print(table)
    for scenario in scenarios:
        ratio = best_ratio(samples, scenario.name)
        if ratio is not None:
            print(f"{scenario.name:12} {ratio:.2f}  (at most {scenario.limit})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
