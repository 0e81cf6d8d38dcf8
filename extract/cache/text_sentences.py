"""The sentences of each text of a split: a paragraph is read sentence by sentence."""

from __future__ import annotations

import re

import numpy as np

from .ragged import Ragged, offsets_of
from .store import SplitFeatures


def sentence_features(split: SplitFeatures) -> np.ndarray:
    """(P, D) float32: row t < T is the feature of text t itself, the rest are sentences that were
    split off at extraction."""
    if split.sentences is None or not len(split.sentences.values):
        return split.text_features
    return np.concatenate([split.text_features, split.sentences.values])


def sentences_of_texts(split: SplitFeatures) -> Ragged:
    """The sentences of each of the T texts: lists of rows of `sentence_features`, none empty.

    A global text consists of the segment texts of its clip whose words stand in it, as in the
    paragraph of a clip's captions; else of the sentences that it was split into at extraction;
    else of itself alone. A segment text consists of itself. That the words must stand in the text
    keeps other annotations of the clip from leaking into a query.
    """
    extracted, num_texts = split.sentences, len(split.texts)
    inside = _segment_texts_inside(split)
    counts = np.array([len(inside.get(text, ())) for text in range(num_texts)], dtype=np.int64)
    was_split = np.zeros(num_texts, dtype=bool)
    if extracted is not None:
        was_split = (counts == 0) & (extracted.counts > 0) & ~split.text_is_segment
        counts[was_split] = extracted.counts[was_split]
    counts[counts == 0] = 1
    offsets = offsets_of(counts)
    rows = np.repeat(np.arange(num_texts), counts)
    for text, sentences in inside.items():
        rows[offsets[text] : offsets[text + 1]] = sentences
    if extracted is not None:
        for text in np.flatnonzero(was_split).tolist():
            first = num_texts + extracted.offsets[text]
            rows[offsets[text] : offsets[text + 1]] = np.arange(first, first + counts[text])
    return Ragged(values=rows, offsets=offsets)


def _segment_texts_inside(split: SplitFeatures) -> dict[int, list[int]]:
    """For each global text with any, the segment texts of its clip whose words stand in it."""
    is_segment = split.text_is_segment
    of_clip: dict[int, list[int]] = {}
    for row in np.flatnonzero(is_segment):
        of_clip.setdefault(int(split.text_clips[row]), []).append(int(row))
    words = {row: _words(split.texts[row]) for rows in of_clip.values() for row in rows}
    inside = {}
    for text in np.flatnonzero(~is_segment):
        candidates = of_clip.get(int(split.text_clips[text]))
        if candidates:
            paragraph = _words(split.texts[text])
            rows = [row for row in candidates if words[row].strip() and words[row] in paragraph]
            if rows:
                inside[int(text)] = rows
    return inside


def _words(text: str) -> str:
    """The text's words, lower case, one space before, between and after them."""
    return " " + " ".join(re.findall(r"\w+", text.casefold())) + " "
