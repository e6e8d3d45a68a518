"""Routes: the table as the data path uses it, with every setting where one look finds it.

Built by a worker from each table that control sends, and never changed but for the turns and the slow start. Replicas are
carried over from the routes before, with their idle connections, as long as name and address are the same.

What a draining replica is given (DRN-1): no new exchange and no tunnel, of sticky clients neither, whose next request goes to
another. If no replica is ready, those that discovery lets drain get all of it, because they still serve; one that drains by an
operator's word gets nothing even then. One whose checks fail gets nothing new, draining or not; one of weight 0 its sticky
clients and nothing else, as in HAProxy.
"""

import ipaddress
from typing import Optional

import cython
from cython.cimports.haproxy_py.datapath.count import Counters
from cython.cimports.haproxy_py.datapath.deadlines import Clock
from cython.cimports.haproxy_py.datapath.gate import Gate
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.queue import Queue
from cython.cimports.haproxy_py.datapath.retry import RetryBudget

from haproxy_py import counters as layout
from haproxy_py.config import Limits, Timeouts
from haproxy_py.networks import Networks
from haproxy_py.table import ReplicaState

_POLICIES = {"round-robin": ROUND_ROBIN, "least-connections": LEAST_CONNECTIONS, "random-two": RANDOM_TWO}
_AFFINITIES = {"none": AFFINITY_NONE, "dashboard": AFFINITY_DASHBOARD, "all": AFFINITY_ALL}


@cython.final
@cython.cclass
class Instance:
    """One instance, ready to be asked per request."""

    def __init__(
        self, entry: object, replicas: list, queue: Queue, retries: RetryBudget, clock: Clock, counters: Counters
    ):
        timeouts = entry.timeouts
        limits = entry.limits
        replica: Replica
        self.name = entry.name
        self.ha = entry.ha
        self.discovered = entry.discovered
        self.policy = _POLICIES[entry.policy]
        self.affinity = _AFFINITIES[entry.affinity]
        self.cookie = entry.cookie.name.encode("ascii")
        self.cookie_attributes = f"; Path=/; HttpOnly; SameSite={entry.cookie.same_site.capitalize()}".encode("ascii")
        if entry.cookie.domain:
            self.cookie_attributes += f"; Domain={entry.cookie.domain}".encode("ascii")
        self.serves_half_closed = entry.half_close == "serve"
        self.cookie_is_secure = entry.cookie.same_site == "none"  # browsers take no other such cookie
        self.gate = Gate(entry.gate)
        self.trusted = Networks(entry.trusted_proxies) if entry.trusted_proxies else None
        self.members = replicas
        healthy: list = [replica for replica in replicas if replica.healthy]
        usable: list = [replica for replica in healthy if not replica.draining] or [
            replica for replica in healthy if not replica.drained
        ]
        self.replicas = [replica for replica in usable if replica.weight > 0]
        self.weighted = len({replica.weight for replica in self.replicas}) > 1
        total: cython.int = sum([replica.weight for replica in self.replicas])
        for replica in self.replicas:
            replica.bound_credit(total)
        self.by_token = {replica.token: replica for replica in usable}  # weight 0: its own clients only
        self.by_mark = {replica.mark: replica for replica in usable}
        self.counts = counters.block(layout.instance_at(entry.slot))
        self.max_line = limits.request_line
        self.max_head = limits.request_head
        self.max_lines = limits.request_fields
        self.max_response_head = limits.response_head
        self.max_response_lines = limits.response_fields
        self.max_body = limits.request_body
        self.gather = limits.gather
        self.body_rate = limits.body_rate
        self.buffer = limits.buffer
        self.max_exchanges = limits.exchanges
        self.max_queue = limits.queue
        self.max_idle = limits.idle_connections
        self.max_attempts = limits.connect_attempts
        self.client_connections = limits.client_connections
        self.client_exchanges = limits.client_exchanges
        self.client_interval = 1.0 / limits.client_rate if limits.client_rate else 0.0
        self.client_debt = self.client_interval * limits.client_burst
        self.limits_clients = bool(limits.client_connections or limits.client_exchanges or limits.client_rate)
        self.slot = entry.slot
        self.resends = entry.retries.resend
        self.max_troubles = entry.eject.failures
        self.client_head = clock.queue(timeouts.client_head)
        self.client_idle = clock.queue(timeouts.client_idle)
        self.client_body = clock.queue(timeouts.client_body)
        self.client_write = clock.queue(timeouts.client_write)
        self.response_head = clock.queue(timeouts.response_head)
        self.response_body = clock.queue(timeouts.response_body)
        self.upstream_idle = clock.queue(timeouts.upstream_idle)
        self.tunnel_idle = clock.queue(timeouts.tunnel_idle)
        self.tunnel_half_close = clock.queue(timeouts.tunnel_half_close)
        self.linger = clock.queue(timeouts.linger)
        self.queue_timeout = clock.queue(timeouts.queue)
        self.request_total = timeouts.request_total
        self.connect = timeouts.connect
        self.connect_total = timeouts.connect_total
        self.slow_start = entry.eject.slow_start
        self.queue = queue
        queue.follow(self, self.counts)
        self.retries = retries
        retries.set_bounds(entry.retries.budget, entry.retries.budget_min)


@cython.cfunc
def _normal_host(host: bytes) -> bytes:
    """A host as the configuration has it: without the dot at the end, an IPv6 address in its shortest spelling."""
    if host.endswith(b"."):
        return host[:-1]
    if host.startswith(b"["):
        try:
            return b"[%s]" % str(ipaddress.IPv6Address(host[1:-1].decode("ascii"))).encode("ascii")
        except ValueError:
            pass
    return host


@cython.final
@cython.cclass
class Routes:
    """All instances of one table."""

    def __init__(self, table: object, before: Optional[Routes], loop: object, clock: Clock, counters: Counters):
        known: dict = {}
        turns: dict = {}
        warm_until: dict = {}
        queues: dict = {}
        budgets: dict = {}
        queue: Queue
        retries: RetryBudget
        kept: set = set()
        replicas: list
        instance: Instance
        replica: Replica
        self.version = table.version
        self.instances = []
        self.gates = {entry.name: (entry.ha, entry.gate) for entry in table.instances}
        self.by_host = {}
        self.no_instance = counters.block(layout.instance_at(0))
        if before is not None:
            known = before.replicas_by_key()
            for instance in before.instances:
                turns[instance.name] = (instance.turn, instance.sticky_turn)
                warm_until[instance.name] = instance.warm_until
                queues[instance.name] = instance.queue
                budgets[instance.name] = instance.retries
        for entry in table.instances:
            replicas = []
            queue = queues.pop(entry.name, None) or Queue(loop)
            retries = budgets.get(entry.name) or RetryBudget()
            for item in entry.replicas:
                key = (entry.name, item.name, item.host, item.port)
                replica = known.get(key)
                if replica is None:
                    replica = Replica(item, queue, counters)
                replica.set_draining(item.state is ReplicaState.DRAINING, item.drained, item.drain_ends)
                if item.healthy and not replica.healthy:
                    warm_until[entry.name] = clock.now + entry.eject.slow_start
                replica.set_healthy(item.healthy, clock.now)
                replica.set_stamp(item.id, entry.replica_header)
                replica.set_weight(item.weight)
                replica.set_ejection(entry.eject.first, entry.eject.longest)
                kept.add(key)
                replicas.append(replica)
            instance = Instance(entry, replicas, queue, retries, clock, counters)
            instance.turn, instance.sticky_turn = turns.get(entry.name, (0, 0))
            instance.warm_until = warm_until.get(entry.name, 0.0)
            self.instances.append(instance)
            for host in entry.hosts:
                self.by_host[host.encode("ascii")] = instance
            if not entry.hosts:
                self.any_host = instance
        for key, replica in known.items():
            if key not in kept:
                replica.retire()
        for queue in queues.values():
            queue.follow(None, queue.counts)
            queue.wake()
        self.wake_queues()  # there may be more replicas, or higher limits
        timeouts = [entry.timeouts for entry in table.instances] or [Timeouts()]
        limits = [entry.limits for entry in table.instances] or [Limits()]
        self.max_line = max(limit.request_line for limit in limits)
        self.max_head = max(limit.request_head for limit in limits)
        self.max_lines = max(limit.request_fields for limit in limits)
        self.buffer = max(limit.buffer for limit in limits)
        self.counts_connections = any(limit.client_connections for limit in limits)
        if all(limit.client_connections for limit in limits):
            self.client_connections = max(limit.client_connections for limit in limits)
        self.trusted = Networks({network for entry in table.instances for network in entry.trusted_proxies})
        self.client_head = clock.queue(max(timeout.client_head for timeout in timeouts))
        self.client_write = clock.queue(max(timeout.client_write for timeout in timeouts))
        self.linger = clock.queue(max(timeout.linger for timeout in timeouts))

    def replicas_by_key(self) -> dict:
        """Every replica by what makes it the same one in another table."""
        instance: Instance
        replica: Replica
        return {
            (instance.name, replica.name, replica.host, replica.port): replica
            for instance in self.instances
            for replica in instance.members
        }

    def list_draining(self) -> list:
        """Every replica that drains."""
        instance: Instance
        replica: Replica
        return [replica for instance in self.instances for replica in instance.members if replica.draining]

    @cython.cfunc
    def wake_queues(self) -> cython.void:
        """Places may be free."""
        instance: Instance
        queue: Queue
        for instance in self.instances:
            queue = instance.queue
            queue.wake()

    @cython.cfunc
    def find(self, host: bytes) -> Instance:
        """The instance of a lower-case host without port; None if no instance has it."""
        instance: Instance = self.by_host.get(host)
        if instance is None and self.by_host:
            instance = self.by_host.get(_normal_host(host))
        return instance if instance is not None else self.any_host
