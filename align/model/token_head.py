"""How much each frame and each word counts at the token level, learnt."""

from __future__ import annotations

from torch import Tensor, nn

from .heads import MLP


class TokenHead(nn.Module):
    """Logits of frames and of words, all 0 at the start: then every one counts as much.

    An MLP for each side, as in DRL's weighted token interaction (arXiv 2203.07111).
    """

    def __init__(self, width: int) -> None:
        """width: W, of the shared space."""
        super().__init__()
        self.frames = _zero_mlp(width)
        self.words = _zero_mlp(width)

    def of_frames(self, vectors: Tensor) -> Tensor:
        """(F, W) -> (F,)."""
        logits: Tensor = self.frames(vectors).squeeze(1)
        return logits

    def of_words(self, vectors: Tensor) -> Tensor:
        """(K, W) -> (K,)."""
        logits: Tensor = self.words(vectors).squeeze(1)
        return logits


def _zero_mlp(width: int) -> MLP:
    mlp = MLP(width, hidden=width, width=1, dropout=0.0)
    nn.init.zeros_(mlp.leave.weight)
    nn.init.zeros_(mlp.leave.bias)
    return mlp
