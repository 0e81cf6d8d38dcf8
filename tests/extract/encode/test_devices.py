"""Several devices give what one gives; a GPU that is left unused is said loudly."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlalign.extract.config import ExtractConfig
from mlalign.extract.encode.backbones import load_backbone
from mlalign.extract.encode.devices import BackboneError, pick_devices, unused_gpu
from mlalign.extract.encode.encoders import Encoders, load_encoders

CPU = torch.device("cpu")
TINY = ExtractConfig(backbone="tiny", precision="float32")


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny", tag=None, checkpoint=None, precision="float32", device="cpu")


def pictures(seed, count=8):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_auto_is_every_gpu_or_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_devices("auto") == (CPU,)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    every = tuple(torch.device("cuda", index) for index in range(3))
    assert pick_devices("auto") == pick_devices("cuda") == every
    assert pick_devices("cuda:1") == (every[1],)
    assert pick_devices("cuda:0, cuda:2") == (every[0], every[2])
    with pytest.raises(BackboneError, match="devices of one kind are needed, got cpu,cuda:1"):
        pick_devices("cpu,cuda:1")


def test_a_device_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for asked in ("cuda", "cuda:0", "cpu,cuda:0"):
        with pytest.raises(BackboneError, match="torch sees 0 CUDA devices"):
            pick_devices(asked)
    with pytest.raises(BackboneError, match="unknown device 'gpu'"):
        pick_devices("gpu")


def test_a_gpu_that_is_not_used_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    machine = tmp_path / "machine"
    (machine / "dev").mkdir(parents=True)
    assert unused_gpu("auto", (CPU,), environment={}, root=machine) is None
    (machine / "dev" / "nvidia0").touch()
    warning = unused_gpu("auto", (CPU,), environment={}, root=machine)
    assert "nvidia0" in warning
    assert "NOT used: PyTorch" in warning and "without CUDA" in warning
    cuda = (torch.device("cuda", 0),)
    assert unused_gpu("auto", cuda, environment={}, root=machine) is None
    assert unused_gpu("cpu", (CPU,), environment={}, root=machine) is None
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    assert unused_gpu("auto", (CPU,), environment=hidden, root=machine) is None


def test_the_warning_reaches_the_user(monkeypatch):
    from mlalign.extract.encode import encoders

    monkeypatch.setattr(encoders, "unused_gpu", lambda asked, devices: "WARNING: unused")
    lines = []
    load_encoders(TINY, with_text=False, say=lines.append).close()
    assert lines == ["WARNING: unused"]


def test_copies_on_other_devices_give_the_same_features_in_order(tiny):
    encoders = load_encoders(replace(TINY, device="cpu,cpu"), with_text=False)
    assert encoders.devices == ("cpu", "cpu")
    size = tiny.preprocessing.height
    batches = [np.resize(pictures(seed), (8, size, size, 3)) for seed in range(6)]
    futures = [encoders.encode(batch) for batch in batches]
    for batch, future in zip(batches, futures, strict=True):
        np.testing.assert_array_equal(future.result(), tiny.encode_pictures(batch))
    encoders.close()


@pytest.mark.slow
def test_two_devices_make_the_cache_of_one(make_video, tmp_path):
    from click.testing import CliRunner

    from mlalign.extract.cli import main

    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(5):
        make_video(videos / f"{number}.mp4", range(0, 4000, 40), first_number=100 * number)
    (videos / "broken.mp4").write_text("words")
    made = []
    for device in ("cpu", "cpu,cpu,cpu"):
        cache = tmp_path / device
        options = ["--backbone", "tiny", "--fps", "20", "--device", device, "--allow-failures"]
        options += ["--set", "shard_clips=2", "--set", "batch_frames=8"]
        done = CliRunner().invoke(main, [str(videos), "-o", str(cache), *options])
        assert done.exit_code == 0, done.output
        assert f"on {', '.join(device.split(','))}\n" in done.stderr
        files = [path for name in ("shards", "index") for path in (cache / name).rglob("*.*")]
        made.append({path.relative_to(cache): path.read_bytes() for path in files})
    assert made[0] == made[1]
    assert len(made[0]) == 3 * 3  # a shard, its clips and its segments, of three


class Slow:
    """A backbone that encodes only while all `together` of its kind do."""

    device = CPU

    def __init__(self, together):
        self._together = together

    def encode_pictures(self, batch):
        self._together.wait(timeout=10)
        return batch.reshape(len(batch), -1)[:, :2].astype(np.float32)


def test_devices_work_side_by_side():
    together = threading.Barrier(3)
    encoders = Encoders([Slow(together) for _ in range(3)])
    futures = [encoders.encode(pictures(seed)) for seed in range(6)]
    for seed, future in enumerate(futures):
        expected = pictures(seed).reshape(8, -1)[:, :2]
        np.testing.assert_array_equal(future.result(timeout=10), expected)
    encoders.close()


def test_a_gpu_has_a_second_batch_at_hand():
    class OnGpu(Slow):
        device = torch.device("cuda", 0)

    encoders = Encoders([OnGpu(threading.Barrier(2))])
    futures = [encoders.encode(pictures(seed)) for seed in range(2)]
    assert [len(future.result(timeout=10)) for future in futures] == [8, 8]
    encoders.close()


def test_decoding_goes_on_while_a_batch_is_encoded(make_video, tmp_path):
    """The whole takes as long as the slower of the two, not as both one after the other."""
    from mlalign.extract.decode.preprocessing import Preprocessing
    from mlalign.extract.encode.clips import encode_clips
    from mlalign.extract.planning.plan import Item, Work
    from mlalign.extract.planning.progress import ProgressCounter

    seconds_per_batch, num_batches = 0.2, 8

    class Sleeper:
        device = CPU
        width = 2
        preprocessing = Preprocessing(
            height=32,
            width=32,
            resize_mode="squash",
            interpolation="bicubic",
            fill=0,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
        )

        def encode_pictures(self, batch):
            time.sleep(seconds_per_batch)
            return np.ones((len(batch), 2), dtype=np.float32)

    make_video(tmp_path / "v.mp4", range(0, num_batches * 4 * 100, 100))
    row = {"clip_id": "v", "video_path": "v.mp4", "split": "all"}
    row |= {"start_seconds": None, "end_seconds": None}
    work = Work(name="clips-x", items=[Item(row=row, digest="d", generation=0)])
    config = replace(TINY, batch_frames=4, workers=1, fps=10.0, segments=("uniform:1",))
    counter, names = ProgressCounter(), []
    encoders = Encoders([Sleeper()])
    encode_clips(
        [work],
        tmp_path / "cache",
        videos_root=tmp_path,
        config=config,
        encoders=encoders,
        counter=counter,
        committed=names.append,
    )
    encoders.close()
    counts = counter.take()
    assert names == ["clips-x"]
    assert (counts.clips, counts.failed, counts.frames) == (1, 0, num_batches * 4)
    # Beyond the first chunk, all the time goes into encoding, and the counter says so.
    assert counts.waited["encoder"] > seconds_per_batch * (num_batches - 3)


@pytest.mark.gpu
def test_every_gpu_gives_the_features_of_one():
    one = load_encoders(replace(TINY, device="cuda:0"), with_text=False)
    every = load_encoders(replace(TINY, device="cuda"), with_text=False)
    size = one.backbone.preprocessing.height
    batches = [np.resize(pictures(seed), (8, size, size, 3)) for seed in range(6)]
    expected = [one.encode(batch).result() for batch in batches]
    futures = [every.encode(batch) for batch in batches]
    for future, features in zip(futures, expected, strict=True):
        np.testing.assert_array_equal(future.result(), features)
    one.close()
    every.close()
