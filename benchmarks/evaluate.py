"""Exact ranks of a similarity matrix without sorting it, beside two sorts of every row.

The sorting way is CLIP4Clip's for several captions, written plainly: the order of each row's items,
the order of that order, and from it the right item's place. Both are given the finished matrix;
peaks are what numpy holds beside it. Random float32 scores; without ties both must agree.

    OMP_NUM_THREADS=1 python benchmarks/evaluate.py > benchmarks/results/evaluate.txt
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from mlalign.evaluate.index_lists import IndexLists
from mlalign.evaluate.ranks import ranks_of_correct

SIZES = {"MSVD": (27_763, 670), "square": (10_000, 10_000)}
REPEATS = 3
BLOCK = 256
"""Queries at once, as the blockwise ranks of an evaluation have them."""


def main() -> None:
    print(f"numpy {np.__version__}; best of {REPEATS} for ours, one run of the sorts")
    print(f"{'':8}{'queries x items':>18}{'sorts s':>9}{'ours s':>9}{'times':>7}{'MiB':>14}")
    for name, (num_queries, num_items) in SIZES.items():
        rng = np.random.default_rng(0)
        scores_QI = rng.random((num_queries, num_items), dtype=np.float32)
        truth_Q = rng.integers(0, num_items, num_queries)
        sorts, sorted_ranks = seconds(lambda s=scores_QI, t=truth_Q: by_sorting(s, t), repeats=1)
        ours, ranks = seconds(lambda s=scores_QI, t=truth_Q: by_counting(s, t), repeats=REPEATS)
        unlike = int((ranks != sorted_ranks).sum())
        peaks = [
            peak_mib(lambda w=way, s=scores_QI, t=truth_Q: w(s, t))
            for way in (by_sorting, by_counting)
        ]
        size = f"{num_queries:,} x {num_items:,}"
        print(
            f"{name:8}{size:>18}{sorts:>9.2f}{ours:>9.4f}{sorts / ours:>7.0f}"
            f"{peaks[0]:>7.0f}{peaks[1]:>7.1f}   ({unlike} ranks differ: equal scores)",
            flush=True,
        )


def by_sorting(scores_QI: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    """(queries,) 0-based ranks from two full sorts."""
    order = np.argsort(-scores_QI, axis=1)
    places = np.argsort(order, axis=1)
    return places[np.arange(len(truth_Q)), truth_Q]


def by_counting(scores_QI: np.ndarray, truth_Q: np.ndarray) -> np.ndarray:
    """(queries,) 0-based ranks, ties against us, a block of queries at a time."""
    correct = IndexLists.singles(truth_Q)
    parts = []
    for start in range(0, len(truth_Q), BLOCK):
        stop = min(start + BLOCK, len(truth_Q))
        block = correct.slice(start, stop)
        parts.append(ranks_of_correct(scores_QI[start:stop], block, resolution=0.0).ranks)
    return np.concatenate(parts)


def seconds(work: Callable[[], np.ndarray], *, repeats: int) -> tuple[float, np.ndarray]:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - started)
    return min(taken), result


def peak_mib(work: Callable[[], np.ndarray]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


if __name__ == "__main__":
    main()
