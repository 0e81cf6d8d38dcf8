"""The models of runs that train together: one batched product where each would have its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from .clip_heads import AttentionPooling, Temporal
from .model import MAX_LOGIT_SCALE, AlignmentModel
from .stacked_batches import SegmentPlaces

# M = runs, n = features of each, D = their width, W = that of the shared space


class StackedModel:
    """What `AlignmentModel` does with the features of one run, of M models alike in structure.

    All features have a first dimension M, and so has what is made of them.
    """

    def __init__(self, models: Sequence[AlignmentModel], weights: Mapping[str, Tensor]) -> None:
        """weights: of the models' parameters, by name, (M, ...) each; those of the models
        themselves are not looked at."""
        first = models[0]
        self._weights = weights
        self.separate_levels = first.separate_levels
        self.sees_segments_together = first.sees_segments_together
        self._heads: dict[str, tuple[nn.Module, dict[str, Tensor]]] = {}
        """Of each head a module without numbers, and the numbers of all runs that it is to have."""
        for name, _ in first.named_children():
            own = {
                parameter.removeprefix(f"{name}."): weight
                for parameter, weight in weights.items()
                if parameter.startswith(f"{name}.")
            }
            heads = [model.get_submodule(name) for model in models]
            self._heads[name] = _stacked_head(heads, own, device=first.log_logit_scale.device)
        self._answers = first.answer_features

    @property
    def logit_scale(self) -> Tensor:
        """(M,)"""
        return self._weights["log_logit_scale"].clamp(max=math.log(MAX_LOGIT_SCALE)).exp()

    def logits(self, videos: Tensor, texts: Tensor) -> Tensor:
        """(M, V, W) and (M, T, W) encoded -> (M, V, T)."""
        return self._with_bias(self.logit_scale[:, None, None] * videos @ texts.mT)

    def logits_of(self, cosines: Tensor) -> Tensor:
        """The same of cosines (M, V, T) that are there already."""
        return self._with_bias(self.logit_scale[:, None, None] * cosines)

    def _with_bias(self, scaled: Tensor) -> Tensor:
        bias = self._weights.get("logit_bias")
        return scaled if bias is None else scaled + bias[:, None, None]

    def encode_videos(
        self, clips: Tensor, segments: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(M, N, D_v) clip features and (M, S, D_v) of their segments, padded on the right, of
        counts (M, N) each -> (M, N, W) and (M, S, W); what padding becomes means nothing."""
        if not self.sees_segments_together:
            return self.encode_clips(clips), self.encode_segments(segments)
        places = SegmentPlaces.of(counts, num_segments=segments.shape[1])
        clips_moved, segments_moved = self._mapped_together("video_head", clips, segments, places)
        if self.separate_levels:
            _, segments_moved = self._mapped_together("segment_video_head", clips, segments, places)
        return F.normalize(clips_moved, dim=-1), F.normalize(segments_moved, dim=-1)

    def encode_clips(self, features: Tensor) -> Tensor:
        """(M, n, D_v) clip features -> (M, n, W), normalised: the global level."""
        return self._mapped("video_head", features)

    def encode_segments(self, features: Tensor) -> Tensor:
        """(M, n, D_v) segment features -> (M, n, W), normalised: the segment level."""
        return self._mapped(
            "segment_video_head" if self.separate_levels else "video_head", features
        )

    def encode_texts(self, features: Tensor) -> Tensor:
        """(M, n, D_t) text features -> (M, n, W), normalised: for the global level."""
        return self._mapped("text_head", features)

    def encode_sentences(self, features: Tensor) -> Tensor:
        """(M, n, D_t) text features -> (M, n, W), normalised: for the segment level."""
        return self._mapped("segment_text_head" if self.separate_levels else "text_head", features)

    @property
    def answer_features(self) -> Tensor:
        """(M, A, D_t), of the vocabulary, which the runs have in common."""
        assert self._answers is not None
        return self._answers.expand(len(self._weights["log_logit_scale"]), -1, -1)

    def answer_head(self, questions: Tensor, segments: Tensor, present: Tensor) -> Tensor:
        """`AnswerHead` of (M, K, W), (M, K, L, W) and (M, K, L) -> (M, K, W)."""
        found: Tensor = self._of_each_run("answer_head", questions, segments, present)
        return found

    def moment_head(self, logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """`MomentHead` of (M, K, L) both -> (M, K, L) each."""
        logs: tuple[Tensor, Tensor] = self._of_each_run("moment_head", logits, present)
        return logs

    def _mapped(self, name: str, features: Tensor) -> Tensor:
        return F.normalize(self._of_each_run(name, features), dim=-1)

    def _mapped_together(
        self, name: str, clips: Tensor, segments: Tensor, places: SegmentPlaces
    ) -> tuple[Tensor, Tensor]:
        """Of a head of whole clips, not normalised yet."""
        padded = segments[places.run, places.rows]
        clips_moved, padded_moved = self._of_each_run(name, clips, padded, places.present)
        run = places.run[:, :, 0]
        return clips_moved, padded_moved[run, places.clips, places.within]

    def _of_each_run(self, name: str, *given: Tensor) -> Any:
        """What the head of each run makes of the run's part of the tensors."""
        head, numbers = self._heads[name]

        def of_one(numbers: dict[str, Tensor], *given: Tensor) -> Any:
            return functional_call(head, numbers, given)

        # Only this way of attention is made of operations that vmap has stacked ones of.
        with sdpa_kernel(SDPBackend.MATH):
            return torch.vmap(of_one, randomness="different")(numbers, *given)


class _OfPadded(nn.Module):
    """A head of whole clips that is called with padded ones."""

    def __init__(self, head: Temporal | AttentionPooling) -> None:
        super().__init__()
        self.head = head

    def forward(self, clips: Tensor, segments: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `Temporal.of_padded`."""
        return self.head.of_padded(clips, segments, present)


class _Dropout(nn.Module):
    """`nn.Dropout` whose rate is a tensor."""

    p: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("p", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        """Zeros in place of a share p of the values; the others grow."""
        kept = torch.rand_like(values) >= self.p
        return values * kept / (1 - self.p)


SETTINGS = ("p", "alpha")
"""Attributes of modules in which models that are stacked may differ: the rate of a dropout, and
what a head weighs that which it adds."""


def _stacked_head(
    heads: Sequence[nn.Module], weights: Mapping[str, Tensor], *, device: torch.device
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A module without numbers, and the weights and settings of all runs that it is to have."""
    settings = _settings(heads, device)
    bare, numbers = _without_settings(heads[0], settings), {**weights, **settings}
    if isinstance(bare, Temporal | AttentionPooling):
        return _OfPadded(bare), {f"head.{name}": value for name, value in numbers.items()}
    return bare, numbers


def _without_settings(head: nn.Module, settings: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the head, of no memory, where the settings are buffers: they, too, come stacked."""
    bare = copy.deepcopy(head).to("meta").train()
    for place, module in list(bare.named_modules()):
        if isinstance(module, nn.Dropout):
            parent, _, name = place.rpartition(".")
            drops = f"{place}.p" in settings
            setattr(bare.get_submodule(parent), name, _Dropout() if drops else nn.Identity())
        elif "alpha" in vars(module):
            del module.alpha
            module.register_buffer("alpha", torch.zeros(()))
    return bare


def _settings(heads: Sequence[nn.Module], device: torch.device) -> dict[str, Tensor]:
    """(M,) float of each setting, by its dotted name; not of dropout where none drops anything."""
    found = {
        f"{place}.{name}".removeprefix("."): [
            float(getattr(head.get_submodule(place), name)) for head in heads
        ]
        for place, module in heads[0].named_modules()
        for name in SETTINGS
        if name in vars(module)
    }
    return {
        name: torch.tensor(values, device=device)
        for name, values in found.items()
        if any(values)  # no alpha is 0
    }
