"""How many CPUs the container may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from haproxy_py.control.cpus import count_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def count(tmp_path: Path, files: dict[str, str], own: str = "0::/\n") -> int:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    return count_cpus(tmp_path / "cgroup", tmp_path / "own")


def test_affinity_alone_counts_without_a_quota(tmp_path: Path) -> None:
    assert count(tmp_path, {"cpu.max": "max 100000\n"}) == 8


def test_missing_files_leave_the_affinity(tmp_path: Path) -> None:
    assert count_cpus(tmp_path / "absent", tmp_path / "absent") == 8


@pytest.mark.parametrize(("line", "cpus"), [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1)])
def test_version_2_quota_is_rounded_up(tmp_path: Path, line: str, cpus: int) -> None:
    assert count(tmp_path, {"cpu.max": line}) == cpus


def test_quota_above_the_affinity_does_not_add_cpus(tmp_path: Path) -> None:
    assert count(tmp_path, {"cpu.max": "6400000 100000"}) == 8


def test_smallest_quota_of_the_groups_above_binds(tmp_path: Path) -> None:
    files = {"pods/one/cpu.max": "max 100000", "pods/cpu.max": "300000 100000", "cpu.max": "max 100000"}
    assert count(tmp_path, files, "0::/pods/one\n") == 3


def test_version_1_quota_is_read(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    assert count(tmp_path, files, "4:cpu,cpuacct:/\n") == 3


def test_version_1_without_quota_leaves_the_affinity(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert count(tmp_path, files, "4:cpu:/\n") == 8


@pytest.mark.parametrize("line", ["", "max", "0 100000", "100000 0", "x y", "1 2 3", "-5 100000"])
def test_unreadable_quota_leaves_the_affinity(tmp_path: Path, line: str) -> None:
    assert count(tmp_path, {"cpu.max": line}) == 8


def test_group_outside_the_mount_is_not_followed(tmp_path: Path) -> None:
    assert count(tmp_path, {"cpu.max": "max 100000"}, "0::/../../etc\n") == 8
