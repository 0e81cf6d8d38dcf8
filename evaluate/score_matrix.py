"""Retrieval scores of a similarity matrix of texts and videos, by the dataset's protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..data_manifests.build import QUERY_KINDS, read_official_files
from ..data_manifests.cards import Card
from ..data_manifests.importers.ledger import Ledger
from .config import CaptionRule, TiePolicy
from .matrix_ranks import MatrixRanks, item_ranks, video_to_text_ranks
from .metrics import discounted_gain, geometric_mean, median_rank, recall_at, reciprocal_rank
from .prediction_files import FileFaults, PredictionError, read_csv, read_json

KS: Final = (1, 5, 10, 50)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalRules:
    """The choices that change the numbers."""

    ties: TiePolicy = "against"
    """Where equal scores rank."""
    captions: CaptionRule = "captions"
    """What a video's several captions are ranked among."""
    lower_median: bool = False
    """The lower of the middle two (torch) in place of their mean."""
    recall_ks: tuple[int, ...] = KS
    """The K of R@K; R@1, R@5 and R@10 are always there."""


def score_matrix(
    predictions: Path,
    annotations: Path,
    rules: RetrievalRules,
    *,
    card: Card | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Percent with two digits, both directions; Rsum is of R@1, 5 and 10 of both.

    predictions: .npz of scores (texts, videos), text_ids, video_ids in any order (and resolution:
    scores no farther apart are ties), or .npy in the annotations' order. annotations: a CSV of key,
    video_id, or JSON {video_id: [captions]}, whose text ids are VIDEO#K with K from 0; or the
    folder of a card's official files, of which the split is asked. Videos come in the order of
    their first text, those without any last.
    """
    if annotations.is_dir() and card is not None:
        owners, videos = card_owners(card, annotations, split or card.test_split)
    else:
        owners = read_owners(annotations)
        videos = list(dict.fromkeys(owners.values()))
    scores_TV, resolution = _read_scores(predictions, list(owners), videos)
    position = {video: number for number, video in enumerate(videos)}
    video_of_T = np.array([position[video] for video in owners.values()])
    found = {
        "t2v": item_ranks(scores_TV, video_of_T, ties=rules.ties, resolution=resolution),
        "v2t": video_to_text_ranks(
            scores_TV[:, : video_of_T.max() + 1],
            video_of_T,
            captions=rules.captions,
            ties=rules.ties,
            resolution=resolution,
        ),
    }
    scores: dict[str, Any] = {name: _numbers(ranks, rules) for name, ranks in found.items()}
    recalls = [recall_at(ranks.ranks, k).mean() for ranks in found.values() for k in (1, 5, 10)]
    return scores | {"Rsum": round(float(sum(recalls)), 2)}


def read_owners(path: Path) -> dict[str, str]:
    """Text id -> video id, in the order of the file."""
    if path.suffix == ".csv":
        rows = read_csv(path, ("key", "video_id"))
        faults = FileFaults(path)
        found = faults.index(rows, "key")
        faults.raise_if_any()
        return {key: str(row["video_id"]) for key, row in found.items()}
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise PredictionError(f"{path}: expected an object of videos with lists of captions")
    return {
        f"{video}#{k}": video for video, several in content.items() for k in range(len(several))
    }


def card_owners(card: Card, folder: Path, split: str) -> tuple[dict[str, str], list[str]]:
    """Text id -> clip id of a split's queries as the tables have them, and its clips.

    Clips without a query come last. Raises ManifestError for files that cannot be read.
    """
    rows, _ = read_official_files(card, folder, Ledger())
    kinds = QUERY_KINDS[card.queries]
    in_split = [name for name, clip in rows.clips.items() if clip.split == split]
    wanted = set(in_split)
    owners = {
        text_id: row[0]
        for text_id, row in rows.texts.items()
        if row[1] in kinds and row[3] is None and row[0] in wanted
    }
    if not owners:
        raise PredictionError(f"{folder}: no queries of split {split!r}; give it with --split")
    return owners, list(dict.fromkeys([*owners.values(), *in_split]))


def _read_scores(path: Path, texts: list[str], videos: list[str]) -> tuple[np.ndarray, float]:
    """(texts, videos) in the annotations' order, and how near scores are ties."""
    try:
        content = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PredictionError(f"{path}: expected a .npy or .npz of numbers: {error}") from error
    faults = FileFaults(path)
    given_texts, given_videos, scores, resolution = texts, videos, content, 0.0
    if not isinstance(content, np.ndarray):
        with content:
            absent = [name for name in ("scores", "text_ids", "video_ids") if name not in content]
            if absent:
                raise PredictionError(f"{path}: expected the arrays {', '.join(absent)} as well")
            scores = content["scores"]
            resolution = float(content["resolution"]) if "resolution" in content else 0.0
            given_texts = [str(name) for name in content["text_ids"]]
            given_videos = [str(name) for name in content["video_ids"]]
    for what, given, wanted in (("text", given_texts, texts), ("video", given_videos, videos)):
        faults.match(given, wanted, what=what)
        faults.index([{what: name} for name in given], what)
    if scores.shape != (len(given_texts), len(given_videos)):
        wanted_shape = (len(given_texts), len(given_videos))
        faults.add(f"scores: expected the shape {wanted_shape}, got {scores.shape}")
    elif not np.issubdtype(scores.dtype, np.number):
        faults.add(f"scores: expected numbers, got {scores.dtype}")
    else:
        for row, column in np.argwhere(~np.isfinite(scores)):
            score = scores[row, column]
            faults.add(f"scores: {given_texts[row]}, {given_videos[column]} is {score}")
    faults.raise_if_any()
    rows = {name: number for number, name in enumerate(given_texts)}
    columns = {name: number for number, name in enumerate(given_videos)}
    chosen = np.ix_([rows[name] for name in texts], [columns[name] for name in videos])
    return np.asarray(scores[chosen]), resolution


def _numbers(found: MatrixRanks, rules: RetrievalRules) -> dict[str, float]:
    ranks = found.ranks
    ks = sorted({1, 5, 10, *rules.recall_ks})
    recalls = {f"R@{k}": float(recall_at(ranks, k).mean()) for k in ks}
    mean = float(geometric_mean(np.array([recalls["R@1"], recalls["R@5"], recalls["R@10"]])))
    numbers = recalls | {
        "MdR": median_rank(ranks, lower=rules.lower_median),
        "MnR": float(ranks.mean()) + 1,
        "geometric mean": mean,
    }
    rounded = {name: round(value, 2) for name, value in numbers.items()}
    rounded |= {
        "MRR": round(float(reciprocal_rank(ranks).mean()), 4),
        "nDCG@10": round(float(discounted_gain(ranks).mean()), 4),
    }
    return rounded | {"queries": len(ranks), "tied queries": found.num_tied}
