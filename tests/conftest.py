"""Before any test: interrupts reach what tests start, and nothing compiled is older than its source.

What a test shows of such a part would be true of neither.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from haproxy_py.compiled import CompiledError, check_compiled, list_stale

_CHECKOUT = Path(__file__).parents[1]


def pytest_sessionstart(session: pytest.Session) -> None:
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as shells start what runs behind `&`: children would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_compiled()
    except CompiledError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    if stale := [str(source.relative_to(_CHECKOUT)) for source in list_stale() if source.is_relative_to(_CHECKOUT)]:
        pytest.exit(
            f"{', '.join(stale)}: changed since compiled, or a .pxd has that they are compiled against. Run `make build` first",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
