"""FAISS indexes at a million segments: build time, size, speed, and what each of them misses.

Clips of twelve segments; a segment is its clip's direction with noise, a query is one segment of
its clip with noise. For every index: the recall of the ten nearest segments, and of the clips that
`ClipSearch` finds by the segment score the R@1 and R@10, beside exact search.

    python benchmarks/index.py                     # a million segments, about ten minutes
    python benchmarks/index.py --segments 100000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from mlalign.evaluate.config import IndexConfig, SegmentScoreConfig
from mlalign.evaluate.indexes.clip_search import ClipSearch
from mlalign.evaluate.indexes.effect import segment_recall
from mlalign.evaluate.indexes.index import build_index, load_or_build_index, nearest
from mlalign.evaluate.scores.vectors import TwoLevelVectors

WIDTH = 256
SEGMENTS_PER_CLIP = 12
NUM_QUERIES = 500
TOP = 10
QUERY_NOISE = 2.5
"""Length of the noise on a query, beside the segment's 1: exact search has to miss some, too."""
KINDS = (
    IndexConfig(),
    IndexConfig(factory="SQfp16"),
    IndexConfig(factory="HNSW32", search="efSearch=128"),
    IndexConfig(factory="IVF2048,SQ8", search="nprobe=64"),
    IndexConfig(factory="IVF2048,PQ32x4fs,Refine(SQ8)", search="nprobe=64,k_factor_rf=4"),
    IndexConfig(factory="IVF2048,RaBitQ", search="nprobe=64"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--kinds", type=int, nargs="*", help="Numbers of the list in this file.")
    given = parser.parse_args()
    clips, queries, right = corpus(given.segments)
    print(
        f"{len(clips.parts):,} segments of {len(clips):,} clips, {WIDTH} wide, "
        f"{NUM_QUERIES} queries, {faiss.omp_get_max_threads()} threads, FAISS {faiss.__version__}"
    )
    print(
        f"{'index':44}{'build s':>9}{'MiB':>7}{'segment':>9}{'recall':>8}{'clip':>8}"
        f"{'clip':>8}{'clips':>9}"
    )
    print(f"{'':44}{'':>9}{'':>7}{'q/s':>9}{'@10 %':>8}{'R@1 %':>8}{'R@10 %':>8}{'q/s':>9}")
    with tempfile.TemporaryDirectory() as folder:
        wholes = build_index(clips.wholes)
        for number in given.kinds or range(len(KINDS)):
            report(KINDS[number], clips, queries, right, wholes, Path(folder))


def corpus(num_segments: int) -> tuple[TwoLevelVectors, np.ndarray, np.ndarray]:
    """Clips, queries (NUM_QUERIES, WIDTH), and the clip of each query."""
    rng = np.random.default_rng(0)
    num_clips = num_segments // SEGMENTS_PER_CLIP
    topics = unit(rng.normal(size=(1000, WIDTH)))
    wholes = unit(topics[rng.integers(0, 1000, num_clips)] + noise(rng, num_clips, 0.8))
    parts = np.repeat(wholes, SEGMENTS_PER_CLIP, axis=0)
    for start in range(0, len(parts), 1 << 18):  # noise in blocks: float64 draws are twice as big
        block = parts[start : start + (1 << 18)]
        block[:] = unit(block + noise(rng, len(block), 0.6))
    offsets = np.arange(num_clips + 1) * SEGMENTS_PER_CLIP
    chosen = rng.integers(0, len(parts), NUM_QUERIES)
    queries = unit(parts[chosen] + noise(rng, NUM_QUERIES, QUERY_NOISE))
    clips = TwoLevelVectors(wholes=wholes, parts=parts, offsets=offsets)
    return clips, queries, chosen // SEGMENTS_PER_CLIP


def report(
    config: IndexConfig,
    clips: TwoLevelVectors,
    queries: np.ndarray,
    right: np.ndarray,
    wholes: object,
    folder: Path,
) -> None:
    kept = load_or_build_index(clips.parts, config, cache=folder)
    seconds = median_time(lambda: nearest(kept.index, queries, TOP))
    search = ClipSearch(
        clips, clip_index=wholes, segment_index=kept.index, segment_score=SegmentScoreConfig()
    )
    clip_seconds = median_time(lambda: search.search(queries, k=TOP, weight=0.0, candidates=TOP))
    found = search.search(queries, k=TOP, weight=0.0, candidates=TOP).clips
    hits = found == right[:, None]
    name = f"{config.factory} {config.search}".strip()
    print(
        f"{name:44}{kept.build_seconds:9.1f}{kept.num_bytes / 2**20:7.0f}"
        f"{len(queries) / seconds:9.0f}{segment_recall(clips.parts, queries, kept):8.1f}"
        f"{100 * hits[:, 0].mean():8.1f}{100 * hits.any(axis=1).mean():8.1f}"
        f"{len(queries) / clip_seconds:9.0f}",
        flush=True,
    )


def median_time(action: Callable[[], object], *, repeats: int = 3) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def noise(rng: np.random.Generator, num: int, size: float) -> np.ndarray:
    """(num, WIDTH) vectors of about this length."""
    return rng.normal(size=(num, WIDTH)).astype(np.float32) * np.float32(size / np.sqrt(WIDTH))


if __name__ == "__main__":
    main()
