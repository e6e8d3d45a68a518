"""`make bench`: haproxy_py beside its peers, under every load, in one interleaved run; then the report.

Two cores are used where there are two: the proxy alone on one, the load and the replicas on the other. CPU per request is the
proxy's own time by the scheduler's accounting, divided by the requests that were answered; it is steady where throughput is
not, because it does not count what else the machine does. Whatever is missing is named, and the rest goes on. Ctrl-C ends the
run and writes what was measured so far.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import flatness, memory, micro
from benchmarks.flatness import measure_flatness
from benchmarks.load import Generators
from benchmarks.machine import FOLDER, Cores, UnavailableError, allow_open_files, choose_cores
from benchmarks.memory import measure_memory
from benchmarks.micro import measure_micros
from benchmarks.plot import draw
from benchmarks.progress import Progress, show_time
from benchmarks.proxies import Job, Proxy, list_proxies
from benchmarks.replicas import run_replicas
from benchmarks.report import write_markdown
from benchmarks.results import Results, describe_machine
from benchmarks.scenarios import SCENARIOS, Ability, Scenario
from benchmarks.session import Extent, Session, expect_closed, expect_latency

PARTS = ("functions", "scenarios", "latency", "memory", "settings")
"""What a run consists of, in this order."""

QUICK_PARTS = ("functions", "scenarios", "latency")
QUICK_PROXIES = ("relay", "haproxy_py", "haproxy", "nginx")

LATENCY_SCENARIOS = ("small", "realistic")

FULL = Extent(rounds=5, seconds=2, latency_rounds=3, latency_seconds=3)
QUICK = Extent(rounds=1, seconds=1, latency_rounds=1, latency_seconds=1)

START = 1.0
"""Seconds that one proxy takes to start and to be checked, about."""


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="scenarios:\n" + "\n".join(f"  {s.name:12} {s.about}" for s in SCENARIOS),
    )
    parser.add_argument(
        "--quick", action="store_true",
        help="within two minutes: one round of 1 s with the relay, haproxy_py, HAProxy and nginx, without memory and "
        "settings; every --peer adds 20 s",
    )  # fmt: skip
    parser.add_argument("--rounds", type=_at_least_one, help=f"rounds (default {FULL.rounds}, quick {QUICK.rounds})")
    parser.add_argument(
        "--seconds", type=_at_least_one,
        help=f"whole seconds of load per proxy, scenario and round (default {FULL.seconds:.0f}, quick {QUICK.seconds:.0f})",
    )  # fmt: skip
    parser.add_argument(
        "--scenario", action="append", metavar="NAME", choices=[s.name for s in SCENARIOS],
        help="only this one of those below; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--part", action="append", choices=PARTS, metavar="PART",
        help=f"only this part of the run; may be repeated: {', '.join(PARTS)} (default all; quick {', '.join(QUICK_PARTS)})",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", metavar="PROXY",
        help="only this proxy; may be repeated: relay, haproxy_py, haproxy, nginx, caddy, envoy, aiohttp, or a --peer",
    )  # fmt: skip
    parser.add_argument(
        "--peer", action="append", default=[], type=_build, metavar="NAME=PATH",
        help="another build of HAProxy, or of nginx if the name holds nginx, e.g. haproxy-3.4=/opt/haproxy/haproxy; "
        "verdicts count it too; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--out", default="latest", metavar="NAME",
        help="NAME.md, NAME.json and NAME.svg in benchmarks/results are written (default latest)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _build(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path


def choose_proxies(proxies: list[Proxy], options: argparse.Namespace) -> list[Proxy]:
    """Those that the command line asks for."""
    if options.only:
        for name in options.only:
            if name not in [proxy.name for proxy in proxies]:
                print(f"no proxy is called {name}", file=sys.stderr)
        return [proxy for proxy in proxies if proxy.name in options.only]
    if options.quick:
        return [proxy for proxy in proxies if proxy.name in QUICK_PROXIES or proxy.newest]
    return proxies


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run will measure."""

    parts: Sequence[str]
    extent: Extent
    scenarios: list[Scenario]
    proxies: list[Proxy]

    @property
    def latency_scenarios(self) -> list[Scenario]:
        return [scenario for scenario in self.scenarios if scenario.name in LATENCY_SCENARIOS]

    @property
    def own(self) -> list[Proxy]:
        """haproxy_py, if it takes part."""
        return [proxy for proxy in self.proxies if proxy.name == "haproxy_py"]

    @property
    def compared_in_memory(self) -> list[Proxy]:
        return self.own + [proxy for proxy in self.proxies if proxy.family and not proxy.newest]

    @property
    def seconds(self) -> float:
        """How long it will take, about."""
        expected = {
            "scenarios": expect_closed(self.proxies, self.scenarios, self.extent),
            "latency": expect_latency(self.proxies, self.latency_scenarios, self.extent),
            "memory": memory.SECONDS * len(self.compared_in_memory),
            "settings": flatness.expect(self.extent.rounds, self.extent.seconds) if self.own else 0,
            "functions": micro.SECONDS,
        }
        starts = START * len(self.proxies) if "scenarios" in self.parts or "latency" in self.parts else 0
        return starts + sum(expected[part] for part in self.parts)


def plan(options: argparse.Namespace, proxies: list[Proxy]) -> Plan:
    """What the command line asks for."""
    base = QUICK if options.quick else FULL
    return Plan(
        options.part or (QUICK_PARTS if options.quick else PARTS),
        Extent(
            options.rounds or base.rounds, options.seconds or base.seconds, base.latency_rounds, base.latency_seconds
        ),
        [scenario for scenario in SCENARIOS if not options.scenario or scenario.name in options.scenario],
        choose_proxies(proxies, options),
    )


def measure(options: argparse.Namespace, folder: Path, results: Results) -> None:
    """Measure all that was asked for, into the results. Raises UnavailableError if replicas or load cannot be had."""
    planned = plan(options, list_proxies(folder, dict(options.peer)))
    results.newest = [proxy.name for proxy in planned.proxies if proxy.newest]
    print(f"about {show_time(planned.seconds)} minutes for {', '.join(planned.parts)}", file=sys.stderr)
    progress = Progress(planned.seconds)
    cores = choose_cores()
    if "functions" in planned.parts:
        progress.begin("compiled functions", micro.SECONDS)
        try:
            results.micros += measure_micros(folder, cores.proxy)
        except UnavailableError as problem:
            results.remarks.append(f"compiled functions are left out: {problem}")
            progress.say(results.remarks[-1])
    if set(planned.parts) == {"functions"}:
        return
    generators = Generators(folder, cores.load)
    with run_replicas(folder, cores.load) as replicas:
        measure_under_load(planned, folder, replicas, cores, generators, results, progress)


def measure_under_load(
    planned: Plan,
    folder: Path,
    replicas: tuple[int, ...],
    cores: Cores,
    generators: Generators,
    results: Results,
    progress: Progress,
) -> None:
    """The parts of the plan that send requests, into the results."""
    with Session(folder, replicas, cores, generators, results, progress) as session:
        if "scenarios" in planned.parts or "latency" in planned.parts:
            session.start(
                planned.proxies, with_tls=any(Ability.TLS in scenario.needs for scenario in planned.scenarios)
            )
        if "scenarios" in planned.parts:
            session.measure(planned.scenarios, planned.extent)
        if "latency" in planned.parts:
            session.measure_latency(planned.latency_scenarios, planned.extent)
    if "memory" in planned.parts:
        job = Job(folder / "run" / "memory", replicas, cores.proxy)
        measure_memory(planned.compared_in_memory, job, generators, results, progress)
    if "settings" in planned.parts:
        for proxy in planned.own:
            measure_flatness(
                proxy, folder / "run" / "settings", replicas, cores, generators, results, progress,
                planned.extent.rounds, planned.extent.seconds,
            )  # fmt: skip


def write_results(results: Results, folder: Path, name: str) -> None:
    """Table, samples and picture."""
    folder.mkdir(exist_ok=True)
    table = write_markdown(results, SCENARIOS)
    if results.samples:
        try:
            draw(results, SCENARIOS, folder / f"{name}.svg")
        except UnavailableError as problem:
            print(f"no picture is drawn: {problem}", file=sys.stderr)
    (folder / f"{name}.md").write_text(table)
    (folder / f"{name}.json").write_text(results.write_json())
    print(table)


def main() -> int:
    """Run it all. 0, or 1 if nothing could be measured, or 130 if it was interrupted."""
    options = read_arguments()
    allow_open_files()
    results = Results(describe_machine())
    status = 0
    with tempfile.TemporaryDirectory(prefix="haproxy-py-bench-", ignore_cleanup_errors=True) as name:
        try:
            measure(options, Path(name), results)
        except KeyboardInterrupt:
            results.remarks.append("the run was interrupted; what it had measured until then is shown")
            print("\ninterrupted", file=sys.stderr)
            status = 130
        except UnavailableError as problem:
            results.remarks.append(str(problem))
            print(problem, file=sys.stderr)
    if results.is_empty:
        print("nothing could be measured", file=sys.stderr)
        return status or 1
    write_results(results, FOLDER / "results", options.out)
    return status


if __name__ == "__main__":
    sys.exit(main())
