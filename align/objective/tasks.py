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
from ..data.split import TrainingSplit, gather_rows
from ..data.task_items import AnswerItems, ChoiceItems, DrawnItems, MomentItems
from ..loss_config import TaskConfig, TaskName
from ..model.model import AlignmentModel

# B = clips of the batch, L = segments of the longest, K = items, O = options, W = shared width


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedClips:
    """The clips of a batch in the shared space."""

    clips_BW: Tensor
    """Normalised, of the global level."""
    segments_BLW: Tensor
    """Normalised, of the segment level, padded on the right with zeros."""
    present_BL: Tensor
    """bool, what is no padding."""


def padded_clips(clips_BW: Tensor, segments_SW: Tensor, counts_B: Tensor) -> EncodedClips:
    """The clips with their segments, given end to end; counts_B: (B,) int64 segments of each."""
    places_L = torch.arange(int(counts_B.max()), device=counts_B.device)
    present_BL = places_L < counts_B[:, None]
    padded = segments_SW.new_zeros((*present_BL.shape, segments_SW.shape[1]))
    return EncodedClips(
        clips_BW=clips_BW,
        segments_BLW=padded.masked_scatter(present_BL[:, :, None], segments_SW),
        present_BL=present_BL,
    )


def task_terms(
    model: AlignmentModel,
    split: TrainingSplit,
    drawn: Mapping[TaskName, DrawnItems],
    encoded: EncodedClips,
    *,
    config: TaskConfig,
) -> dict[str, Tensor]:
    """The unweighted loss of each task that has items here, by its name."""
    terms: dict[str, Tensor] = {}
    for name, items in drawn.items():
        tasks, device = split.tasks, encoded.clips_BW.device
        match name:
            case "choice":
                assert tasks.choice is not None
                weight = config.choice_global_weight
                logits = choice_logits(model, encoded, tasks.choice, items, global_weight=weight)
                answers = torch.from_numpy(tasks.choice.answers[items.items]).to(device)
                terms[name] = _cross_entropy(logits, answers)
            case "answer":
                assert tasks.answer is not None
                logits = answer_logits(model, encoded, tasks.answer, items)
                classes = torch.from_numpy(tasks.answer.classes[items.items]).to(device)
                terms[name] = _cross_entropy(logits, classes)
            case "moment":
                assert tasks.moment is not None
                texts = split.text_features
                starts, ends = moment_logs(model, encoded, tasks.moment, items, text_features=texts)
                first = torch.from_numpy(tasks.moment.first[items.items]).to(device)
                last = torch.from_numpy(tasks.moment.last[items.items]).to(device)
                # Cross-entropies of start and end, as XML has them (arXiv 2001.09099), halved.
                terms[name] = (_cross_entropy(starts, first) + _cross_entropy(ends, last)) / 2
            case _:
                assert_never(name)
    return terms


def choice_logits(
    model: AlignmentModel,
    encoded: EncodedClips,
    items: ChoiceItems,
    drawn: DrawnItems,
    *,
    global_weight: float,
) -> Tensor:
    """(K, C) logits of the options of each question; minus infinity where it has fewer than C.

    An option's logit is the logit scale times the fused score of "question option" with the clip:
    global_weight * cosine with the clip + the rest * cosine with its best segment, as evaluation
    has it.
    """
    device = encoded.clips_BW.device
    options, owners = ragged_rows(items.option_offsets, drawn.items)
    features = items.option_features[torch.from_numpy(options).to(device)]
    clip_of_option = torch.from_numpy(drawn.clips[owners]).to(device)
    singles = torch.ones(len(features), dtype=torch.int64, device=device)
    wholes_OW, parts_OW = model.encode_texts(features, features, singles)
    global_O = (wholes_OW * encoded.clips_BW[clip_of_option]).sum(dim=1)
    segment_O = _best_segments(parts_OW, clip_of_option, encoded)
    fused_O = model.of_segments.scale(global_weight * global_O + (1 - global_weight) * segment_O)
    counts = np.diff(items.option_offsets)[drawn.items]
    present = torch.from_numpy(np.arange(counts.max(initial=1)) < counts[:, None]).to(device)
    logits = torch.full(present.shape, -torch.inf, device=device, dtype=fused_O.dtype)
    return logits.masked_scatter(present, fused_O)


def answer_logits(
    model: AlignmentModel, encoded: EncodedClips, items: AnswerItems, drawn: DrawnItems
) -> Tensor:
    """(K, A) logits of the model's vocabulary: scaled cosines of what the head makes of a question
    and the segments of its clip with the answers."""
    assert model.answer_head is not None and model.answer_features is not None
    device = encoded.clips_BW.device
    rows = torch.from_numpy(drawn.items).to(device)
    owners = torch.from_numpy(drawn.clips).to(device)
    questions_KW = model.encode_sentences(items.question_features[rows])
    answers_KW: Tensor = model.answer_head(
        questions_KW, encoded.segments_BLW[owners], encoded.present_BL[owners]
    )
    answers_AW = model.encode_sentences(model.answer_features)
    return model.of_segments.scale.value * answers_KW @ answers_AW.T


def moment_logs(
    model: AlignmentModel,
    encoded: EncodedClips,
    items: MomentItems,
    drawn: DrawnItems,
    *,
    text_features: Tensor,
) -> tuple[Tensor, Tensor]:
    """(K, L) log-probabilities that a text starts, and that it ends, at each segment of its clip.

    text_features: (T, D), of the split.
    """
    assert model.moment_head is not None
    device = encoded.clips_BW.device
    owners = torch.from_numpy(drawn.clips).to(device)
    texts = torch.from_numpy(items.texts[drawn.items]).to(device)
    texts_KW = model.encode_sentences(gather_rows(text_features, texts))
    cosines_KL = torch.einsum("kw,klw->kl", texts_KW, encoded.segments_BLW[owners])
    logs: tuple[Tensor, Tensor] = model.moment_head(
        model.of_segments.scale.value * cosines_KL, encoded.present_BL[owners]
    )
    return logs


def _best_segments(texts_OW: Tensor, clip_of_text: Tensor, encoded: EncodedClips) -> Tensor:
    """(O,): of each text the largest cosine with a segment of its clip, clip by clip."""
    counts = torch.bincount(clip_of_text, minlength=len(encoded.clips_BW))
    order = torch.argsort(clip_of_text, stable=True)
    present = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
    grouped = texts_OW.new_zeros((*present.shape, texts_OW.shape[1]))
    grouped = grouped.masked_scatter(present[:, :, None], texts_OW[order])
    cosines = torch.bmm(grouped, encoded.segments_BLW.transpose(1, 2))
    best = cosines.masked_fill(~encoded.present_BL[:, None, :], -torch.inf).amax(dim=2)
    return torch.zeros_like(texts_OW[:, 0]).index_copy(0, order, best[present])


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """The mean over the rows; 0, with gradients, for none."""
    return F.cross_entropy(logits, classes) if len(classes) else logits.sum()
