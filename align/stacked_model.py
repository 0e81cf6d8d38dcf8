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

from .model import MAX_LOGIT_SCALE, AlignmentModel

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
        """A module of each head, whose weights come from outside, and settings of the runs'."""
        for name in ("video_head", "text_head", "segment_video_head", "segment_text_head"):
            own = [getattr(model, name) for model in models]
            if own[0] is not None:
                device = first.log_logit_scale.device
                settings = _settings(own, device)
                self._heads[name] = (_without_settings(own[0], settings), settings)

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
        """(M, N, D_v) clip and (M, S, D_v) segment features -> (M, N, W) and (M, S, W)."""
        assert not self.sees_segments_together, "heads of whole clips are not stacked"
        return self.encode_clips(clips), self.encode_segments(segments)

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

    def _mapped(self, name: str, features: Tensor) -> Tensor:
        head, settings = self._heads[name]
        own = {
            parameter.removeprefix(f"{name}."): weight
            for parameter, weight in self._weights.items()
            if parameter.startswith(f"{name}.")
        }

        def of_one(weights: dict[str, Tensor], features: Tensor) -> Any:
            return functional_call(head, weights, (features,))

        mapped = torch.vmap(of_one, randomness="different")({**own, **settings}, features)
        return F.normalize(mapped, dim=-1)


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
