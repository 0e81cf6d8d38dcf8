"""The read side of a cache: open it with h5py and pyarrow, gather a split into memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    """(O, D) float32, of the text "question option", questions end to end, not normalised."""
    option_offsets: np.ndarray
    """(K + 1,) int64: question k has options [offsets[k], offsets[k + 1])."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFeatures:
    """All features of one split, in memory. N clips, S segments, T texts, width D."""

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

    @property
    def text_is_segment(self) -> np.ndarray:
        """(T,) bool, whether a text belongs to a span of its clip."""
        return ~np.isnan(self.text_spans[:, 0])
