"""Decoding less gives what decoding everything gives: the same frames, times and end."""

import random

import av
import numpy as np
import pytest

from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.packet_plan import PlanFailed, read_timeline
from mlalign.extract.decode.pyav import PyavDecoder, open_container, video_stream
from mlalign.extract.segments.sampling import Sampling

RULES = [
    Sampling(fps=1.0),
    Sampling(fps=2.3),
    Sampling(fps=60.0),
    Sampling(rule="frames:7"),
    Sampling(rule="keyframes"),
]


def decoder(path, sampling, *, start=0.0, end=None):
    return PyavDecoder(path, sampling=sampling, start=start, end=end, limits=DecoderLimits())


def taken(samples):
    return [(sample.sample_seconds, sample.seconds, sample.picture()) for sample in samples]


def assert_equal(ours, theirs):
    assert [sample[:2] for sample in ours] == [sample[:2] for sample in theirs]
    for (*_, picture), (*_, expected) in zip(ours, theirs, strict=True):
        assert np.array_equal(picture, expected)


@pytest.mark.parametrize("sampling", RULES, ids=str)
@pytest.mark.parametrize(("b_frames", "keyframe_every"), [(0, 12), (3, 12), (3, 250), (2, 1)])
def test_a_plan_gives_what_decoding_everything_gives(
    make_video, tmp_path, sampling, b_frames, keyframe_every
):
    rng = random.Random(b_frames)
    pts = np.cumsum([rng.choice([20, 40, 40, 40, 400]) for _ in range(90)]).tolist()
    path = make_video(tmp_path / "v.mp4", pts, b_frames=b_frames, keyframe_every=keyframe_every)
    for start, end in ((0.0, None), (1.37, 3.0), (2.5, None)):
        planned = decoder(path, sampling, start=start, end=end)
        whole = decoder(path, sampling, start=start, end=end)
        assert_equal(taken(planned._planned()), taken(whole._whole()))
        assert planned.result() == whole.result()


@pytest.mark.parametrize("options", ["open-gop=1:bframes=3:keyint=10:b-adapt=0", "keyint=8"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_open_groups_and_hevc_are_planned_right(tmp_path, codec, options):
    path = tmp_path / "v.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        quiet = ":log-level=none" if codec == "libx265" else ""
        stream.options = {f"{codec[3:]}-params": options + quiet}
        for i in range(60):
            noise = rng.integers(0, 60, (64, 96, 3), dtype=np.uint8) + np.uint8(3 * i)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        output.mux(stream.encode(None))
    for sampling in RULES:
        planned, whole = decoder(path, sampling), decoder(path, sampling)
        # Where pictures of open groups are left out, some builds of libav log an error; then the
        # plan is given up and everything is decoded.
        samples = planned if options.startswith("open-gop") else planned._planned()
        assert_equal(taken(samples), taken(whole._whole()))
        assert planned.result() == whole.result()


def test_fewer_packets_are_decoded(make_video, tmp_path, monkeypatch):
    path = make_video(tmp_path / "v.mp4", list(range(0, 8000, 40)), b_frames=3, keyframe_every=25)
    fed = []
    decode = av.video.stream.VideoStream.decode

    class Counting:
        def __init__(self, stream):
            self._stream = stream

        def __getattr__(self, name):
            return getattr(self._stream, name)

        def decode(self, packet):
            fed.append(packet)
            return decode(self._stream, packet)

    from mlalign.extract.decode import packet_plan as decode_plan

    frames = decode_plan._frames
    monkeypatch.setattr(
        decode_plan, "_frames", lambda stream, packet, note: frames(Counting(stream), packet, note)
    )
    assert len(taken(decoder(path, Sampling(fps=0.5))._planned())) == 4
    assert sum(packet is not None for packet in fed) == 4, "a key frame each, at these instants"


@pytest.mark.parametrize(
    ("name", "codec"), [("v.webm", "libvpx"), ("w.webm", "libvpx-vp9"), ("v.mp4", "mpeg4")]
)
@pytest.mark.parametrize("sampling", RULES, ids=str)
def test_other_codecs_are_planned_by_their_groups(make_video, tmp_path, name, codec, sampling):
    path = make_video(tmp_path / name, list(range(0, 4000, 40)), codec=codec, keyframe_every=20)
    for start, end in ((0.0, None), (2.1, 3.3)):
        ours, whole = (decoder(path, sampling, start=start, end=end) for _ in range(2))
        assert_equal(taken(ours), taken(whole._whole()))
        assert ours.result() == whole.result()


def test_files_that_do_not_tell_are_decoded_whole(make_video, tmp_path):
    path = make_video(tmp_path / "v.avi", list(range(0, 2000, 40)), codec="libx264")
    with open_container(path) as container, pytest.raises(PlanFailed):
        read_timeline(container, video_stream(container))
    assert_equal(
        taken(decoder(path, Sampling(fps=3.0))), taken(decoder(path, Sampling(fps=3.0))._whole())
    )


def test_a_plan_that_does_not_hold_ends_in_what_decoding_everything_gives(
    make_video, tmp_path, monkeypatch
):
    """A wanted frame never comes out: the samples before it stay, the rest comes all the same."""
    path = make_video(tmp_path / "v.mp4", list(range(0, 4000, 40)), b_frames=3, keyframe_every=25)
    from mlalign.extract.decode import packet_plan as decode_plan

    frames = decode_plan._frames
    monkeypatch.setattr(
        decode_plan,
        "_frames",
        lambda stream, packet, note: [
            frame for frame in frames(stream, packet, note) if frame.time < 1.9
        ],
    )
    with pytest.raises(PlanFailed):
        taken(decoder(path, Sampling(fps=2.0))._planned())
    given = decoder(path, Sampling(fps=2.0))
    whole = decoder(path, Sampling(fps=2.0))
    assert_equal(taken(given), taken(whole._whole()))
    assert given.result() == whole.result()
