"""A split as unit vectors of the shared space: clips and segments, texts and sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...align.data.question_segments import question_segments
from ...align.loss_config import GlobalFrom, QuestionSpans
from ...align.model.model import AlignmentModel
from ...align.model.token_interaction import token_scores
from ...data_manifests.core.errors import UserError
from ...extract.cache.ragged import Ragged, offsets_of, ragged_rows
from ...extract.cache.split_features import SplitFeatures, sentence_features, sentences_of_texts

ENCODE_ROWS = 16384
"""Features that go through the heads at once."""
QUESTIONS_AT_ONCE: Final = 512
"""Questions that go through a task's head at once."""


class ZeroShot:
    """The backbone's features as they are, L2-normalised: an AlignmentModel without heads.

    With `parts` a clip is the normalised mean of its normalised segments, and a text that of its
    sentences: what a run from parts is before its first step (docs/method.md).
    """

    moment_head = None
    choice_head = None
    answer_head = None
    answer_features = None

    def __init__(self, global_from: GlobalFrom = "parts") -> None:
        self.global_from = global_from

    def encode_videos(
        self, clips: Tensor, segments: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._whole(clips, segments, counts), F.normalize(segments, dim=-1)

    def encode_texts(
        self, texts: Tensor, sentences: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._whole(texts, sentences, counts), F.normalize(sentences, dim=-1)

    def encode_sentences(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)

    def encode_frames(self, clips: Tensor, frames: Tensor, counts: Tensor) -> Tensor:
        return F.normalize(frames, dim=-1)

    def token_scores(
        self,
        frames: Tensor,
        words: Tensor,
        *,
        frame_offsets: np.ndarray,
        word_offsets: np.ndarray,
    ) -> Tensor:
        return token_scores(frames, words, frame_offsets=frame_offsets, word_offsets=word_offsets)

    def _whole(self, wholes: Tensor, parts: Tensor, counts: Tensor) -> Tensor:
        if self.global_from == "pooled":
            return F.normalize(wholes, dim=-1)
        unit = F.normalize(parts, dim=-1)
        return F.normalize(torch.segment_reduce(unit, "mean", lengths=counts, axis=0), dim=-1)


Encoder = AlignmentModel | ZeroShot
"""Raw features (n, D) to unit vectors (n, W): the heads of a run, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embeddings:
    """A split in the shared space: unit vectors, float32, W wide."""

    clips: np.ndarray
    """(N, W), of the global level."""
    segments: np.ndarray
    """(S, W), clips end to end."""
    texts: np.ndarray
    """(T, W), for the global level."""
    sentences: np.ndarray
    """(P, W), for the segment level: the same texts, then the sentences that texts were split into
    at extraction."""
    sentences_of_texts: Ragged
    """The sentences of each text, as rows of `sentences`."""
    options: np.ndarray
    """(O, W), options of the questions, for the global level."""
    option_sentences: np.ndarray
    """(O, W), the same for the segment level."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoLevelVectors:
    """n items, each with one vector of the whole and some of its parts.

    A clip: its own vector and its segments'. A text: its own vector and its sentences'.
    """

    wholes: np.ndarray
    """(n, W) float32."""
    parts: np.ndarray
    """(p, W) float32, items end to end."""
    offsets: np.ndarray
    """(n + 1,) int64: item i has parts [offsets[i], offsets[i + 1]), at least one."""

    def __len__(self) -> int:
        return len(self.wholes)

    @property
    def part_counts(self) -> np.ndarray:
        """(n,) int64."""
        return np.diff(self.offsets)

    def slice(self, start: int, stop: int) -> Self:
        """Items start to stop, without a copy."""
        offsets = self.offsets[start : stop + 1]
        return type(self)(
            wholes=self.wholes[start:stop],
            parts=self.parts[offsets[0] : offsets[-1]],
            offsets=offsets - offsets[0],
        )

    def take(self, rows: np.ndarray) -> Self:
        """The items of these rows, in their order."""
        parts, _ = ragged_rows(self.offsets, rows)
        return type(self)(
            wholes=self.wholes[rows],
            parts=self.parts[parts],
            offsets=offsets_of(self.part_counts[rows]),
        )


def embed(features: SplitFeatures, encoder: Encoder) -> Embeddings:
    """Every vector of the split.

    Raises UserError when a vector is not finite: NaN compares as "not better" and would rank first.
    """
    clips, segments = _encode_videos(encoder, features)
    all_sentences, lists = sentence_features(features), sentences_of_texts(features)
    options = features.questions.option_features
    singles = Ragged.singles(np.arange(len(options)))
    return Embeddings(
        clips=clips,
        segments=segments,
        texts=_encode_texts(encoder, features.text_features, all_sentences, lists, what="texts"),
        sentences=_encode(encoder.encode_sentences, all_sentences, what="texts"),
        sentences_of_texts=lists,
        options=_encode_texts(encoder, options, options, singles, what="options"),
        option_sentences=_encode(encoder.encode_sentences, options, what="options"),
    )


def clip_vectors(features: SplitFeatures, embeddings: Embeddings) -> TwoLevelVectors:
    """The clips of the split with their segments."""
    return TwoLevelVectors(
        wholes=embeddings.clips, parts=embeddings.segments, offsets=features.segment_offsets
    )


def padded_segments(
    features: SplitFeatures,
    embeddings: Embeddings,
    questions: np.ndarray,
    *,
    question_spans: QuestionSpans,
) -> tuple[Tensor, Tensor]:
    """(K, L, W) float32 and (K, L) bool: the segments that some questions, (K,) rows, are asked of,
    padded on the right with zeros, and what is no padding."""
    ranges = question_segments(features, questions, question_spans=question_spans)
    first = features.segment_offsets[features.questions.clips[questions]] + ranges.first
    places = np.arange(ranges.counts.max(initial=1))
    present = places < ranges.counts[:, None]
    rows = np.where(present, first[:, None] + places, 0)
    padded = embeddings.segments[rows] * present[:, :, None]
    return torch.from_numpy(padded), torch.from_numpy(present)


def text_vectors(embeddings: Embeddings, texts: np.ndarray) -> TwoLevelVectors:
    """Some texts with their sentences. texts: (n,) rows of the split's texts."""
    lists = embeddings.sentences_of_texts
    rows, _ = ragged_rows(lists.offsets, texts)
    return TwoLevelVectors(
        wholes=embeddings.texts[texts],
        parts=embeddings.sentences[lists.values[rows]],
        offsets=offsets_of(lists.counts[texts]),
    )


def _encode_videos(encoder: Encoder, features: SplitFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of clips and segments, in blocks of whole clips of about ENCODE_ROWS segments."""
    offsets = features.segment_offsets
    pieces = []
    with torch.inference_mode():
        for first, last in clip_blocks(offsets):
            clips, segments = encoder.encode_videos(
                tensor_rows(features.clip_features[first:last]),
                tensor_rows(features.segment_features[offsets[first] : offsets[last]]),
                torch.from_numpy(np.diff(offsets[first : last + 1])),
            )
            pieces.append((clips.float(), segments.float()))
    clip_pieces, segment_pieces = zip(*pieces, strict=True)
    clip_vectors, segment_vectors = torch.cat(clip_pieces), torch.cat(segment_pieces)
    refuse_broken(clip_vectors.numpy(), what="clips")
    refuse_broken(segment_vectors.numpy(), what="segments")
    return clip_vectors.numpy(), segment_vectors.numpy()


def _encode_texts(
    encoder: Encoder,
    texts: np.ndarray,
    sentences: np.ndarray,
    lists: Ragged,
    *,
    what: str,
) -> np.ndarray:
    """(T, W), for the global level, in blocks of texts with all of their sentences."""
    blocks = []
    with torch.inference_mode():
        for first, last in clip_blocks(lists.offsets):
            own = lists.slice(first, last)
            wholes, _ = encoder.encode_texts(
                tensor_rows(texts[first:last]),
                tensor_rows(sentences[own.values]),
                torch.from_numpy(own.counts),
            )
            blocks.append(wholes.float())
    if not blocks:
        return np.zeros((0, texts.shape[1]), dtype=np.float32)
    vectors: np.ndarray = torch.cat(blocks).numpy()
    refuse_broken(vectors, what=what)
    return vectors


def _encode(encode: Callable[[Tensor], Tensor], features: np.ndarray, *, what: str) -> np.ndarray:
    if len(features) == 0:
        return np.zeros((0, features.shape[1]), dtype=np.float32)
    with torch.inference_mode():
        chunks = torch.split(tensor_rows(features), ENCODE_ROWS)
        vectors = torch.cat([encode(chunk).float() for chunk in chunks]).numpy()
    refuse_broken(vectors, what=what)
    return np.asarray(vectors)


def clip_blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of whole clips of about ENCODE_ROWS segments (or frames). offsets: (N + 1,)."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + ENCODE_ROWS, side="right")) - 1
        last = max(first + 1, last)
        yield first, last
        first = last


def tensor_rows(features: np.ndarray) -> Tensor:
    """The same as float32, whatever they are stored as."""
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))


def refuse_broken(vectors: np.ndarray, *, what: str) -> None:
    """Raise UserError when a vector is not finite."""
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise UserError(
            f"expected finite vectors, but {len(broken)} of {len(vectors)} {what} have NaN or "
            f"infinity (first: row {broken[0]}): the cache is damaged or the training diverged"
        )
