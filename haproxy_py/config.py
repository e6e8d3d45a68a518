"""What an operator may write: the model of the configuration and its defaults. `config_file` turns a file into it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. 0 switches a timer off, except `client_head`, `connect` and `queue`. (P): restarts with every byte that moves.

    The first two run before the Host field has named an instance; until then the largest value of any instance holds.
    """

    client_head: float = 10.0  # accept, or first byte of a later request, to the end of its head
    client_idle: float = 75.0  # between two exchanges of a connection
    client_body: float = 30.0  # (P) waiting for bytes of a request body; how far it may lag behind `Limits.body_rate`
    request_total: float = 300.0  # first byte of a request to the end of its body
    client_write: float = 60.0  # (P) answer waiting, client takes nothing
    connect: float = 2.0  # one attempt to connect to a replica
    connect_total: float = 5.0  # all attempts for one request
    response_head: float = 60.0  # end of the request to the head of the answer
    response_body: float = 300.0  # (P) between bytes of an answer
    upstream_idle: float = 4.0  # idle connection to a replica that gave no Keep-Alive hint
    tunnel_idle: float = 3600.0  # (P) tunnel without a byte in either direction
    tunnel_half_close: float = 30.0  # tunnel after the first side has finished
    linger: float = 2.0  # after an early answer: read and discard before closing
    queue: float = 5.0  # waiting for a place while every replica is at its limit


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, the rest numbers.

    The first three hold, until the Host field has named an instance, at the largest of any instance.
    """

    request_line: int = 8192
    request_head: int = 15360  # start line and fields; Node refuses above 16,384, and the proxy adds some fields
    request_fields: int = 100
    response_head: int = 65536
    response_fields: int = 200
    request_body: int = 0  # 0: no limit; bodies are streamed
    gather: int = (
        65536  # a body up to here has come whole before its request takes a place at a replica; 0: bodies stream
    )
    body_rate: int = 500  # bytes per second; a request body may lag behind it by `Timeouts.client_body`; 0: any rate
    buffer: int = 65536  # bytes waiting for a slow side before reading from the other pauses
    exchanges: int = 1024  # at once on one replica, per worker; tunnels not counted
    queue: int = 1024  # requests of an instance that wait for a place at a replica, per worker; 0: none
    idle_connections: int = 256  # kept to one replica, per worker
    connect_attempts: int = 3  # for one request
    client_connections: int = 0  # open at once of one client address, per worker; 0: any number
    client_exchanges: int = 0  # at once of one client address, per worker; 0: any number
    client_rate: int = 0  # requests per second of one client address, per worker; 0: any number
    client_burst: int = 100  # requests that may come at once within `client_rate`; a dashboard's page loads about 50


@dataclass(frozen=True, slots=True)
class Retries:
    """Requests that are sent a second time. How often connecting is tried is `Limits.connect_attempts`."""

    resend: bool = True  # what may be repeated, once, when its connection died without an octet of an answer
    budget: int = 20  # percent of the exchanges of the last ten seconds, per worker
    budget_min: int = 3  # so many in ten seconds are always within the budget


@dataclass(frozen=True, slots=True)
class Eject:
    """When a replica is passed over for its failures. One that cannot be connected to is ejected at once."""

    failures: int = 3  # failed exchanges in a row; 0: any number
    first: float = 1.0  # seconds out; twice as long every further time in a row
    longest: float = 30.0  # seconds
    slow_start: float = (
        10.0  # seconds in which the share of one that works or is healthy again grows to the whole; 0: at once
    )


@dataclass(frozen=True, slots=True)
class Cookie:
    """The affinity cookie."""

    name: str = ""  # empty: made from the instance's name
    same_site: str = "lax"  # lax | strict | none
    domain: str = ""  # empty: the host only that set it


@dataclass(frozen=True, slots=True)
class Balance:
    policy: str = "round-robin"  # round-robin | least-connections | random-two
    affinity: str = "dashboard"  # none | dashboard | all
    cookie: Cookie = field(default_factory=Cookie)


@dataclass(frozen=True, slots=True)
class Flows:
    """Where strict mode reads what the flows declare: a file, or the admin API."""

    file: str = ""  # path
    admin: str = ""  # "replicas", or the URL of an admin root; empty: the file
    token_file: str = ""  # path; for the admin API
    interval: float = 10.0  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Gate:
    mode: str = "deny"  # deny | strict
    admin_root: str = "/"
    allow: tuple[str, ...] = ()  # "/path" or "GET /path" or "GET,HEAD /path": exact, or a pattern like /a/:name or /a/*
    deny: tuple[str, ...] = ()  # the same forms: the path and everything below it
    node_root: str = "/"  # path below which flows serve; for strict mode
    flows: Flows = field(default_factory=Flows)  # for strict mode, which needs one of its sources


@dataclass(frozen=True, slots=True)
class Health:
    """How a replica is checked. Durations in seconds; from `path` on: of `type: http` only."""

    type: str = "auto"  # auto: off for replicas of Kubernetes as long as it is believed, else tcp | tcp | http | off
    interval: float = 2.0  # between two checks of a replica, times 0.8 to 1.2 at random
    timeout: float = 1.0  # of one check
    rise: int = 1  # checks in a row that succeed until an unhealthy replica is healthy
    fall: int = 3  # checks in a row that fail until a healthy one is unhealthy; one lost packet must not be enough
    path: str = ""
    method: str = "GET"  # GET | HEAD | OPTIONS
    host: str = ""  # of the Host field; empty: host and port of the replica
    status: tuple[tuple[int, int], ...] = ((200, 399),)  # ranges, ends included
    body: str = ""  # text that the first 64 KiB of the body must contain; empty: any body will do

    def choose_type(self, is_kubernetes: bool, is_kept: bool = False) -> str:
        """tcp, http or off; `is_kept`: what Kubernetes says of the replica is not believed."""
        if self.type == "auto":
            return "off" if is_kubernetes and not is_kept else "tcp"  # the kubelet has checked a pod before it is ready
        return self.type


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes API server, and who this process is there."""

    kubeconfig: str = ""  # path of a file; empty: the service account of the pod
    context: str = ""  # of the kubeconfig; empty: its current one


@dataclass(frozen=True, slots=True)
class KubernetesService:
    """A Service whose endpoints are the replicas."""

    service: str
    namespace: str = ""  # empty: the one of the service account, or of the kubeconfig's context
    port: str = ""  # name or number of the endpoints' port; empty: the only TCP port they have
    source: str = "endpointslices"  # endpointslices | endpoints
    family: str = "ipv4"  # ipv4 | ipv6: the one to use for a pod that has both
    cluster: Cluster = field(default_factory=Cluster)


@dataclass(frozen=True, slots=True)
class DnsName:
    """A name in the DNS that stands for the replicas."""

    name: str  # lower-case; with a dot at the end it is never completed by a search domain
    port: int = 0  # 0: the name has SRV records, which say the port
    interval: float = 5.0  # seconds until it is asked for again; sooner if its TTL is shorter
    family: str = "ipv4"  # ipv4 | ipv6: the addresses to ask for
    servers: tuple[tuple[str, int], ...] = ()  # address, port of name servers; empty: those of /etc/resolv.conf


@dataclass(frozen=True, slots=True)
class KubernetesSelector:
    """The Services that each become an instance."""

    namespaces: tuple[str, ...] = ()  # empty: the one of the service account, or of the kubeconfig's context
    selector: str = "haproxy-py.dev/instance"  # label selector of the Services
    source: str = "endpointslices"  # endpointslices | endpoints
    family: str = "ipv4"  # ipv4 | ipv6
    cluster: Cluster = field(default_factory=Cluster)


@dataclass(frozen=True, slots=True)
class StaticReplica:
    host: str
    port: int
    weight: int = 1  # its share of the work, compared with the others; 0: only clients that are bound to it


@dataclass(frozen=True, slots=True)
class Instance:
    """Its replicas are either `static`, or what `dns` stands for, or the endpoints of `kubernetes`."""

    name: str
    hosts: tuple[str, ...]  # lower-case; empty: any host
    ha: bool | None  # None: auto, from an annotation of the Service
    static: tuple[StaticReplica, ...] = ()
    dns: DnsName | None = None
    kubernetes: KubernetesService | None = None
    balance: Balance = field(default_factory=Balance)
    gate: Gate = field(default_factory=Gate)
    health: Health = field(default_factory=Health)
    replica_header: str = "id"  # id | name | off
    half_close: str = "abort"  # abort | serve
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    retries: Retries = field(default_factory=Retries)
    eject: Eject = field(default_factory=Eject)
    trusted_proxies: tuple[str, ...] = ()  # networks in CIDR notation


@dataclass(frozen=True, slots=True)
class InstancesFrom:
    """Where further instances come from, and the settings that each of them has."""

    kubernetes: KubernetesSelector = field(default_factory=KubernetesSelector)
    balance: Balance = field(default_factory=Balance)
    gate: Gate = field(default_factory=Gate)
    health: Health = field(default_factory=Health)
    replica_header: str = "id"
    half_close: str = "abort"
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    retries: Retries = field(default_factory=Retries)
    eject: Eject = field(default_factory=Eject)
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files. Without `key`, the first file holds the key, too."""

    certificate: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Listen:
    host: str
    port: int
    tls: Tls | None = None
    connections: int = 0  # open at once over all workers; 0: half of the soft limit of open files, less 64


@dataclass(frozen=True, slots=True)
class Ops:
    host: str = "127.0.0.1"
    port: int = 9090
    token_file: str = ""  # path; empty: calls that change something are off
    hosts: tuple[str, ...] = ()  # names that the port may be called by, beside those that no stranger can have


@dataclass(frozen=True, slots=True)
class Drain:
    delay: float = 5.0  # seconds: keep accepting after SIGTERM
    deadline: float = 25.0  # seconds from SIGTERM: what still runs is aborted


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Seconds for which the loop of a worker stands still. 0 switches either off."""

    report: float = 1.0  # then the worker's stack is logged
    replace: float = 10.0  # then the worker is killed, and another takes its place


@dataclass(frozen=True, slots=True)
class Log:
    access: str = "json"  # json | off
    level: str = "info"  # debug | info | warning | error


@dataclass(frozen=True, slots=True)
class Config:
    listen: tuple[Listen, ...]
    instances: tuple[Instance, ...]  # may be empty where there is an `instances_from`
    instances_from: InstancesFrom | None = None
    ops: Ops = field(default_factory=Ops)
    workers: int = 0  # 0: auto
    drain: Drain = field(default_factory=Drain)
    watchdog: Watchdog = field(default_factory=Watchdog)
    log: Log = field(default_factory=Log)
