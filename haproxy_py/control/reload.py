"""Follows the configuration file: reads it again when it changes and on SIGHUP, and has what it says applied.

- It is checked first. A file with a mistake, or with something that cannot be done now, changes nothing at all; why is
  said once for each content of the file.
- SIGHUP reads at once, and tries again what was refused before. Signals that arrive meanwhile count as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable

from haproxy_py import config_file
from haproxy_py.config import Config
from haproxy_py.config_error import ConfigError
from haproxy_py.config_tree import MAX_BYTES
from haproxy_py.control.log import Log
from haproxy_py.control.settled_file import SettledFile
from haproxy_py.ops.view import ConfigView

LOOK_EVERY = 1.0
"""Seconds between two looks at the file. What is in it is in force within two of them."""

MAX_REFUSAL = 2000
"""Characters of a refusal that the operators' port shows; the log has all of it."""


class ReloadError(Exception):
    """A configuration cannot be put into force now. Nothing has changed; the text says why."""


Apply = Callable[[Config], Awaitable[str]]
"""Puts a configuration into force; says in words what that is. Raises ReloadError, and then nothing has changed."""


class Reloader:
    """The configuration in force, and the file that it comes from."""

    def __init__(
        self,
        config: Config,
        source: str | None,
        apply: Apply,
        log: Log,
        reloading: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`source` is None if the configuration came from flags, `config_file.STANDARD_INPUT` if it came from
        there. `reloading`: surrounds each attempt."""
        self.config = config
        self._source = source
        self._apply = apply
        self._log = log
        self._reloading = reloading
        self._file = SettledFile(source, MAX_BYTES) if source not in (None, config_file.STANDARD_INPUT) else None
        self._asked = asyncio.Event()
        self._loaded = time.time()
        self._applied = 0
        self._refused = 0
        self._refusal: str | None = None

    def ask(self) -> None:
        """Read the file now: SIGHUP."""
        self._asked.set()

    def view(self) -> ConfigView:
        return ConfigView(
            self._source and config_file.name_source(self._source),
            self._loaded,
            self._applied,
            self._refused,
            self._refusal,
        )

    async def run(self) -> None:
        """Follow the file. Ends by being cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_EVERY if self._file else None)
            was_asked = self._asked.is_set()
            self._asked.clear()
            try:
                if self._file is None:
                    with self._reloading():  # whoever sent the signal waits for the end of this
                        self._log.warning(f"SIGHUP: {self._explain_no_file()}; nothing was changed")
                elif was_asked:
                    with self._reloading():
                        await self._take(await asyncio.to_thread(self._file.read), "SIGHUP", even_if_equal=True)
                elif (data := await asyncio.to_thread(self._file.look)) is not None:
                    with self._reloading():
                        await self._take(data, "file changed")
            except OSError as error:
                self._refuse("SIGHUP" if was_asked else "file changed", f"cannot be read: {error.strerror or error}")
            except Exception:  # a mistake of ours must not end a proxy that carries traffic
                self._log.error(traceback.format_exc())
                self._refuse("SIGHUP" if was_asked else "file changed", "a mistake in haproxy_py, please report it")

    def _explain_no_file(self) -> str:
        if self._source is None:
            return "there is no configuration file to read again"
        return "the configuration came from standard input, which cannot be read again"

    async def _take(self, data: bytes, cause: str, *, even_if_equal: bool = False) -> None:
        assert self._source is not None
        try:
            config = await asyncio.to_thread(config_file.parse_data, data, self._source)
        except ConfigError as error:
            for line in str(error).splitlines():
                self._log.error(line)
            count = len(error.problems)
            self._refuse(cause, f"{count} mistakes in it" if count > 1 else "a mistake in it", str(error))
            return
        if config == self.config and not even_if_equal:
            if self._refusal is not None:
                self._log.info(f"{cause}: {self._source} says what is in force, as before")
            self._refusal = None
            return
        try:
            outcome = await self._apply(config)
        except ReloadError as error:
            self._refuse(cause, str(error))
            return
        self.config = config
        self._loaded = time.time()
        self._applied += 1
        self._refusal = None
        self._log.info(f"{cause}: {self._source} is in force as {outcome}")

    def _refuse(self, cause: str, why: str, details: str = "") -> None:
        self._refused += 1
        self._refusal = (details or f"{self._source}: {why}")[:MAX_REFUSAL]
        self._log.error(
            f"{cause}: {self._source} was not applied: {why}; the former configuration stays in force. "
            "Correct the file; SIGHUP tries the same again"
        )
