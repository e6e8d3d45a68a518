"""What the operating system says that a process and all it has started have used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def list_processes(root: int) -> list[int]:
    """A process and everything below it, by process id."""
    found = [root]
    for pid in found:
        found += [child for task in _tasks(pid) for child in _children(task)]
    return found


def read_cpu(root: int) -> float:
    """Seconds of CPU, user and system, of all threads, by the scheduler's own accounting in nanoseconds."""
    return sum(_run_time(task) for pid in list_processes(root) for task in _tasks(pid)) / 1e9


def forget_peak(root: int) -> None:
    """Let the peak of memory begin anew, where the system allows it."""
    for pid in list_processes(root):
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM


def read_peak_memory(root: int) -> int:
    """The most that each process had resident since its start or `forget_peak`, added up. Octets."""
    return sum(read_status(pid, "VmHWM") for pid in list_processes(root))


def read_memory(root: int) -> int:
    """What is resident now, added up over the processes. Octets."""
    return sum(read_status(pid, "VmRSS") for pid in list_processes(root))


def read_status(pid: int, field: str) -> int:
    """A size from /proc/PID/status, in octets; 0 for a process that has gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def read_command(pid: int) -> str:
    """The command line of a process; empty for one that has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _tasks(pid: int) -> Iterator[Path]:
    try:
        yield from list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return


def _children(task: Path) -> list[int]:
    try:
        return [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _run_time(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0
