"""The sockets of a worker: one epoll set, looked at from inside the event loop.

The event loop (uvloop) carries what is rare: the channel to control, timers, names. Sockets with traffic are in an epoll set
of their own, whose file descriptor the loop watches; when anything is ready there, `turn` visits all of it. So a request
passes from system call to system call through compiled code, without a transport, a handle or a buffer object of its own.

- Everything is watched edge-triggered and once, so a connection costs one `epoll_ctl` in its life. What a visit leaves
  undone (more to read than fits, reading that was paused) is queued here and visited again.
- A file descriptor is closed at once, its owner is told at the end of the round. Until then the object stays, so an event
  that came in the same round finds it closed instead of somebody else's.
- One connection reads once per visit; the others come next.
- Each look takes the time, so what starts in a turn that comes late starts from now.
"""

import os

import cython
from cython.cimports.cpython.mem import PyMem_Free, PyMem_Malloc
from cython.cimports.cpython.ref import Py_DECREF, Py_INCREF, PyObject
from cython.cimports.haproxy_py.datapath.deadlines import Clock
from cython.cimports.haproxy_py.datapath.limits import (
    EVENTS_PER_ROUND,
    IDLE_PIPES,
    PIPE_SIZE,
    READ_SIZE,
    ROUNDS_PER_TURN,
)
from cython.cimports.haproxy_py.datapath.sockets import (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    F_SETPIPE_SZ,
    O_CLOEXEC,
    O_NONBLOCK,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    fcntl,
    pipe2,
)
from cython.cimports.libc.errno import errno as c_errno
from cython.cimports.posix.unistd import close


@cython.cclass
class Watched:
    """A socket that a poller watches."""

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    @cython.cfunc
    def ready(self, events: cython.uint):
        """Something is ready."""
        raise AssertionError("a watched socket must say what happens when it is ready")

    @cython.cfunc
    def go_on(self):
        """The next visit, after `visit_again`."""
        raise AssertionError("a watched socket that asks for another visit must say what happens then")

    @cython.cfunc
    def gone(self):
        """It was closed in this round."""

    @cython.cfunc
    def drop(self) -> cython.void:
        """End it at once: a mistake of ours happened on it."""


@cython.final
@cython.cclass
class Poller:
    """One per worker."""

    def __cinit__(self):
        self.fd = -1
        self.space = cython.cast(cython.p_char, PyMem_Malloc(READ_SIZE))
        if self.space == cython.NULL:
            raise MemoryError

    def __init__(self, loop: object, clock: Clock):
        """Watched by `loop` from now on. Raises OSError."""
        self.loop = loop
        self.clock = clock
        self.again = []
        self.closed = []
        self.turn_soon = self._turn_soon
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise OSError(c_errno, os.strerror(c_errno))
        loop.add_reader(self.fd, self.turn)

    def close(self) -> None:
        """Tell the owners of what was closed, and end. Whoever is still open is watched no more."""
        while self.closed:
            self.finish_round()
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
            close(self.fd)
            self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        while self.idle_pipes > 0:
            self.idle_pipes -= 1
            close(self.pipes[self.idle_pipes].sink)
            close(self.pipes[self.idle_pipes].source)
        PyMem_Free(self.space)

    def turn(self) -> None:
        """Visit everything that is ready, and what was left of the turn before."""
        count: cython.int
        rounds: cython.int = 0
        self.turning = True
        try:
            while self.fd >= 0:
                count = epoll_wait(self.fd, cython.address(self.events[0]), EVENTS_PER_ROUND, 0)
                self.visit_round(count)
                rounds += 1
                # Under load more has become ready by now, and a look costs less than a turn of the loop around it.
                if rounds == ROUNDS_PER_TURN or (count < 2 and not self.again and not self.closed):
                    break
        finally:
            self.turning = False
            if self.again or self.closed:
                self.schedule()

    def tick(self) -> None:
        """End every wait whose deadline has passed, once everything that was ready has been visited."""
        count: cython.int = EVENTS_PER_ROUND
        rounds: cython.int
        self.clock.refresh()
        if self.fd >= 0 and self.clock.is_due():
            self.turning = True
            try:
                # The set gives what is ready in order, and what it has given goes to the end.
                rounds = self.watching // EVENTS_PER_ROUND + 1
                while self.fd >= 0 and rounds > 0 and count == EVENTS_PER_ROUND:
                    count = epoll_wait(self.fd, cython.address(self.events[0]), EVENTS_PER_ROUND, 0)
                    self.visit_round(count)
                    rounds -= 1
            finally:
                self.turning = False
                if self.again or self.closed:
                    self.schedule()
        self.clock.tick()

    @cython.cfunc
    def visit_round(self, count: cython.int) -> cython.void:
        """Visit so many as `events` names."""
        index: cython.int
        watched: Watched
        self.clock.refresh()
        for index in range(count):
            watched = cython.cast(Watched, cython.cast(cython.pointer(PyObject), self.events[index].data.ptr))
            if watched.fd < 0:
                continue
            try:
                watched.ready(self.events[index].events)
            except Exception as problem:
                self.report(watched, problem)
        if self.again or self.closed:
            self.finish_round()

    @cython.cfunc
    def finish_round(self) -> cython.void:
        """Visit again what asked for it; tell the owners of what was closed."""
        watched: Watched
        queue: list = self.again
        if queue:
            self.again = []
            for watched in queue:
                watched.queued = False
                if watched.fd < 0:
                    continue
                try:
                    watched.go_on()
                except Exception as problem:
                    self.report(watched, problem)
        queue = self.closed
        if queue:
            self.closed = []
            for watched in queue:
                try:
                    watched.gone()
                except Exception as problem:
                    self.report(watched, problem)
                if watched.watched:
                    watched.watched = False
                    self.watching -= 1
                    Py_DECREF(watched)

    @cython.cfunc
    @cython.exceptval(check=False)
    def watch(self, watched: Watched, events: cython.uint) -> cython.int:
        """Tell `watched` from now on when one of the events occurs. 0, or the error number."""
        event: epoll_event
        event.events = events
        event.data.ptr = cython.cast(cython.p_void, watched)
        if epoll_ctl(self.fd, EPOLL_CTL_ADD, watched.fd, cython.address(event)) < 0:
            return c_errno
        watched.watched = True
        self.watching += 1
        Py_INCREF(watched)  # the set holds a pointer; given back when it is gone
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def unwatch(self, watched: Watched) -> cython.void:
        """Tell it no more. Not in a round in which it may be ready: only for what is never closed by events."""
        if watched.watched:
            epoll_ctl(self.fd, EPOLL_CTL_DEL, watched.fd, cython.NULL)
            watched.watched = False
            self.watching -= 1
            Py_DECREF(watched)

    @cython.cfunc
    def visit_again(self, watched: Watched) -> cython.void:
        """Visit it once more, after all the others."""
        if watched.queued:
            return
        watched.queued = True
        self.again.append(watched)
        self.schedule()

    @cython.cfunc
    def bury(self, watched: Watched) -> cython.void:
        """Close it; `gone` follows at the end of the round."""
        self.closed.append(watched)  # first: without memory for that it stays open, and its deadline tries again
        close(watched.fd)  # which takes it out of the set, too
        watched.fd = -1
        self.schedule()

    @cython.cfunc
    @cython.exceptval(check=False)
    def take_pipe(self, pipe: cython.pointer(Pipe)) -> cython.bint:
        """An empty pipe; false if the kernel gives none."""
        ends: cython.int[2]
        if self.idle_pipes > 0:
            self.idle_pipes -= 1
            pipe[0] = self.pipes[self.idle_pipes]
            return True
        if pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
            return False
        pipe.source = ends[0]
        pipe.sink = ends[1]
        fcntl(pipe.sink, F_SETPIPE_SZ, PIPE_SIZE)  # beyond the user's share of pipes it stays at its 64 KiB
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def give_pipe(self, pipe: cython.pointer(Pipe), is_empty: cython.bint) -> cython.void:
        """Give a pipe back."""
        if is_empty and self.idle_pipes < IDLE_PIPES:
            self.pipes[self.idle_pipes] = pipe[0]
            self.idle_pipes += 1
        else:
            close(pipe.sink)
            close(pipe.source)
        pipe.sink = -1

    @cython.cfunc
    def schedule(self) -> cython.void:
        """Have a turn without an event, unless one runs or comes anyway."""
        if not self.turning and not self.scheduled:
            self.loop.call_soon(self.turn_soon)
            self.scheduled = True

    def _turn_soon(self) -> None:
        self.scheduled = False
        self.turn()

    @cython.cfunc
    def report(self, watched: Watched, problem: object) -> cython.void:
        """A mistake of ours, or no memory is left: its connection ends, and everybody else goes on."""
        if isinstance(problem, MemoryError):
            self.lacks_memory = True
        try:
            watched.drop()
            if not isinstance(problem, MemoryError):
                self.loop.call_exception_handler(
                    {"message": f"a connection was cut: {type(watched).__name__}", "exception": problem}
                )
        except MemoryError:
            self.lacks_memory = True  # even for this; its deadline ends it
