"""The losses: contrastive terms over a table of similarities and masks of its pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# V = clips or segments in the batch, T = texts in the batch, P = pairs that a mask names


def info_nce(logits_VT: Tensor, *, positive_VT: Tensor, negative_VT: Tensor) -> Tensor:
    """Symmetric InfoNCE with several positives and masked pairs; a scalar.

    logits_VT: (V, T) float, logit scale times cosine.   positive_VT, negative_VT: (V, T) bool; a
    pair in neither is masked and has no part in the loss.

    A row's term is -log(P / (P + N)), with P the sum of exp(logit) over its positives and N over
    its negatives. Terms are averaged over the rows that have a positive, then over the two
    directions. With one positive in every row and column and nothing masked it is open_clip's
    `ClipLoss`.

    Summing the positives inside the logarithm is MIL-NCE (arXiv 1912.06430, equation 1). The other
    usual choice, the mean of -log p over the positives (SupCon, arXiv 2004.11362, L_out), lets the
    positives of a row compete: one that is closer than the others is pushed away. Here no positive
    ever is.
    """
    if logits_VT.numel() == 0:
        return logits_VT.sum()
    return _symmetric(
        positive_VT,
        log_positive=_log_sums_of_few(logits_VT, positive_VT),
        log_negative=(
            _log_sums(logits_VT, negative_VT, dim=1),
            _log_sums(logits_VT, negative_VT, dim=0),
        ),
    )


def info_nce_of_few(logits_VT: Tensor, *, positive_VT: Tensor, negative_VT: Tensor) -> Tensor:
    """`info_nce`, but its time grows with the pairs in the masks and not with the whole table."""
    return _symmetric(
        positive_VT,
        log_positive=_log_sums_of_few(logits_VT, positive_VT),
        log_negative=_log_sums_of_few(logits_VT, negative_VT),
    )


def _symmetric(
    positive_VT: Tensor,
    *,
    log_positive: tuple[Tensor, Tensor],
    log_negative: tuple[Tensor, Tensor],
) -> Tensor:
    """Mean of -log(P / (P + N)) = softplus(log N - log P) over rows, columns, and both."""
    terms = []
    for dim, log_p, log_n in zip((1, 0), log_positive, log_negative, strict=True):
        counted = positive_VT.any(dim=dim)
        row_terms = torch.where(counted, F.softplus(log_n - log_p), 0.0)
        terms.append(row_terms.sum() / counted.sum().clamp(min=1))
    return (terms[0] + terms[1]) / 2


def _log_sums(logits_VT: Tensor, mask_VT: Tensor, *, dim: int) -> Tensor:
    """log of the sum of exp(logit) over the pairs in the mask, along `dim`.

    torch.logsumexp computes exp again for the gradient; exp is what this loss spends its time on.
    """
    masked_VT = logits_VT.masked_fill(~mask_VT, _nothing(logits_VT))
    top = masked_VT.detach().amax(dim=dim, keepdim=True)
    return (masked_VT - top).exp().sum(dim=dim).log() + top.squeeze(dim)


def _log_sums_of_few(logits_VT: Tensor, mask_VT: Tensor) -> tuple[Tensor, Tensor]:
    """The same along dim 1 and along dim 0, gathering only the pairs in the mask."""
    rows_P, columns_P = mask_VT.nonzero(as_tuple=True)
    logits_P = logits_VT[rows_P, columns_P]
    sums = []
    for group_P, num_groups in zip((rows_P, columns_P), logits_VT.shape, strict=True):
        top = logits_VT.new_full((num_groups,), _nothing(logits_VT))
        top = top.scatter_reduce(0, group_P, logits_P.detach(), "amax")
        shares = torch.zeros_like(top).index_add(0, group_P, (logits_P - top[group_P]).exp())
        sums.append(shares.clamp(min=torch.finfo(top.dtype).tiny).log() + top)
    return sums[0], sums[1]


def _nothing(logits: Tensor) -> float:
    """In place of minus infinity, which has no finite gradient; its differences do not overflow."""
    return float(torch.finfo(logits.dtype).min / 4)
