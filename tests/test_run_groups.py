"""Which runs train together: those that differ in numbers only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from test_tasks import split_with_questions
from test_trainer import synthetic_split

from mlalign.align import run_groups
from mlalign.align.batches import make_batch
from mlalign.align.config import (
    HeadConfig,
    HeadName,
    HeadsConfig,
    LossConfig,
    LossName,
    OptimiserConfig,
    RunConfig,
    TaskConfig,
)
from mlalign.align.objective import loss_terms
from mlalign.align.run_groups import NUMBERS, SWITCHED, bytes_of_run, structure
from mlalign.align.task_items import vocabulary
from mlalign.align.training import untrained_model
from mlalign.align.training_split import load_training_split
from mlalign.data_manifests.settings import settings_dict, settings_of
from mlalign.extract.store import SplitFeatures

BASE: dict[str, Any] = {
    "heads": {"video": {"width": 8}, "text": {"width": 8}},
    "optimiser": {"ema_decay": 0.9, "epochs": 7},
    "losses": {"in_clip_weight": 0.5, "weak_segment_weight": 0.5},
    "tasks": {"choice_weight": 0.5, "answer_weight": 0.5, "moment_weight": 0.5},
}
OTHERS: dict[str, Any] = {
    "heads.video.name": "mlp",
    "heads.text.name": "mlp",
    "losses.name": "hinge",
    "losses.weak_pooling": "softmax",
    "losses.token_interaction": "weighted",
    "losses.overlap_iou": 0.6,
    "losses.hardest_from_epoch": 2,
    "validation.metric": "global_recall_at_1",
    "data.train_split": "other",
    "data.validation_split": "other",
    "data.segments": "uniform:4",
    "data.partial_clips": "leave_out",
    "data.memory_gib": 1,
    "precision": "medium",
    "device": "cpu",
}
"""Another value of settings that a number is not enough for."""


def dotted(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def changed(name: str, value: Any) -> RunConfig:
    """The base with one setting changed."""
    tree = settings_dict(settings_of(RunConfig, BASE, source="test"))
    *groups, leaf = name.split(".")
    place = tree
    for group in groups:
        place = place[group]
    place[leaf] = value
    return settings_of(RunConfig, tree, source="test")


def another(name: str, value: Any) -> Any:
    """A value that the setting does not have."""
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if value is None:
        return 3
    return value + 1 if isinstance(value, int) else value * 0.5 + 0.01


ALL = dict(dotted(settings_dict(settings_of(RunConfig, BASE, source="test"))))


@pytest.mark.parametrize("name", ALL)
def test_runs_train_together_exactly_when_they_differ_in_the_listed_numbers(name: str) -> None:
    other = changed(name, another(name, ALL[name]))
    alike = structure(changed("seed", 0)) == structure(other)
    assert dict(dotted(settings_dict(other)))[name] != ALL[name]
    assert alike == (name in NUMBERS or name in SWITCHED)


@pytest.mark.parametrize("name", sorted(SWITCHED))
def test_what_is_on_in_one_run_and_off_in_another_keeps_them_apart(name: str) -> None:
    off = None if name == "optimiser.ema_decay" else 0
    assert structure(changed(name, off)) != structure(changed(name, ALL[name]))


def test_the_listed_settings_exist() -> None:
    assert NUMBERS | SWITCHED <= ALL.keys()


@pytest.mark.parametrize("head", ["linear", "mlp", "residual", "temporal", "attention"])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid", "hinge"])
def test_the_memory_that_is_planned_for_a_run_covers_what_it_takes(
    head: HeadName, name: LossName
) -> None:
    config = RunConfig(
        heads=HeadsConfig(video=HeadConfig(name=head)),
        losses=LossConfig(name=name),
        optimiser=OptimiserConfig(batch_clips=64),
    )
    check_memory(synthetic_split(200, dim=64, seed=0), config)


@pytest.mark.parametrize("task", ["choice_weight", "answer_weight", "moment_weight"])
def test_so_it_does_for_tasks(task: str) -> None:
    tasks = TaskConfig(**{task: 1.0})
    check_memory(split_with_questions(0, num_clips=60), RunConfig(tasks=tasks))


def check_memory(features: SplitFeatures, config: RunConfig) -> None:
    """What a step keeps for the gradients, weights and moments; and it is no ten times more."""
    split = load_training_split(
        features,
        config=config,
        device=torch.device("cpu"),
        answers=vocabulary(features, config.tasks),
    )
    model = untrained_model(config, features)
    batch = make_batch(split, split.clips[:64], rng=np.random.default_rng(0))
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_terms(model, split, batch, config=config, epoch=1)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    taken = sum(kept.values()) + 3 * 4 * num_parameters
    planned = bytes_of_run(split, config, num_parameters=num_parameters)
    assert taken < planned < 10 * taken


def test_a_group_has_as_many_runs_as_fit_but_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(optimiser=OptimiserConfig(batch_clips=64))
    features = synthetic_split(200, dim=64, seed=0)
    split = load_training_split(features, config=config, device=torch.device("cpu"))
    own = bytes_of_run(split, config, num_parameters=1000)
    for free, expected in ((None, 128), (10.1 * own / 0.8, 10), (own / 2, 1), (1e6 * own, 128)):
        monkeypatch.setattr(run_groups, "free_bytes", lambda free=free: free)
        assert run_groups.most_at_once(split, config, num_parameters=1000) == expected
