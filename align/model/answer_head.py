"""Open-ended questions: a small transformer over the question and the segments of its clip."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scene_clock import SceneClock

# K = questions, L = segments of the longest clip, W = width of the shared space, A = answers

MAX_PLACES: Final = 64
"""Places in a clip that have an embedding of their own, from either end; later ones share one."""
MAX_SCENES: Final = 12
"""Scenes from either end that are told apart; later ones share one."""
NUM_HEADS: Final = 4
NUM_LAYERS: Final = 2


class AnswerHead(nn.Module):
    """Logits of the answers of a vocabulary.

    The tokens are the question and, for each segment, a map of it plus a map of its product with
    the question plus embeddings of its place from the start and from the end, counted in segments
    and in scenes (`SceneClock`): what a cosine with the best segment lacks is time, and the meeting
    of question and picture. An answer's logit is
    the product of what the question's token has become with a map of the answer's text vector,
    plus that with a free vector of the answer, which starts at zero. Before training the logits
    are random and near zero.
    """

    def __init__(self, width: int, *, num_answers: int, hidden: int, dropout: float) -> None:
        """width: W.   hidden: of the transformer, a multiple of its 4 attention heads."""
        super().__init__()
        self.segment = nn.Linear(width, hidden)
        self.question = nn.Linear(width, hidden)
        self.product = nn.Linear(width, hidden)
        self.from_start = nn.Embedding(MAX_PLACES, hidden)
        self.from_end = nn.Embedding(MAX_PLACES, hidden)
        for embedding in (self.from_start, self.from_end):
            nn.init.normal_(embedding.weight, std=0.1)
        self.clock = SceneClock()
        self.scenes = nn.Linear(2 * MAX_SCENES + 2, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden,
            NUM_HEADS,
            2 * hidden,
            dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, NUM_LAYERS, enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden)
        self.answer = nn.Linear(width, hidden, bias=False)  # it would move all logits alike
        self.free = nn.Parameter(torch.zeros(num_answers, hidden))

    def forward(
        self,
        questions_KW: Tensor,
        segments_KLW: Tensor,
        present_KL: Tensor,
        answers_AW: Tensor,
    ) -> Tensor:
        """(K, A) logits.

        questions_KW, segments_KLW, answers_AW: unit vectors, the segments of each question's clip
        padded on the right.   present_KL: bool, what is no padding, at least one segment of each.
        """
        rows = [self.dropout(_rms(vectors)) for vectors in (questions_KW, segments_KLW)]
        asked_KW, seen_KLW = rows
        places_L = torch.arange(present_KL.shape[1], device=present_KL.device)
        counts_K1 = present_KL.sum(dim=1, keepdim=True)
        back_KL = (counts_K1 - 1 - places_L).clamp(0, MAX_PLACES - 1)
        tokens_KLH = (
            self.segment(seen_KLW)
            + self.product(asked_KW[:, None] * seen_KLW)
            + self.from_start(places_L.clamp(max=MAX_PLACES - 1))
            + self.from_end(back_KL)
            + self.scenes(self._scene_places(segments_KLW, present_KL))
        )
        together = torch.cat([self.question(asked_KW)[:, None], tokens_KLH], dim=1)
        is_padding = F.pad(~present_KL, (1, 0), value=False)
        first_KH = self.layers(together, src_key_padding_mask=is_padding)[:, 0]
        classes_AH = self.answer(_rms(answers_AW)) + self.free
        logits: Tensor = self.norm(first_KH) @ classes_AH.T / self.free.shape[1] ** 0.5
        return logits

    def _scene_places(self, segments_KLW: Tensor, present_KL: Tensor) -> Tensor:
        """(K, L, 2 * MAX_SCENES + 2): how near each segment is to each scene from the start and
        from the end, from 0 to 1, and the changes before and behind it."""
        passed_KL = self.clock(segments_KLW, present_KL)
        left_KL = passed_KL[:, -1:] - passed_KL
        steps_KL = passed_KL.diff(dim=1, prepend=torch.zeros_like(passed_KL[:, :1]))
        scenes = torch.arange(MAX_SCENES, device=passed_KL.device)
        near = [
            torch.exp(-2.0 * (side_KL.clamp(max=MAX_SCENES - 1)[..., None] - scenes).square())
            for side_KL in (passed_KL, left_KL)
        ]
        changes = torch.stack([steps_KL, F.pad(steps_KL[:, 1:], (0, 1))], dim=2)
        return torch.cat([*near, changes], dim=2)


def _rms(vectors: Tensor) -> Tensor:
    """Unit vectors as vectors of mean square one."""
    return F.rms_norm(vectors, vectors.shape[-1:])
