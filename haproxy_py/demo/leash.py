"""Starts a command that ends when the demo ends, however the demo ends: `python -m haproxy_py.demo.leash PID COMMAND…`.

The kernel sends SIGTERM to a process when the thread that started it is gone. The setting survives the exec, so the
command needs to know nothing of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(arguments: list[str]) -> None:
    """Become the command. Exits with status 1 if the parent, whose process id comes first, is gone already."""
    parent, *command = arguments
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):  # it ended before the line above
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
