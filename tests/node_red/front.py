"""The proxy as these tests start it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.proxy_process import ProxyProcess, describe_instance


def put_proxy_before(
    urls: Sequence[str], folder: Path, *, ha: bool, workers: int = 1, gate: Mapping[str, Any] | None = None
) -> ProxyProcess:
    """A proxy, not started yet. With one worker, round robin is exactly even.

    Pages keep tunnels open, which would hold up its end: the drain deadline is short.
    """
    extra = {"log": {"access": "off"}, "drain": {"delay": "0s", "deadline": "1s"}}
    return ProxyProcess(folder, [describe_instance(urls, ha=ha, gate=gate)], workers=workers, extra=extra)
