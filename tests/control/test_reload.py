"""What a re-read configuration may change."""

from __future__ import annotations

from dataclasses import replace

from haproxy_py.config import Config, Drain, Instance, Listen, Log, Ops
from haproxy_py.control.reload import merge_reloaded

RUNNING = Config(
    listen=(Listen("127.0.0.1", 8080),),
    instances=(Instance("one", (), True, (("127.0.0.1", 1880),)),),
    workers=2,
)


def test_instances_drain_and_level_apply_at_once() -> None:
    read = replace(RUNNING, instances=(), drain=Drain(1.0, 2.0), log=Log(level="debug"))
    assert merge_reloaded(RUNNING, read) == (read, [])


def test_ports_workers_and_access_log_keep_their_values_until_a_restart() -> None:
    read = Config(
        listen=(Listen("127.0.0.1", 9999),),
        instances=(),
        ops=Ops(port=9999, token_file="token"),
        workers=3,
        log=Log(access="off", level="error"),
    )
    merged, waiting = merge_reloaded(RUNNING, read)
    assert waiting == ["listen", "ops.address", "workers", "log.access"]
    assert merged == replace(RUNNING, instances=(), ops=Ops(token_file="token"), log=Log(access="json", level="error"))
