"""Deadlines that cost the same whether ten or ten thousand run.

Every waiting thing has at most one deadline. Deadlines of the same duration form a queue that is in order by itself, because
each new one is later than all before it; starting, moving and stopping one is a relink. One coarse tick for the whole worker
looks at the front of each queue. A deadline therefore passes up to two ticks late and never early.

A worker may stand still: its machine is suspended, or the CPU is full. Then

- what starts in a late turn starts from the time it is now (`refresh`), not from the time of the last tick;
- what is ready was read before anything expires (`Poller.tick`), or a replica that answered in time would be given up;
- a tick that comes late ends nothing, the next one does: whatever else this machine carries was as late.
"""

import cython
from cython.cimports.posix.time import CLOCK_MONOTONIC, clock_gettime, timespec

TICK = 0.1
"""Seconds between two ticks: the granularity of every timeout."""

_TICK = cython.declare(cython.double, TICK)
_LATE = cython.declare(cython.double, 5 * TICK)  # seconds between two ticks: the worker has stood still


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def monotonic() -> cython.double:
    """Seconds of the monotonic clock, in nanosecond steps."""
    moment: timespec
    clock_gettime(CLOCK_MONOTONIC, cython.address(moment))
    return moment.tv_sec + moment.tv_nsec * 1e-9


@cython.cclass
class Timed:
    """A thing that waits for something. Exactly one deadline runs, or none."""

    @cython.cfunc
    @cython.exceptval(check=False)
    def stop_deadline(self) -> cython.void:
        queue: DeadlineQueue = self.queue
        if queue is None:
            return
        if self.earlier is None:
            queue.oldest = self.later
        else:
            self.earlier.later = self.later
        if self.later is None:
            queue.newest = self.earlier
        else:
            self.later.earlier = self.earlier
        self.earlier = None
        self.later = None
        self.queue = None

    @cython.cfunc
    def expired(self):
        """The deadline has passed; it no longer runs."""
        raise AssertionError("a thing that waits must say what happens at its deadline")


@cython.final
@cython.cclass
class DeadlineQueue:
    """All deadlines of one duration, oldest first."""

    def __cinit__(self, clock: Clock, duration: float):
        self.clock = clock
        self.duration = duration

    @cython.cfunc
    @cython.exceptval(check=False)
    def start(self, timed: Timed) -> cython.void:
        """Run a deadline from now on, in place of any that ran. A duration of 0 means none."""
        if self.newest is timed:
            timed.deadline = self.clock.now + self.duration + _TICK
            return
        timed.stop_deadline()
        if self.duration <= 0.0:
            return
        timed.queue = self
        timed.deadline = self.clock.now + self.duration + _TICK
        timed.earlier = self.newest
        if self.newest is None:
            self.oldest = timed
        else:
            self.newest.later = timed
        self.newest = timed


@cython.final
@cython.cclass
class Clock:
    """The time of a worker, and its deadlines."""

    def __cinit__(self):
        self.now = monotonic()
        self.ticked = self.now
        self.queues = {}

    @cython.ccall
    def queue(self, duration: cython.double) -> DeadlineQueue:
        """The queue of a duration in seconds. Durations come from the configuration, so their number is bounded."""
        queue: DeadlineQueue = self.queues.get(duration)
        if queue is None:
            queue = DeadlineQueue(self, duration)
            self.queues[duration] = queue
        return queue

    @cython.cfunc
    @cython.exceptval(check=False)
    def refresh(self) -> cython.void:
        """Take the time."""
        now: cython.double = monotonic()
        if now - self.now > _TICK:
            self.make_up(now)
            if now - self.now > _LATE:
                self.stood_still += now - self.now
        self.now = now

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def awake(self) -> cython.double:
        """Seconds that pass only while the worker does not stand still: for what others are given a time to do."""
        return self.now - self.stood_still

    @cython.cfunc
    def make_up(self, now: cython.double) -> cython.void:
        """The time in force was older than deadlines allow for: those that started by it start from now.

        They stand at the end of their queues, so this costs nothing but for them.
        """
        queue: DeadlineQueue
        timed: Timed
        stale: cython.double
        for queue in self.queues.values():
            stale = self.now + queue.duration + _TICK
            timed = queue.newest
            while timed is not None and timed.deadline >= stale:
                timed.deadline = now + queue.duration + _TICK
                timed = timed.earlier

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_due(self) -> cython.bint:
        """Whether a deadline has passed."""
        queue: DeadlineQueue
        for queue in self.queues.values():
            if queue.oldest is not None and queue.oldest.deadline <= self.now:
                return True
        return False

    @cython.ccall
    def tick(self):
        """Take the time and end every wait whose deadline has passed.

        Whoever cannot be ended, for want of memory or by a mistake of ours, waits once more, so that nobody waits for
        ever; the first such exception is raised when all have had their turn.
        """
        queue: DeadlineQueue
        timed: Timed
        problem: object = None
        self.refresh()
        self.late = not self.late and self.now - self.ticked > _LATE  # twice in a row would be never
        self.ticked = self.now
        for queue in list(self.queues.values()):
            while not self.late and queue.oldest is not None and queue.oldest.deadline <= self.now:
                timed = queue.oldest
                timed.stop_deadline()
                try:
                    timed.expired()
                except Exception as raised:
                    if problem is None:
                        problem = raised
                    if timed.queue is None:
                        queue.start(timed)
        if self.on_tick is not None:
            self.on_tick()
        if problem is not None:
            raise problem
