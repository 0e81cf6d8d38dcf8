"""Importers: small files of the official shapes, with the dirt that real ones have.

What holds for every importer is here; what each writes is in the tests by kind of dataset.
"""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any, get_args

import pytest
from importer_fixtures import Fixture
from official_moments import FIXTURES as MOMENTS
from official_own import FIXTURES as OWN
from official_questions import FIXTURES as QUESTIONS
from official_retrieval import FIXTURES as RETRIEVAL

from mlalign.data_manifests.annotations.row_log import RowLog
from mlalign.data_manifests.building.build import read_official_files
from mlalign.data_manifests.cards.card import ImporterName, card_names
from mlalign.data_manifests.core.errors import ManifestError

FIXTURES = {**RETRIEVAL, **MOMENTS, **QUESTIONS, **OWN}
STRIDE = 23
"""Every so many bytes a file is cut, or one of its characters changed; the slow tests take all."""
OTHER_CHARACTERS = '"{[,0\t'


@pytest.mark.parametrize("name", card_names())
def test_every_card_has_a_fixture(name: str) -> None:
    assert name in FIXTURES


def test_every_importer_has_a_fixture(tmp_path: Path) -> None:
    cards = [fixture.card(name, tmp_path) for name, fixture in FIXTURES.items()]
    assert {card.importer for card in cards} == {*get_args(ImporterName)}


@pytest.mark.parametrize("name", FIXTURES)
def test_every_row_read_is_written_or_reported(name: str, tmp_path: Path) -> None:
    fixture = FIXTURES[name]
    fixture.write(tmp_path)
    row_log = RowLog()
    rows, _ = read_official_files(fixture.card(name, tmp_path), tmp_path, row_log)
    for file, read in row_log.read.items():
        outcomes = {kind: counts[file] for kind, counts in row_log.outcomes.items()}
        assert outcomes["refused"] == 0
        assert read == outcomes["written"] + outcomes["left_out"]
    reported = sum(counted.count for counted in row_log.left_out.values())
    assert reported == sum(row_log.outcomes["left_out"].values())
    assert {note: counted.count for note, counted in row_log.left_out.items()} == fixture.left_out
    assert {note: counted.count for note, counted in row_log.mended.items()} == fixture.mended
    assert rows.clips


@pytest.mark.parametrize("name", FIXTURES)
def test_no_record_of_a_file_goes_uncounted(name: str, tmp_path: Path) -> None:
    """Rows read are the records that the files have, counted without the importers."""
    fixture = FIXTURES[name]
    fixture.write(tmp_path / "files")
    row_log = RowLog()
    read_official_files(fixture.card(name, tmp_path), tmp_path / "files", row_log)
    files = (path for path in (tmp_path / "files").rglob("*") if path.is_file())
    assert row_log.read == {path.name: num_records(path) for path in files}


def num_records(path: Path) -> int:
    if path.suffix == ".pkl":
        return sum(map(len, pickle.loads(path.read_bytes()).values()))
    text = path.read_text()
    if path.suffix == ".json":
        return num_items(json.loads(text))
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix == ".csv" and "\t" not in text:
        lines = list(csv.reader(lines))
        has_header = {"video", "video_id", "id"} & {*lines[0]}
        return len(lines) - bool(has_header)
    return len(lines)


def num_items(content: Any) -> int:
    """Of a file's JSON: what the literature counts in it."""
    match content:
        case list():
            return len(content)
        case {"videos": videos, "sentences": sentences}:
            return len(videos) + len(sentences)
        case {"database": videos}:
            return sum(len(video["annotations"]) for video in videos.values())
        case {"train": dict(), **splits}:
            return len(content["train"]) + sum(map(len, splits.values()))
    counts = []
    for entry in content.values():
        match entry:
            case {"sentences": sentences}:
                counts.append(len(sentences))
            case {"statement": pairs}:
                counts.append(sum(map(len, pairs)))
            case list():
                counts.append(len(entry))
            case _:
                counts.append(1)
    return sum(counts)


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_byte_order_marks_change_nothing(name: str, end: str, tmp_path: Path) -> None:
    fixture = FIXTURES[name]
    found = []
    for folder, mark in ((tmp_path / "plain", b""), (tmp_path / "other", b"\xef\xbb\xbf")):
        fixture.write(folder)
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in (".pkl",):
                text = path.read_bytes().replace(b"\r\n", b"\n").rstrip(b"\n")
                ending = end.encode() if mark else b"\n"
                path.write_bytes(mark + text.replace(b"\n", ending) + ending)
        rows, _ = read_official_files(fixture.card(name, tmp_path), folder, RowLog())
        found.append((rows.clips, rows.texts, rows.questions))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", FIXTURES)
def test_a_cut_or_changed_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    attack(FIXTURES[name], name, tmp_path, stride=STRIDE)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXTURES)
def test_a_file_cut_or_changed_anywhere_is_read_or_refused(name: str, tmp_path: Path) -> None:
    attack(FIXTURES[name], name, tmp_path, stride=1)


def attack(fixture: Fixture, name: str, folder: Path, *, stride: int) -> None:
    """Cut every file at every `stride` bytes, and change the character there."""
    card = fixture.card(name, folder)
    fixture.write(folder / "files")
    files = sorted(path for path in (folder / "files").rglob("*") if path.is_file())
    for turn, path in enumerate(files):
        whole = path.read_bytes()
        for place in range(turn % stride, len(whole) + 1, stride):
            other = OTHER_CHARACTERS[place % len(OTHER_CHARACTERS)].encode()
            for content in (whole[:place], whole[:place] + other + whole[place + 1 :]):
                path.write_bytes(content)
                try:
                    read_official_files(card, folder / "files", RowLog())
                except ManifestError:
                    pass
        path.write_bytes(whole)
