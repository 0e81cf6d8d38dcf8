"""A split as unit vectors of the shared space: clips and segments, texts and sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data_manifests.core.errors import UserError
from ...extract.cache.ragged import Ragged, offsets_of, ragged_rows
from ...extract.cache.store import SplitFeatures

ENCODE_ROWS = 16384
"""Features that go through the heads at once."""


class Encoder(Protocol):
    """Trained heads: raw features (n, D) to unit vectors (n, W). align's AlignmentModel is one."""

    separate_levels: bool
    """Whether a text has another vector at the segment level."""

    def encode_videos(
        self, clips: Tensor, segments: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]: ...
    def encode_texts(self, features: Tensor) -> Tensor: ...
    def encode_sentences(self, features: Tensor) -> Tensor: ...


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
    """(T, W), the same texts for the segment level: the same array where levels share heads."""
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


def embed(features: SplitFeatures, encoder: Encoder | None) -> Embeddings:
    """Every vector of the split; None is zero-shot: the backbone's features, L2-normalised.

    Raises UserError when a vector is not finite: NaN compares as "not better" and would rank first.
    """
    encoder = _ZeroShot() if encoder is None else encoder
    clips, segments = _encode_videos(encoder, features)
    texts, options = features.text_features, features.questions.option_features
    text_vectors = _encode(encoder.encode_texts, texts, what="texts")
    option_vectors = _encode(encoder.encode_texts, options, what="options")
    if not encoder.separate_levels:
        sentences, option_sentences = text_vectors, option_vectors
    else:
        sentences = _encode(encoder.encode_sentences, texts, what="texts")
        option_sentences = _encode(encoder.encode_sentences, options, what="options")
    return Embeddings(
        clips=clips,
        segments=segments,
        texts=text_vectors,
        sentences=sentences,
        options=option_vectors,
        option_sentences=option_sentences,
    )


def clip_vectors(features: SplitFeatures, embeddings: Embeddings) -> TwoLevelVectors:
    """The clips of the split with their segments."""
    return TwoLevelVectors(
        wholes=embeddings.clips, parts=embeddings.segments, offsets=features.segment_offsets
    )


def text_vectors(
    embeddings: Embeddings, *, texts: np.ndarray, sentences: Ragged
) -> TwoLevelVectors:
    """Some texts with their sentences. texts: (n,) rows; sentences: n lists of rows."""
    return TwoLevelVectors(
        wholes=embeddings.texts[texts],
        parts=embeddings.sentences[sentences.values],
        offsets=sentences.offsets,
    )


class _ZeroShot:
    """The backbone's features as they are, L2-normalised."""

    separate_levels = False

    def encode_videos(
        self, clips: Tensor, segments: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        return F.normalize(clips, dim=-1), F.normalize(segments, dim=-1)

    def encode_texts(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)

    encode_sentences = encode_texts


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
