"""The losses: contrastive terms over a table of similarities and masks of its pairs.

All take masks of the same shape as the table: a pair that is in neither has no part in the loss,
nor a gradient. `negative_weight_VT` weighs the negatives, (V, T) float >= 0; None is 1 for all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# V = clips or segments in the batch, T = texts in the batch, P = pairs that a mask names


def info_nce(
    logits_VT: Tensor,
    *,
    positive_VT: Tensor,
    negative_VT: Tensor,
    negative_weight_VT: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE with several positives and masked pairs; a scalar.

    logits_VT: (V, T) float, logit scale times cosine.   positive_VT, negative_VT: (V, T) bool.

    A row's term is -log(P / (P + N)), with P the sum of exp(logit) over its positives and N that
    of weight * exp(logit) over its negatives. Terms are averaged over the rows that have a
    positive, then over the two directions. With one positive in every row and column, nothing
    masked and no weights it is open_clip's `ClipLoss`.

    Summing the positives inside the logarithm is MIL-NCE (arXiv 1912.06430, equation 1). The other
    usual choice, the mean of -log p over the positives (SupCon, arXiv 2004.11362, L_out), lets the
    positives of a row compete: one that is closer than the others is pushed away. Here no positive
    ever is.
    """
    if logits_VT.numel() == 0:
        return logits_VT.sum()
    rows_P, columns_P = positive_VT.nonzero(as_tuple=True)
    logits_P = logits_VT[rows_P, columns_P]
    weighted_VT = logits_VT
    if negative_weight_VT is not None:
        negative_VT = negative_VT & (negative_weight_VT > 0)
        weighted_VT = logits_VT + negative_weight_VT.clamp(min=_least(logits_VT)).log()
    terms = []
    for dim, group_P in ((1, rows_P), (0, columns_P)):
        log_p = _grouped_log_sums(logits_P, group_P, logits_VT.shape[1 - dim])
        log_n = _log_sums(weighted_VT, negative_VT, dim=dim)
        terms.append(_mean_share(log_p, log_n, counted=positive_VT.any(dim=dim)))
    return (terms[0] + terms[1]) / 2


def info_nce_of_few(
    logits_P: Tensor,
    *,
    rows_P: Tensor,
    columns_P: Tensor,
    positive_P: Tensor,
    negative_P: Tensor,
    shape: tuple[int, int],
    negative_weight: float = 1.0,
) -> Tensor:
    """`info_nce` of a (V, T) table where all pairs but the P given ones are masked.

    Its time grows with P and not with the table.   logits_P: (P,) float.   rows_P, columns_P: (P,)
    int64.   positive_P, negative_P: (P,) bool.   shape: (V, T).
    """
    if negative_weight == 0:
        negative_P = torch.zeros_like(negative_P)
    weighted_P = logits_P + math.log(negative_weight or 1.0)
    terms = []
    for group_P, num_groups in zip((rows_P, columns_P), shape, strict=True):
        counted = torch.zeros(num_groups, dtype=torch.bool, device=logits_P.device)
        counted[group_P[positive_P]] = True
        log_p = _grouped_log_sums(logits_P[positive_P], group_P[positive_P], num_groups)
        log_n = _grouped_log_sums(weighted_P[negative_P], group_P[negative_P], num_groups)
        terms.append(_mean_share(log_p, log_n, counted=counted))
    return (terms[0] + terms[1]) / 2


def sigmoid(
    logits_VT: Tensor,
    *,
    positive_VT: Tensor,
    negative_VT: Tensor,
    negative_weight_VT: Tensor | None = None,
) -> Tensor:
    """SigLIP's loss (arXiv 2303.15343, section 3.2): each pair is a yes or a no; a scalar.

    logits_VT: (V, T) float, logit scale times cosine plus bias.

    The sum of softplus(-logit) over the positives and of weight * softplus(logit) over the
    negatives, divided by the number of positives: SigLIP's own where each row and column has one.
    """
    positive = F.logsigmoid(logits_VT[positive_VT]).sum()
    terms_VT = F.logsigmoid(-logits_VT)
    if negative_weight_VT is not None:
        terms_VT = terms_VT * negative_weight_VT
    negative = torch.where(negative_VT, terms_VT, 0.0).sum()
    return -(positive + negative) / positive_VT.sum().clamp(min=1)


def hinge(
    cosines_VT: Tensor,
    *,
    positive_VT: Tensor,
    negative_VT: Tensor,
    margin: float,
    hardest: bool,
    negative_weight_VT: Tensor | None = None,
) -> Tensor:
    """Positives ahead of the negatives of their row and of their column by a margin; a scalar.

    A positive's term is the mean of weight * max(0, margin - positive + negative) over the
    negatives in its row, or with `hardest` the largest of them (VSE++, arXiv 1707.05612, equation
    6). Terms are averaged over the positives, then over the two directions.
    """
    rows_P, columns_P = positive_VT.nonzero(as_tuple=True)
    if len(rows_P) == 0:
        return (cosines_VT * 0).sum()
    positive_P1 = cosines_VT[rows_P, columns_P][:, None]
    weights_VT = negative_VT.to(cosines_VT.dtype)
    if negative_weight_VT is not None:
        weights_VT = weights_VT * negative_weight_VT
    terms = []
    for at, cosines, weights, negative in (
        (rows_P, cosines_VT, weights_VT, negative_VT),
        (columns_P, cosines_VT.T, weights_VT.T, negative_VT.T),
    ):
        short = F.relu(margin - positive_P1 + cosines[at]) * weights[at]
        counts = negative.sum(dim=1).clamp(min=1)[at]
        term_P = short.amax(dim=1) if hardest else short.sum(dim=1) / counts
        terms.append(term_P.mean())
    return (terms[0] + terms[1]) / 2


def in_clip_logistic(
    logits_P: Tensor,
    *,
    columns_P: Tensor,
    positive_P: Tensor,
    negative_P: Tensor,
    num_texts: int,
) -> Tensor:
    """Each text says yes to its own segments and no to the others of its clip; a scalar.

    logits_P: (P,) float, the pairs inside the clips, of texts columns_P (P,) int64.
    positive_P, negative_P: (P,) bool.

    A text's term is half the mean of softplus(-logit) over its positives plus half the mean of
    softplus(logit) over its negatives, so that one right segment weighs as much as all the others:
    the frame-level contrast of ReLoCLNet (arXiv 2105.06247) but for a constant. Terms are averaged
    over the texts that have both.
    """
    means, present = [], []
    for sign, mask_P in ((1, positive_P), (-1, negative_P)):
        texts, terms = columns_P[mask_P], -F.logsigmoid(sign * logits_P[mask_P])
        counts = torch.bincount(texts, minlength=num_texts)
        sums = logits_P.new_zeros(num_texts).index_add(0, texts, terms)
        means.append(sums / counts.clamp(min=1))
        present.append(counts > 0)
    counted = present[0] & present[1]
    balanced = torch.where(counted, (means[0] + means[1]) / 2, 0.0)
    return balanced.sum() / counted.sum().clamp(min=1)


def _mean_share(log_p: Tensor, log_n: Tensor, *, counted: Tensor) -> Tensor:
    """Mean of -log(P / (P + N)) = softplus(log N - log P) over the rows that are counted."""
    row_terms = torch.where(counted, F.softplus(log_n - log_p), 0.0)
    return row_terms.sum() / counted.sum().clamp(min=1)


def _log_sums(logits_VT: Tensor, mask_VT: Tensor, *, dim: int) -> Tensor:
    """log of the sum of exp(logit) over the pairs in the mask, along `dim`.

    torch.logsumexp computes exp again for the gradient; exp is what this loss spends its time on.
    """
    masked_VT = logits_VT.masked_fill(~mask_VT, _nothing(logits_VT))
    top = masked_VT.detach().amax(dim=dim, keepdim=True)
    return (masked_VT - top).exp().sum(dim=dim).log() + top.squeeze(dim)


def _grouped_log_sums(logits_P: Tensor, group_P: Tensor, num_groups: int) -> Tensor:
    """(num_groups,): log of the sum of exp(logit) over the members of each group."""
    top = logits_P.new_full((num_groups,), _nothing(logits_P))
    top = top.scatter_reduce(0, group_P, logits_P.detach(), "amax")
    shares = torch.zeros_like(top).index_add(0, group_P, (logits_P - top[group_P]).exp())
    return shares.clamp(min=_least(logits_P)).log() + top


def _least(logits: Tensor) -> float:
    return float(torch.finfo(logits.dtype).tiny)


def _nothing(logits: Tensor) -> float:
    """In place of minus infinity, which has no finite gradient; its differences do not overflow."""
    return float(torch.finfo(logits.dtype).min / 4)
