"""Folders of frame images as clips: at their rate, in their order, broken ones passed over."""

import json

import numpy as np
import pytest
from PIL import Image

from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.protocol import DecodeError, open_decoder
from mlalign.extract.decode.sources import image_files, source_facts, source_sha256
from mlalign.extract.segments.sampling import Sampling


def write_images(folder, count, *, name="frame{}.png", first=0, size=(64, 48)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        shade = np.full((size[1], size[0], 3), first + 10 * i, dtype=np.uint8)
        Image.fromarray(shade).save(folder / name.format(i))
    return folder


def shades(folder, *, image_fps=5.0, sampling=None, start=0.0, end=None, limits=None):
    decoder = open_decoder(
        "pyav",
        folder,
        sampling=sampling or Sampling(fps=1.0),
        start=start,
        end=end,
        limits=limits or DecoderLimits(),
        image_fps=image_fps,
    )
    found = [(s.sample_seconds, s.seconds, int(s.picture()[0, 0, 0]) // 10) for s in decoder]
    return found, decoder.result()


def test_images_follow_each_other_at_their_rate(tmp_path):
    found, result = shades(write_images(tmp_path / "v", 12))
    assert found == [(0.0, 0.0, 0), (1.0, 1.0, 5), (2.0, 2.0, 10)]
    assert result.duration_seconds == pytest.approx(2.4)
    assert (result.probe.width, result.probe.height, result.probe.codec) == (64, 48, "png")


def test_numbers_in_names_count_as_numbers(tmp_path):
    write_images(tmp_path, 12)
    assert [path.name for path in image_files(tmp_path)] == [f"frame{i}.png" for i in range(12)]


def test_parts_and_other_samplings(tmp_path):
    folder = write_images(tmp_path / "v", 12)
    assert [n for *_, n in shades(folder, start=1.0, end=2.0)[0]] == [5]
    assert [n for *_, n in shades(folder, sampling=Sampling(rule="frames:3"))[0]] == [2, 6, 10]
    every = shades(folder, sampling=Sampling(rule="every-frame"))[0]
    assert [n for *_, n in every] == list(range(12))


def test_a_broken_image_is_told_and_the_one_before_stays(tmp_path):
    folder = write_images(tmp_path / "v", 12)
    (folder / "frame5.png").write_bytes(b"no picture")
    found, result = shades(folder)
    assert [n for *_, n in found] == [0, 4, 10]
    assert result.problem == "1 images cannot be read: frame5.png: not an image"


def test_a_folder_without_a_readable_image_fails_with_its_reason(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    with pytest.raises(DecodeError, match="no images in the folder"):
        shades(folder)
    (folder / "a.jpg").write_text("words")
    with pytest.raises(DecodeError, match="no image could be read: a.jpg: not an image"):
        shades(folder)


def test_a_picture_over_the_limit_is_refused(tmp_path):
    folder = write_images(tmp_path / "v", 1, size=(400, 300))
    with pytest.raises(DecodeError, match="400 x 300 is over the limit of 0.1 megapixels"):
        shades(folder, limits=DecoderLimits(max_megapixels=0.1))


def test_a_folder_has_changed_when_an_image_has_come_gone_or_changed(tmp_path):
    folder = write_images(tmp_path / "v", 3)
    seen = {source_sha256(folder)}
    assert source_facts(tmp_path / "gone") is None
    facts = source_facts(folder)
    write_images(folder, 1, name="late{}.png")
    seen.add(source_sha256(folder))
    assert source_facts(folder) != facts
    (folder / "frame1.png").unlink()
    seen.add(source_sha256(folder))
    (folder / "frame0.png").rename(folder / "frame9.png")
    seen.add(source_sha256(folder))
    assert len(seen) == 4


def test_folders_of_images_are_clips_beside_videos(make_video, mlalign_extract, tmp_path):
    videos = tmp_path / "videos"
    write_images(videos / "one", 8)
    write_images(videos / "deep" / "two", 5, name="x{}.jpg")
    make_video(videos / "film.mp4", [0, 500, 1000])
    out = tmp_path / "cache"
    options = [videos, "-o", out, "--backbone", "tiny", "--json"]
    done = mlalign_extract(*options, "--image-fps", 2)
    assert done.exit_code == 0, done.output
    features = FeatureStore.open(out).split("all")
    assert features.clip_ids == ["deep/two", "film.mp4", "one"]
    assert features.clip_durations.tolist() == [2.5, 1.5, 4.0]
    again = mlalign_extract(*options, "--image-fps", 2)
    assert json.loads(again.stdout)["new_clips"] == 0
    (videos / "one" / "frame7.png").unlink()
    changed = mlalign_extract(*options, "--image-fps", 2)
    assert json.loads(changed.stdout)["new_clips"] == 1
    other = mlalign_extract(*options, "--image-fps", 4)
    assert other.exit_code == 2
    assert "image_fps: the cache has 2.0, this run asks for 4.0" in other.stderr
