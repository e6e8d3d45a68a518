"""How many requests may be sent a second time: retries must never become the outage (RTY-10).

At most a share of the exchanges of the last ten seconds, and always a few.
"""

import cython
from cython.cimports.haproxy_py.datapath.retry import BUDGET_SECONDS


@cython.final
@cython.cclass
class RetryBudget:
    """One per instance and worker."""

    def set_bounds(self, percent: cython.int, least: cython.int) -> None:
        """How many of a hundred exchanges may be retried, and how many retries there may always be."""
        self.percent = percent
        self.least = least

    @cython.cfunc
    @cython.exceptval(check=False)
    def count_exchange(self, now: cython.double) -> cython.void:
        """A request goes to a replica. `now`: seconds of the monotonic clock."""
        self.advance(now)
        self.exchanges[self.second % BUDGET_SECONDS] += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def take(self, now: cython.double) -> cython.bint:
        """Whether one more retry is within the budget; then it is counted."""
        exchanges: cython.longlong = 0
        retries: cython.longlong = 0
        index: cython.int
        self.advance(now)
        for index in range(BUDGET_SECONDS):
            exchanges += self.exchanges[index]
            retries += self.retries[index]
        if retries >= self.least and (retries + 1) * 100 > exchanges * self.percent:
            return False
        self.retries[self.second % BUDGET_SECONDS] += 1
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def advance(self, now: cython.double) -> cython.void:
        """Forget the seconds that have gone out of the ring."""
        second: cython.longlong = cython.cast(cython.longlong, now)
        if second - self.second > BUDGET_SECONDS:
            self.second = second - BUDGET_SECONDS
        while self.second < second:
            self.second += 1
            self.exchanges[self.second % BUDGET_SECONDS] = 0
            self.retries[self.second % BUDGET_SECONDS] = 0
