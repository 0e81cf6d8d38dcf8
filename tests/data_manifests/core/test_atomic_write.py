"""Files are complete or absent; folders that cannot be written are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlalign.data_manifests.core.atomic_write import atomic_path, atomic_write, check_writable
from mlalign.data_manifests.core.errors import UserError


def test_a_folder_to_be_created_is_writable(tmp_path: Path) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "new" / "deep")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file"):
        check_writable(tmp_path / "file" / "report")


def test_a_folder_below_a_read_only_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != tmp_path
    )  # root may write anywhere
    with pytest.raises(UserError, match=f"{tmp_path} is read-only or belongs to another user"):
        check_writable(tmp_path / "new" / "report")


def test_text_bytes_and_functions_are_written(tmp_path: Path) -> None:
    atomic_write(tmp_path / "new" / "text", "a\nb\u00e9")
    atomic_write(tmp_path / "bytes", b"\x00\r\n")
    atomic_write(tmp_path / "function", lambda path: path.write_text("called"))
    assert (tmp_path / "new" / "text").read_bytes() == b"a\nb\xc3\xa9"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "function").read_text() == "called"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refusing_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    atomic_write(tmp_path / "file", "old")

    def refuse(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="full"):
        atomic_write(tmp_path / "file", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_without_overwrite_the_first_writer_wins(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", "first", overwrite=False)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "file", "second", overwrite=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]


def test_the_umask_decides_who_can_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
