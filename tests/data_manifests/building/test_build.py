"""mlalign-manifest build: sizes, splits that are there, videos, and what is left on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from importer_fixtures import Fixture
from official_retrieval import FIXTURES, MSVD_CAPTIONS, MSVD_LISTS

from mlalign.data_manifests.building.build import MISSING_FILE, REPORT_FILE, build_dataset
from mlalign.data_manifests.building.video_matching import match_videos
from mlalign.data_manifests.cards.card import Card, load_card
from mlalign.data_manifests.cli import main
from mlalign.data_manifests.core.errors import ManifestError
from mlalign.data_manifests.tables.reader import read_manifest
from mlalign.data_manifests.tables.schema import SplitCounts

OWN_CARD = """\
name: own
title: Ours
tasks: [retrieval]
importer: captions_csv
files:
  train: {names: [train.csv], split: train}
  test: {names: [test.csv], split: test}
where: here
licence: ours
splits:
  train: {clips: 2, texts: 3}
  test: {clips: 1, texts: 1}
train_split: train
test_split: test
queries: each_caption
retrieval: {}
"""
TRAIN = "video,caption,who\na,a cat,x\nb,a dog,y\na,the cat,z\n"
TEST = "video,caption\nc,a bird\n"


def own_card(folder: Path, text: str = OWN_CARD) -> Card:
    (folder / "own.yaml").write_text(text)
    return load_card(str(folder / "own.yaml"))


def build(folder: Path, card: Card, files: Path, *, videos: Path | None = None, **options: bool):
    return build_dataset(card, annotations=files, videos=videos, out=folder / "m", **options)


def annotations(folder: Path, **files: str) -> Path:
    Fixture(files={"train.csv": TRAIN, "test.csv": TEST} | files).write(folder)
    return folder


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for name in ("a.mp4", "deep/B.webm", "deep/v_c.mkv", "other.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_card_of_ones_own_builds_a_manifest_that_reads_back(tmp_path, videos):
    folder = annotations(tmp_path / "files")
    report = build_dataset(
        own_card(tmp_path), annotations=folder, videos=videos, out=tmp_path / "m"
    )
    manifest = read_manifest(tmp_path / "m")
    paths = dict(
        zip(*(manifest.clips[name].to_pylist() for name in ("clip_id", "video_path")), strict=True)
    )
    assert paths == {"a": "a.mp4", "b": "deep/B.webm", "c": "deep/v_c.mkv"}
    assert all(manifest.video_file(path).is_file() for path in paths.values())
    assert manifest.texts["text_id"].to_pylist() == ["a#0", "b#0", "a#1", "c#0"]
    assert report.clips_found == {"train": 2, "test": 1}
    assert json.loads((tmp_path / "m" / REPORT_FILE).read_text()) == json.loads(
        json.dumps(report.to_json())
    )


def test_clips_without_a_video_are_left_out_listed_and_counted(tmp_path, videos):
    (videos / "deep/B.webm").unlink()
    folder = annotations(tmp_path / "files")
    report = build_dataset(
        own_card(tmp_path), annotations=folder, videos=videos, out=tmp_path / "m"
    )
    assert (report.splits["train"].clips, report.clips_found["train"]) == (2, 1)
    assert (tmp_path / "m" / MISSING_FILE).read_text() == "train\tb\tb\n"
    manifest = read_manifest(tmp_path / "m")
    assert manifest.texts["clip_id"].to_pylist() == ["a", "a", "c"]
    assert manifest.official["train"] == SplitCounts(clips=2, texts=3, questions=0)


def test_a_cache_of_a_benchmark_knows_how_much_it_has_officially(tmp_path, videos):
    from mlalign.extract.planning.inputs import official_counts

    (videos / "deep/B.webm").unlink()
    build(tmp_path, own_card(tmp_path), annotations(tmp_path / "files"), videos=videos)
    assert official_counts(read_manifest(tmp_path / "m"))["train"] == {
        "clips": 2,
        "texts": 3,
        "questions": 0,
    }


def test_without_a_folder_of_videos_every_clip_is_written(tmp_path):
    folder = annotations(tmp_path / "files")
    report = build(tmp_path, own_card(tmp_path), folder)
    assert read_manifest(tmp_path / "m").clips["video_path"].to_pylist() == [
        "a.mp4",
        "b.mp4",
        "c.mp4",
    ]
    assert report.clips_found is None


def test_the_official_numbers_are_the_cards_where_the_files_are_a_part(tmp_path):
    folder = annotations(tmp_path / "files", **{"train.csv": TRAIN.replace("b,a dog,y\n", "")})
    build(tmp_path, own_card(tmp_path), folder, partial=True)
    manifest = read_manifest(tmp_path / "m")
    assert manifest.texts.num_rows == 3
    assert manifest.official["train"] == SplitCounts(clips=2, texts=3, questions=0)


def test_evaluation_says_how_many_of_the_official_clips_were_found(
    tmp_path, videos, mlalign_extract
):
    """From official files to the report: two of three test clips have a video, one of them features
    that can be used."""
    from mlalign.evaluate.cli import main as evaluate

    card = own_card(tmp_path, OWN_CARD.replace("{clips: 1, texts: 1}", "{clips: 3, texts: 3}"))
    test = TEST + "other,a tree\ngone,a cloud\n"
    folder = annotations(tmp_path / "files", **{"test.csv": test})
    report = build(tmp_path, card, folder, videos=videos)
    assert report.clips_found == {"train": 2, "test": 2}
    clips = read_manifest(tmp_path / "m").clips["clip_id"].to_pylist()
    rng = np.random.default_rng(0)
    for name in ("features", "texts"):
        (tmp_path / name).mkdir()
    for name in clips:
        values = rng.normal(size=(3, 8)) * (np.nan if name == "other" else 1.0)
        np.save(tmp_path / "features" / f"{name}.npy", values)
    for name in read_manifest(tmp_path / "m").texts["text_id"].to_pylist():
        np.save(tmp_path / "texts" / f"{name}.npy", rng.normal(size=8))
    cache = str(tmp_path / "cache")
    given = ("--manifest", tmp_path / "m", "--texts", tmp_path / "texts", "--fps", "1")
    source = tmp_path / "features"
    done = mlalign_extract("import", source, "-o", cache, *given, "--allow-failures")
    assert done.exit_code == 0, done.output
    settings = ["--set", "validation_split=null", "--set", "bootstrap_samples=10"]
    done = CliRunner().invoke(evaluate, [cache, "-o", str(tmp_path / "report"), *settings])
    assert done.exit_code == 0, done.output
    assert "Split test: 1 clips found of 3 official (1 without features left out)" in done.stdout


@pytest.mark.parametrize("train", [TRAIN + "a,more,x\n", TRAIN.replace("b,a dog,y\n", "")])
def test_sizes_other_than_the_cards_need_partial(tmp_path, train):
    folder = annotations(
        tmp_path / "files",
        **{
            "train.csv": train.replace(",who", "")
            .replace(",x", "")
            .replace(",y", "")
            .replace(",z", "")
        },
    )
    card = own_card(tmp_path)
    with pytest.raises(ManifestError, match=r"train: . queries, expected 3"):
        build(tmp_path, card, folder)
    assert not (tmp_path / "m").exists()
    report = build(tmp_path, card, folder, partial=True)
    assert report.other_sizes


def test_a_split_whose_file_is_missing_is_said_and_the_others_built(tmp_path):
    folder = annotations(tmp_path / "files")
    (folder / "train.csv").unlink()
    report = build(tmp_path, own_card(tmp_path), folder)
    assert report.absent_splits == {"train": ("train.csv",)}
    assert list(report.splits) == ["test"]
    assert "train: not built, without train.csv" in report.lines()


def test_without_any_split_the_missing_files_are_named(tmp_path):
    (tmp_path / "files").mkdir()
    with pytest.raises(ManifestError, match="train: train.csv; test: test.csv"):
        build_dataset(own_card(tmp_path), annotations=tmp_path / "files", videos=None, out=tmp_path)


def test_paragraphs_join_captions_in_file_order(tmp_path):
    card = own_card(
        tmp_path, OWN_CARD.replace("each_caption", "paragraph").replace("texts: 3", "texts: 2")
    )
    build_dataset(card, annotations=annotations(tmp_path / "f"), videos=None, out=tmp_path / "m")
    texts = read_manifest(tmp_path / "m").texts
    assert texts["text"].to_pylist() == ["a cat the cat", "a dog", "a bird"]
    assert set(texts["kind"].to_pylist()) == {"paragraph"}


def test_a_video_in_other_case_is_not_taken_from_the_clip_that_has_its_name(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    for name in ("AbC.mp4", "only.MP4"):
        (root / name).touch()
    table = {"train.csv": "video,caption\nAbC,one\nabc,two\nONLY,three\n"}
    card = own_card(tmp_path)
    report = build_dataset(
        card,
        annotations=annotations(tmp_path / "f", **table),
        videos=root,
        out=tmp_path / "m",
        partial=True,
    )
    clips = read_manifest(tmp_path / "m").clips
    assert clips["clip_id"].to_pylist() == ["AbC", "ONLY"]
    assert report.clips_found["train"] == 2


def test_a_folder_of_frames_is_a_video_where_no_file_has_the_name(tmp_path):
    """TVR's and TVQA's videos are given out as frames."""
    for path in ("bb/clip_1/00001.jpg", "bb/clip_2/00001.jpg", "deep/er/clip_2.mp4"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    names = {name: (name,) for name in ("clip_1", "clip_2", "clip_3")}
    found = match_videos(tmp_path, names)
    assert found == {"clip_1": "bb/clip_1", "clip_2": "deep/er/clip_2.mp4"}


def test_questions_of_ones_own_may_have_options_or_not(tmp_path):
    text = OWN_CARD.replace("captions_csv", "questions_csv").replace(
        "[retrieval]", "[multiple_choice]"
    )
    text = text.replace("retrieval: {}", "questions: {}").replace("each_caption", "questions")
    text = text.replace("{clips: 2, texts: 3}", "{questions: 2}").replace(
        "{clips: 1, texts: 1}", "{}"
    )
    tables = {
        "train.csv": "video,question,option0,option1,answer,type\n"
        "a,who?,cat,dog,1,W\na,why?,x,y,,\n",
        "test.csv": "video,question,answer\nc,what?,a bird\n",
    }
    folder = annotations(tmp_path / "f", **tables)
    build(tmp_path, own_card(tmp_path, text), folder)
    questions = read_manifest(tmp_path / "m").questions.to_pylist()
    assert [(q["question_id"], q["kind"], q["answer_index"], q["answer"]) for q in questions] == [
        ("a#0", "multiple_choice", 1, "dog"),
        ("a#1", "multiple_choice", None, None),
        ("c#0", "open_ended", None, "a bird"),
    ]


def test_build_ends_with_2_and_writes_nothing_when_a_row_is_wrong(tmp_path):
    folder = annotations(tmp_path / "files", **{"test.csv": "video,caption\nc,\n"})
    own_card(tmp_path)
    done = CliRunner().invoke(
        main,
        [
            "build",
            str(tmp_path / "own.yaml"),
            "--annotations",
            str(folder),
            "-o",
            str(tmp_path / "m"),
        ],
    )
    assert done.exit_code == 2
    assert "test.csv, line 2, column caption: a text is required, got ''" in done.stderr
    assert not (tmp_path / "m").exists()


def test_build_on_the_command_line_reports_mends_and_rows_left_out(tmp_path):
    FIXTURES["msvd"].write(tmp_path / "files")
    arguments = [
        "build",
        "msvd",
        "--annotations",
        str(tmp_path / "files"),
        "-o",
        str(tmp_path / "m"),
    ]
    assert CliRunner().invoke(main, arguments).exit_code == 2  # not the official sizes
    done = CliRunner().invoke(main, [*arguments, "--partial"])
    assert done.exit_code == 0
    assert "left out: 1 captions of clips in none of the splits (raw-captions.pkl:7" in done.stdout
    assert "mended: 1 blanks around a text" in done.stdout
    assert "other sizes: train: 2 clips, expected 1,200" in done.stdout
    assert len(MSVD_CAPTIONS) == 5 and len(MSVD_LISTS) == 3
