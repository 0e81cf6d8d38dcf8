"""One process at a time in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.data_manifests.core.folder_lock import folder_lock

HOLD = """
import sys
from pathlib import Path
from mlalign.data_manifests.core.errors import UserError
from mlalign.data_manifests.core.folder_lock import folder_lock

with folder_lock(Path(sys.argv[1]), busy=UserError("busy")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    lock_file = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="busy"), folder_lock(lock_file, busy=UserError("busy")):
            pass
        holder.kill()
    with folder_lock(lock_file, busy=UserError("busy")):
        pass


def test_the_lock_is_released_when_the_block_raises(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError), folder_lock(tmp_path / ".lock", busy=UserError("busy")):
            raise ValueError
