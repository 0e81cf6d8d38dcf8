"""The losses of the tasks on a batch of clips: multiple choice, open-ended answers, moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...extract.cache.ragged import ragged_rows
from ..data.moment_items import MomentItems
from ..data.question_segments import SegmentRanges
from ..data.split import TrainingSplit, gather_rows
from ..data.task_items import AnswerItems, ChoiceItems, DrawnItems
from ..loss_config import TaskName
from ..model.model import AlignmentModel
from ..model.scene_clock import previous_cosines

# B = clips of the batch, L = segments of the longest, K = items, O = options, W = shared width


@dataclass(frozen=True, kw_only=True, slots=True)
class PaddedSegments:
    """The segments of the clips of a batch in the shared space of the segment level."""

    vectors_BLW: Tensor
    """Normalised, padded on the right with zeros."""
    present_BL: Tensor
    """bool, what is no padding."""

    def of(self, drawn: DrawnItems, ranges: SegmentRanges | None = None) -> tuple[Tensor, Tensor]:
        """(K, L, W) and (K, L): those of the clip of each item, all or (in another L) a range.

        ranges: of all items of the task.
        """
        device = self.present_BL.device
        owners = torch.from_numpy(drawn.clips).to(device)
        if ranges is None:
            return self.vectors_BLW[owners], self.present_BL[owners]
        first, counts = ranges.first[drawn.items, None], ranges.counts[drawn.items, None]
        places = np.arange(counts.max(initial=1))
        present = torch.from_numpy(places < counts).to(device)
        rows = torch.from_numpy(first + np.minimum(places, counts - 1)).to(device)
        vectors_KLW = self.vectors_BLW[owners[:, None], rows]
        return vectors_KLW.masked_fill(~present[:, :, None], 0.0), present


def padded_segments(segments_SW: Tensor, counts_B: Tensor) -> PaddedSegments:
    """Segments given end to end, of clips of counts (B,) int64 segments each."""
    places_L = torch.arange(int(counts_B.max()), device=counts_B.device)
    present_BL = places_L < counts_B[:, None]
    padded = segments_SW.new_zeros((*present_BL.shape, segments_SW.shape[1]))
    return PaddedSegments(
        vectors_BLW=padded.masked_scatter(present_BL[:, :, None], segments_SW),
        present_BL=present_BL,
    )


def task_terms(
    model: AlignmentModel,
    split: TrainingSplit,
    drawn: Mapping[TaskName, DrawnItems],
    segments: PaddedSegments,
) -> dict[str, Tensor]:
    """The unweighted loss of each task that has items here, by its name."""
    terms: dict[str, Tensor] = {}
    for name, items in drawn.items():
        tasks, device = split.tasks, split.device
        match name:
            case "choice":
                assert tasks.choice is not None
                logits = choice_logits(model, segments, tasks.choice, items)
                answers = torch.from_numpy(tasks.choice.answers[items.items]).to(device)
                terms[name] = _cross_entropy(logits, answers)
            case "answer":
                assert tasks.answer is not None
                logits = answer_logits(model, segments, tasks.answer, items)
                classes = torch.from_numpy(tasks.answer.classes[items.items]).to(device)
                terms[name] = _cross_entropy(logits, classes)
            case "moment":
                assert tasks.moment is not None
                terms[name] = _moment_term(model, split, segments, tasks.moment, items)
            case _:
                assert_never(name)
    return terms


def choice_logits(
    model: AlignmentModel, segments: PaddedSegments, items: ChoiceItems, drawn: DrawnItems
) -> Tensor:
    """(K, C) logits of the options of each question; minus infinity where it has fewer than C."""
    assert model.choice_head is not None
    device = segments.present_BL.device
    options, owners = ragged_rows(items.option_offsets, drawn.items)
    logits_O: Tensor = model.choice_head(
        model.encode_sentences(items.question_features[torch.from_numpy(drawn.items).to(device)]),
        model.encode_sentences(items.option_features[torch.from_numpy(options).to(device)]),
        torch.from_numpy(owners).to(device),
        *segments.of(drawn, items.asked_of),
    )
    counts = np.diff(items.option_offsets)[drawn.items]
    present = torch.from_numpy(np.arange(counts.max(initial=1)) < counts[:, None]).to(device)
    logits = torch.full(present.shape, -torch.inf, device=device, dtype=logits_O.dtype)
    return logits.masked_scatter(present, logits_O)


def answer_logits(
    model: AlignmentModel, segments: PaddedSegments, items: AnswerItems, drawn: DrawnItems
) -> Tensor:
    """(K, A) logits of the model's vocabulary."""
    assert model.answer_head is not None and model.answer_features is not None
    rows = torch.from_numpy(drawn.items).to(segments.present_BL.device)
    logits: Tensor = model.answer_head(
        model.encode_sentences(items.question_features[rows]),
        *segments.of(drawn, items.asked_of),
        model.encode_sentences(model.answer_features),
    )
    return logits


def moment_scores(
    model: AlignmentModel,
    segments: PaddedSegments,
    items: MomentItems,
    drawn: DrawnItems,
    *,
    text_features: Tensor,
) -> tuple[Tensor, Tensor]:
    """(K, L, L) scores of spans and (K, L, 2) offsets, by the head, for the texts of some items.

    text_features: (T, D), of the split.
    """
    assert model.moment_head is not None
    texts = torch.from_numpy(items.texts.firsts[drawn.items]).to(segments.present_BL.device)
    texts_KW = model.encode_sentences(gather_rows(text_features, texts))
    vectors_KLW, present_KL = segments.of(drawn)
    cosines_KL = torch.einsum("kw,klw->kl", texts_KW, vectors_KLW)
    scored: tuple[Tensor, Tensor] = model.moment_head(
        cosines_KL, previous_cosines(vectors_KLW), present_KL
    )
    return scored


def _moment_term(
    model: AlignmentModel,
    split: TrainingSplit,
    segments: PaddedSegments,
    items: MomentItems,
    drawn: DrawnItems,
) -> Tensor:
    """Half the cross-entropy of the right span among all of its clip, as much as one of start and
    one of end halved (XML, arXiv 2001.09099), plus the smooth L1 loss of the offsets at the right
    segments (UniVTG, arXiv 2307.16715).

    A query with several moments has the mean over them; the others are left out of the softmax of
    each, so that no moment is pushed down.
    """
    scores_KLL, offsets_KL2 = moment_scores(
        model, segments, items, drawn, text_features=split.text_features
    )
    if not len(drawn.items):
        return offsets_KL2.sum()
    moments, owners = ragged_rows(items.texts.offsets, drawn.items)
    shares = (1.0 / items.texts.counts[drawn.items] / len(drawn.items))[owners]
    first_M, last_M, wanted_M2, owner_M, share_M = (
        torch.from_numpy(array).to(scores_KLL.device)
        for array in (
            *(own[moments] for own in (items.first, items.last, items.offsets)),
            owners,
            shares,
        )
    )
    span_M = first_M * scores_KLL.shape[2] + last_M
    is_right = torch.zeros_like(scores_KLL.flatten(1), dtype=torch.bool)
    is_right[owner_M, span_M] = True
    is_another_MS = is_right[owner_M]
    is_another_MS[torch.arange(len(span_M), device=span_M.device), span_M] = False
    scores_MS = scores_KLL.flatten(1)[owner_M].masked_fill(is_another_MS, -torch.inf)
    entropy_M = F.cross_entropy(scores_MS, span_M, reduction="none")
    measured_M2 = torch.stack(
        [offsets_KL2[owner_M, first_M, 0], offsets_KL2[owner_M, last_M, 1]], dim=1
    )
    distance_M = F.smooth_l1_loss(
        measured_M2, wanted_M2.to(measured_M2.dtype), beta=0.1, reduction="none"
    ).mean(dim=1)
    return ((entropy_M / 2 + distance_M) * share_M.to(entropy_M.dtype)).sum()


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """The mean over the rows; 0, with gradients, for none."""
    return F.cross_entropy(logits, classes) if len(classes) else logits.sum()
