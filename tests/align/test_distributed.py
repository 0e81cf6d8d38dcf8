"""Several processes have the gradients of one, and leave the run that one leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from split_fixtures import with_tokens
from task_fixtures import split_with_questions

from mlalign.align.config import OptimiserConfig, RunConfig
from mlalign.align.data.batches import epoch_batches
from mlalign.align.data.split import load_training_split
from mlalign.align.distributed import is_first_process, share_heads
from mlalign.align.epoch_loop import untrained_model
from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.loss_config import LevelsConfig, LossConfig, TaskConfig
from mlalign.align.model.model import AlignmentModel
from mlalign.align.objective.objective import level_losses, loss_terms
from mlalign.align.optimiser import set_gradients

HEADS: tuple[HeadName, ...] = ("linear", "mlp", "residual", "temporal", "attention")
TRAIN = with_tokens(split_with_questions(1, num_clips=23), seed=1)


def config_of(head: HeadName, *, separate: bool) -> RunConfig:
    return RunConfig(
        heads=HeadsConfig(video=HeadConfig(name=head), separate_levels=separate),
        losses=LossConfig(
            name="sigmoid" if head == "mlp" else "info_nce",
            in_clip_weight=0.3,
            weak_segment_weight=0.5,
            token_weight=0.7,
            token_interaction="weighted",
        ),
        tasks=TaskConfig(choice_weight=0.5, answer_weight=0.5),
        levels=LevelsConfig(path=True),
        optimiser=OptimiserConfig(batch_clips=23),
    )


def model_of(config: RunConfig) -> AlignmentModel:
    torch.manual_seed(0)
    model = untrained_model(config, TRAIN)
    with torch.no_grad():
        for parameter in model.parameters():  # last layers start at zero: give all a gradient
            parameter += 0.1 * torch.randn(parameter.shape)
    return model


def gradients(config: RunConfig, *, shared: bool) -> dict[str, torch.Tensor]:
    model = model_of(config)
    if shared:
        share_heads(model)
    rows: list[int] = []
    model.of_segments.video.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    split = load_training_split(
        TRAIN, config=config, device=torch.device("cpu"), answers=model.answers
    )
    batch = next(epoch_batches(split, batch_clips=23, seed=0, epoch=1))
    losses = level_losses(loss_terms(model, split, batch, config=config, epoch=1), config)
    norms = set_gradients(model, losses, max_norm=0.5)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == sum(1 for _ in model.parameters())
    values = {f"loss {level}": loss.detach() for level, loss in losses.items()}
    values |= {f"norm {level}": norm for level, norm in norms.items()}
    return {**values, "rows": torch.tensor(sum(rows)), **found}


def in_a_group(rank: int, count: int, folder: str) -> None:
    """What each process does: its gradients of every kind of head, into a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count
    )
    found = {
        (head, separate): gradients(config_of(head, separate=separate), shared=True)
        for head in HEADS
        for separate in (False, True)
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    """For every head, shared by the levels or not, with all levels and tasks; 23 clips and 109
    frames, so that the processes' parts differ. Within float32's rounding of sums in another order.
    Each maps its part of the rows."""
    path = [str(Path(__file__).parent), *sys.path]
    code = f"import sys; sys.path[:] = {path!r}; import {Path(__file__).stem} as test"
    group = [
        subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                f"{code}; test.in_a_group({rank}, 2, {str(tmp_path)!r})",
            ]
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=60) for process in group] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for (head, separate), found in first.items():
        alone = gradients(config_of(head, separate=separate), shared=False)
        assert found.keys() == alone.keys() and len(alone) > 5
        rows = [gradients.pop("rows") for gradients in (found, second[head, separate], alone)]
        assert 0 < rows[1] < rows[0] and rows[0] + rows[1] == rows[2]
        for name, gradient in alone.items():
            message = f"{head} {separate} {name}"
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, w=message: f"{w}: {m}"
            )
            assert torch.equal(found[name], second[head, separate][name]), message


def test_without_a_group_this_is_the_first_process_and_gradients_stay():
    config = config_of("linear", separate=False)
    assert is_first_process()
    once, again = (gradients(config, shared=False) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


PROGRAM = "from mlalign.align.cli import program; program()"


def torchrun(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    (tmp_path / "command.py").write_text(PROGRAM)
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(tmp_path / "command.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.slow
def test_a_run_of_two_processes_is_that_of_one(small_cache, tmp_path):
    settings = ["device=cpu", "optimiser.epochs=3", "optimiser.ema_decay=0.5"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = torchrun(tmp_path, small_cache, "-o", tmp_path / "two", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained on") == 1
    command = [sys.executable, "-P", "-c", PROGRAM, small_cache, "-o", tmp_path / "one", *words]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    one, two = (
        [json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    )
    assert len(one) == len(two) > 6
    for alone, shared in zip(one, two, strict=True):
        assert shared.pop("kind") == alone.pop("kind")
        assert shared == pytest.approx(alone, rel=1e-3)
    assert (tmp_path / "two" / "run.json").exists()


@pytest.mark.slow
def test_a_sweep_of_several_processes_is_refused(small_cache, tmp_path):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("rows: [{name: a}]")
    done = torchrun(tmp_path, small_cache, "-o", tmp_path / "runs", "--sweep", sweep)
    assert done.returncode != 0 and "a sweep starts its own processes" in done.stderr
