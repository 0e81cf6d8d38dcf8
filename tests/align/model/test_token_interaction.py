"""The token level's score against loops over words and frames, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mlalign.align.model import token_interaction
from mlalign.align.model.token_interaction import token_scores

SEEDS = range(4)


class Case:
    """Random ragged clips and texts, all kinds of lengths, some vectors of which are equal."""

    def __init__(self, seed: int, *, clips: int = 6, texts: int = 7, longest: int = 8) -> None:
        rng = np.random.default_rng(seed)
        self.frames = [
            torch.tensor(rng.normal(size=(n, 5))) for n in rng.integers(1, longest, clips)
        ]
        self.words = [
            torch.tensor(rng.normal(size=(n, 5))) for n in rng.integers(1, longest, texts)
        ]
        self.frames[0] = self.frames[0][:1].repeat(4, 1)
        self.frame_logits = [torch.tensor(rng.normal(size=len(own))) for own in self.frames]
        self.word_logits = [torch.tensor(rng.normal(size=len(own))) for own in self.words]

    def scores(
        self, *, weighted: bool, clips: list[int] | None = None, texts: list[int] | None = None
    ) -> Tensor:
        chosen = range(len(self.frames)) if clips is None else clips
        asked = range(len(self.words)) if texts is None else texts
        return token_scores(
            F.normalize(torch.cat([self.frames[i] for i in chosen]), dim=1),
            F.normalize(torch.cat([self.words[i] for i in asked]), dim=1),
            frame_offsets=offsets([len(self.frames[i]) for i in chosen]),
            word_offsets=offsets([len(self.words[i]) for i in asked]),
            frame_logits_F=torch.cat([self.frame_logits[i] for i in chosen]) if weighted else None,
            word_logits_K=torch.cat([self.word_logits[i] for i in asked]) if weighted else None,
        )

    def leaves(self) -> list[Tensor]:
        return [*self.frames, *self.words, *self.frame_logits, *self.word_logits]


def offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def by_loops(case: Case, *, weighted: bool) -> Tensor:
    rows = []
    for frames, frame_logits in zip(case.frames, case.frame_logits, strict=True):
        row = []
        for words, word_logits in zip(case.words, case.word_logits, strict=True):
            row.append(
                (
                    half(words, frames, word_logits if weighted else None)
                    + half(frames, words, frame_logits if weighted else None)
                )
                / 2
            )
        rows.append(torch.stack(row))
    return torch.stack(rows)


def half(some: Tensor, others: Tensor, logits: Tensor | None) -> Tensor:
    """The mean over some of the best cosine with the others."""
    bests = []
    for one in some:
        cosines = [F.cosine_similarity(one, other, dim=0) for other in others]
        bests.append(torch.stack(cosines).max())
    if logits is None:
        return torch.stack(bests).mean()
    total = sum(math.e**logit for logit in logits)
    shares = [math.e**logit / total for logit in logits]
    return torch.stack([share * best for share, best in zip(shares, bests, strict=True)]).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("group_rows", [1, 7, 4096])
@pytest.mark.parametrize("seed", SEEDS)
def test_scores_and_gradients_equal_loops(
    seed: int, group_rows: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one table or in many, which are made again for the gradient."""
    monkeypatch.setattr(token_interaction, "GROUP_ROWS", group_rows)
    case = Case(seed)
    for leaf in case.leaves():
        leaf.requires_grad_()
    expected, found = by_loops(case, weighted=weighted), case.scores(weighted=weighted)
    with torch.inference_mode():
        assert torch.equal(case.scores(weighted=weighted), found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.tensor(np.random.default_rng(seed).normal(size=found.shape))
    leaves = [*case.frames[1:], *case.words]  # in the first clip all frames are equally good
    leaves += [*case.frame_logits, *case.word_logits] if weighted else []
    one, other = (
        torch.autograd.grad((table * weights).sum(), leaves, retain_graph=True)
        for table in (found, expected)
    )
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_score_depends_neither_on_the_order_nor_on_the_company(seed: int, weighted: bool) -> None:
    """Longer clips and texts beside it, to whose length it is padded, among the company."""
    case, rng = Case(seed, longest=40), np.random.default_rng(seed)
    whole = case.scores(weighted=weighted)
    clips, texts = rng.permutation(6).tolist(), rng.permutation(7).tolist()
    torch.testing.assert_close(
        case.scores(weighted=weighted, clips=clips, texts=texts),
        whole[clips][:, texts],
        rtol=0,
        atol=1e-13,
    )
    alone = case.scores(weighted=weighted, clips=[3], texts=[5])
    torch.testing.assert_close(alone, whole[3:4, 5:6], rtol=0, atol=1e-13)


def test_logits_of_zero_give_the_plain_means_to_the_last_bit() -> None:
    case = Case(0)
    case.frame_logits = [torch.zeros(len(own), dtype=torch.float64) for own in case.frames]
    case.word_logits = [torch.zeros(len(own), dtype=torch.float64) for own in case.words]
    assert torch.equal(case.scores(weighted=True), case.scores(weighted=False))


def test_large_logits_do_not_overflow() -> None:
    case = Case(1)
    case.word_logits = [1000 * own for own in case.word_logits]
    case.frame_logits = [-1000 * own for own in case.frame_logits]
    assert case.scores(weighted=True).isfinite().all()


def test_no_texts_or_no_clips_give_a_table_of_no_entries() -> None:
    case = Case(0)
    frames, words = (torch.cat(part).requires_grad_() for part in (case.frames, case.words))
    of_frames, of_words = (
        offsets([len(own) for own in part]) for part in (case.frames, case.words)
    )
    none, nothing = torch.zeros(0, 5, dtype=torch.float64), np.zeros(1, dtype=np.int64)
    without = token_scores(frames, none, frame_offsets=of_frames, word_offsets=nothing)
    assert without.shape == (6, 0)
    torch.autograd.backward(without.sum())
    assert token_scores(none, words, frame_offsets=nothing, word_offsets=of_words).shape == (0, 7)


def test_one_frame_and_one_word_give_their_cosine() -> None:
    case = Case(2)
    case.frames, case.words = [case.frames[1][:1]], [case.words[1][:1]]
    cosine = F.cosine_similarity(case.frames[0], case.words[0])
    torch.testing.assert_close(case.scores(weighted=False), cosine[None])


@pytest.mark.parametrize("group_rows", [1, 50, 4096])
def test_groups_have_each_item_once_few_rows_and_little_padding(
    group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_interaction, "GROUP_ROWS", group_rows)
    counts = np.random.default_rng(0).integers(1, 65, size=500)
    groups = list(token_interaction._of_like_length(counts))
    assert sorted(np.concatenate(groups).tolist()) == list(range(500))
    for items in groups:
        padded = len(items) * counts[items].max()
        assert padded <= group_rows or len(items) == 1
        assert padded - counts[items].sum() <= token_interaction.SHARE_OF_PADDING * padded
