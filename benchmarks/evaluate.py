"""Exact ranks without sorting, beside the sorts that others find them with.

Four of them, written plainly; each makes the whole matrix of scores first:
    sort       every row sorted, and where the right item's score stands (CLIP4Clip and X-Pool with
               one caption per clip, CE)
    padded     several captions per clip as CLIP4Clip and X-Pool do it, so MSVD's way: every clip
               padded to the most captions of one, then `argsorts`
    argsorts   the order of each row's items, and the order of that order, by torch on all threads
    row loop   the order of each row by itself, and where the right item stands (LAVIS)
Two tables: ranks of a finished matrix; and from the vectors on, where ours makes a block at a time.
Random unit vectors of width 512; without ties all must agree. MiB: peak beside vectors and matrix.

    OMP_NUM_THREADS=1 python benchmarks/evaluate.py > benchmarks/results/evaluate.txt

--huge instead: 100,000 texts and clips through the ranks of an evaluation, with the global, the
segment and the fused score of clips of two segments, and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import resource
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

from mlalign.evaluate.config import SegmentScoreConfig
from mlalign.evaluate.scores.ranks import ranks_of_correct
from mlalign.evaluate.scores.similarity import BLOCK_BYTES, retrieval_ranks
from mlalign.evaluate.scores.vectors import TwoLevelVectors
from mlalign.extract.cache.ragged import Ragged

SIZES = {"MSVD": (27_763, 670), "square": (10_000, 10_000)}
MOST_CAPTIONS = 81
"""Of one of MSVD's test clips (a clip has 21 to 81); random ones stay below."""
WIDTH = 512
REPEATS = 5
ENOUGH_SECONDS = 5
"""What takes longer altogether is not repeated."""
HUGE = 100_000
HUGE_WIDTH = 256
SEGMENTS = 2

Way = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(queries, items) scores and (queries,) right items to (queries,) 0-based ranks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--huge", action="store_true")
    threads = f"{torch.get_num_threads()} threads"
    print(f"numpy {np.__version__}, torch {torch.__version__}, {threads}", flush=True)
    if parser.parse_args().huge:
        huge()
        return
    print(f"best of up to {REPEATS}; in brackets, how many times ours\n")
    for name, (num_queries, num_items) in SIZES.items():
        compare(name, num_queries, num_items)


def compare(name: str, num_queries: int, num_items: int) -> None:
    rng = np.random.default_rng(0)
    queries, items = unit(rng, num_queries), unit(rng, num_items)
    truth = rng.integers(0, num_items, num_queries)
    scores = queries @ items.T
    ways: dict[str, Way] = {"sort": by_sort, "argsorts": by_argsorts, "row loop": by_row}
    if name == "MSVD":
        ways["padded"] = by_padded_argsorts
    print(f"{name}, {num_queries:,} x {num_items:,}")
    ours, expected = seconds(lambda: by_counting(scores, truth))
    blocks, _ = seconds(lambda: in_blocks(queries, items, truth))
    peak = peak_mib(lambda: in_blocks(queries, items, truth))
    counting = peak_mib(lambda: by_counting(scores, truth))
    print(f"  {'ours':10}{ours:9.4f} s{'':9}{counting:8.1f} MiB", end="")
    print(f"     from vectors {blocks:8.3f} s{'':7}{peak:8.1f} MiB", flush=True)
    for label, way in ways.items():
        alone, ranks = seconds(lambda w=way: w(scores, truth))
        whole, _ = seconds(lambda w=way: w(queries @ items.T, truth))
        unlike = int((ranks != expected).sum())
        peak = peak_mib(lambda w=way: w(scores, truth))
        held = "   torch's    " if "argsorts" in way.__name__ else f"{peak:8.1f} MiB  "
        print(f"  {label:10}{alone:9.4f} s ({alone / ours:4.0f} x){held}", end="")
        print(f"   from vectors {whole:8.3f} s ({whole / blocks:3.1f} x)", end="")
        print(f"   {unlike} ranks differ (equal scores)", flush=True)


def by_sort(scores_QI: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    own_Q1 = np.take_along_axis(scores_QI, truth_Q[:, None], axis=1)
    queries, places = np.nonzero(np.sort(-scores_QI, axis=1) == -own_Q1)
    return places[np.searchsorted(queries, np.arange(len(truth_Q)))]


def by_argsorts(scores_QI: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    order = torch.argsort(torch.from_numpy(scores_QI), dim=1, descending=True)
    places = torch.argsort(order, dim=1)
    return places[torch.arange(len(truth_Q)), torch.from_numpy(truth_Q)].numpy()


def by_padded_argsorts(scores_QI: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    num_clips = scores_QI.shape[1]
    caption_Q = np.empty_like(truth_Q)  # the how manyeth of its clip
    for clip in range(num_clips):
        own = np.flatnonzero(truth_Q == clip)
        caption_Q[own] = np.arange(len(own))
    padded_CII = torch.full((MOST_CAPTIONS, num_clips, num_clips), -torch.inf)
    padded_CII[caption_Q, truth_Q] = torch.from_numpy(scores_QI)
    order = torch.argsort(padded_CII, dim=-1, descending=True)
    places = torch.argsort(order, dim=-1)
    return torch.diagonal(places, dim1=1, dim2=2)[caption_Q, truth_Q].numpy()


def by_row(scores_QI: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    pairs = zip(scores_QI, truth_Q, strict=True)
    return np.array([np.where(np.argsort(row)[::-1] == item)[0][0] for row, item in pairs])


def by_counting(scores_QI: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    return ranks_of_correct(scores_QI, Ragged.singles(truth_Q), resolution=0.0).ranks


def in_blocks(queries_QW: np.ndarray, items_IW: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    """Products and ranks a block at a time, as in an evaluation."""
    at_once = BLOCK_BYTES // (4 * len(items_IW))
    parts = [
        by_counting(queries_QW[start : start + at_once] @ items_IW.T, truth_Q[start:][:at_once])
        for start in range(0, len(queries_QW), at_once)
    ]
    return np.concatenate(parts)


def huge() -> None:
    imported = process_mib()
    rng = np.random.default_rng(0)
    texts = two_level(unit(rng, HUGE, HUGE_WIDTH), parts=1)
    clips = two_level(unit(rng, HUGE, HUGE_WIDTH), parts=SEGMENTS)
    arrays = {id(a): a for side in (texts, clips) for a in (side.wholes, side.parts)}
    vectors = sum(array.nbytes for array in arrays.values()) / 2**20
    before = process_mib()
    started = time.perf_counter()
    found = retrieval_ranks(
        texts,
        clips,
        Ragged.singles(np.arange(HUGE)),
        direction="text_to_clip",
        weights=[1.0, 0.0, 0.5],
        segment_score=SegmentScoreConfig(),
    )
    taken = time.perf_counter() - started
    print(f"{HUGE:,} x {HUGE:,}, {SEGMENTS} segments a clip, width {HUGE_WIDTH}: {taken:.0f} s")
    print(f"process: {imported:.0f} MiB with its libraries, {before:.0f} with the vectors too")
    print(f"(of {vectors:.0f} MiB), {process_mib():.0f} at the peak of the ranks")
    print(f"mean ranks by global, segment, fused: {[round(r.ranks.mean()) for r in found]}")


def two_level(wholes: np.ndarray, *, parts: int) -> TwoLevelVectors:
    """Each item with `parts` parts, all like the whole."""
    vectors = wholes if parts == 1 else np.repeat(wholes, parts, axis=0)
    return TwoLevelVectors(wholes=wholes, parts=vectors, offsets=np.arange(len(wholes) + 1) * parts)


def unit(rng: np.random.Generator, num: int, width: int = WIDTH) -> np.ndarray:
    vectors = rng.standard_normal((num, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def process_mib() -> float:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def seconds(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    taken: list[float] = []
    while len(taken) < REPEATS and sum(taken) < ENOUGH_SECONDS:
        started = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - started)
    return min(taken), result


def peak_mib(work: Callable[[], np.ndarray]) -> float:
    """Of what numpy holds beside the inputs; what torch holds is not seen."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


if __name__ == "__main__":
    main()
