"""One run: every proxy under every load, in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import accounting
from benchmarks.checks import find_abilities
from benchmarks.load import WARM_UP, Generators, Load, LoadError
from benchmarks.machine import Certificate, Cores, UnavailableError, compile_c, make_certificate
from benchmarks.progress import Progress
from benchmarks.proxies import Job, Proxy, RunningProxy
from benchmarks.results import Latency, Results, Sample
from benchmarks.scenarios import Ability, Scenario

FIRST_ROUNDS = 2
"""Rounds in which proxies take part that no verdict rests on."""

TOLERATED = 0.001
"""Share of wrong answers and errors above which a proxy has failed a scenario."""

OVERHEAD = 0.2
"""Seconds that starting and ending a load generator takes."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    rounds: int
    seconds: float  # of load, per proxy, scenario and round
    latency_rounds: int
    latency_seconds: float


def sample_time(seconds: float) -> float:
    """Seconds that one sample takes with all that belongs to it."""
    return seconds + WARM_UP + OVERHEAD


def expect_closed(proxies: list[Proxy], scenarios: list[Scenario], extent: Extent) -> float:
    """Seconds that the closed loop will take if all take part in all."""
    turns = sum(extent.rounds if proxy.in_every_round else min(FIRST_ROUNDS, extent.rounds) for proxy in proxies)
    return turns * len(scenarios) * sample_time(extent.seconds)


def expect_latency(proxies: list[Proxy], scenarios: list[Scenario], extent: Extent) -> float:
    """The same of the fixed rate."""
    rounds = extent.latency_rounds
    turns = sum(rounds if proxy.in_every_round else min(FIRST_ROUNDS, rounds) for proxy in proxies)
    return turns * len(scenarios) * sample_time(extent.latency_seconds)


class Session:
    """The proxies of one run while they run. Leaving its context ends them all."""

    def __init__(
        self,
        folder: Path,
        replicas: tuple[int, ...],
        cores: Cores,
        generators: Generators,
        results: Results,
        progress: Progress,
    ) -> None:
        self.folder = folder
        self.replicas = replicas
        self.cores = cores
        self.generators = generators
        self.results = results
        self.progress = progress
        self._ends = ExitStack()
        self._plain: dict[str, RunningProxy] = {}
        self._tls: dict[str, RunningProxy] = {}
        self._abilities: dict[str, set[Ability]] = {}
        self._failed: set[tuple[str, str]] = set()  # proxy, scenario

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self._ends.close()

    def remark(self, text: str) -> None:
        """Say it now, and in the report."""
        text = text.replace(f"{self.folder}/", "")
        self.progress.say(text)
        self.results.remarks.append(text)

    def start(self, proxies: list[Proxy], *, with_tls: bool) -> None:
        """Start what can be started and does the job; say why the rest takes no part."""
        certificate = None
        if any(proxy.is_floor for proxy in proxies):
            compile_c("relay", self.folder)
        if with_tls:
            try:
                certificate = make_certificate(self.folder)
            except UnavailableError as problem:
                self.remark(f"TLS is left out: {problem}")
        for proxy in proxies:
            self.progress.begin(f"{proxy.name} starts", 0)
            if not self._start(proxy, None):
                continue
            if certificate is not None and not proxy.is_floor:
                self._start(proxy, certificate)

    def measure(self, scenarios: list[Scenario], extent: Extent) -> None:
        """CPU per request in a closed loop, into the results."""
        possible = [scenario for scenario in scenarios if self._can_load(scenario)]
        for round_ in range(1, extent.rounds + 1):
            for scenario in possible:
                for running in self._take_part(scenario, round_):
                    what = f"round {round_} of {extent.rounds}, {scenario.name}, {running.name}"
                    self.progress.begin(what, sample_time(extent.seconds))
                    self._attempt(running, scenario, partial(self._sample, running, scenario, round_, extent))

    def measure_latency(self, scenarios: list[Scenario], extent: Extent) -> None:
        """Latencies while requests fall due at half of HAProxy's peak rate, into the results."""
        for scenario in scenarios:
            rate = self._half_of_peak(scenario, extent)
            if rate is None:
                self.remark(f"latency, {scenario.name}: left out, because HAProxy's peak rate is not known")
                continue
            for round_ in range(1, extent.latency_rounds + 1):
                for running in self._take_part(scenario, round_):
                    what = f"latency, round {round_} of {extent.latency_rounds}, {scenario.name}, {running.name}"
                    self.progress.begin(what, sample_time(extent.latency_seconds))
                    seconds = extent.latency_seconds
                    self._attempt(running, scenario, partial(self._latency, running, scenario, round_, rate, seconds))

    def _start(self, proxy: Proxy, certificate: Certificate | None) -> bool:
        tls = certificate is not None
        running = None
        try:
            job = Job(
                self.folder / "run" / f"{proxy.name}{'-tls' if tls else ''}",
                self.replicas, self.cores.proxy, certificate,
            )  # fmt: skip
            running = proxy.start(job)
            abilities, missing = find_abilities(running, self.replicas[:2], tls=tls)
        except (UnavailableError, OSError) as problem:
            self.remark(f"{proxy.name} takes no part{' in TLS' if tls else ''}: {problem}")
            if running is not None:
                running.stop()
            return False
        for what in missing:
            self.remark(f"{proxy.name}{' with TLS' if tls else ''} does less than the job: {what}")
        self._ends.callback(running.stop)
        (self._tls if tls else self._plain)[proxy.name] = running
        self._abilities.setdefault(proxy.name, set()).update(abilities)
        self.results.versions[proxy.name] = proxy.read_version()
        return True

    def _can_load(self, scenario: Scenario) -> bool:
        try:
            self.generators.check(scenario)
        except UnavailableError as problem:
            self.remark(f"{scenario.name} is left out: {problem}")
            return False
        return True

    def _take_part(self, scenario: Scenario, round_: int) -> list[RunningProxy]:
        """Who is measured under this load in this round."""
        started = self._tls if Ability.TLS in scenario.needs else self._plain
        return [
            running
            for running in started.values()
            if scenario.needs <= self._abilities[running.name]
            and (running.name, scenario.name) not in self._failed
            and (running.proxy.in_every_round or round_ <= FIRST_ROUNDS)
        ]

    def _attempt(self, running: RunningProxy, scenario: Scenario, take: Callable[[], None]) -> None:
        try:
            take()
        except LoadError as problem:
            ended = running.process.poll()
            reason = str(problem) if ended is None else f"it has ended with status {ended}"
            self._failed.add((running.name, scenario.name))
            self.remark(f"{running.name} is left out of {scenario.name}: {reason}")

    def _sample(self, running: RunningProxy, scenario: Scenario, round_: int, extent: Extent) -> None:
        self.generators.warm_up(scenario, running.port)
        accounting.forget_peak(running.pid)
        before = running.cpu()
        load = self.generators.run(scenario, running.port, extent.seconds)
        used = running.cpu() - before
        wrong = count_wrong(scenario, load)
        check_answers(load, wrong)
        self.results.samples.append(
            Sample(
                scenario.name, running.name, round_, used / load.requests * 1e6, load.requests / load.seconds,
                accounting.read_peak_memory(running.pid) / 2**20, load.requests, wrong, load.errors,
            )
        )  # fmt: skip

    def _half_of_peak(self, scenario: Scenario, extent: Extent) -> float | None:
        rates = [s.rate for s in self.results.samples if s.scenario == scenario.name and s.proxy == "haproxy"]
        if rates:
            return median(rates) / 2
        haproxy = self._plain.get("haproxy")
        if haproxy is None or not self._can_load(scenario):
            return None
        try:
            load = self.generators.run(scenario, haproxy.port, extent.latency_seconds)
        except LoadError:
            return None
        return load.requests / load.seconds / 2

    def _latency(self, running: RunningProxy, scenario: Scenario, round_: int, rate: float, seconds: float) -> None:
        self.generators.run_at_rate(scenario, running.port, WARM_UP, rate)
        load = self.generators.run_at_rate(scenario, running.port, seconds, rate)
        self.results.latencies.append(
            Latency(
                scenario.name, running.name, round_, rate, load.p50, load.p99, load.p999, load.requests,
                load.wrong + load.errors,
            )
        )  # fmt: skip


def count_wrong(scenario: Scenario, load: Load) -> int:
    """Answers with another status than the scenario expects. The generators count those that are not 2xx or 3xx."""
    return load.wrong if scenario.status < 400 else load.requests - load.wrong


def check_answers(load: Load, wrong: int) -> None:
    """Raise LoadError if what came back is not what is to be measured."""
    if not load.requests:
        raise LoadError(f"no request was answered, {load.errors} errors")
    if wrong + load.errors > TOLERATED * load.requests:
        raise LoadError(f"{wrong} wrong answers and {load.errors} errors among {load.requests} requests")
