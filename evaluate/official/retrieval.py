"""Retrieval scores of a similarity matrix of texts and videos, by the dataset's protocol."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.annotations.row_log import RowLog
from ...data_manifests.building.build import QUERY_KINDS, read_official_files
from ...data_manifests.cards.card import Card
from ...data_manifests.cards.scoring_rules import CaptionRule, RetrievalRules, TiePolicy
from ...data_manifests.core.faults import excerpt
from ...extract.cache.ragged import Ragged
from ..scores.metrics import (
    discounted_gain,
    geometric_mean,
    median_rank,
    recall_at,
    reciprocal_rank,
)
from ..scores.ranks import Ranks, ranks_of_correct, ranks_of_groups
from .files import MAX_LISTED_FAULTS, FileFaults, PredictionError, read_csv, read_json

KS: Final = (1, 5, 10, 50)
"""The K of R@K that are always printed, beside the rules' own."""
UNREADABLE: Final = (
    *(ValueError, EOFError, OSError, LookupError, TypeError, SyntaxError, MemoryError),
    *(ArithmeticError, RuntimeError, zlib.error, zipfile.BadZipFile, struct.error),
    tokenize.TokenError,
)
"""What numpy and zipfile raise for bytes that are no arrays."""


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
    given: dict[str, Any] = {"ties": rules.ties, "resolution": resolution}
    ranks_of = {
        "t2v": ranks_of_correct(scores_TV, Ragged.singles(video_of_T), **given),
        "v2t": video_to_text_ranks(scores_TV, video_of_T, rules.several_captions, **given),
    }
    scores: dict[str, Any] = {
        name: _numbers(ranks, rules, lower_median=rules.median == "lower" and name == "t2v")
        for name, ranks in ranks_of.items()
    }
    recalls = [recall_at(ranks.ranks, k).mean() for ranks in ranks_of.values() for k in (1, 5, 10)]
    return scores | {"Rsum": round(float(sum(recalls)), 2)}


def video_to_text_ranks(
    scores_TV: np.ndarray,
    video_of_T: np.ndarray,
    captions: CaptionRule,
    *,
    ties: TiePolicy,
    resolution: float = 0.0,
) -> Ranks:
    """Ranks of the captions of the V videos that have any, the first ones.

    scores_TV: (texts, videos).   video_of_T: (texts,) index of each text's video.
    clips: a video's captions count by their best score, and videos are ranked (CLIP4Clip, X-Pool).
    captions: the best own caption's rank among all captions; the other own captions level with it
    do not count (LAVIS), but with the policy `mean`, where they are ties like others (CE,
    frozen-in-time).
    """
    num_videos = int(video_of_T.max()) + 1
    texts_of_V = Ragged.grouped(video_of_T, num_groups=num_videos)
    by_clip = captions == "clips"
    return ranks_of_groups(
        scores_TV[:, :num_videos].T,
        Ragged.singles(np.arange(num_videos)) if by_clip else texts_of_V,
        groups=texts_of_V if by_clip else None,
        ties=ties,
        resolution=resolution,
        with_places=False,
    )


def read_owners(path: Path) -> dict[str, str]:
    """Text id -> video id, in the order of the file."""
    if path.suffix == ".csv":
        rows = read_csv(path, ("key", "video_id"))
        faults = FileFaults(path)
        records = faults.index(rows, "key")
        faults.raise_if_any()
        return {key: str(row["video_id"]) for key, row in records.items()}
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise PredictionError(f"{path}: expected an object of videos with lists of captions")
    if not any(content.values()):
        raise PredictionError(f"{path}: expected captions, got none")
    return {
        f"{video}#{k}": video for video, several in content.items() for k in range(len(several))
    }


def card_owners(card: Card, folder: Path, split: str) -> tuple[dict[str, str], list[str]]:
    """Text id -> clip id of a split's queries as the tables have them, and its clips.

    Clips without a query come last. Raises ManifestError for files that cannot be read.
    """
    rows, _ = read_official_files(card, folder, RowLog())
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
    faults = FileFaults(path)
    arrays = _read_arrays(path, texts, videos)
    given = {name: _ids(arrays[name], name, faults) for name in ("text_ids", "video_ids")}
    given_texts, given_videos = given["text_ids"], given["video_ids"]
    for what, names, wanted in (("text", given_texts, texts), ("video", given_videos, videos)):
        if names is not None:
            faults.match(names, wanted, what=what)
            faults.index([{what: name} for name in names], what)
    _check_scores(arrays["scores"], given_texts, given_videos, faults)
    resolution = _resolution(arrays["resolution"], faults)
    faults.raise_if_any()
    assert given_texts is not None and given_videos is not None
    rows = {name: number for number, name in enumerate(given_texts)}
    columns = {name: number for number, name in enumerate(given_videos)}
    chosen = np.ix_([rows[name] for name in texts], [columns[name] for name in videos])
    return np.asarray(arrays["scores"][chosen]), resolution


def _read_arrays(path: Path, texts: list[str], videos: list[str]) -> dict[str, np.ndarray]:
    """What an .npz holds; of an .npy the scores, with the annotations' ids."""
    wanted = ("scores", "text_ids", "video_ids")
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                ids = {"text_ids": np.array(texts), "video_ids": np.array(videos)}
                arrays = {"scores": content, **ids}
            else:
                names = (*wanted, "resolution")
                arrays = {name: content[name] for name in names if name in content}
    except UNREADABLE as error:
        # numpy's own advice is to read what is pickled, which runs whatever it says.
        why = (
            "it has pickled objects (ids are texts: dtype=str), or other bytes"
            if "pickle" in str(error)
            else error
        )
        raise PredictionError(f"{path}: expected a .npy or .npz of numbers: {why}") from error
    odd = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    if odd:
        raise PredictionError(f"{path}: expected arrays, but {', '.join(odd)} is none")
    absent = [name for name in wanted if name not in arrays]
    if absent:
        raise PredictionError(f"{path}: expected the arrays {', '.join(absent)} as well")
    return {"resolution": np.array(0.0), **arrays}


def _ids(values: np.ndarray, name: str, faults: FileFaults) -> list[str] | None:
    """Ids of a list of texts or whole numbers; notes anything else, which gives None."""
    if values.ndim == 1 and values.dtype.kind in "Uiu":
        return [str(value) for value in values.tolist()]
    if values.ndim == 1 and values.dtype.kind == "S":
        try:
            return [value.decode() for value in values.tolist()]
        except UnicodeDecodeError:
            faults.add(f"{name}: expected UTF-8 texts")
            return None
    faults.add(f"{name}: expected a list of ids, got {values.dtype} of shape {values.shape}")
    return None


def _check_scores(
    scores: np.ndarray, texts: list[str] | None, videos: list[str] | None, faults: FileFaults
) -> None:
    """Notes scores of another type or shape, and those that are not finite."""
    if scores.dtype.kind not in "iuf":
        faults.add(f"scores: expected numbers, got {scores.dtype}")
        return
    if texts is None or videos is None:
        return
    if scores.shape != (len(texts), len(videos)):
        wanted = (len(texts), len(videos))
        faults.add(f"scores: expected the shape (texts, videos) {wanted}, got {scores.shape}")
        return
    odd = np.flatnonzero(~np.isfinite(scores))
    for place in odd[:MAX_LISTED_FAULTS]:
        row, column = divmod(int(place), len(videos))
        faults.add(f"scores: {texts[row]}, {videos[column]} is {scores[row, column]}")
    faults.add_unlisted(max(0, len(odd) - MAX_LISTED_FAULTS))


def _resolution(value: np.ndarray, faults: FileFaults) -> float:
    if value.size == 1 and value.dtype.kind in "iuf" and 0 <= value.item() < np.inf:
        return float(value.item())
    faults.add(f"resolution: expected a number of at least 0, got {excerpt(value.tolist())}")
    return 0.0


def _numbers(query_ranks: Ranks, rules: RetrievalRules, *, lower_median: bool) -> dict[str, float]:
    ranks = query_ranks.ranks
    ks = sorted({*KS, *rules.recall_ks})
    recalls = {f"R@{k}": float(recall_at(ranks, k).mean()) for k in ks}
    mean = float(geometric_mean(np.array([recalls["R@1"], recalls["R@5"], recalls["R@10"]])))
    numbers = recalls | {
        "MdR": median_rank(ranks, lower=lower_median),
        "MnR": float(ranks.mean()) + 1,
        "geometric mean": mean,
    }
    rounded = {name: round(value, 2) for name, value in numbers.items()}
    rounded |= {
        "MRR": round(float(reciprocal_rank(ranks).mean()), 4),
        "nDCG@10": round(float(discounted_gain(ranks).mean()), 4),
    }
    return rounded | {"queries": len(ranks), "tied queries": int(query_ranks.tied.sum())}
