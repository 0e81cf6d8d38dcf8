"""Training: it helps on clips held out, gives the same numbers again, and fails loudly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from split_fixtures import NO_TASKS
from trainer_fixtures import VALIDATION, config_of, synthetic_split

from mlalign.align.config import DataConfig, OptimiserConfig, RunConfig, ValidationConfig
from mlalign.align.data.batches import epoch_batches
from mlalign.align.data.split import TrainingDataError, load_training_split
from mlalign.align.epoch_loop import FitResult, NotFiniteError
from mlalign.align.head_config import HeadConfig, HeadName
from mlalign.align.loss_config import LossConfig, TaskConfig
from mlalign.align.model.model import build_model
from mlalign.align.objective.objective import level_losses, loss_terms
from mlalign.align.optimiser import build_optimiser, learning_rate_factor
from mlalign.align.runs.callbacks import Callback, StepReport, ValidationReport
from mlalign.align.trainer import train_heads
from mlalign.data_manifests.core.errors import SettingsError
from mlalign.evaluate.scores.vectors import ZeroShot, embed

TRAIN = synthetic_split(300, dim=24, seed=0)


class Recorder:
    """Keeps all reports."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.validations: list[ValidationReport] = []

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)

    def on_validation(self, report: ValidationReport) -> bool:
        self.validations.append(report)
        return False


def trained(config: RunConfig, *callbacks: Callback) -> FitResult:
    return train_heads(config, train=TRAIN, validation=VALIDATION, callbacks=callbacks)


@pytest.mark.parametrize("head", ["linear", "mlp", "residual"])
def test_training_helps_on_clips_held_out(head: HeadName) -> None:
    recorder = Recorder()
    result = trained(config_of(head=head, epochs=20), recorder)
    before = recorder.validations[0].metrics
    assert before["global_recall_at_1"] < 0.1
    assert result.metrics["global_recall_at_1"] > before["global_recall_at_1"] + 0.3
    assert result.metrics["segment_recall_at_1"] > before["segment_recall_at_1"] + 0.3
    assert recorder.steps[-1].numbers["loss"] < recorder.steps[0].numbers["loss"] / 2


def test_the_segment_level_helps_the_segments_of_noisy_clips() -> None:
    train, validation = (
        synthetic_split(count, dim=24, seed=seed, noise=0.6) for count, seed in ((300, 0), (100, 1))
    )
    recalls = [
        train_heads(
            config_of(losses=LossConfig(segment_weight=weight)), train=train, validation=validation
        ).metrics["segment_recall_at_1"]
        for weight in (0, 1)
    ]
    assert recalls[1] > recalls[0] + 0.02


def test_the_same_seed_gives_the_same_numbers_and_weights() -> None:
    runs = []
    for seed in (0, 0, 1):
        recorder = Recorder()
        torch.rand(1)  # what the rest of the program draws does not matter
        result = trained(config_of(head="mlp", epochs=2, dropout=0.2, seed=seed), recorder)
        runs.append((recorder.steps, recorder.validations, result.last_weights))
    assert runs[0][:2] == runs[1][:2]
    assert runs[0][0] != runs[2][0]
    for name, weight in runs[0][2].items():
        assert torch.equal(weight, runs[1][2][name])


def test_training_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    trained(config_of(epochs=1, dropout=0.2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_best_weights_are_kept_and_the_last_ones_too() -> None:
    recorder = Recorder()
    result = trained(config_of(epochs=12, learning_rate=3e-2), recorder)
    scores = [report.score for report in recorder.validations]
    assert result.best_epoch == int(np.argmax(scores)) < 12
    assert result.metrics == recorder.validations[result.best_epoch].metrics
    best = result.model.state_dict()
    assert any(not torch.equal(best[name], w) for name, w in result.last_weights.items())


def test_early_stopping_ends_after_the_patience() -> None:
    recorder = Recorder()
    result = trained(config_of(epochs=40, learning_rate=3e-2, patience_epochs=3), recorder)
    assert result.num_epochs == result.best_epoch + 3 < 40
    assert recorder.validations[-1].epoch == result.num_epochs


def test_validation_before_training_shows_zero_shot() -> None:
    recorder = Recorder()
    trained(config_of(epochs=1), recorder)
    vectors = embed(VALIDATION, ZeroShot())
    right = (vectors.texts[:100] @ vectors.clips.T).argmax(axis=1) == np.arange(100)
    assert recorder.validations[0].metrics["global_recall_at_1"] == right.mean()


def test_without_validation_the_last_weights_are_kept() -> None:
    result = train_heads(config_of(epochs=2), train=TRAIN, validation=None)
    assert (result.best_epoch, result.metrics) == (2, {})
    for name, weight in result.model.state_dict().items():
        assert torch.equal(weight, result.last_weights[name])


def test_the_terms_are_named_and_add_up() -> None:
    losses = LossConfig(global_weight=0.5, segment_weight=2, weak_segment_weight=0)
    config = config_of(losses=losses)
    split = load_training_split(TRAIN, config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(split, batch_clips=50, seed=0, epoch=1))
    tensors = loss_terms(
        build_model(config, dim_video=24, dim_text=24),
        split,
        batch,
        config=config,
        epoch=1,
        with_parts=True,
    )
    terms = {name: term.item() for name, term in tensors.items()}
    assert list(terms) == ["global", "segment", "segment_in_clip", "segment_cross_clip"]
    losses_of_levels = [loss.item() for loss in level_losses(tensors, config).values()]
    assert losses_of_levels == pytest.approx([0.5 * terms["global"], 2 * terms["segment"]])
    in_clip, cross_clip = terms["segment_in_clip"], terms["segment_cross_clip"]
    assert terms["segment"] == pytest.approx(in_clip + cross_clip)
    assert in_clip > 0 and cross_clip > 0


def test_two_captions_with_the_same_words_do_not_repel_each_others_clips() -> None:
    """Clips 0 and 1 share a caption: the only negatives of each are those with clip 2."""
    split = synthetic_split(3, dim=24, seed=0)
    split.texts[1] = split.texts[0].upper() + "!"
    split.text_features[1] = split.text_features[0]
    config = config_of(losses=LossConfig(segment_weight=0))
    resident = load_training_split(split, config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(resident, batch_clips=3, seed=0, epoch=1))
    assert batch.global_level is not None
    clip_of_row = batch.clips.tolist()
    expected = [[{a, b} != {0, 1} and a != b for b in clip_of_row] for a in clip_of_row]
    assert batch.global_level.negative.tolist() == expected


def test_divergence_ends_with_step_and_term() -> None:
    train = synthetic_split(40, dim=24, seed=0)
    train.text_features[0] = 3e38  # finite, but its norm is not

    with pytest.raises(NotFiniteError, match=r"step \d+ \(epoch 1\): global is nan.*learning_rate"):
        train_heads(config_of(epochs=1), train=train, validation=None)


def test_nan_features_are_refused_in_both_splits() -> None:
    broken = synthetic_split(40, dim=24, seed=0)
    broken.clip_features[7] = np.nan
    with pytest.raises(TrainingDataError, match="clip7"):
        train_heads(config_of(), train=broken, validation=None)
    with pytest.raises(TrainingDataError, match="clip7"):
        train_heads(config_of(), train=TRAIN, validation=broken)


def test_two_identity_heads_are_refused() -> None:
    with pytest.raises(SettingsError, match="nothing to train"):
        trained(config_of(head="identity"))


def test_a_missing_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="--set device=cpu"):
        train_heads(RunConfig(device="cuda"), train=TRAIN, validation=None)


def test_only_matrices_are_decayed() -> None:
    config = config_of()
    model = build_model(config, dim_video=24, dim_text=24)
    decayed, kept = build_optimiser(model, config.optimiser).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim == 2 for p in decayed["params"])
    assert kept["weight_decay"] == 0
    assert "global_heads.scale.log_scale" in {names[id(p)] for p in kept["params"]}
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [learning_rate_factor(s, warmup_steps=4, num_steps=20) for s in range(1, 21)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert 0 < factors[-1] < 0.02
    assert learning_rate_factor(1, warmup_steps=0, num_steps=1) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: RunConfig(
                losses=LossConfig(global_weight=0, segment_weight=0, weak_segment_weight=0),
                tasks=NO_TASKS,
            ),
            "all weights of losses and tasks are 0",
        ),
        (lambda: TaskConfig(choice_weight=-1), "choice_weight must be >= 0"),
        (lambda: TaskConfig(items_per_clip=0), "items_per_clip must be at least 1"),
        (lambda: TaskConfig(choice_dropout=1), r"in \[0, 1\), got 1"),
        (lambda: TaskConfig(answer_hidden=6), "a multiple of 4, got 6"),
        (
            lambda: RunConfig(
                validation=ValidationConfig(metric="answer_accuracy"), tasks=NO_TASKS
            ),
            r"not trained \(tasks.answer_weight is 0\)",
        ),
        (
            lambda: LossConfig(in_clip_negative_weight=0, cross_clip_negative_weight=0),
            "has no negatives",
        ),
        (lambda: LossConfig(margin=0), "margin must be in"),
        (lambda: LossConfig(hardest_from_epoch=0), "hardest_from_epoch must be at least 1"),
        (lambda: LossConfig(segment_weight=-1), "must be >= 0"),
        (lambda: LossConfig(temperature=0), "at least 0.01"),
        (lambda: HeadConfig(dropout=1), "dropout"),
        (lambda: HeadConfig(width=0), "width must be at least 1"),
        (lambda: OptimiserConfig(batch_clips=1), "batch_clips must be at least 2"),
        (lambda: OptimiserConfig(epochs=2, warmup_epochs=3), r"between 0 and epochs \(2\), got 3"),
        (lambda: OptimiserConfig(learning_rate=0), "learning_rate must be > 0"),
        (lambda: ValidationConfig(patience_epochs=0), "patience_epochs"),
        (lambda: DataConfig(validation_split="train"), "must not be the training split"),
    ],
)
def test_impossible_settings_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
