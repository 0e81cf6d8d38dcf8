"""The model: heads for videos and texts, one logit scale, scores that are cosines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data_manifests.core.errors import SettingsError
from ..config import RunConfig
from ..head_config import CLIP_HEADS, HeadsConfig
from .heads import build_head
from .task_heads import AnswerHead, MomentHead
from .token_interaction import TokenHead, token_scores

MAX_LOGIT_SCALE = 100.0
"""CLIP's bound (arXiv 2103.00020, section 2.5): larger ones made its training unstable."""
LARGEST_LOG_SCALE = math.log(MAX_LOGIT_SCALE) - 1e-6
"""Two steps of float32 inside the bound, beyond which the scale gets no gradient."""
START_BIAS = -10.0
"""SigLIP's (arXiv 2303.15343, section 3.2): nearly all pairs of a batch are negatives."""


class AlignmentModel(nn.Module):
    """Brings cached features into the shared space, and has the heads of tasks.

    Clips and segments share the video head, and the texts of both levels the text head, unless
    each level has its own. All encode functions map raw cache features, (n, D_v) of videos and
    (n, D_t) of texts, to L2-normalised vectors (n, W), where W is the heads' width; the cosine of
    two of them is their dot product.
    """

    answer_features: Tensor | None
    """(A, D_t) float32, text features of the vocabulary of answers; None without one."""

    def __init__(
        self,
        heads: HeadsConfig,
        *,
        dim_video: int,
        dim_text: int,
        temperature: float,
        has_bias: bool = False,
    ) -> None:
        """dim_video, dim_text: widths D_v and D_t of the features.   temperature: inverse of the
        first logit scale.   has_bias: whether logits have a learnt bias, too.

        Raises SettingsError when the heads' widths do not fit the features or each other.
        """
        super().__init__()
        self.dim_video, self.dim_text = dim_video, dim_text
        self.video_head = build_head(heads.video, dim=dim_video)
        self.text_head = build_head(heads.text, dim=dim_text)
        widths = [
            dim if head.width is None else head.width
            for head, dim in ((heads.video, dim_video), (heads.text, dim_text))
        ]
        if widths[0] != widths[1]:
            raise SettingsError(
                f"heads.video and heads.text must end in one width, got {widths[0]} and "
                f"{widths[1]} (the features have width {dim_video} and {dim_text}; null keeps it)"
            )
        self.separate_levels = heads.separate_levels
        """Whether the segment level has heads of its own."""
        self.segment_video_head = self.segment_text_head = None
        if heads.separate_levels:
            self.segment_video_head = build_head(heads.video, dim=dim_video)
            self.segment_text_head = build_head(heads.text, dim=dim_text)
        self.sees_segments_together = heads.video.name in CLIP_HEADS
        """Whether videos can be encoded by `encode_videos` only."""
        self.log_logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.logit_bias = nn.Parameter(torch.tensor(START_BIAS)) if has_bias else None
        self.width = widths[0]
        """W, of the shared space."""
        self.moment_head: MomentHead | None = None
        """Where in its clip a text happens; None when that is not trained."""
        self.token_head: TokenHead | None = None
        """How much frames and words count; None where they count alike."""
        self.answer_head: AnswerHead | None = None
        """Answers open-ended questions; None when that is not trained."""
        self.answers: tuple[str, ...] = ()
        """Its vocabulary."""
        self.register_buffer("answer_features", None)

    @property
    def logit_scale(self) -> Tensor:
        """The factor of the cosines, at most 100; a scalar that is learnt."""
        return self.log_logit_scale.clamp(max=math.log(MAX_LOGIT_SCALE)).exp()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Bring the parameter itself back inside its bound."""
        self.log_logit_scale.clamp_(max=LARGEST_LOG_SCALE)

    @property
    def has_trainable_heads(self) -> bool:
        """False when both heads are the identity, and no task or level has another."""
        heads = (
            self.video_head,
            self.text_head,
            self.token_head,
            self.moment_head,
            self.answer_head,
        )
        trained = [head for head in heads if head is not None]
        return any(parameter.numel() > 0 for head in trained for parameter in head.parameters())

    def logits(self, videos: Tensor, texts: Tensor) -> Tensor:
        """(V, W) and (T, W) encoded -> (V, T): logit scale times cosine, plus the bias if any."""
        return self._with_bias(self.logit_scale * videos @ texts.T)

    def logits_of(self, cosines: Tensor) -> Tensor:
        """The same of cosines that are there already, of any shape."""
        return self._with_bias(self.logit_scale * cosines)

    def _with_bias(self, scaled: Tensor) -> Tensor:
        return scaled if self.logit_bias is None else scaled + self.logit_bias

    def encode_videos(
        self, clips: Tensor, segments: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whole clips at both levels: (N, D_v) clip and (S, D_v) segment features, clips end to
        end, of counts (N,) int64 > 0 segments each -> (N, W) and (S, W), normalised.

        A clip's vectors do not depend on the other clips.
        """
        if not self.sees_segments_together:
            return self.encode_clips(clips), self.encode_segments(segments)
        clips_moved, segments_moved = self.video_head(clips, segments, counts)
        if self.segment_video_head is not None:
            _, segments_moved = self.segment_video_head(clips, segments, counts)
        return F.normalize(clips_moved, dim=-1), F.normalize(segments_moved, dim=-1)

    def encode_clips(self, features: Tensor) -> Tensor:
        """(n, D_v) clip features -> (n, W), normalised: the global level."""
        assert not self.sees_segments_together, "this head needs the segments: use encode_videos"
        return F.normalize(self.video_head(features), dim=-1)

    def encode_segments(self, features: Tensor) -> Tensor:
        """(n, D_v) segment features -> (n, W), normalised: the segment level."""
        assert not self.sees_segments_together, "this head needs the clips: use encode_videos"
        head = self.video_head if self.segment_video_head is None else self.segment_video_head
        return F.normalize(head(features), dim=-1)

    def encode_frames(self, clips: Tensor, frames: Tensor, counts: Tensor) -> Tensor:
        """(F, D_v) frame features -> (F, W), normalised: the token level. A head that sees the
        segments of a clip together sees its frames in their place; other arguments as of
        `encode_videos`."""
        if self.sees_segments_together:
            return self.encode_videos(clips, frames, counts)[1]
        return self.encode_segments(frames)

    def token_scores(
        self,
        frames: Tensor,
        words: Tensor,
        *,
        frame_offsets: np.ndarray,
        word_offsets: np.ndarray,
    ) -> Tensor:
        """(F, W) and (K, W) encoded -> (N, T); see `token_interaction.token_scores`."""
        head = self.token_head
        return token_scores(
            frames,
            words,
            frame_offsets=frame_offsets,
            word_offsets=word_offsets,
            frame_logits_F=None if head is None else head.of_frames(frames),
            word_logits_K=None if head is None else head.of_words(words),
        )

    def encode_texts(self, features: Tensor) -> Tensor:
        """(n, D_t) text features -> (n, W), normalised: for the global level."""
        return F.normalize(self.text_head(features), dim=-1)

    def encode_sentences(self, features: Tensor) -> Tensor:
        """(n, D_t) features of texts, or of their tokens -> (n, W), normalised: for the segment
        level, and the token level."""
        head = self.text_head if self.segment_text_head is None else self.segment_text_head
        return F.normalize(head(features), dim=-1)


def build_model(
    config: RunConfig, *, dim_video: int, dim_text: int, answers: Sequence[str] = ()
) -> AlignmentModel:
    """The untrained model; raises SettingsError when there is nothing to train in it.

    answers: the vocabulary of open-ended questions; its features are to be set.
    """
    model = AlignmentModel(
        config.heads,
        dim_video=dim_video,
        dim_text=dim_text,
        temperature=config.losses.temperature,
        has_bias=config.losses.name == "sigmoid",
    )
    tasks, losses = config.tasks, config.losses
    if losses.token_weight > 0 and losses.token_interaction == "weighted":
        model.token_head = TokenHead(model.width)
    if tasks.moment_weight > 0:
        model.moment_head = MomentHead()
    if tasks.answer_weight > 0:
        hidden = model.width if tasks.answer_hidden is None else tasks.answer_hidden
        model.answer_head = AnswerHead(model.width, hidden=hidden, dropout=tasks.answer_dropout)
        model.answers = tuple(answers)
        model.answer_features = torch.zeros(len(answers), dim_text)
    if not model.has_trainable_heads:
        raise SettingsError(
            "heads.video and heads.text are both identity: there is nothing to train. That is "
            "zero-shot, which mlalign-evaluate shows without a run"
        )
    return model


def cpu_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state on the CPU, which later steps do not change."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
