"""Makes a dataset of procedural clips: real mp4 files with exact captions, spans and questions."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from ..core.cores import num_cores, process_pool
from ..core.errors import UserError
from ..core.progress_bar import ProgressBar
from ..tables.reader import write_manifest
from ..tables.schema import CLIPS, QUESTIONS, TEXTS, Manifest
from .plan import FRAMES_PER_SECOND, plan_clip
from .words import captions, questions

PARTIAL: Final = ".partial"
"""Folder inside the output for what is not finished yet."""
CLIPS_PER_JOB: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One clip to be drawn."""

    seed: int
    index: int
    split: str
    path: Path


def write_scenes(
    out: Path, *, num_clips: int, seed: int = 0, num_processes: int | None = None
) -> Manifest:
    """Write `num_clips` procedural clips and their manifest into the new or empty folder `out`.

    The same seed and number of clips give the same bytes of the tables and the same pixels,
    whatever the number of processes (default: one per core). The manifest appears last: an
    interrupted run leaves nothing but a .partial folder, which the next one removes.
    Raises UserError when `out` is a file or not empty, or num_clips < 1.
    """
    if num_clips < 1:
        raise UserError(f"expected at least 1 clip, got {num_clips}")
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - {PARTIAL}):
        raise UserError(f"{out} is not an empty folder; choose another or remove it first")
    partial = out / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "videos").mkdir(parents=True)
    splits = split_names(num_clips)
    jobs = [
        _Job(seed=seed, index=i, split=split, path=partial / "videos" / f"{clip_name(i)}.mp4")
        for i, split in enumerate(splits)
    ]
    _draw(jobs, num_processes=num_processes or num_cores())
    write_manifest(scenes_manifest(partial / "videos", splits=splits, seed=seed), partial)
    for name in ("videos", "clips.parquet", "texts.parquet", "questions.parquet", "dataset.yaml"):
        (partial / name).replace(out / name)
    partial.rmdir()
    return scenes_manifest(out / "videos", splits=splits, seed=seed)


def clip_name(index: int) -> str:
    """Id of a clip, and the name of its file."""
    return f"clip-{index:05d}"


def split_names(num_clips: int) -> list[str]:
    """The split of each clip: the first 60 % train, then 10 % val, the rest test.

    Shares are rounded to the nearest; from 3 clips on, every split has one.
    """
    min_clips = 1 if num_clips >= 3 else 0
    num_val = max(min_clips, round(0.10 * num_clips))
    num_test = max(min_clips, round(0.3 * num_clips))
    num_train = num_clips - num_val - num_test
    return ["train"] * num_train + ["val"] * num_val + ["test"] * num_test


def scenes_manifest(videos_root: Path, *, splits: list[str], seed: int) -> Manifest:
    """The tables of the clips: segment captions, a paragraph and questions for each."""
    clips, texts, question_rows = [], [], []
    for index, split in enumerate(splits):
        clip_id = clip_name(index)
        scenes = plan_clip(seed=seed, index=index, split=split)
        ends = list(itertools.accumulate(scene.num_frames for scene in scenes))
        times = [frame / FRAMES_PER_SECOND for frame in (0, *ends)]
        clips.append((clip_id, f"{clip_id}.mp4", 0.0, times[-1], split))
        rng = random.Random(f"mlalign words {seed} {index}")
        sentences = captions(scenes, rng=rng)
        for number, sentence in enumerate(sentences):
            span = times[number : number + 2]
            texts.append((f"{clip_id}-{number}", clip_id, "caption", sentence, *span, split))
        paragraph = ". ".join(sentences)
        texts.append((f"{clip_id}-all", clip_id, "paragraph", paragraph, None, None, split))
        for number, row in enumerate(questions(scenes, split=split, rng=rng)):
            ids = {"question_id": f"{clip_id}-q{number}", "clip_id": clip_id, "split": split}
            question_rows.append({**row, **ids})
    return Manifest(
        name="scenes",
        videos_root=videos_root,
        clips=_table(clips, CLIPS),
        texts=_table(texts, TEXTS),
        questions=pa.Table.from_pylist(question_rows, schema=QUESTIONS),
    )


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)


def _draw(jobs: list[_Job], *, num_processes: int) -> None:
    """Draw all clips, with a progress bar on a terminal."""
    chunks = [jobs[i : i + CLIPS_PER_JOB] for i in range(0, len(jobs), CLIPS_PER_JOB)]
    with ProgressBar(label="scenes", total=len(jobs), unit="clips") as bar:
        if num_processes == 1 or len(chunks) <= 2:  # not worth the start of processes
            _advance(bar, map(_draw_clips, chunks))
            return
        with process_pool(min(num_processes, len(chunks)), initializer=_ignore_interrupt) as pool:
            try:
                _advance(bar, pool.map(_draw_clips, chunks))
            except BrokenProcessPool as error:
                raise UserError(
                    "a process that draws clips was killed; is the memory full?"
                ) from error
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _advance(bar: ProgressBar, numbers: Iterable[int]) -> None:
    for number in numbers:
        bar.advance(number)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches all processes; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_clips(jobs: list[_Job]) -> int:
    from .pictures import write_clip

    for job in jobs:
        write_clip(plan_clip(seed=job.seed, index=job.index, split=job.split), job.path)
    return len(jobs)
