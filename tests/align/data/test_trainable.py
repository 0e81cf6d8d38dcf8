"""What can be trained is trained: weights of what the data lacks become 0, and that is said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from split_fixtures import Text, split_of, with_sentences
from task_fixtures import split_with_questions

from mlalign.align.config import OptimiserConfig, RunConfig, ValidationConfig
from mlalign.align.data.split import TrainingDataError
from mlalign.align.data.trainable import trainable
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LevelsConfig, LossConfig, TaskConfig
from mlalign.align.runs.checkpoint import load_run
from mlalign.align.trainer import train_run_on
from mlalign.data_manifests.core.errors import UserError
from mlalign.extract.cache.split_features import SplitFeatures

SEGMENTS = [[(0.0, 1.0), (1.0, 2.0)]] * 3
CAPTIONS: list[Text] = [(clip, f"caption {clip}", None) for clip in range(3)]
SPANS: list[Text] = [(clip, f"sentence {clip}", (0.0, 1.0)) for clip in range(3)]


def weights(split: SplitFeatures, config: RunConfig | None = None) -> dict[str, float]:
    """Those above 0."""
    resolved = trainable(config or RunConfig(), split).config
    all_weights = {
        **{f.name: getattr(resolved.losses, f.name) for f in dataclasses.fields(resolved.losses)},
        **{f.name: getattr(resolved.tasks, f.name) for f in dataclasses.fields(resolved.tasks)},
    }
    terms = ("global", "segment", "weak_segment", "choice", "answer", "moment")
    return {term: w for term in terms if (w := all_weights[f"{term}_weight"]) > 0}


def test_captions_alone_train_the_global_level() -> None:
    assert weights(split_of(SEGMENTS, CAPTIONS)) == {"global": 1}


def test_captions_of_several_sentences_train_segments_without_spans() -> None:
    split = with_sentences(split_of(SEGMENTS, CAPTIONS), seed=0)
    assert split.sentences is not None and (split.sentences.counts > 1).sum() >= 2
    assert weights(split) == {"global": 1, "weak_segment": 1}
    assert trainable(RunConfig(), split).config.levels.path


def test_texts_with_spans_alone_train_the_segment_level() -> None:
    assert weights(split_of(SEGMENTS, SPANS)) == {"segment": 1}


def test_both_kinds_of_texts_train_both_levels_and_the_path() -> None:
    split = split_of(SEGMENTS, CAPTIONS + SPANS)
    assert weights(split) == {"global": 1, "segment": 1}
    assert trainable(RunConfig(), split).config.levels.path
    without = RunConfig(levels=LevelsConfig(path=False))
    assert not trainable(without, split).config.levels.path


def test_weak_segments_of_single_sentences_make_no_path() -> None:
    weak = RunConfig(losses=LossConfig(weak_segment_weight=1))
    split = split_of(SEGMENTS, CAPTIONS)
    assert weights(split, weak) == {"global": 1, "weak_segment": 1}
    assert not trainable(weak, split).config.levels.path


def test_questions_alone_train_the_tasks() -> None:
    full = split_with_questions(0)
    none = np.zeros(0, dtype=np.int64)
    split = dataclasses.replace(
        full,
        text_ids=[],
        texts=[],
        text_features=full.text_features[:0],
        text_clips=none,
        text_spans=np.zeros((0, 2)),
    )
    assert weights(split) == {"choice": 1, "answer": 1}


def test_moments_are_trained_on_segments_that_do_not_tell_the_answer() -> None:
    split = split_with_questions(0)
    assert "moment" in weights(split)
    assert "moment" not in weights(dataclasses.replace(split, segment_rule="spans"))


def test_what_is_left_out_is_said_in_one_line_with_the_reasons() -> None:
    line = trainable(RunConfig(), split_of(SEGMENTS, CAPTIONS)).line()
    assert line is not None and "\n" not in line
    assert line.startswith("not trained: the segment level by spans (no text has a span")
    for task in ("multiple choice (", "open-ended answers (", "moments ("):
        assert task in line
    assert trainable(RunConfig(), split_with_questions(0)).line() is None


def test_a_weight_of_zero_is_not_reported() -> None:
    config = RunConfig(
        losses=LossConfig(segment_weight=0),
        tasks=TaskConfig(choice_weight=0, answer_weight=0, moment_weight=0),
    )
    assert trainable(config, split_of(SEGMENTS, CAPTIONS)).line() is None


@pytest.mark.parametrize(
    ("texts", "losses"),
    [
        ([], LossConfig()),
        (CAPTIONS[:1], LossConfig()),
        (CAPTIONS, LossConfig(global_weight=0)),
        (SPANS, LossConfig(segment_weight=0)),
        ([(0, "outside", (7.0, 8.0))], LossConfig()),
    ],
)
def test_nothing_to_train_is_an_error_that_names_the_settings(
    texts: list[Text], losses: LossConfig
) -> None:
    with pytest.raises(TrainingDataError, match="nothing that these settings train.*global_weight"):
        trainable(RunConfig(losses=losses), split_of(SEGMENTS, texts))


def questions_only() -> SplitFeatures:
    """No text at all."""
    split = split_with_questions(0)
    nothing = np.zeros(0, dtype=np.int64)
    return dataclasses.replace(
        split,
        text_ids=[],
        texts=[],
        text_features=split.text_features[:0],
        text_clips=nothing,
        text_spans=np.zeros((0, 2)),
    )


ONLY = {
    "captions": (split_of(SEGMENTS, CAPTIONS), {"global": 1.0}),
    "spans": (split_of(SEGMENTS, SPANS), {"segment": 1.0}),
    "questions": (questions_only(), {"choice": 1.0, "answer": 1.0}),
}


@pytest.mark.parametrize("kind", ONLY)
def test_data_of_one_kind_train_without_any_setting(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split, trained = ONLY[kind]
    config = RunConfig(optimiser=OptimiserConfig(epochs=1))
    assert weights(split) == trained
    train_run_on(tmp_path / "run", config, train=split, validation=split)
    lines = capsys.readouterr().err.splitlines()
    reported = [line for line in lines if "not trained" in line]
    assert len(reported) == 1 and reported[0].startswith("run: not trained: ")
    run = load_run(tmp_path / "run")
    assert weights(split, run.config) == trained
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert f"run: not trained: {', '.join(content['left_out'])}" == reported[0]
    steps = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first = next(line for line in map(json.loads, steps) if line["kind"] == "step")
    assert set(trained) <= set(first)
    others = {"global", "segment", "weak_segment", "choice", "answer", "moment"} - set(trained)
    assert not others & set(first)


def nan_in(split: SplitFeatures) -> SplitFeatures:
    features = split.segment_features.copy()
    features[1] = np.nan
    return dataclasses.replace(split, segment_features=features)


BOTH = split_of(SEGMENTS, CAPTIONS + SPANS)


@pytest.mark.parametrize(
    ("train", "validation", "config", "message"),
    [
        (split_of(SEGMENTS, []), BOTH, RunConfig(), "nothing that these settings train"),
        (nan_in(BOTH), BOTH, RunConfig(), "segment features are NaN"),
        (BOTH, nan_in(BOTH), RunConfig(), "segment features are NaN"),
        (BOTH, split_of(SEGMENTS, []), RunConfig(), "the validation split lacks"),
        (
            BOTH,
            BOTH,
            RunConfig(validation=ValidationConfig(metric="choice_accuracy")),
            "choice_accuracy, but that is not trained",
        ),
        (
            BOTH,
            BOTH,
            RunConfig(heads=HeadsConfig(video=HeadConfig(width=3))),
            "keeps the width of the features",
        ),
        (BOTH, BOTH, RunConfig(losses=LossConfig(name="mine")), "mine"),
    ],
)
def test_a_failed_start_leaves_no_run_folder(
    train: SplitFeatures,
    validation: SplitFeatures,
    config: RunConfig,
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=message):
        train_run_on(tmp_path / "run", config, train=train, validation=validation)
    assert not (tmp_path / "run").exists()
