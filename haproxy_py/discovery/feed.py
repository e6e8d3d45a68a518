"""One reflector, and its successor while the scope changes: what was known stays known until the successor knows as much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from haproxy_py.discovery.reflector import Change, Reflector
from haproxy_py.discovery.scopes import Scope

MakeReflector = Callable[[Scope, Callable[[Change], None]], Reflector[Any]]


class _Run:
    """A reflector at work."""

    def __init__(self, scope: Scope, make: MakeReflector, notify: Callable[[Change], None]) -> None:
        self.scope = scope
        self.reflector = make(scope, notify)
        self.task = asyncio.create_task(self.reflector.keep_running())


class Feed:
    """What is known of one key of `scopes`."""

    def __init__(self, scope: Scope, make: MakeReflector, notify: Callable[[Change], None]) -> None:
        self._make = make
        self._notify = notify
        self._ended: list[asyncio.Task[None]] = []
        self._current = _Run(scope, make, notify)
        self._next: _Run | None = None

    @property
    def reflector(self) -> Reflector[Any]:
        """The one whose copy is in use."""
        return self._current.reflector

    @property
    def newest(self) -> Reflector[Any]:
        """The one that follows what is wanted now."""
        return (self._next or self._current).reflector

    def follow(self, scope: Scope) -> None:
        """From now on this is wanted."""
        if self._next is not None:
            if self._next.scope == scope:
                return
            self._end(self._next)
            self._next = None
        if scope == self._current.scope:
            return
        if not self._current.reflector.is_listed:
            self._end(self._current)
            self._current = _Run(scope, self._make, self._notify)
        else:
            self._next = _Run(scope, self._make, self._take_over)

    def knows(self, service: str) -> bool:
        """Whether the copy in use would have it, if it existed."""
        return self._current.reflector.is_listed and self._current.scope.covers(service)

    def end(self) -> list[asyncio.Task[None]]:
        """Stop; the tasks are to be awaited."""
        self._end(self._current)
        if self._next is not None:
            self._end(self._next)
        return self._ended

    def _take_over(self, change: Change) -> None:
        """The successor has listed, or has something new."""
        if self._next is not None:
            self._end(self._current)
            self._current, self._next = self._next, None
        self._notify(change)

    def _end(self, run: _Run) -> None:
        run.task.cancel()
        self._ended = [task for task in self._ended if not task.done()] + [run.task]
