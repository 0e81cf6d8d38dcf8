"""Predictions as the official scorers and servers of the benchmarks take them: values to files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.card import Card, ImporterName
from ...data_manifests.core.atomic_write import atomic_write
from ..scores.ranks import SCORE_RESOLUTION

SCORE_DIGITS: Final = 6
SECOND: Final = "@val_2"
"""What our ids of ActivityNet's second annotation have behind the video's."""
ANSWER_LISTS: Final[Mapping[ImporterName, str]] = {
    "activitynet_qa": "question_id",
    "xu_qa": "id",
}
"""Importers whose open-ended answers are records, and the key of the question's id there."""
NUM_OPTIONS: Final[Mapping[ImporterName, int]] = {
    **{"next_qa": 5, "tvqa": 5, "msrvtt_choice": 5, "lsmdc_choice": 5},
    **{"how2qa": 4, "vlep": 2, "violin": 2},
}
"""Of every question, by the importer; an answer is the index of one of them."""


def official_id(name: str) -> str | int:
    """An id as the official files have it: a number where it is one."""
    return int(name) if name.isdecimal() and str(int(name)) == name else name


def sentence_id(text_id: str) -> str:
    """VIDEO_K, the K-th sentence of a video, of our VIDEO#K."""
    clip_id, _, number = text_id.rpartition("#")
    return f"{clip_id.removesuffix(SECOND)}_{number}"


def answer_content(
    card: Card, answers: Mapping[str, int | str], known: Mapping[str, int]
) -> tuple[Any, str]:
    """The content of a file of answers, and the ending of its name.

    answers: by question id, an option's index or an answer's text.   known: right options, where
    the split has them; NExT-QA's files carry them along.
    """
    match card.importer:
        case "next_qa":
            return {
                name: {"prediction": answer} | ({"answer": known[name]} if name in known else {})
                for name, answer in answers.items()
            }, ".json"
        case "vlep":
            return [
                {"example_id": official_id(name), "pred_ans": answer}
                for name, answer in answers.items()
            ], ".jsonl"
        case "activitynet_qa" | "xu_qa":
            key = ANSWER_LISTS[card.importer]
            return [
                {key: official_id(name), "answer": answer} for name, answer in answers.items()
            ], ".json"
        case _:
            return dict(answers), ".json"


def answer_moment_content(
    answers: Mapping[str, int | str], spans: Mapping[str, np.ndarray]
) -> tuple[Any, str]:
    """TVQA+: {"ts_answer": {qid: [[start, end], index]}}."""
    pairs = {name: [spans[name].tolist(), answer] for name, answer in answers.items()}
    return {"ts_answer": pairs}, ".json"


def window_content(moments: Mapping[str, np.ndarray]) -> tuple[Any, str]:
    """Charades-STA, TACoS, ActivityNet: records {qid, pred_relevant_windows}."""
    return [
        {"qid": name, "pred_relevant_windows": scored_rows(windows)}
        for name, windows in moments.items()
    ], ".jsonl"


def highlight_record(
    query_id: str, query: str, video: str, windows: np.ndarray, saliency: np.ndarray
) -> dict[str, Any]:
    """A line of a QVHighlights submission."""
    return {
        "qid": official_id(query_id),
        "query": query,
        "vid": video,
        "pred_relevant_windows": scored_rows(windows),
        "pred_saliency_scores": [round(float(score), SCORE_DIGITS) for score in saliency],
    }


def corpus_record(
    query_id: str, query: str, clips: Sequence[int], moments: np.ndarray
) -> dict[str, Any]:
    """A query's record in a TVR submission: rows of video, start, end and score."""
    rows = [[int(clip), *row] for clip, row in zip(clips, scored_rows(moments), strict=True)]
    return {"desc_id": official_id(query_id), "desc": query, "predictions": rows}


def scored_rows(moments: np.ndarray) -> list[list[float]]:
    """(n, 3) start, end, score: times as they are, since an IoU may be just enough."""
    return [[start, end, round(score, SCORE_DIGITS)] for start, end, score in moments.tolist()]


def write_content(content: Any, path: Path) -> None:
    """A JSON file, or for .jsonl a line for each record; whole or not at all."""
    lines = content if path.suffix == ".jsonl" else [content]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text)


def write_similarities(
    scores_TV: np.ndarray, text_ids: Iterable[str], clip_ids: Iterable[str], path: Path
) -> None:
    """An .npz of scores (texts, videos), text_ids and video_ids, in any order of ids.

    resolution: scores nearer than this are ties, since float32 products are no surer.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(
                file,
                scores=scores_TV,
                text_ids=np.array(list(text_ids), dtype=np.str_),
                video_ids=np.array(list(clip_ids), dtype=np.str_),
                resolution=np.float64(SCORE_RESOLUTION),
            )

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, write)
