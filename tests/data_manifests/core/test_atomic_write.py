"""Files that are there whole or not at all, and folders that cannot take any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlalign.data_manifests.core.atomic_write import check_writable
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
