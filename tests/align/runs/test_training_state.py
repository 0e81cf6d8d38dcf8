"""A killed training goes on to the numbers of one that never stopped, bit for bit."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from split_fixtures import NO_TASKS, with_sentences
from task_fixtures import split_with_questions

from mlalign.align import trainer
from mlalign.align.config import OptimiserConfig, RunConfig, ValidationConfig
from mlalign.align.epoch_loop import FitResult
from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.loss_config import LossConfig, TaskConfig
from mlalign.align.runs import training_state
from mlalign.align.runs.callbacks import StepReport, TrainingProgress, ValidationReport
from mlalign.align.runs.checkpoint import RunError, load_run
from mlalign.align.runs.training_state import STATE_FILE, load_state, save_state
from mlalign.align.trainer import train_heads, train_run_on
from mlalign.extract.cache.split_features import SplitFeatures

TRAIN = split_with_questions(1, num_clips=24)
VAL = dataclasses.replace(split_with_questions(2, num_clips=24), split="val")
CONFIG = RunConfig(
    heads=HeadsConfig(video=HeadConfig(dropout=0.3), text=HeadConfig(dropout=0.3)),
    tasks=TaskConfig(choice_weight=0.5, answer_weight=0.5, moment_weight=0.5, items_per_clip=1),
    optimiser=OptimiserConfig(epochs=6, batch_clips=8, ema_decay=0.9),
    validation=ValidationConfig(patience_epochs=4),
)


class Killed(Exception):
    """In place of a signal."""


class Killer:
    """Ends the training at a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step(self, report: StepReport) -> None:
        if report.step == self._step:
            raise Killed

    def on_validation(self, report: ValidationReport) -> bool:
        return False


@pytest.fixture(autouse=True)
def states_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_state, "SAVE_EVERY_SECONDS", 0.0)


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    return {**result.model.state_dict(), **{f"last.{k}": v for k, v in result.last_weights.items()}}


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_a_training_that_goes_on_has_the_numbers_of_one_that_never_stopped(step: int) -> None:
    whole = train_heads(CONFIG, train=TRAIN, validation=VAL)
    states: list[Mapping[str, Any]] = []
    with pytest.raises(Killed):
        train_heads(
            CONFIG, train=TRAIN, validation=VAL, callbacks=[Killer(step)], keep=states.append
        )
    last = states[-1] if states else None
    resumed = train_heads(CONFIG, train=TRAIN, validation=VAL, resume_from=last)
    assert equal(weights(whole), weights(resumed))
    assert (whole.metrics, whole.best_epoch) == (resumed.metrics, resumed.best_epoch)


@pytest.mark.parametrize("head", ["temporal", "attention"])
def test_so_does_one_with_the_path_and_sentences_and_any_head(head: HeadName) -> None:
    video = HeadConfig(name=head, dropout=0.3)
    config = dataclasses.replace(
        CONFIG,
        heads=HeadsConfig(video=video, text=HeadConfig(dropout=0.3)),
        losses=LossConfig(weak_segment_weight=1),
        tasks=NO_TASKS,
        optimiser=OptimiserConfig(epochs=4, batch_clips=8, max_gradient_norm=0.1),
    )
    train, validation = with_sentences(TRAIN), with_sentences(VAL)
    whole = train_heads(config, train=train, validation=validation)
    assert whole.model.has_path
    states: list[Mapping[str, Any]] = []
    with pytest.raises(Killed):
        train_heads(
            config, train=train, validation=validation, callbacks=[Killer(8)], keep=states.append
        )
    resumed = train_heads(config, train=train, validation=validation, resume_from=states[-1])
    assert equal(weights(whole), weights(resumed))
    assert (whole.metrics, whole.best_epoch) == (resumed.metrics, resumed.best_epoch)


def run_killed(out: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Progress(Killer):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(step)

        def close(self) -> None:
            """Nothing is open."""

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "TrainingProgress", Progress)
        with pytest.raises(Killed):
            train_run_on(out, CONFIG, train=TRAIN, validation=VAL)


def finish(out: Path, config: RunConfig = CONFIG, *, train: SplitFeatures = TRAIN) -> None:
    train_run_on(out, config, train=train, validation=VAL, quiet=True)


@pytest.mark.parametrize("step", [1, 8, 11])
def test_the_run_folder_is_the_same_too(step, tmp_path, monkeypatch) -> None:
    finish(tmp_path / "whole")
    run_killed(tmp_path / "killed", step, monkeypatch)
    assert not (tmp_path / "killed" / "run.json").exists()
    finish(tmp_path / "killed")
    files = ("config.yaml", "metrics.jsonl", "heads.safetensors", "last.safetensors")
    for name in files:
        whole, killed = (tmp_path / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes(), name
    contents = [
        json.loads((tmp_path / run / "run.json").read_text()) for run in ("whole", "killed")
    ]
    for content in contents:
        content.pop("wall_seconds")
    assert contents[0] == contents[1]
    assert load_run(tmp_path / "killed").model.answers
    assert not (tmp_path / "killed" / STATE_FILE).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:] = {path!r}
from test_training_state import CONFIG, TRAIN, VAL, trainer, training_state, Killer
class Killed(Killer):
    def on_step(self, report):
        if report.step == {step}:
            os.kill(os.getpid(), signal.SIGKILL)
training_state.SAVE_EVERY_SECONDS = 0.0
trainer.EventsWriter.on_step = Killed({step}).on_step
trainer.train_run_on(Path({out!r}), CONFIG, train=TRAIN, validation=VAL, quiet=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 9])
def test_a_process_killed_by_the_system_is_finished_by_another(step, tmp_path) -> None:
    finish(tmp_path / "whole")
    code = KILLED.format(
        path=[str(Path(__file__).parent), *sys.path], step=step, out=str(tmp_path / "killed")
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finish(tmp_path / "killed")
    for name in ("metrics.jsonl", "heads.safetensors", "last.safetensors"):
        whole, killed = (tmp_path / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes(), name


def test_the_time_of_a_run_that_was_killed_counts_too(tmp_path, monkeypatch) -> None:
    run_killed(tmp_path, 8, monkeypatch)
    state = load_state(tmp_path, CONFIG, cache_key=TRAIN.cache_key)
    assert state is not None and state.wall_seconds > 0
    save_state(tmp_path, dataclasses.replace(state, wall_seconds=1000.0))
    finish(tmp_path)
    assert 1000 < json.loads((tmp_path / "run.json").read_text())["wall_seconds"] < 1100


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_line_of_a_run_that_goes_on_begins_where_it_was() -> None:
    shown = Terminal()
    bar = TrainingProgress(shown, label="run")
    numbers = {"loss": 1.0, "global": 0.25}
    bar.on_step(StepReport(epoch=3, step=51, num_steps=100, learning_rate=0.1, numbers=numbers))
    bar.close()
    assert "51/100" in shown.getvalue() and "global 0.250" in shown.getvalue()


def test_an_unfinished_run_of_other_settings_is_refused_with_what_differs(
    tmp_path, monkeypatch
) -> None:
    run_killed(tmp_path, 8, monkeypatch)
    other = dataclasses.replace(CONFIG, seed=3)
    with pytest.raises(
        RunError, match=r"unfinished run of other settings(.|\n)*-seed: 0\n *\+seed: 3"
    ):
        finish(tmp_path, other)
    with pytest.raises(RunError, match="on a cache with key key, this one has other"):
        load_state(tmp_path, CONFIG, cache_key="other")


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_damaged_state_is_named_and_nothing_is_lost(length, tmp_path, monkeypatch) -> None:
    run_killed(tmp_path, 8, monkeypatch)
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunError, match=r"unfinished run .* is damaged .*: delete it"):
        finish(tmp_path)
    assert path.exists()


def test_a_state_that_would_run_code_is_refused(tmp_path, monkeypatch) -> None:
    run_killed(tmp_path, 8, monkeypatch)
    torch.save({"format": print}, tmp_path / STATE_FILE)
    with pytest.raises(RunError, match="is damaged"):
        finish(tmp_path)


def test_the_average_of_the_weights_is_what_is_kept() -> None:
    """With a decay of 0 it is the weights themselves; with one near 1 it stays near the start."""
    config = dataclasses.replace(CONFIG, validation=ValidationConfig(patience_epochs=None))

    def last(decay: float | None) -> torch.Tensor:
        optimiser = dataclasses.replace(config.optimiser, ema_decay=decay)
        own = dataclasses.replace(config, optimiser=optimiser)
        return train_heads(own, train=TRAIN, validation=None).last_weights[
            "global_heads.video.mlp.enter.weight"
        ]

    torch.testing.assert_close(last(0.0), last(None))
    assert not torch.allclose(last(0.99), last(None))


def test_medium_precision_is_over_when_the_training_is() -> None:
    config = dataclasses.replace(CONFIG, precision="medium", optimiser=OptimiserConfig(epochs=1))
    before = torch.get_float32_matmul_precision()
    seen = []

    class Watch(Killer):
        def on_step(self, report: StepReport) -> None:
            seen.append(torch.get_float32_matmul_precision())

    train_heads(config, train=TRAIN, validation=None, callbacks=[Watch(0)])
    assert set(seen) == {"medium"}
    assert torch.get_float32_matmul_precision() == before


def test_events_for_tensorboard_have_every_step_once(tmp_path, monkeypatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_killed(tmp_path, 8, monkeypatch)
    finish(tmp_path)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    scalars = events.Scalars("train/loss")
    assert [scalar.step for scalar in scalars] == [line["step"] for line in steps]
    assert scalars[-1].value == pytest.approx(steps[-1]["loss"])
    assert "validation/choice_accuracy" in events.Tags()["scalars"]
