"""Cards: read strictly, shown whole."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mlalign.align.config import RunConfig
from mlalign.data_manifests.cards.card import CARDS, card_names, load_card
from mlalign.data_manifests.cards.page import (
    card_page,
    card_table,
    training_settings,
)
from mlalign.data_manifests.cli import main
from mlalign.data_manifests.core.errors import SettingsError
from mlalign.data_manifests.core.settings import load_settings


@pytest.mark.parametrize("name", card_names())
def test_every_card_reads_and_has_a_page(name):
    card = load_card(name)
    page = "\n".join(card_page(card))
    assert card.title in page
    assert all(file.names[0] in page for file in card.files.values())
    assert all(len(line) <= 100 for line in page.splitlines())


@pytest.mark.parametrize("name", card_names())
def test_the_commands_of_a_page_have_settings_that_their_programs_take(name):
    card = load_card(name)
    if card.train_split is not None:
        said = [f"{key}={value}" for key, value in training_settings(card).items()]
        data = load_settings(RunConfig, None, said).data
        assert (data.train_split, data.validation_split) == (
            card.train_split,
            card.validation_split,
        )


def test_a_page_evaluates_by_the_card_as_it_was_asked_for(tmp_path):
    """A card of one's own is in no cache: without --card its rules would not hold."""
    asked = str(tmp_path / "my birds.yaml")
    lines = card_page(load_card("msvd"), asked)
    assert f"mlalign-evaluate CACHE --card '{asked}' --run RUN -o REPORT" in lines
    assert "mlalign-evaluate CACHE --card msvd --run RUN -o REPORT" in card_page(load_card("msvd"))


def test_an_unknown_card_is_answered_with_those_there_are():
    with pytest.raises(SettingsError, match="no card is called 'msrvt'; there are: .*msrvtt-full"):
        load_card("msrvt")


def test_moments_are_no_rule_that_cuts_for_moments(tmp_path):
    text = (CARDS / "charades-sta.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("segments: uniform:16", "segments: spans"))
    with pytest.raises(SettingsError, match="segments is spans, the true moments themselves"):
        load_card(str(tmp_path / "mine.yaml"))
    assert "clips are cut by uniform:16" in "\n".join(card_page(load_card("charades-sta")))


def test_a_metric_that_does_not_fit_the_task_is_refused_with_those_that_do(tmp_path):
    text = (CARDS / "charades-sta.yaml").read_text()
    own = text.replace("moments:\n", "moments:\n  metrics: [accuracy, R@1, MdR]\n")
    (tmp_path / "mine.yaml").write_text(own)
    with pytest.raises(SettingsError) as error:
        load_card(str(tmp_path / "mine.yaml"))
    said = "moments: unknown metrics for this task: accuracy, MdR; valid: R@K, Rank@K, mIoU, mAP"
    assert said in str(error.value)


def test_everything_wrong_with_a_card_is_said_at_once(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntitle: T\ntasks: [retrival]\nimporter: captions_csv\nspltis: {}\n")
    with pytest.raises(SettingsError) as error:
        load_card(str(path))
    said = str(error.value)
    assert "spltis: no such setting; did you mean splits?" in said
    assert "tasks[0]: expected one of retrieval" in said
    assert "where: required" in said


def test_splits_and_protocols_must_fit_the_tasks(tmp_path):
    text = (
        "name: mine\ntitle: T\ntasks: [moments]\nimporter: captions_csv\nfiles: {}\nwhere: w\n"
        "licence: l\nsplits: {a: {}}\ntest_split: b\nqueries: each_caption\nretrieval: {}\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError) as error:
        load_card(str(tmp_path / "mine.yaml"))
    said = str(error.value)
    assert "test_split is 'b', but splits has a" in said
    assert "the group retrieval and the tasks moments differ" in said
    assert "the group moments and the tasks moments differ" in said


def test_a_card_is_called_as_its_file_is(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "name: other\ntitle: T\ntasks: [retrieval]\nimporter: captions_csv\nfiles: {}\nwhere: w\n"
        "licence: l\nsplits: {a: {}}\ntest_split: a\nqueries: each_caption\nretrieval: {}\n"
    )
    with pytest.raises(SettingsError, match="expected name: mine, as the file, got 'other'"):
        load_card(str(tmp_path / "mine.yaml"))


def test_the_table_has_a_line_for_each_card_with_its_sizes():
    lines = card_table([load_card(name) for name in card_names()])
    assert len(lines) == 1 + len(card_names())
    (msvd,) = [line for line in lines if line.startswith("msvd ")]
    assert "train 1,200 / 48,774; val 100 / 4,290; test 670 / 27,763" in msvd


def test_numbers_from_memory_are_shown_as_such():
    page = "\n".join(card_page(load_card("msrvtt-1k-a-9k")))
    assert "from memory, not checked" in page


def test_list_and_show_speak_json_too():
    listed = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
    assert [card["name"] for card in listed] == card_names()
    shown = json.loads(CliRunner().invoke(main, ["show", "msvd", "--json"]).stdout)
    assert shown["retrieval"]["median"] == "lower"
