"""Texts and questions through the text tower, into shards; how long texts are for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data_manifests.tables.sentences import split_sentences
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
        arrays: dict[str, np.ndarray] = {}
        if config.keep_tokens:
            features, tokens = _encode_tokens(texts, backbone, config.dtype)
            _name_rows(rows, "token", [len(own) for own in tokens])
            arrays["tokens/features"] = np.concatenate(tokens)
        else:
            features = _encode(texts, backbone)
        sentences = [sentences_to_encode(item.row) for item in work.items]
        _name_rows(rows, "sentence", [len(own) for own in sentences])
        if any(sentences):
            encoded = _encode(list(itertools.chain.from_iterable(sentences)), backbone)
            arrays["sentences/features"] = encoded.astype(config.dtype)
        for row, is_cut in zip(rows, cut_texts(backbone.tokenizer, texts), strict=True):
            row["is_cut"] = is_cut
        arrays["texts/features"] = features.astype(config.dtype)
        commit_shard(cache, "texts", work.name, arrays=arrays, tables={"texts": rows})
        committed(work.name)


def _name_rows(rows: Sequence[dict[str, Any]], what: str, counts: Sequence[int]) -> None:
    """Say in the index rows where each text's tokens or sentences lie; null for none."""
    firsts = [0, *itertools.accumulate(counts)]
    for row, first, count in zip(rows, firsts[:-1], counts, strict=True):
        row |= {f"first_{what}_row": first if count else None, f"num_{what}s": count}


def sentences_to_encode(text: Mapping[str, Any]) -> list[str]:
    """The sentences of a row of the texts table that are encoded by themselves: none of a text with
    a span, nor of one of a single sentence."""
    sentences = [] if text["start_seconds"] is not None else split_sentences(text["text"])
    return sentences if len(sentences) > 1 else []


def cut_line(works: Iterable[Work], *, config: ExtractConfig) -> str | None:
    """A warning about texts that are longer than the tower reads; None where there are none."""
    from .backbones import load_tokenizer

    rows = [item.row for work in works for item in work.items]
    tokenizer = load_tokenizer(config.backbone)
    is_cut = cut_texts(tokenizer, [row["text"] for row in rows])
    cut = [row for row, known in zip(rows, is_cut, strict=True) if known]
    if not cut:
        return None
    sentences = [sentences_to_encode(row) or [row["text"]] for row in cut]
    whole = sum(not any(cut_texts(tokenizer, own)) for own in sentences)
    return (
        f"{len(cut)} of {len(rows)} texts are longer than the {context_length(tokenizer)} tokens "
        f"that the text tower reads, and the rest of them is ignored (first: "
        f"{cut[0]['text_id']}); of {whole} of them all sentences fit, which are read one by one"
    )


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


def context_length(tokenizer: Any) -> int:
    """Tokens that the tower of a tokenizer of open_clip reads, start and end among them."""
    return int(tokenizer.context_length)


def cut_texts(tokenizer: Any, texts: Sequence[str]) -> list[bool | None]:
    """Whether each text has more tokens than the tower reads; None where it cannot be known."""
    limit = context_length(tokenizer)
    lengths: dict[str, int | None] = {}
    for text in dict.fromkeys(texts):
        # A token is one character or more: short texts need no count.
        short = len(text.encode()) + 2 <= limit
        lengths[text] = 0 if short else num_tokens(tokenizer, text)
    counts = [lengths[text] for text in texts]
    return [None if count is None else count > limit for count in counts]


def num_tokens(tokenizer: Any, text: str) -> int | None:
    """Tokens of a text before anything is cut, start and end among them; None where unknown."""
    clean = tokenizer.clean_fn(text) if hasattr(tokenizer, "clean_fn") else text
    inner = getattr(tokenizer, "tokenizer", None)  # of the transformers library
    if inner is not None:
        return len(inner(clean)["input_ids"])
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(clean)) + 2
    return None
