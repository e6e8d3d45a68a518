"""What a re-read configuration changes in a running proxy, and what needs a restart."""

from __future__ import annotations

from dataclasses import replace

from haproxy_py.config import Config


def merge_reloaded(running: Config, read: Config) -> tuple[Config, list[str]]:
    """The configuration to run with from now on, and the settings whose change waits for a restart.

    Ports, the number of workers and whether they write an access log are fixed when the processes start. Everything
    else is in the table, or is read by control when it needs it.
    """
    waiting = []
    if read.listen != running.listen:
        waiting.append("listen")
    if (read.ops.host, read.ops.port) != (running.ops.host, running.ops.port):
        waiting.append("ops.address")
    if read.workers != running.workers:
        waiting.append("workers")
    if read.log.access != running.log.access:
        waiting.append("log.access")
    merged = replace(
        read,
        listen=running.listen,
        ops=replace(read.ops, host=running.ops.host, port=running.ops.port),
        workers=running.workers,
        log=replace(read.log, access=running.log.access),
    )
    return merged, waiting
