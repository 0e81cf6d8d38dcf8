"""Seconds and memory of a training epoch, against the usual way.

    python benchmarks/align.py --out DIR

Features are random, of the sizes of MSR-VTT (9,000 clips x 20 captions, 12 segments, 512 wide) and
of TVR (17,435 clips, 87,175 queries with spans, up to 64 segments). The usual way is written out
below: batches of 256 captions or queries, one at a time, read by h5py in a Dataset, collated by a
DataLoader with one worker, float32, eager, one positive in each row. It has no masks of false
negatives and no pairs inside the clip, so it does less. Ours has batches of 64 clips with all their
captions (or queries), whose segments are encoded once, and multiplies in bfloat16
(precision=medium); a second line of MSR-VTT's has 256 clips with one caption each, in float32, as
the usual way. Both have the same heads. Each way has a process of its own, in turn; ours takes a
whole epoch after some steps, the usual way the first batches of one, and its epoch is reckoned from
them. Peak memory is that of the process, of the usual way its worker's added.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from mlalign.align.config import OptimiserConfig, RunConfig
from mlalign.align.data.batches import epoch_batches
from mlalign.align.data.split import load_training_split
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LossConfig
from mlalign.align.model.model import build_model
from mlalign.align.objective.objective import loss_terms
from mlalign.align.optimiser import build_optimiser
from mlalign.data_manifests.core.cores import num_cores
from mlalign.extract.cache.split_features import QuestionFeatures, SplitFeatures

WIDTH, BATCH = 512, 256
USUAL_BATCHES = 30
WARM_STEPS = 5


def random_features(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.standard_normal((rows, WIDTH), dtype=np.float32)


def split_of(name: str) -> SplitFeatures:
    rng = np.random.default_rng(0)
    if name == "msrvtt":
        counts = np.full(9000, 12)
        text_clips = np.repeat(np.arange(9000), 20)
        spans = np.full((len(text_clips), 2), np.nan)
    else:
        counts = rng.integers(20, 65, size=17_435)
        text_clips = np.repeat(np.arange(len(counts)), 5)
        first = (rng.random(len(text_clips)) * (counts[text_clips] - 4)).astype(int)
        spans = np.stack([first, first + rng.integers(1, 5, size=len(first))], axis=1).astype(float)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    starts = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    none = np.zeros(0, dtype=np.int64)
    return SplitFeatures(
        cache_key="random",
        split="train",
        segment_rule="uniform",
        clip_ids=[f"clip{i}" for i in range(len(counts))],
        clip_features=random_features(rng, len(counts)),
        clip_durations=counts.astype(float),
        segment_features=random_features(rng, offsets[-1]),
        segment_offsets=offsets,
        segment_spans=np.stack([starts, starts + 1], axis=1).astype(float),
        text_ids=[f"text{i}" for i in range(len(text_clips))],
        texts=[f"words {i}" for i in range(len(text_clips))],
        text_features=random_features(rng, len(text_clips)),
        text_clips=text_clips,
        text_spans=spans,
        num_failed_clips=0,
        questions=QuestionFeatures(
            question_ids=[],
            kinds=[],
            types=[],
            clips=none,
            spans=np.zeros((0, 2)),
            questions=[],
            answers=[],
            answer_indices=none,
            question_features=np.zeros((0, WIDTH), dtype=np.float32),
            option_features=np.zeros((0, WIDTH), dtype=np.float32),
            option_offsets=np.zeros(1, dtype=np.int64),
        ),
    )


class UsualDataset(Dataset):
    """An item is a text with its clip's feature and segments, read when it is asked for."""

    def __init__(self, path: Path, text_clips: np.ndarray) -> None:
        self.path, self.text_clips, self.file = path, text_clips, None

    def __len__(self) -> int:
        return len(self.text_clips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        clip = self.text_clips[index]
        return {
            "clip": torch.from_numpy(self.file["clips"][clip]),
            "segments": torch.from_numpy(self.file[f"segments/{clip}"][()]),
            "text": torch.from_numpy(self.file["texts"][index]),
        }


def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    most = max(len(item["segments"]) for item in items)
    segments = torch.zeros(len(items), most, WIDTH)
    for row, item in enumerate(items):
        segments[row, : len(item["segments"])] = item["segments"]
    return {
        "clip": torch.stack([item["clip"] for item in items]),
        "segments": segments,
        "text": torch.stack([item["text"] for item in items]),
    }


def write_usual_file(split: SplitFeatures, path: Path) -> None:
    """A dataset of segments for each clip, as features are usually kept."""
    with h5py.File(path, "w") as file:
        file["clips"], file["texts"] = split.clip_features, split.text_features
        file["text_clips"] = split.text_clips
        for clip in range(len(split.clip_ids)):
            own = slice(split.segment_offsets[clip], split.segment_offsets[clip + 1])
            file[f"segments/{clip}"] = split.segment_features[own]


def usual_way(head: str, path: Path) -> dict[str, float]:
    """Global contrast plus the best segment's, one positive in each row; the first batches."""
    with h5py.File(path) as file:
        text_clips = file["text_clips"][()]
    model = build_model(config_of(head, "msrvtt"), dim_video=WIDTH, dim_text=WIDTH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    dataset = UsualDataset(path, text_clips)
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=1, collate_fn=collate)
    began, done = 0.0, 0
    for number, batch in enumerate(loader):
        if number == WARM_STEPS:  # the worker has started, and is ahead no more
            began, done = time.perf_counter(), 0
        clips, texts = model.encode_clips(batch["clip"]), model.encode_texts(batch["text"])
        segments = model.encode_segments(batch["segments"].flatten(0, 1))
        best = (segments @ texts.T).unflatten(0, batch["segments"].shape[:2]).amax(dim=1)
        target = torch.arange(len(clips))
        loss = torch.zeros(())
        for logits in (model.logit_scale * clips @ texts.T, model.logit_scale * best):
            loss = loss + (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done += len(clips)
        if number == USUAL_BATCHES:
            break
    seconds = (time.perf_counter() - began) / done
    del loader
    return {"seconds_per_query": seconds, "epoch_seconds": seconds * len(text_clips)}


def config_of(head: str, name: str, *, texts_per_clip: int = 1) -> RunConfig:
    """Both levels: of MSR-VTT, which has no spans, by the segments that match best."""
    losses = LossConfig(segment_weight=0, weak_segment_weight=1)
    if name == "tvr":
        losses = LossConfig(global_weight=0)
    return RunConfig(
        heads=HeadsConfig(video=HeadConfig(name=head), text=HeadConfig(name=head)),
        losses=losses,
        optimiser=OptimiserConfig(
            batch_clips=BATCH if texts_per_clip == 1 else 64, texts_per_clip=texts_per_clip
        ),
    )


def our_way(head: str, name: str, *, texts_per_clip: int, precision: str) -> dict[str, float]:
    """A whole epoch, after some steps of another one."""
    config = config_of(head, name, texts_per_clip=texts_per_clip)
    torch.set_float32_matmul_precision(precision)
    resident = load_training_split(split_of(name), config=config, device=torch.device("cpu"))
    model = build_model(config, dim_video=WIDTH, dim_text=WIDTH)
    optimiser = build_optimiser(model, config.optimiser)

    def take_steps(epoch: int, most: int | None) -> int:
        queries = 0
        batches = epoch_batches(
            resident, batch_clips=config.optimiser.batch_clips, seed=0, epoch=epoch
        )
        for batch in itertools.islice(batches, most):
            terms = loss_terms(model, resident, batch, config=config, epoch=1)
            optimiser.zero_grad()
            terms["loss"].backward()
            optimiser.step()
            level = batch.global_level or batch.segment_level
            queries += len(level.texts)
        return queries

    take_steps(0, WARM_STEPS)
    began = time.perf_counter()
    queries = take_steps(1, None)
    seconds = time.perf_counter() - began
    return {"seconds_per_query": seconds / queries, "epoch_seconds": seconds}


def measured_here(name: str, head: str, way: str, folder: Path) -> dict[str, float]:
    """One way in this process: its seconds, and the peak of its memory and its worker's."""
    path = folder / f"{name}.h5"
    match way.split():
        case ["write"]:
            write_usual_file(split_of(name), path)
            return {}
        case ["usual"]:
            found = usual_way(head, path)
        case [texts, precision]:
            found = our_way(head, name, texts_per_clip=int(texts), precision=precision)
    users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    found["peak_gib"] = sum(resource.getrusage(user).ru_maxrss for user in users) / 2**20
    return found


def measured(*words: str, out: Path) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-P", __file__, "--out", str(out), "--one", *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def report(name: str, head: str, out: Path, rounds: int) -> Iterator[str]:
    """A line for each of our ways: all ways in turn, some rounds, medians."""
    ways = ["20 medium", "1 highest"] if name == "msrvtt" else ["20 medium"]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ("usual", *ways)}
    for _ in range(rounds):
        for way, results in found.items():
            results.append(measured(name, head, way, out=out))
    usual = found["usual"]

    def median(results: Sequence[dict[str, float]], what: str) -> float:
        return float(np.median([result[what] for result in results]))

    for way in ways:
        times = [
            u["seconds_per_query"] / o["seconds_per_query"]
            for u, o in zip(usual, found[way], strict=True)
        ]
        texts, precision = way.split()
        yield (
            f"{name:6} {head:8} {texts:>2} {precision:7}  "
            f"{median(found[way], 'epoch_seconds'):7.1f} s "
            f"{1 / median(found[way], 'seconds_per_query'):9,.0f}/s "
            f"{median(found[way], 'peak_gib'):4.1f} GiB   "
            f"{median(usual, 'epoch_seconds'):7.0f} s "
            f"{1 / median(usual, 'seconds_per_query'):7,.0f}/s "
            f"{median(usual, 'peak_gib'):4.1f} GiB   "
            f"{np.median(times):5.1f} times ({min(times):.1f} to {max(times):.1f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="New or empty folder.")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured_here(*options.one, options.out)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{num_cores()} cores, torch {torch.__version__}, width {WIDTH}, medians of "
        f"{options.rounds} rounds; load average before: {os.getloadavg()[0]:.1f}",
        "captions of a clip, precision; then an epoch, queries a second and peak memory of ours, "
        "and of the usual way",
    ]
    print("\n".join(lines), flush=True)
    for name in ("msrvtt", "tvr"):
        measured(name, "linear", "write", out=options.out)
        for head in ("linear", "residual"):
            for line in report(name, head, options.out, options.rounds):
                print(line, flush=True)
                lines.append(line)
    (options.out / "align.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
