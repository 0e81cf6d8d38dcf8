"""A split in memory: the features of its clips, segments, texts and questions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .ragged import Ragged, offsets_of


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionFeatures:
    """K questions about the clips of a split, with the features of their texts."""

    question_ids: list[str]
    """K."""
    kinds: list[str]
    """K, "multiple_choice" or "open_ended"."""
    types: list[str | None]
    """K, the dataset's own question type, for per-type numbers."""
    clips: np.ndarray
    """(K,) int64, index of the question's clip in the split's clip_ids."""
    spans: np.ndarray
    """(K, 2) float64 seconds; NaN where the question is about the whole clip."""
    questions: list[str]
    """K."""
    answers: list[str | None]
    """K, the answer's text, where known."""
    answer_indices: np.ndarray
    """(K,) int64, index of the right option; -1 for open-ended or unlabelled questions."""
    question_features: np.ndarray
    """(K, D) float32, not normalised."""
    option_features: np.ndarray
    """(O, D) float32, not normalised, questions end to end: of the text "question option" of each
    option, or of the answer of an open-ended question where it is known."""
    option_offsets: np.ndarray
    """(K + 1,) int64: question k has options [offsets[k], offsets[k + 1])."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFeatures:
    """All features of one split, in memory. N clips, S segments, T texts, width D.

    In some imported caches text features (of questions and options, too) have a width of their own.
    """

    cache_key: str
    """Digest of everything that changes the numbers; heads remember it."""
    split: str
    """Name of the split, or "all"."""
    segment_rule: str
    """Which rule cut the segments."""
    clip_ids: list[str]
    """N."""
    clip_features: np.ndarray
    """(N, D) float32, mean of the clip's normalised frame features, not normalised again."""
    clip_durations: np.ndarray
    """(N,) float64 seconds."""
    segment_features: np.ndarray
    """(S, D) float32, mean of the segment's normalised frame features, clips end to end."""
    segment_offsets: np.ndarray
    """(N + 1,) int64: clip i has segments [offsets[i], offsets[i + 1]), at least one."""
    segment_spans: np.ndarray
    """(S, 2) float64 seconds from the clip's start, [start, end)."""
    text_ids: list[str]
    """T."""
    texts: list[str]
    """T."""
    text_features: np.ndarray
    """(T, D) float32, as the text tower gives them, not normalised."""
    text_clips: np.ndarray
    """(T,) int64, index of the text's clip in clip_ids."""
    text_spans: np.ndarray
    """(T, 2) float64 seconds from the clip's start; NaN for texts of the global level."""
    num_failed_clips: int
    """Clips of the split that have no features; they and their texts are left out."""
    questions: QuestionFeatures
    """The questions about these clips; may be empty."""
    num_partial_clips: int = 0
    """Clips of the split whose video was cut short, whether they are among these or left out."""
    frames: Ragged | None = None
    """Of the clips, by time, as stored and not normalised, one or more each. None where they were
    not asked for."""
    tokens: Ragged | None = None
    """Of the texts; None where they were not asked for."""
    sentences: Ragged | None = None
    """(K, D) float32 features of the sentences of the T texts; a text of one sentence has none
    here. None where the cache does not have them."""
    clip_videos: np.ndarray | None = None
    """(N,) int64, equal for clips of one video file; None: every clip is a video of its own."""
    clip_starts: np.ndarray | None = None
    """(N,) float64 seconds, where each clip starts in its video; None: at 0."""

    @property
    def text_is_segment(self) -> np.ndarray:
        """(T,) bool, whether a text belongs to a span of its clip."""
        is_global: np.ndarray = np.isnan(self.text_spans[:, 0])
        return ~is_global


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
