"""Texts and questions through the text tower, into shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .config import ExtractConfig
from .planning import Work
from .writer import commit_shard

if TYPE_CHECKING:
    from .backbone import Backbone


def encode_texts(
    works: Iterable[Work],
    cache: Path,
    *,
    config: ExtractConfig,
    backbone: Backbone,
    committed: Callable[[str], None] = lambda name: None,
) -> None:
    """Commit the features of all texts; `committed` hears the name of every shard.

    Raises CacheError when the disk refuses.
    """
    for work in works:
        features = _encode([item.row["text"] for item in work.items], backbone)
        commit_shard(
            cache,
            "texts",
            work.name,
            arrays={"texts/features": features.astype(config.dtype)},
            tables={"texts": [item.index_row(row) for row, item in enumerate(work.items)]},
        )
        committed(work.name)


def encode_questions(
    works: Iterable[Work],
    cache: Path,
    *,
    config: ExtractConfig,
    backbone: Backbone,
    committed: Callable[[str], None] = lambda name: None,
) -> None:
    """Commit the features of all questions and of their options; see `encode_texts`.

    An option is encoded with its question, "question option": alone, a "yes" or a "red" says
    little. The answer of an open-ended question is encoded alone, since the same answer is one
    class of all questions.
    """
    for work in works:
        questions: list[str] = []
        options: list[str] = []
        rows = []
        for row, item in enumerate(work.items):
            question = item.row["question"]
            rows.append({**item.index_row(row), "first_option_row": len(options)})
            questions.append(question)
            if item.row["kind"] == "open_ended":
                options += [item.row["answer"]] if item.row["answer"] is not None else []
            else:
                options += [f"{question} {option}".strip() for option in item.row["options"] or ()]
        features = _encode(questions + options, backbone).astype(config.dtype)
        arrays = {
            "questions/features": features[: len(questions)],
            "options/features": features[len(questions) :],
        }
        commit_shard(cache, "questions", work.name, arrays=arrays, tables={"questions": rows})
        committed(work.name)


def _encode(texts: Sequence[str], backbone: Backbone) -> np.ndarray:
    """(n, width) float32; equal texts go through the tower once."""
    places: dict[str, int] = {}
    for text in texts:
        places.setdefault(text, len(places))
    features = backbone.encode_texts(list(places))
    return features[[places[text] for text in texts]]
