"""Heads and losses from outside of the package: trained, resumed, loaded, evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import outside_parts
import pytest
import torch
from click.testing import CliRunner
from split_fixtures import NO_TASKS

from mlalign.align import (
    HeadConfig,
    HeadsConfig,
    LossConfig,
    OptimiserConfig,
    RunConfig,
    RunError,
    fit,
    load_run,
    own_parts,
    register_head,
    register_loss,
)
from mlalign.align.cli import main
from mlalign.align.head_config import HeadName
from mlalign.align.model.heads import build_head
from mlalign.align.own_parts import PartError
from mlalign.align.runs.callbacks import StepReport
from mlalign.align.trainer import train_heads
from mlalign.data_manifests import SettingsError, UserError
from mlalign.evaluate import EvaluationConfig, evaluate
from mlalign.extract import FeatureStore

HEAD, LOSS = "outside_parts:TwoLayers", "outside_parts:softplus_loss"


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (own_parts.HEADS, own_parts.LOSSES):
        monkeypatch.setattr(registry, "_registered", {})


def config_of(head: str = HEAD, loss: str = LOSS, *, width: int | None = 16) -> RunConfig:
    own = HeadConfig(name=head, width=width, dropout=0.2)
    return RunConfig(
        heads=HeadsConfig(video=own, text=own),
        losses=LossConfig(name=loss),
        tasks=NO_TASKS,
        optimiser=OptimiserConfig(epochs=3, batch_clips=2),
        device="cpu",
    )


def test_a_run_with_parts_from_outside_trains_loads_and_is_evaluated(
    small_cache: Path, tmp_path: Path
) -> None:
    run = fit(str(small_cache), str(tmp_path / "run"), config_of())
    loaded = load_run(str(tmp_path / "run"))
    assert isinstance(loaded.model.of_global.video, outside_parts.TwoLayers)
    test = FeatureStore.open(str(small_cache)).split("test")
    texts = loaded.encode_texts(test.text_features)
    assert texts.shape == (len(test.texts), 16) and texts.dtype == np.float32
    np.testing.assert_array_equal(texts, run.encode_texts(test.text_features))
    evaluation = evaluate(
        small_cache, str(tmp_path / "run"), EvaluationConfig(bootstrap_samples=20)
    )
    assert [row.name for row in evaluation.rows] == ["zero-shot", "run"]


class Killed(Exception):
    pass


class Killer:
    """Ends the training at a step."""

    def on_step(self, report: StepReport) -> None:
        if report.step == 3:
            raise Killed

    def on_validation(self, report: object) -> None:
        pass


def test_it_resumes_to_the_numbers_of_one_that_never_stopped(
    small_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlalign.align.runs.training_state.SAVE_EVERY_SECONDS", 0.0)
    train = FeatureStore.open(small_cache).split("train")
    config = config_of()
    whole = train_heads(config, train=train, validation=None)
    states: list[Mapping[str, Any]] = []
    with pytest.raises(Killed):
        train_heads(config, train=train, validation=None, callbacks=[Killer()], keep=states.append)
    resumed = train_heads(config, train=train, validation=None, resume_from=states[-1])
    for name, value in whole.last_weights.items():
        torch.testing.assert_close(resumed.last_weights[name], value, rtol=0, atol=0)


def test_registered_names_work_and_need_their_import(small_cache: Path, tmp_path: Path) -> None:
    register_head("two_layers")(outside_parts.TwoLayers)
    register_loss("softplus")(outside_parts.softplus_loss)
    run = fit(small_cache, tmp_path / "named", config_of("two_layers", "softplus"))
    same = fit(small_cache, tmp_path / "addressed", config_of())
    features = np.ones((3, run.model.dim_text), dtype=np.float32)
    np.testing.assert_array_equal(run.encode_texts(features), same.encode_texts(features))
    own_parts.HEADS._registered.clear()
    with pytest.raises(RunError, match="cannot be loaded: no head is called 'two_layers'.*Import"):
        load_run(tmp_path / "named")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("residul", "no head is called 'residul'; did you mean residual.* Known: identity, linear"),
        ("no_such_module:Head", "cannot import 'no_such_module' .*PYTHONPATH"),
        ("outside_parts:TwoLayer", "has no 'TwoLayer'; did you mean TwoLayers"),
        ("outside_parts:wrong_width", r"expected \(2, 8\) -> \(2, 16\), got \(2, 9\)"),
        ("outside_parts:needs_more", "cannot be built: expected .config: HeadConfig"),
        ("outside_parts:LossConfig", "cannot be built|expected an nn.Module"),
    ],
)
def test_a_head_that_cannot_be_used_is_an_error_before_training(head: str, message: str) -> None:
    with pytest.raises(PartError, match=message):
        build_head(HeadConfig(name=head, width=16), dim=8)


@pytest.mark.parametrize("loss", ["info_nec", "outside_parts:no", "outside_parts:no_scalar"])
def test_a_loss_that_cannot_be_used_is_an_error(
    small_cache: Path, tmp_path: Path, loss: str
) -> None:
    with pytest.raises(SettingsError, match="did you mean|has no 'no'|expected a scalar"):
        fit(small_cache, tmp_path / "run", config_of(loss=loss))


@pytest.mark.parametrize("setting", ["heads.video.name=residul", "losses.name=info_nec"])
def test_the_check_of_the_command_names_the_setting(setting: str) -> None:
    name = setting.partition("=")[0]
    result = CliRunner().invoke(main, ["cache", "-o", "run", "--set", setting, "--check"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {name}: no ") and "did you mean" in result.stderr


def test_names_are_taken_once() -> None:
    register_head("mine")(outside_parts.TwoLayers)
    register_head("mine")(outside_parts.TwoLayers)  # the module was loaded again
    with pytest.raises(ValueError, match="'mine' is taken by head outside_parts:TwoLayers"):
        register_head("mine")(outside_parts.wrong_width)
    for name in ("linear", "a:b", ""):
        with pytest.raises(ValueError, match="expected a new name"):
            register_head(name)


def test_every_built_in_head_has_an_implementation() -> None:
    for name in get_args(HeadName):
        assert isinstance(build_head(HeadConfig(name=name), dim=8), torch.nn.Module)


@pytest.fixture(scope="module")
def attention_run(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    heads = HeadsConfig(video=HeadConfig(name="attention"))
    config = RunConfig(heads=heads, optimiser=OptimiserConfig(epochs=1), device="cpu")
    yield fit(small_cache, tmp_path_factory.mktemp("attention") / "run", config)


def test_a_run_encodes_videos_as_evaluation_does(small_cache: Path, attention_run: Any) -> None:
    from mlalign.evaluate.scores.vectors import embed
    from mlalign.extract.cache.split_features import sentence_features, sentences_of_texts

    test = FeatureStore.open(small_cache).split("test")
    wanted = embed(test, attention_run.model)
    clips, segments = attention_run.encode_videos(
        test.clip_features, test.segment_features, test.segment_offsets
    )
    np.testing.assert_allclose(clips, wanted.clips, atol=1e-6)
    np.testing.assert_allclose(segments, wanted.segments, atol=1e-6)
    sentences = attention_run.encode_texts(test.text_features, level="segment")
    np.testing.assert_allclose(sentences, wanted.sentences[: len(sentences)], atol=1e-6)
    lists = sentences_of_texts(test)
    texts = attention_run.encode_texts(
        test.text_features,
        sentences=sentence_features(test)[lists.values],
        sentence_offsets=lists.offsets,
    )
    np.testing.assert_allclose(texts, wanted.texts, atol=1e-6)
    with pytest.raises(UserError, match="expected offsets of 3 texts and 3 sentences"):
        few = test.text_features[:3]
        attention_run.encode_texts(few, sentences=few, sentence_offsets=np.array([0, 3]))
    with pytest.raises(UserError, match="sentences and sentence_offsets together"):
        attention_run.encode_texts(few, sentences=few)
    with pytest.raises(UserError, match=r"shape \(n, 256\), got \(3, 5\)"):
        attention_run.encode_texts(np.zeros((3, 5)))
    with pytest.raises(UserError, match="expected offsets of .* clips"):
        attention_run.encode_videos(test.clip_features, test.segment_features, np.array([0, 1]))
