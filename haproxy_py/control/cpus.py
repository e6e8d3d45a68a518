"""How many CPUs this container may use: that many workers are started when the configuration says `auto`."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def count_cpus(root: Path = CGROUP_ROOT, own: Path = OWN_CGROUPS) -> int:
    """The smaller of the affinity mask and the CPU quota of the control group, rounded up; at least 1.

    Rounded up because a quota of 1.5 is more than one worker can use. `root` is where control groups are mounted, `own`
    the list of the groups this process is in.
    """
    allowed = len(os.sched_getaffinity(0))
    quotas = [quota for directory in _list_directories(root, own) if (quota := _read_quota(directory)) is not None]
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas)]))


def _list_directories(root: Path, own: Path) -> list[Path]:
    """The directories whose quota binds this process: its own group and every group above, of both versions of cgroups.

    Within a container the mount usually shows the container's group as the root, and the path in `own` may not exist
    below it; the root itself is therefore always in the list.
    """
    directories = [root, root / "cpu", root / "cpu,cpuacct"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return directories
    for line in lines:
        # hierarchy-ID:controller-list:cgroup-path (cgroups(7)); version 2 is hierarchy 0 with an empty list
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            mount = root
        elif "cpu" in controllers.split(","):
            mount = root / controllers
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:
            continue
        directories += [mount / part for part in (group, *group.parents)]
    return directories


def _read_quota(directory: Path) -> float | None:
    """CPUs per period that this group may use; None where it has no quota or the file is missing."""
    return _read_version_2(directory) or _read_version_1(directory)


def _read_version_2(directory: Path) -> float | None:
    # cpu.max: "max 100000" or "150000 100000"
    words = _read_words(directory / "cpu.max")
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
        return None
    return _divide(int(words[0]), int(words[1]))


def _read_version_1(directory: Path) -> float | None:
    # cpu.cfs_quota_us: -1 without a quota
    quota, period = _read_words(directory / "cpu.cfs_quota_us"), _read_words(directory / "cpu.cfs_period_us")
    if len(quota) != 1 or len(period) != 1 or not (quota[0].isdigit() and period[0].isdigit()):
        return None
    return _divide(int(quota[0]), int(period[0]))


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []


def _divide(quota: int, period: int) -> float | None:
    return quota / period if quota > 0 and period > 0 else None
