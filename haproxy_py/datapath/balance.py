"""Balancing: which replica gets an exchange.

- Round robin takes the replicas in turn, one step per exchange, so a worker's shares are exactly even. A replica with as many
  exchanges as its limit allows is passed over.
- Where weights differ, round robin gives each replica its share, spread as evenly as can be (smooth weighted round robin, as in
  nginx: each gains its weight in credit per turn, the one with the most is chosen and pays for all). The other policies compare
  exchanges by weight; random two draws by weight.
- A replica that was ejected and works again, or is healthy again, has a share that grows within `slow_start`, as if its weight
  did. One that is new has all of its share at once: it is ready because its probe says so, and nothing has spoken against it.
- Least connections takes the one with the fewest exchanges, ties in turn; random two takes the better of two drawn at random.
- New clients of a dashboard have turns of their own: a page load makes a fixed number of requests, and if its sessions shared
  the turns of the rest, all of them could meet the same replica.
- A client with an affinity cookie goes back to its replica (both Node-RED dashboards speak socket.io, whose session lives in one
  replica's memory). If that is gone, drains or fails its checks, any other will do: socket.io's client starts anew when its
  session is unknown.
- A replica that could not be reached, or failed several exchanges in a row, is passed over for a while (RTY-11). Then one
  exchange tries it, and the others follow if it was answered. If all that could be used are such, all are used; where one of the
  others is only full, its place is waited for (`queue`). Whom all of them refuse is told at once that there is no replica.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.limits import MAX_AFFINITY, MAX_TOKENS
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.routes import LEAST_CONNECTIONS, RANDOM_TWO, Instance
from cython.cimports.libc.string import memchr, memcmp

_NOBODY_IS_OUT = cython.declare(cython.double, 1e18)  # seconds: later than any replica is out


@cython.cfunc
def choose(
    instance: Instance,
    wanted: Replica,
    tried: list,
    sticky: cython.bint,
    takes_turn: cython.bint,
    chance: cython.ulonglong,
    now: cython.double,
) -> Replica:
    """The replica for an exchange, or None if all are full or were tried.

    `sticky` says that the client will come back to it; `takes_turn` is false for a second choice, or every request could
    meet the same dead replica first; `chance` is a random number; `now` the clock's time.
    """
    replica: Replica = _choose_among(instance, wanted, tried, sticky, takes_turn, chance, now)
    if replica is None and not is_full(instance, tried, now):  # never a 503 because of own suspicion alone
        replica = _choose_among(instance, wanted, tried, sticky, takes_turn, chance, _NOBODY_IS_OUT)
    return replica


@cython.cfunc
@cython.exceptval(check=False)
def is_full(instance: Instance, tried: list, now: cython.double) -> cython.bint:
    """Whether a replica that works, and was not tried, has as many exchanges as it may: one can wait for it."""
    replica: Replica
    for replica in instance.replicas:
        if (
            replica.active >= instance.max_exchanges
            and replica.out_until <= now
            and (tried is None or replica not in tried)
        ):
            return True
    return False


@cython.cfunc
@cython.exceptval(check=False)
def all_are_out(instance: Instance, now: cython.double) -> cython.bint:
    """Whether every replica is passed over."""
    replica: Replica
    for replica in instance.replicas:
        if replica.out_until <= now:
            return False
    return True


@cython.cfunc
@cython.exceptval(check=False)
def leaves_another(instance: Instance, first: Replica, second: Replica) -> cython.bint:
    """Whether a replica would still be there if these two were not. One that this worker passes over may be back since."""
    replica: Replica
    for replica in instance.replicas:
        if replica is not first and replica is not second:
            return True
    return False


@cython.cfunc
@cython.exceptval(check=False)
def may_eject(instance: Instance, now: cython.double) -> cython.bint:
    """Whether one more replica may be passed over for what its answers were like: at most half of them, never the last."""
    out: cython.int = 1
    replica: Replica
    for replica in instance.replicas:
        if replica.out_until > now:
            out += 1
    return out * 2 <= len(instance.replicas)


@cython.cfunc
@cython.cdivision(True)  # `count` is at least 1 at every division
def _choose_among(
    instance: Instance,
    wanted: Replica,
    tried: list,
    sticky: cython.bint,
    takes_turn: cython.bint,
    chance: cython.ulonglong,
    now: cython.double,
) -> Replica:
    """The same, without those that are out at `now`."""
    count: cython.uint = len(instance.replicas)
    limit: cython.int = instance.max_exchanges
    offset: cython.uint
    start: cython.uint
    replica: Replica
    best: Replica = None
    if wanted is not None and _is_usable(wanted, limit, tried, now):
        return wanted
    if count == 0:
        return None
    if instance.weighted or instance.warm_until > now:
        if instance.policy == RANDOM_TWO:
            return _draw_two(instance, tried, chance, now)
        return _choose_by_weight(instance, tried, sticky, takes_turn, now)
    start = (instance.sticky_turn if sticky else instance.turn) % count
    if instance.policy == RANDOM_TWO and count > 2:
        start = chance % count
        best = instance.replicas[start]
        replica = instance.replicas[(start + 1 + (chance >> 32) % (count - 1)) % count]
        if replica.active < best.active:
            best = replica
        if _is_usable(best, limit, tried, now):
            return best
        best = None
    for offset in range(count):
        replica = instance.replicas[(start + offset) % count]
        if not _is_usable(replica, limit, tried, now):
            continue
        if instance.policy != LEAST_CONNECTIONS and not (instance.policy == RANDOM_TWO and count == 2):
            return _pass_turn(instance, sticky, (start + offset + 1) % count, replica) if takes_turn else replica
        if best is None or replica.active < best.active:
            best = replica
    return _pass_turn(instance, sticky, (start + 1) % count, best) if takes_turn else best


@cython.cfunc
@cython.cdivision(True)  # a share is above 0
def _choose_by_weight(
    instance: Instance, tried: list, sticky: cython.bint, takes_turn: cython.bint, now: cython.double
) -> Replica:
    """By smooth weighted round robin: of all, or of those with the fewest exchanges for their weight."""
    which: cython.int = 1 if sticky else 0
    limit: cython.int = instance.max_exchanges
    fewest: cython.double = -1
    share: cython.double
    total: cython.double = 0
    most: cython.double = 0
    replica: Replica
    best: Replica = None
    if instance.policy == LEAST_CONNECTIONS:
        for replica in instance.replicas:
            if _is_usable(replica, limit, tried, now):
                share = replica.share(now, instance.slow_start)
                if fewest < 0 or replica.active / share < fewest:
                    fewest = replica.active / share
    for replica in instance.replicas:
        if not _is_usable(replica, limit, tried, now):
            continue
        share = replica.share(now, instance.slow_start)
        if fewest >= 0 and replica.active / share > fewest:
            continue
        total += share
        if best is None or replica.credit[which] + share > most:
            best = replica
            most = replica.credit[which] + share
        if takes_turn:
            replica.credit[which] += share
    if best is not None and takes_turn:
        best.credit[which] -= total
    return best


@cython.cfunc
@cython.cdivision(True)
def _draw_two(instance: Instance, tried: list, chance: cython.ulonglong, now: cython.double) -> Replica:
    """Of two that are drawn by weight, the one with fewer exchanges for its weight."""
    limit: cython.int = instance.max_exchanges
    total: cython.double = 0
    first_at: cython.double
    second_at: cython.double
    share: cython.double
    first_share: cython.double = 0
    second_share: cython.double = 0
    replica: Replica
    first: Replica = None
    second: Replica = None
    for replica in instance.replicas:
        if _is_usable(replica, limit, tried, now):
            total += replica.share(now, instance.slow_start)
    first_at = total * (chance & 0xFFFFFFFF) / 4294967296.0
    second_at = total * (chance >> 32) / 4294967296.0
    for replica in instance.replicas:
        if not _is_usable(replica, limit, tried, now):
            continue
        share = replica.share(now, instance.slow_start)
        if first_at >= 0:
            first = replica
            first_share = share
        if second_at >= 0:
            second = replica
            second_share = share
        first_at -= share
        second_at -= share
    if first is None or first.active / first_share <= second.active / second_share:
        return first
    return second


@cython.cfunc
@cython.exceptval(check=False)
def _is_usable(replica: Replica, limit: cython.int, tried: list, now: cython.double) -> cython.bint:
    return replica.active < limit and replica.out_until <= now and (tried is None or replica not in tried)


@cython.cfunc
def _pass_turn(instance: Instance, sticky: cython.bint, turn: cython.uint, chosen: object) -> Replica:
    if sticky:
        instance.sticky_turn = turn
    else:
        instance.turn = turn
    return chosen


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_for_dashboard(path: cython.p_const_char, size: cython.Py_ssize_t) -> cython.bint:
    """Whether a path belongs to a dashboard's socket.io: it holds `/socket.io/` (4.2 of the Node-RED reference)."""
    at: cython.p_const_char = path
    stop: cython.p_const_char = path + size
    while stop - at >= 10:
        at = cython.cast(cython.p_const_char, memchr(at, 115, stop - at - 9))  # the s of socket.io/
        if at == cython.NULL:
            return False
        if at > path and at[-1] == 47 and memcmp(at, b"socket.io/", 10) == 0:
            return True
        at += 1
    return False


@cython.cfunc
def read_affinity(instance: Instance, value: cython.p_const_char, size: cython.Py_ssize_t) -> bytes:
    """The value of the affinity cookie in a Cookie field, or None (RFC 6265 section 5.4).

    There are several of one name after `domain` was set or taken back: the former one is older, so it comes first, and is
    never renewed. The first that names a replica counts, or else the last, which is the one that this proxy sets.
    """
    name: bytes = instance.cookie
    name_size: cython.Py_ssize_t = PyBytes_GET_SIZE(name)
    at: cython.p_const_char = value
    stop: cython.p_const_char = value + size
    end: cython.p_const_char
    found: bytes = None
    while at < stop:
        while at < stop and at[0] == 32:
            at += 1
        end = cython.cast(cython.p_const_char, memchr(at, 59, stop - at)) if at < stop else cython.NULL
        if end == cython.NULL:
            end = stop
        if end - at > name_size and at[name_size] == 61 and memcmp(at, PyBytes_AS_STRING(name), name_size) == 0:
            if end - at - name_size - 1 <= MAX_AFFINITY:
                found = at[name_size + 1 : end - at]
                if by_affinity(instance, found) is not None:
                    return found
        at = end + 1
    return found


@cython.cfunc
def by_affinity(instance: Instance, value: bytes) -> Replica:
    """The replica that the affinity cookie's value names first, or None."""
    token: bytes
    for token in value.split(b"."):
        replica = instance.by_token.get(token)
        if replica is not None:
            return replica
    return None


@cython.cfunc
def write_affinity(instance: Instance, replica: Replica, value: bytes) -> bytes:
    """The affinity cookie's new value: this replica first, then what is there of others.

    Cookies do not know ports (RFC 6265 section 8.5), so proxies with other replicas may be behind the same host name and
    call their cookie the same. Each reads what is its own, and keeps what is not, or their clients would never stick to any.
    """
    token: bytes
    tokens: list = [replica.token]
    if value is not None:
        for token in value.split(b"."):
            if (
                len(tokens) < MAX_TOKENS
                and token not in instance.by_token
                and token not in tokens
                and _is_token(token, PyBytes_GET_SIZE(replica.token))
            ):
                tokens.append(token)
    return b".".join(tokens)


@cython.cfunc
@cython.exceptval(check=False)
def _is_token(token: bytes, size: cython.Py_ssize_t) -> cython.bint:
    """Whether it can be one: so many lower-case hexadecimal digits."""
    index: cython.Py_ssize_t
    text: cython.p_const_char = PyBytes_AS_STRING(token)
    if PyBytes_GET_SIZE(token) != size:
        return False
    for index in range(size):
        if not (48 <= text[index] <= 57 or 97 <= text[index] <= 102):
            return False
    return True
