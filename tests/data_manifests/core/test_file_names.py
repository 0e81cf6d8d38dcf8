"""Names of any bytes have a text of their own, and are found by it."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest

from mlalign.data_manifests.core.file_names import name_text, text_name
from mlalign.data_manifests.tables.reader import read_manifest
from mlalign.extract.cache.store import FeatureStore

ODD = [b"caf\xe9.mp4", b"\xff\xfe.mp4", "\uf7e9.mp4".encode(), b"\xe4\xb8.mp4", b"caf\xc3\xa9.mp4"]


def random_names(count):
    rng = np.random.default_rng(0)
    letters = [b"a", b"\xe9", b"\xc3", b"\xa9", b"\xef", b"\x9f", "\uf7e9".encode(), b"\x80", b"\\"]
    return {b"".join(rng.choice(letters, size=rng.integers(1, 8))) for _ in range(count)}


def test_names_come_back_from_their_text():
    for name in {*random_names(2000), *ODD}:
        text = name_text(os.fsdecode(name))
        text.encode("utf-8")  # what Parquet and JSON take
        assert os.fsencode(text_name(text)) == name


def test_two_names_never_share_a_text():
    names = {*random_names(2000), *ODD}
    assert len({name_text(os.fsdecode(name)) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["a b.mp4", "日本.mkv", "é/x'\".mp4", "-n\n%03d.mp4", "\\xe9.mp4"])
def test_ordinary_names_are_their_own_text(name):
    assert name_text(name) == text_name(name) == name


@pytest.fixture
def videos(tmp_path, make_video):
    folder = tmp_path / os.fsdecode(b"vid\xe9os")
    folder.mkdir()
    for number, name in enumerate(ODD):
        make_video(tmp_path / "video.mp4", [0, 500], first_number=number)
        try:
            os.replace(tmp_path / "video.mp4", folder / os.fsdecode(name))
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    return folder


def test_a_folder_of_such_names_is_a_dataset(videos):
    clips = read_manifest(videos).clips
    assert len(set(clips["clip_id"].to_pylist())) == len(ODD)
    clips["clip_id"].cast(pa.binary()).cast(pa.string())  # raises for what is no UTF-8


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_such_names_are_extracted_resumed_and_looked_at(mlalign_extract, videos, decoder, tmp_path):
    cache = tmp_path / "cache"
    command = [videos, "-o", cache, "--backbone", "tiny", "--workers", "1", "--set"]
    command.append(f"decoder={decoder}")
    done = mlalign_extract(*command, "--json")
    assert done.exit_code == 0, done.output
    assert FeatureStore.open(cache).clips["status"].to_pylist() == ["ok"] * len(ODD)
    assert json.loads(mlalign_extract(*command, "--json").stdout)["new_clips"] == 0
    (videos / os.fsdecode(ODD[0])).write_bytes((videos / os.fsdecode(ODD[1])).read_bytes())
    assert json.loads(mlalign_extract(*command, "--json").stdout)["new_clips"] == 1
    for look in ("status", "verify"):
        done = mlalign_extract(look, cache)
        assert done.exit_code == 0, done.output
    status = json.loads(mlalign_extract("status", cache, "--json").stdout)
    assert status["missing"] == []


def test_one_such_video_can_be_named(mlalign_extract, videos, tmp_path):
    video = videos / os.fsdecode(ODD[0])
    done = mlalign_extract(video, "-o", tmp_path / "cache", "--backbone", "tiny", "--workers", "1")
    assert done.exit_code == 0, done.output
