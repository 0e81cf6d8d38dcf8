"""Runs that train together get the numbers that each gets alone, and end each by itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from split_fixtures import DIM, random_split
from test_tasks import split_with_questions

from mlalign.align import stacked, training_state
from mlalign.align.batches import epoch_clips, make_batch
from mlalign.align.checkpoint import RunError, load_run
from mlalign.align.config import (
    HeadConfig,
    HeadName,
    HeadsConfig,
    LossConfig,
    LossName,
    OptimiserConfig,
    RunConfig,
    TaskConfig,
    ValidationConfig,
)
from mlalign.align.loss_numbers import stacked_numbers
from mlalign.align.model import build_model
from mlalign.align.objective import level_terms, loss_terms
from mlalign.align.stacked import align_together
from mlalign.align.stacked_batches import StackedBatches
from mlalign.align.stacked_model import StackedModel
from mlalign.align.trainer import align_on
from mlalign.align.training import NotFiniteError
from mlalign.align.training_split import load_training_split

TRAIN = random_split(1, 40)
VAL = dataclasses.replace(random_split(2, 30), split="val")
TOLERANCE = 2e-5
"""Relative to the largest number of its kind that is 1 or more: what float32 rounds away over a
few epochs. docs/training.md states it."""
EVERY_TERM = {"in_clip_weight": 0.5, "weak_segment_weight": 1.0, "weak_pooling": "softmax"}
Ended = dict[str, Exception | None]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Steps are so small here that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(run: int, *, losses: Mapping[str, Any] | None = None, **heads: Any) -> RunConfig:
    """Runs 0, 1, 2 ... that differ in every number that runs of a group may differ in."""
    head = HeadConfig(name=heads.pop("name", "residual"), alpha=1 + run / 10)
    text = HeadConfig(name=heads.pop("text", head.name), alpha=1 + run / 5)
    return RunConfig(
        heads=HeadsConfig(video=head, text=text, **heads),
        losses=LossConfig(
            temperature=0.05 + 0.01 * run,
            margin=0.1 + 0.05 * run,
            weak_temperature=0.05 + 0.02 * run,
            global_weight=1 + run,
            **{"segment_weight": 1 / (1 + run), **(losses or {})},
        ),
        optimiser=OptimiserConfig(
            epochs=4,
            batch_clips=8,
            texts_per_clip=2,
            learning_rate=3e-3 * (1 + run),
            weight_decay=0.05 * run,
            warmup_epochs=0.5 * run,
            max_gradient_norm=0.5 + run,
            ema_decay=0.5 + 0.1 * run,
        ),
        validation=ValidationConfig(patience_epochs=1 + run if run else None),
        seed=7 * run,
        device="cpu",
    )


def together(out: Path, configs: list[RunConfig], *, train: Any = TRAIN, val: Any = VAL) -> Ended:
    """Train OUT/0, OUT/1 ...; how each ended."""
    ended: Ended = {}
    runs = {out / str(run): config for run, config in enumerate(configs)}
    align_together(
        runs,
        train=train,
        validation=val,
        ended=lambda path, error: ended.__setitem__(path.name, error),
    )
    return ended


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    content = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in content if line["kind"] == kind]


def check_alike(run: Path, alone: Path) -> None:
    """Steps and weights to rounding, what validation counts to the last digit."""
    steps, expected = lines(run, "step"), lines(alone, "step")
    assert [list(line) for line in steps] == [list(line) for line in expected]
    for line, other in zip(steps, expected, strict=True):
        for name in other.keys() - {"kind"}:
            error = abs(line[name] - other[name]) / max(1.0, abs(other[name]))
            assert error < TOLERANCE, (name, line["step"], line[name], other[name])
    assert lines(run, "validation") == lines(alone, "validation")
    contents = [json.loads((folder / "run.json").read_text()) for folder in (run, alone)]
    for content in contents:
        del content["wall_seconds"], content["logit_scale"]
    assert contents[0] == contents[1]
    weights, expected_weights = (load_run(folder).model.state_dict() for folder in (run, alone))
    for name, weight in weights.items():
        # Softmax cancels the bias of keys: its gradient is rounding, of which Adam makes steps.
        if not name.endswith("attention_enter.bias"):
            torch.testing.assert_close(weight, expected_weights[name], rtol=1e-4, atol=TOLERANCE)


def slowly(*cases: tuple[Any, ...]) -> list[Any]:
    """Cases of a parametrised test that only the slow run takes."""
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def check_group(out: Path, configs: list[RunConfig], *, train: Any = TRAIN, val: Any = VAL) -> None:
    ended = together(out, configs, train=train, val=val)
    assert ended == {str(run): None for run in range(len(configs))}
    for run, config in enumerate(configs):
        align_on(out / f"alone{run}", config, train=train, validation=val, quiet=True)
        check_alike(out / str(run), out / f"alone{run}")
        files = [{file.name for file in (out / name).iterdir()} for name in (f"{run}", "alone0")]
        assert files[0] == files[1]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("info_nce", "residual"),
        ("sigmoid", "linear"),
        ("hinge", "mlp"),
        *slowly(("info_nce", "linear"), ("info_nce", "mlp"), ("sigmoid", "mlp")),
        *slowly(("sigmoid", "residual"), ("hinge", "linear"), ("hinge", "residual")),
    ],
)
def test_runs_get_the_numbers_that_they_get_alone(
    name: LossName, head: HeadName, tmp_path: Path
) -> None:
    """Ragged clips, several captions, clips without; runs that stop early while others go on."""
    losses = {"name": name, **EVERY_TERM}
    check_group(tmp_path, [config_of(run, losses=losses, name=head) for run in range(3)])
    epochs = {len(lines(tmp_path / str(run), "validation")) for run in range(3)}
    assert len(epochs) > 1, "expected that one run stops before another"


@pytest.mark.parametrize(
    ("losses", "heads"),
    [
        ({}, {"name": "linear", "separate_levels": True}),
        ({"name": "hinge", "hardest_from_epoch": 2}, {}),
        ({"in_clip_negative_weight": 3, "cross_clip_negative_weight": 0.5}, {}),
        (EVERY_TERM, {"name": "temporal", "text": "residual"}),
        (EVERY_TERM, {"name": "attention", "text": "linear"}),
        *slowly(
            ({}, {"name": "identity", "text": "residual"}),
            ({}, {"name": "mlp", "text": "identity"}),
            ({"name": "hinge", "in_clip_negative_weight": 3}, {}),
            ({"name": "sigmoid", "cross_clip_negative_weight": 0}, {}),
            ({"weak_segment_weight": 1}, {}),
            ({}, {"name": "temporal", "text": "identity", "separate_levels": True}),
            ({}, {"name": "attention", "text": "residual", "separate_levels": True}),
        ),
    ],
)
def test_so_do_runs_of_other_structures(
    losses: dict[str, Any], heads: dict[str, Any], tmp_path: Path
) -> None:
    check_group(tmp_path, [config_of(run, losses=losses, **heads) for run in range(2)])


ASKED = split_with_questions(1, num_clips=30)
ASKED_VAL = dataclasses.replace(split_with_questions(2, num_clips=24), split="val")


@pytest.mark.parametrize(
    ("weights", "losses", "heads"),
    [
        ({"choice_weight": 0.5, "answer_weight": 0.7, "moment_weight": 0.3}, {}, {}),
        *slowly(
            ({"choice_weight": 1.0}, {"segment_weight": 0}, {"name": "linear"}),
            ({"choice_weight": 1.0, "moment_weight": 1.0}, {}, {"separate_levels": True}),
            ({"answer_weight": 1.0}, {"name": "sigmoid"}, {"name": "temporal", "text": "mlp"}),
            ({"moment_weight": 1.0}, {"name": "hinge"}, {"name": "identity", "text": "identity"}),
        ),
    ],
)
def test_so_do_runs_with_tasks(
    weights: dict[str, float], losses: dict[str, Any], heads: dict[str, Any], tmp_path: Path
) -> None:
    """Questions and moments of ragged clips, batches in which a run has none."""
    configs = [config_of(run, losses=losses, **heads) for run in range(2)]
    configs = [
        dataclasses.replace(
            c,
            tasks=TaskConfig(
                items_per_clip=2, **{name: weight * (1 + run) for name, weight in weights.items()}
            ),
            optimiser=dataclasses.replace(c.optimiser, epochs=3, batch_clips=4),
        )
        for run, c in enumerate(configs)
    ]
    check_group(tmp_path, configs, train=ASKED, val=ASKED_VAL)


def test_a_head_that_no_term_trains_stays_as_it_is_too(tmp_path: Path) -> None:
    """Its weights are not decayed either, as alone, where they have no gradient."""
    configs = [config_of(run, name="linear", separate_levels=True) for run in (1, 2)]
    configs = [
        dataclasses.replace(c, losses=dataclasses.replace(c.losses, segment_weight=0.0))
        for c in configs
    ]
    check_group(tmp_path, configs)


def test_one_text_a_clip_no_average_no_validation(tmp_path: Path) -> None:
    configs = [config_of(run) for run in range(2)]
    configs = [
        dataclasses.replace(
            c, optimiser=dataclasses.replace(c.optimiser, texts_per_clip=1, ema_decay=None)
        )
        for c in configs
    ]
    check_group(tmp_path, configs, val=None)


@pytest.mark.parametrize("seed", range(4))
def test_stacked_batches_are_those_of_the_runs_padded(seed: int) -> None:
    config = RunConfig(optimiser=OptimiserConfig(texts_per_clip=1 + seed % 2))
    split = load_training_split(random_split(seed, 20), config=config, device=torch.device("cpu"))
    own, other = (
        [next(epoch_clips(split, batch_clips=8, seed=run, epoch=1)) for run in range(3)]
        for _ in range(2)
    )
    batch = StackedBatches(split).make(*zip(*own, strict=True))
    for run, (clips, rng) in enumerate(other):
        alone = make_batch(split, clips, rng=rng)
        assert batch.clips[run].tolist() == clips.tolist()
        assert torch.equal(batch.segment_counts[run], alone.segment_counts)
        num_segments = len(alone.segments)
        assert torch.equal(batch.segments[run, :num_segments], alone.segments)
        for level, one in (
            (batch.global_level, alone.global_level),
            (batch.segment_level, alone.segment_level),
        ):
            assert level is not None and one is not None and level.in_clip_runs is not None
            rows, columns = one.positive.shape
            assert torch.equal(level.videos[run, :rows], one.videos)
            assert torch.equal(level.texts[run, :columns], one.texts)
            for mask, expected in (
                (level.positive[run], one.positive),
                (level.negative[run], one.negative),
            ):
                assert torch.equal(mask[:rows, :columns], expected)
                assert int(mask.sum()) == int(expected.sum()), "padding is in a mask"
            mine = level.in_clip_runs == run
            assert torch.equal(level.in_clip_rows[mine], one.in_clip_rows)
            assert torch.equal(level.in_clip_columns[mine], one.in_clip_columns)


def test_who_is_beside_a_run_does_not_matter() -> None:
    """Its terms and gradients are those of the run alone, whatever shape the others pad it to."""
    configs = [config_of(run, losses=EVERY_TERM) for run in range(4)]
    split = load_training_split(TRAIN, config=configs[0], device=torch.device("cpu"))
    models = [build_model(c, dim_video=DIM, dim_text=DIM) for c in configs]
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) / 10)
    for runs in ([0, 1, 2, 3], [0, 3], [2, 0]):
        drawn = [next(epoch_clips(split, batch_clips=8, seed=run, epoch=1)) for run in runs]
        weights = {
            name: torch.stack([models[run].get_parameter(name).detach() for run in runs])
            for name, _ in models[0].named_parameters()
        }
        for weight in weights.values():
            weight.requires_grad_()
        _, terms = level_terms(
            StackedModel([models[run] for run in runs], weights),
            split,
            StackedBatches(split).make(*zip(*drawn, strict=True)),
            stacked_numbers([configs[run] for run in runs], torch.device("cpu")),
            losses=configs[0].losses,
            epoch=1,
        )
        torch.autograd.backward(sum(term.sum() for term in terms.values() if term.requires_grad))
        for row, run in enumerate(runs):
            models[run].zero_grad()
            clips, rng = next(epoch_clips(split, batch_clips=8, seed=run, epoch=1))
            alone = loss_terms(
                models[run], split, make_batch(split, clips, rng=rng), config=configs[run], epoch=1
            )
            del alone["loss"]
            torch.autograd.backward(sum(t for t in alone.values() if t.requires_grad))
            for name, term in terms.items():
                torch.testing.assert_close(term[row], alone[name], rtol=1e-5, atol=1e-5)
            for name, weight in weights.items():
                expected = models[run].get_parameter(name).grad
                torch.testing.assert_close(weight.grad[row], expected, rtol=1e-4, atol=1e-5)


def test_each_run_drops_its_own_share_of_hidden_units() -> None:
    rates = (0.0, 0.2, 0.6)
    models = []
    for rate in rates:
        head = HeadConfig(name="mlp", hidden=4000, dropout=rate)
        config = RunConfig(heads=HeadsConfig(video=head))
        model = build_model(config, dim_video=DIM, dim_text=DIM).requires_grad_(False)
        # One number is the mean of 4,000 equal hidden units, beside one that stays.
        for parameter in model.video_head.parameters():
            parameter.fill_(0.0)
        model.video_head.enter.bias.fill_(1.0)
        model.video_head.leave.weight[0] = 1 / 4000
        model.video_head.leave.bias[3] = 1.0
        models.append(model)
    weights = {
        name: torch.stack([model.get_parameter(name) for model in models])
        for name, _ in models[0].named_parameters()
    }
    mapped = StackedModel(models, weights).encode_clips(torch.randn(3, 200, DIM))
    hidden = mapped[..., 0] / mapped[..., 3]
    full = torch.nn.functional.gelu(torch.ones(())).item()
    assert torch.allclose(hidden[0], torch.tensor(full), rtol=1e-5)
    for run, rate in list(enumerate(rates))[1:]:
        assert hidden[run].mean().item() == pytest.approx(full, rel=0.01)
        spread = full * (rate / (1 - rate) / 4000) ** 0.5
        assert hidden[run].std().item() == pytest.approx(spread, rel=0.2)


def diverging(run: int) -> RunConfig:
    config = config_of(run)
    if run != 1:
        return config
    return dataclasses.replace(
        config, optimiser=dataclasses.replace(config.optimiser, learning_rate=1e30)
    )


def test_a_run_that_diverges_ends_alone_with_step_and_term(tmp_path: Path) -> None:
    configs = [diverging(run) for run in range(3)]
    ended = together(tmp_path, configs)
    with pytest.raises(NotFiniteError) as alone:
        align_on(tmp_path / "alone", configs[1], train=TRAIN, validation=VAL, quiet=True)
    assert isinstance(ended["1"], NotFiniteError)
    assert str(ended["1"]) == str(alone.value)
    assert not (tmp_path / "1" / "run.json").exists()
    for run in (0, 2):
        align_on(tmp_path / f"alone{run}", configs[run], train=TRAIN, validation=VAL, quiet=True)
        assert ended[str(run)] is None
        check_alike(tmp_path / str(run), tmp_path / f"alone{run}")


class Killed(BaseException):
    """In place of a signal."""


@pytest.fixture
def kept_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_state, "SAVE_EVERY_SECONDS", 0.0)


def killed_at(step: int, out: Path, configs: list[RunConfig]) -> None:
    """Train as `together`, and be killed before that step of the group."""
    take_step = stacked._Group._take_step

    def counted(group: Any, *given: Any) -> Any:
        if group._members[0].training.step == step:
            raise Killed
        return take_step(group, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked._Group, "_take_step", counted)
        with pytest.raises(Killed):
            together(out, configs)


def with_dropout(config: RunConfig) -> RunConfig:
    heads = dataclasses.replace(
        config.heads, video=dataclasses.replace(config.heads.video, dropout=0.3)
    )
    return dataclasses.replace(config, heads=heads)


@pytest.mark.usefixtures("kept_after_every_epoch")
@pytest.mark.parametrize("step", [2, 8, 14])
def test_a_killed_group_goes_on_to_the_same_numbers_bit_for_bit(step: int, tmp_path: Path) -> None:
    configs = [with_dropout(config_of(run)) for run in range(3)]
    together(tmp_path / "whole", configs)
    killed_at(step, tmp_path / "killed", configs)
    ended = together(tmp_path / "killed", configs)
    for run in "012":
        finished = run not in ended or isinstance(ended[run], RunError)  # before it was killed
        assert finished or ended[run] is None
        for name in ("metrics.jsonl", "heads.safetensors", "last.safetensors"):
            files = [tmp_path / out / run / name for out in ("whole", "killed")]
            assert files[0].read_bytes() == files[1].read_bytes(), name
        assert not (tmp_path / "killed" / run / "state.pt").exists()


@pytest.mark.usefixtures("kept_after_every_epoch")
def test_a_run_of_a_killed_group_goes_on_alone_and_one_alone_in_a_group(tmp_path: Path) -> None:
    configs = [config_of(run) for run in range(2)]
    for out in ("group", "killed"):
        killed_at(8, tmp_path / out, configs)
    align_on(tmp_path / "group" / "0", configs[0], train=TRAIN, validation=VAL, quiet=True)
    ended = together(tmp_path / "group", configs)  # 1 goes on
    assert isinstance(ended["0"], RunError) and ended["1"] is None
    together(tmp_path / "other", configs)
    killed_at(8, tmp_path / "one", configs[:1])
    sizes = [(tmp_path / out / "0" / "state.pt").stat().st_size for out in ("killed", "one")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1), "a state has more than its own run's"
    assert together(tmp_path / "one", configs) == {"0": None, "1": None}  # after other epochs
    for run in (0, 1):
        align_on(tmp_path / f"alone{run}", configs[run], train=TRAIN, validation=VAL, quiet=True)
        for out in ("group", "other", "one"):
            check_alike(tmp_path / out / str(run), tmp_path / f"alone{run}")


def test_groups_are_as_large_as_memory_allows(tmp_path: Path, monkeypatch) -> None:
    sizes = sizes_of_groups(monkeypatch)
    monkeypatch.setattr(stacked, "most_at_once", lambda *_, **__: 2)
    ended = together(tmp_path, [config_of(run) for run in range(5)])
    assert ended == dict.fromkeys("01234")
    assert sizes == [1, 2, 2]


def sizes_of_groups(monkeypatch: pytest.MonkeyPatch, *, largest: int = 99) -> list[int]:
    """Notes how many runs train together; more than the largest run out of memory at a step."""
    sizes: list[int] = []
    take_step, train = stacked._Group._take_step, stacked._Group.train

    def noted(group: Any, runs: Any) -> None:
        sizes.append(len(runs))
        train(group, runs)

    def limited(group: Any, *given: Any) -> Any:
        if len(group._members) > largest and group._members[0].training.step == 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return take_step(group, *given)

    monkeypatch.setattr(stacked._Group, "train", noted)
    monkeypatch.setattr(stacked._Group, "_take_step", limited)
    return sizes


@pytest.mark.usefixtures("kept_after_every_epoch")
def test_a_group_that_does_not_fit_goes_on_in_halves(tmp_path: Path, monkeypatch) -> None:
    configs = [config_of(run) for run in range(4)]
    together(tmp_path / "whole", configs)
    sizes = sizes_of_groups(monkeypatch, largest=1)
    ended = together(tmp_path / "halved", configs)
    assert ended == dict.fromkeys("0123")
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    for run in "0123":
        check_alike(tmp_path / "halved" / run, tmp_path / "whole" / run)


def test_one_run_that_does_not_fit_fails_and_ends_no_other(tmp_path: Path, monkeypatch) -> None:
    sizes_of_groups(monkeypatch, largest=0)
    ended = together(tmp_path, [config_of(0), config_of(1)])
    assert {run: type(error) for run, error in ended.items()} == {
        "0": torch.OutOfMemoryError,
        "1": torch.OutOfMemoryError,
    }
