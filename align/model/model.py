"""The model: a pair of heads for each level, and scores that are cosines of what they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data_manifests.core.errors import SettingsError
from ..config import RunConfig
from ..head_config import CLIP_HEADS
from ..loss_config import QuestionSpans
from .answer_head import AnswerHead
from .choice_head import ChoiceHead
from .clip_heads import AttentionPooling
from .level_heads import LevelHeads, LogitScale, level_scale, shared_width
from .moment_head import MomentHead
from .token_interaction import TokenHead, token_scores

# N = clips, S = segments, T = texts, R = sentences, D_v and D_t = widths of the features of videos
# and texts, W = width of the shared space


class AlignmentModel(nn.Module):
    """Brings cached features into the shared space, and has the heads of tasks.

    Each level that is trained has a pair of heads; with `separate_levels` off the levels share one
    pair. A level that is not trained is read through the heads of the other. All vectors are
    L2-normalised; the cosine of two of them is their dot product.

    A clip at the global level is made of its segments (`levels.global_from: parts`):

        clip_i = n( mean_s n(f_g(v_is)) + sg( mean_s n(f_s(v_is)) ) )

    with f_g and f_s the video heads of the global and the segment level, n the L2 norm and sg
    without gradient; a text likewise of its sentences. The second summand, the path from the
    segment level, is there where the segment level is trained on spans or on sentences. A clip as
    its segments and a paragraph as its sentences: COOT (arXiv 2011.00597). With `pooled` a clip is
    n(f_g(v_i)) of its clip feature, and a text n(h_g(t)) of its text feature.
    """

    answer_features: Tensor | None
    """(A, D_t) float32, text features of the vocabulary of answers; None without one."""

    def __init__(self, config: RunConfig, *, dim_video: int, dim_text: int) -> None:
        """The settings say what is trained. dim_video, dim_text: widths D_v and D_t.

        Raises SettingsError when the heads' widths do not fit the features or each other.
        """
        super().__init__()
        heads, losses = config.heads, config.losses
        self.dim_video, self.dim_text = dim_video, dim_text
        self.width = shared_width(heads, dim_video=dim_video, dim_text=dim_text)
        """W, of the shared space."""
        self.global_from = config.levels.global_from
        trains_global = losses.global_weight > 0
        trains_segment = config.trains_segment_level
        self.global_heads: LevelHeads | None = None
        """None where the global level is read through the heads of the segment level."""
        self.segment_heads: LevelHeads | None = None
        """None where the segment level is read through the heads of the global level."""

        def level_heads(*, has_global: bool, has_segments: bool) -> LevelHeads:
            return LevelHeads(
                heads,
                dim_video=dim_video,
                dim_text=dim_text,
                scale=level_scale(config, has_global=has_global, has_segments=has_segments),
                weighs_parts=has_global,
            )

        has_two_pairs = trains_global and trains_segment and heads.separate_levels
        if trains_global or not trains_segment:
            self.global_heads = level_heads(
                has_global=trains_global, has_segments=trains_segment and not has_two_pairs
            )
        if has_two_pairs or (trains_segment and not trains_global):
            self.segment_heads = level_heads(has_global=False, has_segments=True)
        self.has_path = bool(config.levels.path) and self.has_two_pairs
        """Whether the global level is also made of the vectors of the segment level."""
        self.sees_segments_together = heads.video.name in CLIP_HEADS
        """Whether segments can only be encoded together with those of their clip."""
        self.moment_head: MomentHead | None = None
        """Where in its clip a text happens; None when that is not trained."""
        self.token_head: TokenHead | None = None
        """How much frames and words count; None where they count alike."""
        self.choice_head: ChoiceHead | None = None
        """Answers multiple-choice questions; None when that is not trained."""
        self.answer_head: AnswerHead | None = None
        """Answers open-ended questions; None when that is not trained."""
        self.question_spans: QuestionSpans = config.tasks.question_spans
        """Whether these two are asked of the span of a question that has one."""
        self.answers: tuple[str, ...] = ()
        """Its vocabulary."""
        self.register_buffer("answer_features", None)

    @property
    def has_two_pairs(self) -> bool:
        """Whether each level has heads of its own."""
        return self.global_heads is not None and self.segment_heads is not None

    @property
    def of_global(self) -> LevelHeads:
        """The heads that the global level is read through."""
        heads = self.global_heads or self.segment_heads
        assert heads is not None
        return heads

    @property
    def of_segments(self) -> LevelHeads:
        """The heads that the segment level is read through."""
        heads = self.segment_heads or self.global_heads
        assert heads is not None
        return heads

    @property
    def level_heads(self) -> Iterator[LevelHeads]:
        """The pairs that there are."""
        return (heads for heads in (self.global_heads, self.segment_heads) if heads is not None)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.of_global.scale.log_scale.device

    @property
    def task_heads(self) -> tuple[nn.Module | None, ...]:
        """Of moments, multiple choice and open-ended questions; None for those not trained."""
        return self.moment_head, self.choice_head, self.answer_head

    def clamp_logit_scales(self) -> None:
        """Bring the parameters themselves back inside their bound."""
        for module in self.modules():
            if isinstance(module, LogitScale):
                module.clamp()

    @property
    def has_trainable_heads(self) -> bool:
        """False when all heads are the identity, and no task or level has another."""
        heads: list[nn.Module | None] = [self.token_head, *self.task_heads]
        for level in self.level_heads:
            heads += [level.video, level.text]
        trained = [head for head in heads if head is not None]
        return any(parameter.numel() > 0 for head in trained for parameter in head.parameters())

    def encode_videos(
        self, clips: Tensor, segments: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Clips at both levels: (N, D_v) clip and (S, D_v) segment features, clips end to end, of
        counts (N,) int64 > 0 segments each -> (N, W) and (S, W), normalised.

        A clip's vectors do not depend on the other clips.
        """
        moved_NW, moved_SW = self._move_videos(self.of_segments, clips, segments, counts)
        segments_SW = F.normalize(moved_SW, dim=-1)
        if self.global_from == "pooled":
            if self.has_two_pairs:
                moved_NW, _ = self._move_videos(self.of_global, clips, segments, counts)
            return F.normalize(moved_NW, dim=-1), segments_SW
        parts_SW = segments_SW
        if self.has_two_pairs:
            _, moved_SW = self._move_videos(self.of_global, clips, segments, counts)
            parts_SW = F.normalize(moved_SW, dim=-1)
        head = self.of_global.video
        if isinstance(head, AttentionPooling):
            mean_NW = head.weighted_mean(parts_SW, segments, counts)
        else:
            mean_NW = _mean(parts_SW, counts)
        if self.has_path:
            mean_NW = mean_NW + _mean(segments_SW.detach(), counts)
        return F.normalize(mean_NW, dim=-1), segments_SW

    def encode_texts(
        self, texts: Tensor, sentences: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Texts at both levels: (T, D_t) features of the texts and (R, D_t) of their sentences,
        texts end to end, of counts (T,) int64 > 0 sentences each -> (T, W) and (R, W), normalised.
        """
        parts = self.encode_sentences(sentences)
        return self.whole_texts(texts, sentences, counts, parts=parts), parts

    def whole_texts(
        self, texts: Tensor, sentences: Tensor, counts: Tensor, *, parts: Tensor | None
    ) -> Tensor:
        """The first result of `encode_texts`. parts: the second one, which is read only where the
        model has the path."""
        heads = self.of_global
        if self.global_from == "pooled":
            return F.normalize(heads.text(texts), dim=-1)
        mean_TW = _mean(F.normalize(heads.text(sentences), dim=-1), counts)
        if self.has_path:
            assert parts is not None
            mean_TW = mean_TW + _mean(parts.detach(), counts)
        return F.normalize(mean_TW, dim=-1)

    def encode_segments(self, features: Tensor) -> Tensor:
        """(n, D_v) segment features -> (n, W), normalised: the segment level."""
        assert not self.sees_segments_together, "this head needs the clips: use encode_videos"
        return F.normalize(self.of_segments.video(features), dim=-1)

    def encode_sentences(self, features: Tensor) -> Tensor:
        """(n, D_t) features of texts, or of their tokens -> (n, W), normalised: for the segment
        level, the tasks and the token level."""
        return F.normalize(self.of_segments.text(features), dim=-1)

    def encode_frames(self, clips: Tensor, frames: Tensor, counts: Tensor) -> Tensor:
        """(F, D_v) frame features -> (F, W), normalised: the token level. A head that sees the
        segments of a clip together sees its frames in their place; other arguments as of
        `encode_videos`."""
        _, moved = self._move_videos(self.of_segments, clips, frames, counts)
        return F.normalize(moved, dim=-1)

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

    def _move_videos(
        self, level: LevelHeads, clips: Tensor, segments: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the level's video head makes of both, not normalised. The clips stay as they are
        where nothing reads them."""
        if self.sees_segments_together:
            moved: tuple[Tensor, Tensor] = level.video(clips, segments, counts)
            return moved
        is_read = self.global_from == "pooled" and level is self.of_global
        return level.video(clips) if is_read else clips, level.video(segments)


def _mean(vectors: Tensor, counts: Tensor) -> Tensor:
    """(n, W): the mean of each list of vectors, lists end to end."""
    return torch.segment_reduce(vectors, "mean", lengths=counts, axis=0)


def build_model(
    config: RunConfig, *, dim_video: int, dim_text: int, answers: Sequence[str] = ()
) -> AlignmentModel:
    """The untrained model; raises SettingsError when there is nothing to train in it.

    config: the settings of a run on its data (see `align.data.trainable`).
    answers: the vocabulary of open-ended questions; its features are to be set.
    """
    model = AlignmentModel(config, dim_video=dim_video, dim_text=dim_text)
    tasks, losses = config.tasks, config.losses
    if losses.token_weight > 0 and losses.token_interaction == "weighted":
        model.token_head = TokenHead(model.width)
    if tasks.moment_weight > 0:
        model.moment_head = MomentHead()
    if tasks.choice_weight > 0:
        model.choice_head = ChoiceHead(
            model.width, hidden=model.width, dropout=tasks.choice_dropout
        )
    if tasks.answer_weight > 0:
        model.answer_head = AnswerHead(
            model.width,
            num_answers=len(answers),
            hidden=tasks.answer_hidden,
            dropout=tasks.answer_dropout,
        )
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
