"""How many files this process may open, and what follows for client connections."""

from __future__ import annotations

import resource

OWN_FILES = 64
"""Files of a worker that are not connections of clients or to replicas."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, for this process and its workers. The soft limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft  # a hard limit above fs.nr_open cannot be set again; the soft one serves
    return hard


def share_connections(configured: int, file_limit: int, listeners: int, workers: int) -> int:
    """Connections that one worker may have open on one listener; at least 1.

    `configured` is for the listener over all workers. 0: half of `file_limit` less 64, because every client may need a
    connection to a replica, divided among the listeners, because they draw on the same files.
    """
    total = configured or (file_limit // 2 - OWN_FILES) // listeners
    return max(1, total // workers)
