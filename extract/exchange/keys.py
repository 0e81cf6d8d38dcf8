"""Which features belong to which clip or text: the names that other tools give their files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from ..cache.contract import option_counts


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipKey:
    """Where the features of a clip are."""

    key: str
    is_whole_video: bool
    """The rows are of the clip's whole video, and the clip is cut out of them."""


def clip_keys(clips: Sequence[Mapping[str, Any]], keys: Container[str]) -> dict[str, ClipKey]:
    """Clip id to the first of these keys that is there: the clip's id, its video's path, that
    without suffix, the video's name without suffix where only one video has it; each plain or with
    the ending "_clip" of video_features. Clips with none of them are left out.

    clips: rows of a manifest. A key that is a name of the video, be it the clip's id as well, has
    the features of the whole video.
    """
    videos = {_without_suffix(row["video_path"]) for row in clips}
    owners = Counter(PurePosixPath(video).name for video in videos)
    found = {}
    for row in clips:
        video = _without_suffix(row["video_path"])
        stem = PurePosixPath(video).name
        of_video = [row["video_path"], video, *([stem] if owners[stem] == 1 else [])]
        for name in (row["clip_id"], *of_video):
            key = _first([name, f"{name}_clip"], keys)
            if key is not None:
                found[row["clip_id"]] = ClipKey(key=key, is_whole_video=name in of_video)
                break
    return found


def text_keys(text_ids: Sequence[str], keys: Container[str]) -> dict[str, str]:
    """Text id to its key: the id, or "qid" and the id, as Moment-DETR has it.

    The moments of one query, QID/0, QID/1 ..., also have the key of the query.
    """
    found = {}
    for text_id in text_ids:
        query_id = re.sub(r"/\d+$", "", text_id)
        key = _first([text_id, f"qid{text_id}", query_id, f"qid{query_id}"], keys)
        if key is not None:
            found[text_id] = key
    return found


def question_keys(questions: pa.Table, keys: Container[str]) -> dict[str, tuple[str | None, ...]]:
    """Question id to the keys of its question, and then of its options: ID_q (or ID), ID_a0, ID_a1
    ..., each with or without "qid" before it, as TVQA's files of features have them.

    The one option of an open-ended question is its answer, where that is known. The key of a
    question without words is None where it has no features: it needs none. Questions that lack any
    other key are left out. questions: the table of a manifest.
    """
    found = {}
    columns = (questions["question_id"].to_pylist(), questions["question"].to_pylist())
    for question_id, question, count in zip(*columns, option_counts(questions), strict=True):
        names = (question_id, f"qid{question_id}")
        own = _first([*(f"{name}_q" for name in names), *names], keys)
        options = [_first([f"{name}_a{k}" for name in names], keys) for k in range(count)]
        if None not in options and (own is not None or not question):
            found[question_id] = (own, *options)
    return found


def _first(names: Sequence[str], keys: Container[str]) -> str | None:
    return next((name for name in names if name in keys), None)


def _without_suffix(video_path: str) -> str:
    path = PurePosixPath(video_path)
    return (path.parent / path.stem).as_posix()
