"""The losses: contrastive terms over a table of similarities and masks of its pairs.

All take masks of the same shape as the table: a pair that is in neither has no part in the loss,
nor a gradient. `negative_weight_VT` weighs the negatives, (V, T) float >= 0; None is 1 for all.

Of M runs that train together all tables are stacked, (M, V, T), and a loss is (M,) instead of a
scalar. Lists of pairs have those of all tables end to end: row r of table m is m * V + r there,
column c is m * T + c.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .log_sums import grouped_log_sums, least, log_sums, nothing

# V = clips or segments in the batch, T = texts in the batch, P = pairs that a mask names
# M = runs that train together, Q = positive pairs


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
        return logits_VT.sum(dim=(-2, -1))
    places = positive_VT.nonzero(as_tuple=True)
    logits_P = logits_VT[places]
    weighted_VT = logits_VT
    if negative_weight_VT is not None:
        negative_VT = negative_VT & (negative_weight_VT > 0)
        weighted_VT = logits_VT + negative_weight_VT.clamp(min=least(logits_VT)).log()
    terms = []
    log_negatives = log_sums(weighted_VT, negative_VT)
    for group_P, log_n in zip(rows_and_columns(places, logits_VT), log_negatives, strict=True):
        log_p = grouped_log_sums(logits_P, group_P, log_n.numel()).view_as(log_n)
        terms.append(_mean_share(log_p, log_n, group_P))
    return (terms[0] + terms[1]) / 2


def info_nce_of_few(
    logits_P: Tensor,
    *,
    rows_P: Tensor,
    columns_P: Tensor,
    positive_P: Tensor,
    negative_P: Tensor,
    shape: tuple[int, ...],
    negative_weight: float = 1.0,
) -> Tensor:
    """`info_nce` of a (V, T) table where all pairs but the P given ones are masked.

    Its time grows with P and not with the table.   logits_P: (P,) float.   rows_P, columns_P: (P,)
    int64.   positive_P, negative_P: (P,) bool.   shape: (V, T), or (M, V, T).
    """
    if negative_weight == 0:
        negative_P = torch.zeros_like(negative_P)
    weighted_P = logits_P + math.log(negative_weight or 1.0)
    terms = []
    for group_P, size in ((rows_P, shape[-2]), (columns_P, shape[-1])):
        groups = (*shape[:-2], size)
        log_p, log_n = (
            grouped_log_sums(logits[mask_P], group_P[mask_P], math.prod(groups)).view(groups)
            for logits, mask_P in ((logits_P, positive_P), (weighted_P, negative_P))
        )
        terms.append(_mean_share(log_p, log_n, group_P[positive_P]))
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
    places = positive_VT.nonzero(as_tuple=True)
    positive = _table_sums(F.logsigmoid(logits_VT[places]), places[0], logits_VT.shape)
    terms_VT = F.logsigmoid(-logits_VT)
    if negative_weight_VT is not None:
        terms_VT = terms_VT * negative_weight_VT
    negative = torch.where(negative_VT, terms_VT, 0.0).sum(dim=(-2, -1))
    return -(positive + negative) / positive_VT.sum(dim=(-2, -1)).clamp(min=1)


def sigmoid_of_few(
    logits_P: Tensor,
    *,
    rows_P: Tensor,
    positive_P: Tensor,
    negative_P: Tensor,
    shape: tuple[int, ...],
    negative_weight: float = 1.0,
) -> Tensor:
    """The part of `sigmoid` that P pairs of a (V, T) table have, all its positives among them.

    logits_P: (P,) float.   rows_P: (P,) int64.   positive_P, negative_P: (P,) bool.   shape:
    (V, T), or (M, V, T).
    """
    table_P = rows_P // shape[-2]
    table_Q = table_P[positive_P]
    positive = _table_sums(F.logsigmoid(logits_P[positive_P]), table_Q, shape)
    terms_P = F.logsigmoid(-logits_P) * negative_weight
    negative = _table_sums(torch.where(negative_P, terms_P, 0.0), table_P, shape)
    return -(positive + negative) / _table_sums(torch.ones_like(table_Q), table_Q, shape).clamp(1)


def hinge(
    cosines_VT: Tensor,
    *,
    positive_VT: Tensor,
    negative_VT: Tensor,
    margin: float | Tensor,
    hardest: bool,
    negative_weight_VT: Tensor | None = None,
) -> Tensor:
    """Positives ahead of the negatives of their row and of their column by a margin; a scalar.

    A positive's term is the mean of weight * max(0, margin - positive + negative) over the
    negatives in its row, or with `hardest` the largest of them (VSE++, arXiv 1707.05612, equation
    6). Terms are averaged over the positives, then over the two directions.   margin: one number,
    or (M,).
    """
    places = positive_VT.nonzero(as_tuple=True)
    if len(places[0]) == 0:
        return (cosines_VT * 0).sum(dim=(-2, -1))
    gaps_P = _of_tables(margin, places[0]) - cosines_VT[places]
    masked_VT = cosines_VT.masked_fill(~negative_VT, nothing(cosines_VT))
    terms = []
    # Of a positive's row, then of its column.
    for dim, at_P in zip((0, 1), rows_and_columns(places, cosines_VT), strict=True):
        if hardest and negative_weight_VT is None:
            largest = masked_VT.max(dim=-1 - dim).values.flatten()
            term_P = F.relu(gaps_P + largest[at_P])
            terms.append(_table_means(term_P, places[0], cosines_VT.shape))
            continue
        others, over = _lines(masked_VT, dim, at_P)
        short = (others + gaps_P.unsqueeze(over)).relu_()
        if negative_weight_VT is not None:
            short = short * _lines(negative_weight_VT, dim, at_P)[0]
        if hardest:
            term_P = short.max(dim=over).values
        else:
            counts = negative_VT.sum(dim=-1 - dim).clamp(min=1).flatten()
            term_P = short.sum(dim=over) / counts[at_P]
        terms.append(_table_means(term_P, places[0], cosines_VT.shape))
    return (terms[0] + terms[1]) / 2


def hinge_of_few(
    cosines_P: Tensor,
    *,
    rows_P: Tensor,
    columns_P: Tensor,
    positive_P: Tensor,
    negative_P: Tensor,
    counts: tuple[Tensor, Tensor],
    margin: float | Tensor,
    hardest: bool,
    negative_weight: float = 1.0,
) -> Tensor:
    """The part of `hinge` that P pairs of a (V, T) table have, all its positives among them.

    Its time grows with P and not with the table.   cosines_P: (P,) float.   rows_P, columns_P:
    (P,) int64.   positive_P, negative_P: (P,) bool.   counts: (V,) and (T,), negatives of the
    whole table in each row and column, over which the mean is taken; or (M, V) and (M, T).
    """
    at_Q = positive_P.nonzero().squeeze(1)
    shape = (*counts[0].shape, counts[1].shape[-1])
    table_Q = rows_P[at_Q] // shape[-2]
    gaps_Q = _of_tables(margin, table_Q) - cosines_P[at_Q]
    terms = []
    for group_P, count in zip((rows_P, columns_P), counts, strict=True):
        others, owners = _same_group(group_P, at_Q, num_groups=count.numel())
        short = F.relu(gaps_Q[owners] + cosines_P[others])
        short = short * negative_P[others] * negative_weight
        term_Q = torch.zeros_like(cosines_P[at_Q])
        if hardest:
            term_Q = term_Q.scatter_reduce(0, owners, short, "amax")
        else:
            counted_Q = count.flatten().clamp(min=1)[group_P[at_Q]]
            term_Q = term_Q.index_add(0, owners, short) / counted_Q
        terms.append(_table_means(term_Q, table_Q, shape))
    return (terms[0] + terms[1]) / 2


def in_clip_logistic(
    logits_P: Tensor,
    *,
    columns_P: Tensor,
    positive_P: Tensor,
    negative_P: Tensor,
    texts: tuple[int, ...],
) -> Tensor:
    """Each text says yes to its own segments and no to the others of its clip; a scalar.

    logits_P: (P,) float, the pairs inside the clips, of texts columns_P (P,) int64.
    positive_P, negative_P: (P,) bool.   texts: (T,), how many there are, or (M, T).

    A text's term is half the mean of softplus(-logit) over its positives plus half the mean of
    softplus(logit) over its negatives, so that one right segment weighs as much as all the others:
    the frame-level contrast of ReLoCLNet (arXiv 2105.06247) but for a constant. Terms are averaged
    over the texts that have both.
    """
    means, present = [], []
    for sign, mask_P in ((1, positive_P), (-1, negative_P)):
        text_of, terms = columns_P[mask_P], -F.logsigmoid(sign * logits_P[mask_P])
        counts = torch.bincount(text_of, minlength=math.prod(texts))
        sums = logits_P.new_zeros(math.prod(texts)).index_add(0, text_of, terms)
        means.append((sums / counts.clamp(min=1)).view(texts))
        present.append((counts > 0).view(texts))
    counted = present[0] & present[1]
    balanced = torch.where(counted, (means[0] + means[1]) / 2, 0.0)
    return balanced.sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)


def rows_and_columns(places: tuple[Tensor, ...], table: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) each: rows and columns of pairs of a table or, end to end, of stacked ones.

    places: what indexes the pairs in the table, (P,) each.
    """
    if table.ndim == 2:
        return places[0], places[1]
    return places[0] * table.shape[-2] + places[1], places[0] * table.shape[-1] + places[2]


def _lines(table_VT: Tensor, dim: int, at_P: Tensor) -> tuple[Tensor, int]:
    """The rows (dim 0) or columns (1) `at` of a table, or of stacked ones end to end, and the
    dimension along which each lies."""
    if table_VT.ndim == 2:
        return table_VT.index_select(dim, at_P), 1 - dim
    lines = table_VT if dim == 0 else table_VT.mT
    return lines.flatten(0, 1).index_select(0, at_P), 1


def _of_tables(number: float | Tensor, table_P: Tensor) -> float | Tensor:
    """The number of each item's table, where each table has one."""
    return number[table_P] if isinstance(number, Tensor) else number


def _table_sums(values_P: Tensor, table_P: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The sum of values; (M,), of each table's own, where `shape` is (M, V, T)."""
    if len(shape) == 2:
        return values_P.sum()
    return values_P.new_zeros(shape[0]).index_add(0, table_P, values_P)


def _table_means(values_Q: Tensor, table_Q: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mean of values, 0 for none; (M,), of each table's own, where `shape` is (M, V, T)."""
    counts = torch.bincount(table_Q, minlength=shape[0]) if len(shape) == 3 else len(values_Q)
    clamped = counts.clamp(min=1) if isinstance(counts, Tensor) else max(1, counts)
    return _table_sums(values_Q, table_Q, shape) / clamped


def _same_group(group_P: Tensor, at_Q: Tensor, *, num_groups: int) -> tuple[Tensor, Tensor]:
    """For each of the items `at`, all items of its group: their places, and whose they are."""
    sizes = torch.bincount(group_P, minlength=num_groups)
    starts = sizes.cumsum(0) - sizes
    of_Q = group_P[at_Q]
    owners = torch.arange(len(at_Q), device=at_Q.device).repeat_interleave(sizes[of_Q])
    begins_Q = sizes[of_Q].cumsum(0) - sizes[of_Q]
    places = torch.arange(len(owners), device=at_Q.device) - begins_Q[owners]
    return group_P.argsort()[starts[of_Q][owners] + places], owners


def _mean_share(log_p: Tensor, log_n: Tensor, positive_rows_P: Tensor) -> Tensor:
    """Mean of -log(P / (P + N)) = softplus(log N - log P) over the rows that have a positive."""
    counted = torch.zeros(log_p.numel(), dtype=torch.bool, device=log_p.device)
    counted[positive_rows_P] = True
    counted = counted.view_as(log_p)
    row_terms = torch.where(counted, F.softplus(log_n - log_p), 0.0)
    return row_terms.sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)
