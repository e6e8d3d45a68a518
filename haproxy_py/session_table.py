"""The shape of the shared memory in which workers remember which replica has which socket.io session.

Control makes it, once for all workers, and every worker reads and writes it: `datapath.sessions` says how. First comes a
secret, then buckets of entries. An entry is two unsigned 64-bit integers in native byte order:

- the key of the session, xor the mark of its replica;
- the mark of the replica in the upper 40 bits, in the lower 24 the second in which the session was used last.

A mark is the beginning of the replica's affinity token, so it means the same in every table and in every process.
"""

from __future__ import annotations

LAYOUT = 1
"""Of this memory. A process that takes over from one with the same layout goes on with its sessions."""

SECRET_BYTES = 32
"""Of the key of the keyed hash, at the start of the memory."""

ENTRIES_AT = 64
"""A multiple of a cache line."""

ENTRY_BYTES = 16

WAYS = 8
"""Entries of a bucket, two cache lines: the places where one session can be."""

BUCKETS = 16_384
"""A power of 2. Room for 131,072 sessions in 2 MiB, of which a page is real once it is used."""

TABLE_BYTES = ENTRIES_AT + BUCKETS * WAYS * ENTRY_BYTES

EXPIRES = 300
"""Seconds without a request after which a session is forgotten. socket.io's end after 45 (its `pingInterval` and
`pingTimeout`), unless a flow's settings make them longer."""

REFRESH = 10
"""Seconds after which the use of a session is noted again, so that a busy one does not write all the time."""
