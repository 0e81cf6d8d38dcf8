"""Settings: strict reading, overrides, all faults at once, and the way back to YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mlalign.data_manifests.core.errors import SettingsError
from mlalign.data_manifests.core.settings import load_settings, save_settings, settings_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    name: Literal["linear", "residual"] = "residual"
    width: int = 256

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be >= 1, got {self.width}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    head: Head = field(default_factory=Head)
    learning_rate: float = 1e-3
    epochs: int = 10
    mask: bool = True
    label: str = ""
    weights: Path | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    rules: tuple[str, ...] = ("spans",)
    extra_head: Head | None = None

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needy:
    out: Path


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(text: str, folder: Path, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(Config, written(folder, text), overrides)
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    assert load_settings(Config, None) == Config()


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_settings(Config, written(tmp_path, "# nothing\n")) == Config()


def test_every_type_is_read(tmp_path: Path) -> None:
    text = """
    head: {name: linear, width: 8}
    learning_rate: 5e-4
    epochs: 3
    mask: false
    label: 2020-01-01
    weights: w.pt
    betas: [1, 0.5]
    rules: [spans, "uniform:4"]
    extra_head: {width: 2}
    """
    config = load_settings(Config, written(tmp_path, text))
    assert config == Config(
        head=Head(name="linear", width=8),
        learning_rate=5e-4,
        epochs=3,
        mask=False,
        label="2020-01-01",
        weights=Path("w.pt"),
        betas=(1.0, 0.5),
        rules=("spans", "uniform:4"),
        extra_head=Head(width=2),
    )
    assert isinstance(config.betas[0], float)


def test_saving_and_loading_gives_the_same_settings(tmp_path: Path) -> None:
    config = Config(learning_rate=1e-5, weights=Path("a b/ü.pt"), label="no", extra_head=Head())
    save_settings(config, tmp_path / "saved.yaml")
    assert load_settings(Config, tmp_path / "saved.yaml") == config
    assert [path.name for path in tmp_path.iterdir()] == ["saved.yaml"]


def test_settings_dict_is_plain() -> None:
    plain = settings_dict(Config(weights=Path("w.pt")))
    assert plain["weights"] == "w.pt"
    assert plain["head"] == {"name": "residual", "width": 256}
    assert plain["betas"] == [0.9, 0.98]


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("learning_rate=1e-5", "learning_rate", 1e-5),
        ("learning_rate=2", "learning_rate", 2.0),
        ("label=123", "label", "123"),
        ("label=null", "label", "null"),
        ("label=a=b: c", "label", "a=b: c"),
        ("label=[", "label", "["),
        ("label=", "label", ""),
        ("weights=null", "weights", None),
        ("weights=7", "weights", Path("7")),
        ("mask=false", "mask", False),
        ("rules=[a, b]", "rules", ("a", "b")),
        ("head={width: 5}", "head", Head(width=5)),
        ("head.width=5", "head", Head(width=5)),
        ("extra_head.width=5", "extra_head", Head(width=5)),
    ],
)
def test_an_override_is_read_as_its_type(override: str, name: str, value: Any) -> None:
    assert getattr(load_settings(Config, None, [override]), name) == value


def test_overrides_win_over_the_file_and_later_ones_over_earlier(tmp_path: Path) -> None:
    path = written(tmp_path, "head: {name: linear, width: 8}\nepochs: 1\n")
    config = load_settings(Config, path, ["head.width=9", "epochs=2", "epochs=3"])
    assert config.head == Head(name="linear", width=9)
    assert config.epochs == 3


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    said = message(
        "head: {name: cubic, width: 0}\nepoch: 3\nlearning_rate: -1\nmask: 1\nbetas: [1]\n",
        tmp_path,
        ("head.widht=3", "rules=[1]", "nonsense"),
    )
    assert said.startswith("9 problems in the settings")
    for expected in [
        "'nonsense': expected name=value or group.name=value",
        "head.widht: no such setting; did you mean head.width?",
        "head.name: expected one of linear, residual, got 'cubic'",
        "head: width must be >= 1, got 0",
        "epoch: no such setting; did you mean epochs?",
        "mask: expected true or false, got 1",
        "betas: expected 2 values, got [1]",
        "rules[0]: expected text, got 1",
    ]:
        assert f"\n  {expected}" in said


def test_checks_across_settings_speak_beside_other_faults(tmp_path: Path) -> None:
    said = message("learning_rate: -1\nepochs: many\n", tmp_path)
    assert "epochs: expected a whole number, got 'many'" in said
    assert "learning_rate must be > 0, got -1.0" in said


@pytest.mark.parametrize("value", ["2.5", "true", '"3"', "null", "[1]"])
def test_a_whole_number_is_nothing_else(tmp_path: Path, value: str) -> None:
    assert "epochs: expected a whole number" in message(f"epochs: {value}\n", tmp_path)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1" + "0" * 400])
def test_a_number_must_be_one(tmp_path: Path, value: str) -> None:
    assert "learning_rate: expected a number" in message(f"learning_rate: {value}\n", tmp_path)


def test_a_setting_of_another_group_is_suggested(tmp_path: Path) -> None:
    assert "width: no such setting; did you mean head.width?" in message("width: 3\n", tmp_path)


def test_a_key_given_twice_is_an_error(tmp_path: Path) -> None:
    assert "given twice" in message("epochs: 1\nepochs: 2\n", tmp_path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "just text\n", "a: \x00"])
def test_a_file_that_is_not_settings_is_one_message(tmp_path: Path, text: str) -> None:
    assert "config.yaml" in message(text, tmp_path)


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings"):
        load_settings(Config, tmp_path / "none.yaml")


def test_a_required_setting_must_be_given() -> None:
    with pytest.raises(SettingsError, match="out: required, but not given"):
        load_settings(Needy, None)
    assert load_settings(Needy, None, ["out=x"]) == Needy(out=Path("x"))
