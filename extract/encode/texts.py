"""Texts and questions through the text tower, into shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..cache.writer import commit_shard
from ..config import ExtractConfig
from ..planning.plan import Work

if TYPE_CHECKING:
    from .backbones import Backbone


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
        texts = [item.row["text"] for item in work.items]
        rows = [item.index_row(row) for row, item in enumerate(work.items)]
        if config.keep_tokens:
            features, tokens = _encode_tokens(texts, backbone, config.dtype)
            counts = [len(own) for own in tokens]
            firsts = [0, *itertools.accumulate(counts)]
            for row, first, count in zip(rows, firsts[:-1], counts, strict=True):
                row |= {"first_token_row": first, "num_tokens": count}
            arrays = {"tokens/features": np.concatenate(tokens)}
        else:
            features, arrays = _encode(texts, backbone), {}
        arrays["texts/features"] = features.astype(config.dtype)
        commit_shard(cache, "texts", work.name, arrays=arrays, tables={"texts": rows})
        committed(work.name)


def tokens_to_come(works: Iterable[Work], *, config: ExtractConfig, width: int) -> str:
    """A line that says what the tokens of these texts will take, to the byte."""
    from .backbones import load_tokenizer
    from .text_tokens import count_tokens

    texts = [item.row["text"] for work in works for item in work.items]
    count = int(count_tokens(load_tokenizer(config.backbone), texts).sum())
    size = count * width * np.dtype(config.dtype).itemsize
    return (
        f"tokens of {len(texts)} texts are kept: {count} x {width} {config.dtype}, {size} bytes "
        f"({size / 2**20:.1f} MiB)"
    )


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
    unique, places = _unique(texts)
    return backbone.encode_texts(unique)[places]


def _encode_tokens(
    texts: Sequence[str], backbone: Backbone, dtype: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same, and the tokens of each text."""
    unique, places = _unique(texts)
    features, tokens = backbone.encode_tokens(unique, dtype=dtype)
    return features[places], [tokens[place] for place in places]


def _unique(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different texts, and for each text which of them it is."""
    places: dict[str, int] = {}
    of_texts = [places.setdefault(text, len(places)) for text in texts]
    return list(places), of_texts
