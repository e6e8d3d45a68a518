"""What holds for every command as a process: nobody is shown a traceback for what is no mistake of the program.

- Ctrl-C ends a command at any moment with one line and status 130; one that has to clean up takes the signal over.
- A reader that has left (`| head -1`) ends it silently, a full disk with one line: status 1, because something is missing.
- A terminal or file that cannot spell a character gets its escape.
- Standard streams that are closed lead nowhere: else the next socket would be taken for one, and get the log.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys

TYPE_CHECKING = False  # as mypy knows it: typing takes longer to import than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

INTERRUPTED = 130  # 128 and the signal's number, as shells say it

_UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def own_process() -> None:
    """Make this process fit for a command. To be called first, once."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    # Not an exception: wherever nobody can catch one (in a callback, while Python ends), a traceback would be shown.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored, as `nohup` and `&` have it
        signal.signal(signal.SIGINT, _end_interrupted)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def spare_reader(command: Callable[[], int]) -> int:
    """The exit code of a command, or what it ended by if it could not say what it had to."""
    try:
        code = command()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        return code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        _discard_output()
        if error.errno != errno.EPIPE:
            _say(f"the output could not be written: {error.strerror}")
        return 1


def _end_interrupted(number: int, frame: FrameType | None) -> None:
    _say("interrupted")
    os._exit(INTERRUPTED)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody is there to be told
        os.write(2, f"haproxy-py: {text}\n".encode(errors="replace"))


def _discard_output() -> None:
    """What is buffered still goes somewhere when Python ends, or it would complain once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(nowhere, number)
    os.close(nowhere)
