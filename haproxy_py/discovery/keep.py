"""Whether a set of pods that turned unready as a whole is believed to be.

A node that the control plane has not heard of has its pods marked unready, whether they live or not: after an outage of the API
server that is every pod of every node, until the kubelets have reported. A probe that fails says the same of one pod. So:

- A pod that turns unready while another one of its Service is ready is believed, as is one that is terminating or no longer
  listed. Scaling to zero, deletion and a single replica are none of this.
- When no pod is ready any more, those (two at least) that were ready within the last `TOGETHER` and are still listed, and not
  terminating, are kept: they are given work as before, and checked, by TCP where `health` is left to itself. One whose check
  fails is out.
- A kept pod that is ready again is an ordinary one. From the first of them on the others have `TOGETHER`; altogether a set is
  kept for `KEEP_FOR`. After that the API server is believed, until the set was ready again.

This comes after `merge`, whose rules (DSC-1 to DSC-16) know no past. Only pods are kept (DSC-2: what has a uid): nothing but a
person or a program of theirs makes other addresses unready.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

TOGETHER = 30.0
"""Seconds. A control plane marks 20 pods a second (the default `--kube-api-qps` of its controllers), node after node."""

KEEP_FOR = 300.0
"""Seconds: as long as Kubernetes itself waits until it takes the pods of a lost node away (`tolerationSeconds` of every pod)."""

LEAST = 2
"""Pods. Nothing tells one that failed its probe from one whose node was not heard of."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of the pods of one Service, by uid. Times are monotonic seconds."""

    ready: Set[str] = frozenset()
    lost: Mapping[str, float] | None = None  # that are unready now: when they turned so
    kept: Set[str] = frozenset()
    ends: float = 0.0  # when `kept` are kept no longer; 0 if there are none


def remember(before: Memory, ready: Set[str], unready: Set[str], now: float) -> Memory:
    """The next memory. `ready` and `unready` are listed and not terminating."""
    lost = {pod: since for pod, since in (before.lost or {}).items() if pod in unready}
    lost |= dict.fromkeys(before.ready & unready, now)
    kept, ends = before.kept & unready, before.ends
    if before.kept and ready:
        ends = min(ends, now + TOGETHER)
    if before.kept and (not kept or now >= ends):
        return Memory(ready, None, frozenset(), 0.0)
    if not ready and not kept:
        together = frozenset(pod for pod, since in lost.items() if now - since <= TOGETHER)
        if len(together) >= LEAST:
            kept, ends = together, now + KEEP_FOR
    return Memory(ready, lost or None, kept, ends)
