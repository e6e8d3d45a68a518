"""Discovery as a whole: follows what the configuration names, and finds the instances and replicas of this moment.

- `find` is level-triggered: always the complete set, from everything that is known now (WAT-19). What is remembered beside that
  is which pods were ready, so that a set that turns unready as a whole can be kept (`keep`).
- Changes that arrive together are told once (`bundle`).
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from haproxy_py import counters
from haproxy_py.config import Cluster, Config, DnsName, Instance, KubernetesService
from haproxy_py.config_file import MAX_INSTANCE_REPLICAS, MAX_INSTANCES
from haproxy_py.discovery.api import Api
from haproxy_py.discovery.bundle import Bundle
from haproxy_py.discovery.changes import describe_change, describe_mode, list_changes
from haproxy_py.discovery.feed import Feed
from haproxy_py.discovery.found import FoundInstance, find_static
from haproxy_py.discovery.keep import KEEP_FOR, Memory, remember
from haproxy_py.discovery.lookup import Question, look_up
from haproxy_py.discovery.members import merge_members
from haproxy_py.discovery.merge import REASONS, IsOwn, Merged, merge
from haproxy_py.discovery.names import DNS, LONGEST_NAME_PAUSE, LookUp, NameFollower, make_question, plan_names
from haproxy_py.discovery.pace import LONGEST_PAUSE, Pace
from haproxy_py.discovery.records import Records
from haproxy_py.discovery.reflector import Change, Clock, Reflector, Say
from haproxy_py.discovery.scopes import (
    SERVICES,
    Key,
    Scope,
    locate_endpoints,
    locate_selected,
    locate_service,
    plan_scopes,
)
from haproxy_py.discovery.services import HA, Selected, Service, is_ha, make_instances, parse_service
from haproxy_py.discovery.slices import Slices, parse_endpoints, parse_slice
from haproxy_py.discovery.view import DiscoveryView, FeedView, ReplicaCount
from haproxy_py.tasks import keep_running

PARSERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "endpointslices": parse_slice,
    "endpoints": parse_endpoints,
    SERVICES: parse_service,
}

MAX_LAG = 300.0
"""Seconds. A change that seems older was made long before this proxy came to know of it, or the clocks disagree."""

NO_INSTANCE = "(no instance)"
"""Stands for those that are not known yet, so that their requests are told to come again. No configuration can use the name."""


class Discovery:
    """Everything that is followed. `notify` is called, on the loop, after what `find` would say may have changed."""

    def __init__(
        self,
        say: Say,
        is_own: IsOwn,
        notify: Callable[[Change], None],
        clock: Clock | None = None,
        look_up: LookUp = look_up,
    ) -> None:
        self.records = Records()
        self._say = say
        self._is_own = is_own
        self._clock = clock or Clock()
        self._look_up = look_up
        self._apis: dict[Cluster, Api] = {}
        self._feeds: dict[Key, Feed] = {}
        self._names: dict[Question, tuple[NameFollower, asyncio.Task[None]]] = {}
        self._ended: list[asyncio.Task[None]] = []
        self._changes = Bundle(notify)
        self._merged: dict[KubernetesService, tuple[tuple[Slices, ...], Merged]] = {}
        self._memories: dict[KubernetesService, Memory] = {}
        self._expiry: asyncio.TimerHandle | None = None  # when the first set that is kept is kept no longer
        self._ignored_members: Counter[str] = Counter()  # of names in the DNS, by the last `find`
        self._last_ha: dict[str, bool] = {}
        self._found: tuple[FoundInstance, ...] = ()  # as announced
        self._complaints: dict[str, tuple[str, ...]] = {}  # by instance or Service
        self._said: set[tuple[str, str]] = set()

    # --- following ---

    def follow(self, config: Config) -> None:
        """From now on follow what this configuration names, and nothing else."""
        scopes = plan_scopes(config)
        for key in [key for key in self._feeds if key not in scopes]:
            self._ended += self._feeds.pop(key).end()
        for key, scope in scopes.items():
            if key in self._feeds:
                self._feeds[key].follow(scope)
            else:
                self._feeds[key] = Feed(scope, self._make_reflector, self._changes.note)
        self._follow_names(plan_names(config))

    async def close(self) -> None:
        """Stop following. What was found last stays in the table."""
        self._changes.close()
        if self._expiry is not None:
            self._expiry.cancel()
        for feed in self._feeds.values():
            self._ended += feed.end()
        self._feeds.clear()
        self._follow_names({})
        if self._ended:
            await asyncio.wait(self._ended)
        for api in self._apis.values():
            await api.close()

    def _follow_names(self, wanted: dict[Question, float]) -> None:
        """From now on ask for these, each at such intervals."""
        for question in [question for question in self._names if question not in wanted]:
            _, task = self._names.pop(question)
            task.cancel()
            self._ended = [task for task in self._ended if not task.done()] + [task]
        for question, interval in wanted.items():
            if question in self._names:
                self._names[question][0].interval = interval
                continue
            pace = Pace(self._choose_longest_name_pause)
            follower = NameFollower(
                question, interval, self._changes.note, self._say, self.records, pace, self._clock, self._look_up
            )
            self._names[question] = (follower, asyncio.create_task(keep_running("names", follower.run, self._say)))

    def _choose_longest_name_pause(self) -> float:
        """However many names are failing, a look-up every 50th of a second at most begins."""
        return max(LONGEST_NAME_PAUSE, len(self._names) / 50)

    def _make_reflector(self, scope: Scope, notify: Callable[[Change], None]) -> Reflector[Any]:
        cluster = scope.key.cluster
        if cluster not in self._apis:
            self._apis[cluster] = Api(cluster)
        return Reflector(
            self._apis[cluster],
            scope.make_collection(),
            PARSERS[scope.key.kind],
            notify,
            self._say,
            self.records,
            Pace(self._choose_longest_pause),
            self._clock,
        )

    def _choose_longest_pause(self) -> float:
        """So long that all together ask once a second at most, however many are failing: a pause is 0.75 of it on average."""
        return max(LONGEST_PAUSE, 1.5 * len(self._feeds))

    # --- finding ---

    def find(self, config: Config) -> tuple[FoundInstance, ...]:
        """Every instance of this configuration with the replicas of now."""
        self._complaints = {}
        self._ignored_members = Counter()
        grouped = {key: _group(feed) for key, feed in self._feeds.items() if key.kind != SERVICES}
        selected, is_complete = self._select(config)
        instances = (*config.instances, *selected.instances)
        found = [self._find_one(instance, config, grouped) for instance in instances]
        kept = {instance.kubernetes for instance in instances}
        self._merged = {service: merged for service, merged in self._merged.items() if service in kept}
        self._memories = {service: memory for service, memory in self._memories.items() if service in kept}
        self._await_expiry()
        self._last_ha = {one.settings.name: one.ha for one in found}
        if not is_complete and all(instance.hosts for instance in instances):
            found.append(FoundInstance(Instance(NO_INSTANCE, (), ha=True), True, (), discovered=False))
        return self._share_room(found)

    def _select(self, config: Config) -> tuple[Selected, bool]:
        """The instances that Services have become, and whether every Service is known."""
        feeds = [self._feeds.get(key) for key in locate_selected(config)]
        if config.instances_from is None:
            return Selected((), ()), True
        services = [one for feed in feeds if feed is not None for one in feed.reflector.objects.values()]
        room = MAX_INSTANCES - len(config.instances)
        selected = make_instances(services, config.instances_from, config.instances, room)
        for service, complaint in selected.complaints:
            self._complain(f"Service {service}", complaint)
        return selected, all(feed is not None and feed.reflector.is_listed for feed in feeds)

    def _find_one(
        self, instance: Instance, config: Config, grouped: dict[Key, dict[str, tuple[Slices, ...]]]
    ) -> FoundInstance:
        if instance.dns is not None:
            return self._find_named(instance, instance.dns)
        service = instance.kubernetes
        if service is None:
            return find_static(instance)
        ha = self._find_mode(instance, service, config) if instance.ha is None else instance.ha
        key = self._locate(locate_endpoints(service), service)
        if key is None:
            return FoundInstance(instance, ha, (), discovered=False)
        merged = self._keep(service, self._merge(service, grouped[key].get(service.service, ())), instance)
        for complaint in merged.complaints:
            self._complain(f"instance {instance.name}", complaint)
        return FoundInstance(instance, ha, merged.replicas)

    def _find_named(self, instance: Instance, name: DnsName) -> FoundInstance:
        """The replicas that a name stands for."""
        follower = self._names.get(make_question(name), (None, None))[0]
        ha = instance.ha is not False
        if follower is None or follower.members is None:
            return FoundInstance(instance, ha, (), discovered=False)
        merged = merge_members(follower.members, name.port, self._is_own)
        for complaint in merged.complaints:
            self._complain(f"instance {instance.name}", complaint)
        self._ignored_members.update(merged.ignored or {})
        return FoundInstance(instance, ha, merged.replicas)

    def _find_mode(self, instance: Instance, service: KubernetesService, config: Config) -> bool:
        """HA mode by the Service's annotation. As long as the Service is not known, closed; when it is gone, as it was."""
        for key in (locate_service(service), *locate_selected(config)):
            feed = self._feeds.get(key)
            found: Service | None = feed.reflector.objects.get(service.service) if feed is not None else None
            if found is not None and (not service.namespace or found.namespace == service.namespace):
                own = f"Service {found.namespace}/{found.name}"
                ha, complaint = is_ha(found)
                if complaint:
                    self._complain(f"instance {instance.name}", f"{own}: {complaint}")
                if found.is_external:
                    text = (
                        "is of type ExternalName, which has no endpoints; for a name in the DNS there is replicas.dns"
                    )
                    self._complain(f"instance {instance.name}", f"{own} {text}")
                return ha
        last = self._last_ha.get(instance.name, True)
        if self._locate(locate_service(service), service) is not None:
            mode = "on" if last else "off"
            self._complain(
                f"instance {instance.name}",
                f"there is no Service {service.namespace or '(own namespace)'}/{service.service} to read {HA} from: "
                f"HA mode stays {mode}",
            )
        return last

    def _locate(self, key: Key, service: KubernetesService) -> Key | None:
        """The key, if what it stands for is known as far as this Service is concerned.

        The instances of a selection name their namespace; the selection may have meant the own one without a name.
        """
        for candidate in (key, Key(key.cluster, key.kind, "")):
            feed = self._feeds.get(candidate)
            if feed is None or not feed.knows(service.service):
                continue
            own = self._apis[key.cluster].namespace
            if candidate == key or own == key.namespace:
                return candidate
        return None

    def _merge(self, service: KubernetesService, slices: tuple[Slices, ...]) -> Merged:
        """Merged anew only if one of the objects is another one than before."""
        before = self._merged.get(service)
        if before is not None and len(before[0]) == len(slices) and all(map(_is, before[0], slices)):
            return before[1]
        pieces = [piece for thing in slices for piece in thing.slices]
        merged = merge(pieces, service.port, service.family, self._is_own)
        if any(thing.truncated for thing in slices):
            text = "its Endpoints object holds only the first 1,000 addresses; source: endpointslices has them all"
            merged = replace(merged, complaints=(*merged.complaints, text))
        self._merged[service] = (slices, merged)
        return merged

    def _keep(self, service: KubernetesService, merged: Merged, instance: Instance) -> Merged:
        """With the pods that are kept though they are unready."""
        before = self._memories.get(service, Memory())
        memory = remember(before, merged.ready, merged.listed.keys(), self._clock.now())
        self._memories[service] = memory
        if not memory.kept:
            return merged
        kept = [replace(merged.listed[uid], kept=True) for uid in memory.kept]
        replicas = sorted((*merged.replicas, *kept), key=lambda one: one.name)[:MAX_INSTANCE_REPLICAS]
        decides = "" if instance.health.type == "off" else ", a check of each decides"
        text = (
            "all of its pods turned unready together, as they do when the control plane has not heard of their nodes: they are "
            f"given work as before{decides}, and after {KEEP_FOR:g} s at most it is believed"
        )
        return replace(merged, replicas=tuple(replicas), complaints=(*merged.complaints, text))

    def _await_expiry(self) -> None:
        """Have it told when a set is kept no longer."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        ends = [memory.ends for memory in self._memories.values() if memory.kept]
        if ends:
            now = self._clock.now()
            note = self._changes.note
            self._expiry = asyncio.get_running_loop().call_later(max(0.0, min(ends) - now), note, Change(min(ends)))

    def _share_room(self, found: list[FoundInstance]) -> tuple[FoundInstance, ...]:
        """Where the replicas are more than there are counters for, the largest instances give way, equally."""
        sizes = [len(one.replicas) for one in found]
        if sum(sizes) <= counters.MAX_REPLICAS:
            return tuple(found)
        most = max(cap for cap in range(max(sizes)) if sum(min(size, cap) for size in sizes) <= counters.MAX_REPLICAS)
        for index, one in enumerate(found):
            if len(one.replicas) > most:
                text = (
                    f"there are more than {counters.MAX_REPLICAS} replicas in all, so only {most} of the "
                    f"{len(one.replicas)} of this instance are used; run more proxies, each with fewer instances"
                )
                self._complain(f"instance {one.settings.name}", text)
                found[index] = FoundInstance(one.settings, one.ha, one.replicas[:most], one.discovered)
        return tuple(found)

    def _complain(self, subject: str, text: str) -> None:
        if text not in self._complaints.get(subject, ()):
            self._complaints[subject] = (*self._complaints.get(subject, ()), text)

    # --- telling people ---

    def announce(self, found: tuple[FoundInstance, ...]) -> None:
        """These are in the table now: log and count what is different."""
        before = {one.settings.name: one for one in self._found}
        after = {one.settings.name: one for one in found if one.settings.name != NO_INSTANCE}
        self._found = found
        changes: list[str] = []
        for name, one in after.items():
            if one is before.get(name):
                continue
            describe = describe_mode if one.settings.static else describe_change
            if not one.settings.static:
                changes += list_changes(before.get(name), one)
            for level, text in describe(before.get(name), one):
                self._say(level, text)
        self.records.changes.update(changes or ["none"])
        for name in before.keys() - after.keys() - {NO_INSTANCE}:
            self._say("info", f"instance {name} is gone: its Service, or its place in the configuration")
        complaints = {(subject, text) for subject, texts in self._complaints.items() for text in texts}
        for subject, text in sorted(complaints - self._said):
            self._say("warning", f"{subject}: {text}")
        self._said = complaints

    def is_complete(self) -> bool:
        """Whether everything that is followed has been read once."""
        return all(feed.reflector.is_listed for feed in self._feeds.values()) and all(
            follower.members is not None for follower, _ in self._names.values()
        )

    def record_lag(self, change: Change) -> None:
        """What changed is in force in every worker now."""
        self.records.lag_of_receipt.observe(self._clock.now() - change.received)
        if change.happened is not None:
            seconds = time.time() - change.happened
            if 0 <= seconds <= MAX_LAG:
                self.records.lag_of_change.observe(seconds)

    def view(self) -> DiscoveryView:
        """A picture of this moment."""
        now = self._clock.now()
        feeds = (
            *(self._view_feed(key, feed.newest, now) for key, feed in self._feeds.items()),
            *(follower.view(now) for follower, _ in self._names.values()),
        )
        merged = [self._merged[service][1] for service in self._merged]
        ignored: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        for one in merged:
            ignored.update(one.ignored or {})
        ignored.update(self._ignored_members)
        return DiscoveryView(
            feeds=feeds,
            counts=tuple(self._count_replicas(self._found)),
            ignored=dict(ignored),
            complaints=tuple(f"{subject}: {text}" for subject, text in sorted(self._said)),
            waiting_for=tuple(_say_waiting(feed) for feed in feeds if not feed.listed),
            records=copy.deepcopy(self.records),  # metrics are written on another thread
        )

    def _view_feed(self, key: Key, reflector: Reflector[Any], now: float) -> FeedView:
        return FeedView(
            kind=key.kind,
            namespace=key.namespace or self._apis[key.cluster].namespace,
            cluster=" ".join(filter(None, (key.cluster.kubeconfig, key.cluster.context))),
            listed=reflector.is_listed,
            objects=len(reflector.objects),
            silence=None if reflector.heard_at is None else now - reflector.heard_at,
            failure=reflector.failure,
        )

    def _count_replicas(self, found: Iterable[FoundInstance]) -> list[ReplicaCount]:
        counts = []
        for one in found:
            service = one.settings.kubernetes
            if one.settings.dns is not None:
                counts.append(ReplicaCount(one.settings.name, len(one.replicas), 0, 0))
            if service is not None:
                states = Counter(replica.state.value for replica in one.replicas)
                unready = self._merged[service][1].unready if service in self._merged else 0
                kept = sum(replica.kept for replica in one.replicas)
                counts.append(
                    ReplicaCount(one.settings.name, states["ready"], states["draining"], unready - kept, kept)
                )
        return counts


def _is(one: object, other: object) -> bool:
    return one is other


def _group(feed: Feed) -> dict[str, tuple[Slices, ...]]:
    """The objects of a feed by Service, sorted by name, so that the result does not depend on the order of arrival."""
    grouped: dict[str, list[Slices]] = {}
    for _, thing in sorted(feed.reflector.objects.items()):
        grouped.setdefault(thing.service, []).append(thing)
    return {service: tuple(things) for service, things in grouped.items()}


def _say_waiting(feed: FeedView) -> str:
    if feed.kind == DNS:
        return feed.failure or f"{feed.namespace} has not been looked up yet"
    text = f"the {feed.kind} of namespace {feed.namespace or '(own)'} have not been read yet"
    return f"{text}: {feed.failure}" if feed.failure else text
