"""The comparisons on the terminal: those of the table's columns, and how many are left."""

from __future__ import annotations

import pytest

from mlalign.evaluate.reports.terminal import print_comparisons
from mlalign.evaluate.statistics.bootstrap import Difference
from mlalign.evaluate.statistics.comparisons import Comparison


def compared(task: str, score: str, p_holm: float | None = 0.5, metric: str = "R@1") -> Comparison:
    return Comparison(
        row="token",
        baseline="zero-shot",
        task=task,
        subset=None,
        score=score,
        metric=metric,
        num_queries=1,
        num_clips=1,
        difference=Difference(value=1.0, low=-1.0, high=2.0, p_bootstrap=0.5),
        with_seeds=None,
        p_permutation=0.5,
        mcnemar=None,
        p_holm=p_holm,
    )


def test_the_token_scores_tests_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparisons([compared("text_to_clip", "fused"), compared("text_to_clip", "token")], 0.95)
    printed = " ".join(capsys.readouterr().out.split())
    assert "text→clip fused R@1:" in printed and "text→clip token R@1:" in printed
    assert "after Holm over 2 tests" in printed and "not shown" not in printed
    assert printed.count("(1 query)") == 2


def test_tests_without_a_column_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        compared("text_to_clip", "fused"),
        compared("clip_to_sentence", "fused"),
        compared("multiple_choice", "global", metric="accuracy"),
        compared("text_to_clip", "fused", metric="R@5", p_holm=None),
    ]
    print_comparisons(found, 0.95)
    printed = " ".join(capsys.readouterr().out.split())
    assert "after Holm over 3 tests" in printed
    assert "2 of the tests are not shown here; --json has them." in printed
