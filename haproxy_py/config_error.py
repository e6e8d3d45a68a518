"""What is wrong with a configuration, and where: every problem is collected and told at once."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part of the configuration was written: in a file, or (without a line) in a flag of the command line."""

    source: str  # name of the file, or the flag
    line: int = 0  # from 1; 0: no line is known
    column: int = 0  # from 1
    path: str = ""  # dotted path of the part: instances[0].timeouts

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{where}: {self.path}" if self.path else where


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class ConfigError(Exception):
    """A configuration cannot be used. Carries every problem, in the order of the file; its text has one per line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Problems:
    """Collects problems while a configuration is read, so that the first does not hide the others."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, text: str) -> None:
        """Note a problem and go on."""
        self._found.append(Problem(place, text))

    def take(self, others: Problems, *, below: str) -> None:
        """Note those of others that lie at a key of the top level, below it, or at the top level itself."""
        self._found += (one for one in others._found if re.match(rf"($|{re.escape(below)}([.\[]|$))", one.place.path))

    def raise_if_any(self) -> None:
        """End the reading: raise `ConfigError` when something was found."""
        if self._found:
            raise ConfigError(tuple(sorted(self._found, key=lambda found: (found.place.line, found.place.column))))
