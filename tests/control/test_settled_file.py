"""When a file has new content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from haproxy_py.control.settled_file import PATIENCE, SettledFile

LIMIT = 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def file(path: Path) -> SettledFile:
    """With nothing new."""
    file = SettledFile(str(path), LIMIT)
    assert file.read() == b"one"
    assert looks(file, 2) == []
    return file


def looks(file: SettledFile, number: int) -> list[bytes]:
    """What so many looks find."""
    return [found for _ in range(number) if (found := file.look()) is not None]


def write_again(path: Path) -> None:
    path.write_bytes(b"two")


def rename_over(path: Path) -> None:
    other = path.with_suffix(".tmp")
    other.write_bytes(b"two")
    other.rename(path)


@pytest.mark.parametrize("change", [write_again, rename_over])
def test_new_content_is_given_once_when_it_was_the_same_in_two_looks(
    path: Path, file: SettledFile, change: Callable[[Path], None]
) -> None:
    change(path)
    assert file.look() is None
    assert file.look() == b"two"
    assert looks(file, 3) == []


def test_file_that_is_being_written_is_not_read_before_it_is_whole(path: Path, file: SettledFile) -> None:
    for size in range(1, 4):
        path.write_bytes(b"two"[:size])
        assert file.look() is None
    assert file.look() == b"two"


def test_touched_file_is_not_new(path: Path, file: SettledFile) -> None:
    os.utime(path, ns=(1, 1))
    assert looks(file, 3) == []


def test_equal_file_in_its_place_is_not_new(path: Path, file: SettledFile) -> None:
    other = path.with_suffix(".tmp")
    other.write_bytes(b"one")
    other.rename(path)
    assert looks(file, 3) == []


def test_content_of_the_same_size_and_time_is_seen(path: Path, file: SettledFile) -> None:
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert looks(file, 2) == [b"two"]


def test_symbolic_links_of_a_config_map_are_followed(tmp_path: Path) -> None:
    for name, text in (("..v1", b"one"), ("..v2", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(text)
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "file").symlink_to("..data/file")
    file = SettledFile(str(tmp_path / "file"), LIMIT)
    file.read()
    assert looks(file, 3) == []
    (tmp_path / "..data_tmp").symlink_to("..v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert looks(file, 3) == [b"two"]


def test_file_that_is_away_for_a_moment_is_waited_for(path: Path, file: SettledFile) -> None:
    path.unlink()
    assert looks(file, PATIENCE - 1) == []
    path.write_bytes(b"one")
    assert looks(file, 3) == []


def test_file_that_stays_away_is_an_error_once_and_new_when_it_is_back(path: Path, file: SettledFile) -> None:
    path.unlink()
    assert looks(file, PATIENCE - 1) == []
    with pytest.raises(FileNotFoundError):
        file.look()
    assert looks(file, 5) == []
    path.write_bytes(b"one")
    assert looks(file, 3) == [b"one"]


def test_no_more_than_the_bound_is_read(path: Path, file: SettledFile) -> None:
    path.write_bytes(b"x" * 1000)
    assert looks(file, 2) == [b"x" * (LIMIT + 1)]


def test_pipe_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert looks(SettledFile(str(tmp_path / "pipe"), LIMIT), 3) == []
