"""The number of cores that the stages plan with, and pools of processes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlalign.data_manifests.core.cores import process_pool
from mlalign.data_manifests.core.errors import UserError

ROOT = Path(__file__).parents[3]
STAGES = ("data_manifests", "extract", "align", "evaluate")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_cores_that_the_process_may_not_use_do_not_count():
    code = (
        "import os\n"
        "os.cpu_count = lambda: 64\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from mlalign.data_manifests.core.cores import num_cores\n"
        "from mlalign.extract.config import ExtractConfig\n"
        "assert (num_cores(), ExtractConfig().workers) == (1, 1)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_the_stages_count_cores_in_one_place():
    sources = [path for stage in STAGES for path in (ROOT / stage).rglob("*.py")]
    counting = [path.name for path in sources if "cpu_count" in path.read_text(encoding="utf-8")]
    assert counting == ["cores.py"]


def test_a_pool_without_semaphores_names_the_folder_they_need(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", refuse)
    with pytest.raises(UserError, match="for 3 processes.*Read-only file system.*/dev/shm"):
        process_pool(3, initializer=list)
