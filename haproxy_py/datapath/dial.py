"""Connecting to a replica, for an exchange that found no idle connection.

If a replica cannot be reached nothing was sent, so whatever the request is, the next replica gets it (RTY-1): up to the
instance's number of attempts and time in all. An exchange may be over before its connection stands (its client left);
the connection is then kept for the next one.
"""

import asyncio
from functools import partial
from typing import Optional

import cython
from cython.cimports.haproxy_py.datapath.context import Context
from cython.cimports.haproxy_py.datapath.count import observe
from cython.cimports.haproxy_py.datapath.deadlines import monotonic
from cython.cimports.haproxy_py.datapath.exchange import Exchange, give_back
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.reason import CONNECT_FAILED, CONNECT_TIMEOUT
from cython.cimports.haproxy_py.datapath.replica import FRESH, ReplicaConnection
from cython.cimports.haproxy_py.datapath.routes import Instance

from haproxy_py import counters as layout

_FAILED = cython.declare(cython.int, layout.REPLICA_CONNECTIONS_FAILED)
_DURATION = cython.declare(cython.int, layout.REPLICA_CONNECT_DURATION)


async def dial(exchange: Exchange, context: Context, instance: Instance, replica: Optional[Replica]) -> None:
    """Connect for an exchange and tell it: `dialled`, or `dial_failed` with the reason.

    The exchange has a place at `replica`. If it ends before the task does, the task gives the place back.
    """
    task: object = asyncio.current_task()
    tried: list = []
    connection: ReplicaConnection
    reason: cython.int = CONNECT_FAILED
    began: cython.double = monotonic()
    attempt: cython.double
    seconds: cython.double
    settled: cython.bint = False  # the exchange has its connection, or knows that it gets none
    try:
        while replica is not None:
            attempt = monotonic()
            seconds = instance.connect
            if instance.connect_total > 0 and began + instance.connect_total - attempt < seconds:
                seconds = began + instance.connect_total - attempt
            if seconds <= 0:
                break
            try:
                async with asyncio.timeout(seconds):
                    _, connection = await context.loop.create_connection(
                        partial(ReplicaConnection, context, replica, instance.buffer), replica.host, replica.port
                    )
            except OSError as problem:
                reason = CONNECT_TIMEOUT if isinstance(problem, TimeoutError) else CONNECT_FAILED
            else:
                if connection.phase == FRESH:
                    seconds = monotonic() - attempt
                    observe(replica.counts + _DURATION, seconds)
                    if exchange.awaits(task):
                        settled = True
                        exchange.dialled(connection, seconds)
                    else:
                        connection.park(instance)
                    return
                reason = CONNECT_FAILED  # accepted and closed at once
            replica.counts[_FAILED] += 1
            if not exchange.awaits(task):
                return
            tried.append(replica)
            replica = exchange.change_replica(tried)
        if exchange.awaits(task):
            settled = True
            exchange.dial_failed(reason)
    finally:
        if not settled and replica is not None and not exchange.awaits(task):
            give_back(replica)
