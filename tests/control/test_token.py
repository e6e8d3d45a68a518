"""The file of the token: what it may hold, and how it is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from haproxy_py.config import Ops
from haproxy_py.control.settled_file import PATIENCE
from haproxy_py.control.token import MAX_BYTES, TokenError, TokenFile, find_token_file, read_token


@pytest.mark.parametrize("data", [b"secret", b"secret\n", b"  secret\r\n", b"\n\nsecret\n"])
def test_white_space_around_the_token_does_not_count(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(data)
    assert read_token(file) == b"secret"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"one two", "without blanks"),
        (b"one\ntwo", "one token on one line"),
        ("schlüssel".encode(), "printable ASCII"),
        (b"a\0b", "printable ASCII"),
        (b"a" * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_token_is_refused_with_the_reason(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(data)
    with pytest.raises(TokenError, match=message):
        read_token(file)


def test_largest_token_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"a" * MAX_BYTES)
    assert len(read_token(file)) == MAX_BYTES


def test_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"/nothing cannot be read: No such file"):
        TokenFile(tmp_path / "nothing").read()


def test_file_is_the_configured_one_if_there_is_one(tmp_path: Path) -> None:
    found = find_token_file(Ops(token_file=str(tmp_path / "token")))
    assert found is not None
    assert found.path == tmp_path / "token"
    assert find_token_file(Ops()) is None


def test_edited_file_is_seen_and_a_bad_one_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(path)
    assert file.read() == b"first"
    assert [file.look() for _ in range(3)] == [None] * 3
    path.write_text("")
    assert file.look() is None  # somebody may still be writing it
    with pytest.raises(TokenError, match="is empty"):
        file.look()
    assert [file.look() for _ in range(3)] == [None] * 3
    path.write_text("second")
    assert [file.look() for _ in range(3)] == [None, b"second", None]
    path.unlink()
    assert [file.look() for _ in range(PATIENCE - 1)] == [None] * (PATIENCE - 1)
    with pytest.raises(TokenError, match="cannot be read"):
        file.look()
    assert file.look() is None


def test_symlink_swap_of_a_secret_is_seen(tmp_path: Path) -> None:
    for name in ("first", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
        os.utime(tmp_path / name / "token", (1, 1))
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "token").symlink_to("..data/token")
    file = TokenFile(tmp_path / "token")
    assert file.read() == b"first"
    (tmp_path / "..new").symlink_to("other")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert [file.look() for _ in range(2)] == [None, b"other"]
