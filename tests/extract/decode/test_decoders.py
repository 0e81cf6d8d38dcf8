"""Both decoders: the frame that is shown at an instant, upright, whatever the file does; damage and
disguises.

Every frame carries its number as a barcode (see conftest), so the frame that came is read off the
picture and held against the timeline the video was written with.
"""

import os
import shutil
import signal
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from mlalign.data_manifests.core.ffmpeg_program import ffmpeg_program
from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.protocol import DecodeError, open_decoder
from mlalign.extract.segments.sampling import Sampling, Timed, samples

DECODERS = ("pyav", "ffmpeg")
MPEG_CLOCK = Fraction(1, 90_000)
EVEN = list(range(0, 3000, 40))
"""25 frames a second, in milliseconds."""
UNEVEN = np.cumsum(np.random.default_rng(0).integers(5, 400, 30)).tolist()
GAPS = [0, 40, 80, 1500, 1540, 4000]


@pytest.fixture(autouse=True)
def _no_hang():
    """A decoder that waits for ever fails its test, not the suite."""

    def fail(*_):
        raise AssertionError("the decoder hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def decode(name, path, *, fps=5.0, start=0.0, end=None, **limits):
    """([(sample_seconds, seconds, picture)], result)"""
    limits = DecoderLimits(**limits)
    decoder = open_decoder(
        name, path, sampling=Sampling(fps=fps), start=start, end=end, limits=limits
    )
    found = [(sample.sample_seconds, sample.seconds, sample.picture()) for sample in decoder]
    return found, decoder.result()


def shown(pts, *, time_base=Fraction(1, 1000), last=None, fps=5.0, start=0.0, end=None):
    """(sample_seconds, seconds, number) by the timeline that the video was written with."""
    first = next(index for index, ticks in enumerate(pts) if ticks >= 0 or pts[0] >= 0)
    times = [(ticks - pts[first]) * time_base for ticks in pts[first:]]
    length = last * time_base if last is not None else times[-1] - times[-2]
    ends = [*times[1:], times[-1] + length]
    frames = [
        Timed(begin, over - begin, first + index)
        for index, (begin, over) in enumerate(zip(times, ends, strict=True))
    ]
    found = samples(frames, fps=fps, start=start, end=end)
    return [(sample.sample_seconds, sample.seconds, sample.picture) for sample in found]


GOOD = {
    "constant.mp4": (EVEN, {}),
    "b-frames.mp4": (EVEN, {"b_frames": 2}),
    "variable.mp4": (UNEVEN, {}),
    "variable.mkv": (UNEVEN, {"b_frames": 2}),
    "gaps.mp4": (GAPS, {}),
    "gaps.mkv": (GAPS, {"last_duration": 40}),
    "offset.mp4": ([3000 + ms for ms in EVEN], {}),
    "offset.mkv": ([3000 + ms for ms in EVEN], {"b_frames": 2}),
    "offset.ts": ([270_000 + 90 * ms for ms in EVEN], {"time_base": MPEG_CLOCK}),
    "wrapped-clock.ts": ([2**33 - 90_000 + 90 * ms for ms in EVEN], {"time_base": MPEG_CLOCK}),
    # Frames before time 0 are hidden by an edit list that begins inside a group of pictures.
    "edit-list.mp4": (
        [ms - 1000 for ms in EVEN],
        {"b_frames": 2, "container_options": {"avoid_negative_ts": "disabled"}},
    ),
    "ntsc.mp4": ([1001 * i for i in range(75)], {"time_base": Fraction(1, 30_000)}),
    "240-fps.mp4": (list(range(360)), {"time_base": Fraction(1, 240)}),
    "0.2-fps.mp4": (list(range(5)), {"time_base": Fraction(5)}),
    "one-frame.mp4": ([0], {"last_duration": 40}),
    "fine-clock.mp4": ([400_000 * i for i in range(50)], {"time_base": Fraction(1, 10_000_000)}),
    "rotated-90.mp4": (EVEN[:25], {"rotation": 90}),
    "rotated-180.mp4": (EVEN[:25], {"rotation": 180}),
    "rotated-270.mp4": (EVEN[:25], {"rotation": 270}),
    "wide-pixels.mp4": (EVEN[:25], {"pixel_ratio": Fraction(2)}),
    "narrow-pixels.mkv": (EVEN[:25], {"pixel_ratio": Fraction(2, 3)}),
    "wide-rotated.mp4": (EVEN[:25], {"pixel_ratio": Fraction(4, 3), "rotation": 90}),
    "mpeg4.avi": (list(range(50)), {"time_base": Fraction(1, 25), "codec": "mpeg4", "b_frames": 2}),
    "h264-b-frames.avi": (list(range(50)), {"time_base": Fraction(1, 25), "b_frames": 2}),
    "mpeg2.mpg": (
        list(range(50)),
        {"time_base": Fraction(1, 25), "codec": "mpeg2video", "b_frames": 2},
    ),
    "bare-stream.h264": (
        list(range(50)),
        {"time_base": Fraction(1, 25), "b_frames": 2, "container": "h264"},
    ),
    "flash.flv": (EVEN[:30], {"b_frames": 2}),
    "vp9.webm": (UNEVEN[:12], {"codec": "libvpx-vp9"}),
    "motion-jpeg.mov": (EVEN[:25], {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    "odd-size.mkv": (EVEN[:25], {"codec": "ffv1", "size": (95, 63)}),
    "rgb.mkv": (EVEN[:25], {"codec": "ffv1", "pixel_format": "bgr0"}),
    "animation.gif": (
        list(range(0, 200, 10)),
        {"time_base": Fraction(1, 100), "codec": "gif", "pixel_format": "rgb8"},
    ),
}

# What a container cannot say: AVI numbers pictures as they are stored, so the first gap is lost;
# webm has its own idea of how long the last one is shown.
APPROXIMATE = {"h264-b-frames.avi", "vp9.webm"}
SPANS = [(5.0, 0.0, None), (7.0, 0.3, 0.9)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video):
    """Name to path of a video of GOOD, written when first asked for."""
    folder = tmp_path_factory.mktemp("videos")

    def path_of(name):
        path = folder / name
        if not path.exists():
            pts, options = GOOD[name]
            make_video(path, pts, **options)
        return path

    return path_of


@pytest.mark.parametrize("name", sorted(set(GOOD) - APPROXIMATE))
def test_the_frame_shown_at_each_instant_comes(name, videos, number_of):
    pts, options = GOOD[name]
    last = options.get("last_duration")
    for fps, start, end in SPANS:
        expected = shown(
            pts,
            time_base=options.get("time_base", Fraction(1, 1000)),
            last=last,
            fps=fps,
            start=start,
            end=end,
        )
        if not expected:
            continue
        found, result = decode("pyav", videos(name), fps=fps, start=start, end=end)
        assert [number_of(picture) for _, _, picture in found] == [row[2] for row in expected]
        assert [row[0] for row in found] == [row[0] for row in expected]
        # Containers round times to their own clock.
        np.testing.assert_allclose([r[1] for r in found], [r[1] for r in expected], atol=1e-3)
        assert result.problem is None


@pytest.mark.parametrize("name", sorted(GOOD))
def test_both_decoders_give_the_same_times_pictures_and_ending(name, videos):
    for fps, start, end in SPANS:
        if name == "one-frame.mp4" and start:
            continue
        ours, our_ending = decode("pyav", videos(name), fps=fps, start=start, end=end)
        theirs, their_ending = decode("ffmpeg", videos(name), fps=fps, start=start, end=end)
        assert [row[:2] for row in theirs] == [row[:2] for row in ours]
        for (_, _, our_picture), (_, _, their_picture) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(our_picture, their_picture)
        assert their_ending == our_ending


@pytest.mark.parametrize("decoder", DECODERS)
def test_b_frames_in_avi_come_in_order_and_in_time(decoder, videos, number_of):
    found, result = decode(decoder, videos("h264-b-frames.avi"), fps=25.0)
    numbers = [number_of(picture) for _, _, picture in found]
    assert numbers == sorted(numbers)
    assert set(range(1, 49)) <= set(numbers)
    assert result.duration_seconds == pytest.approx(2.0, abs=0.09)


def test_colours_of_ten_bits_differ_by_little(tmp_path, make_video, number_of):
    path = make_video(tmp_path / "a.mov", EVEN[:25], pixel_format="yuv422p10le")
    ours, theirs = decode("pyav", path)[0], decode("ffmpeg", path)[0]
    for (_, _, our_picture), (_, _, their_picture) in zip(ours, theirs, strict=True):
        assert number_of(our_picture) == number_of(their_picture) != -1
        # Releases of libswscale place the half-resolution colours half a pixel apart.
        assert np.abs(our_picture.astype(int) - their_picture).mean() < 2


@pytest.mark.parametrize("decoder", DECODERS)
def test_rotated_and_stretched_pictures_have_the_size_that_is_shown(decoder, videos):
    shapes = {
        "rotated-90.mp4": (96, 64),
        "rotated-180.mp4": (64, 96),
        "rotated-270.mp4": (96, 64),
        "wide-pixels.mp4": (64, 192),
        "narrow-pixels.mkv": (64, 64),
        "wide-rotated.mp4": (128, 64),
    }
    for name, shape in shapes.items():
        found, result = decode(decoder, videos(name), fps=1.0)
        assert found[0][2].shape == (*shape, 3), name
        assert (result.probe.width, result.probe.height) == (96, 64)
        if name.startswith("rotated"):
            assert result.probe.rotation_degrees == int(name[8:-4])


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_probe_says_what_the_container_says(decoder, videos):
    probe = decode(decoder, videos("offset.ts"))[1].probe
    assert (probe.codec, probe.pixel_format, probe.stream_index) == ("h264", "yuv420p", 0)
    assert probe.fps == pytest.approx(25)
    assert probe.first_pts_seconds == 3.0


@pytest.mark.parametrize("decoder", DECODERS)
def test_durations_are_those_of_the_clip(decoder, videos):
    path = videos("offset.mp4")
    assert decode(decoder, path)[1].duration_seconds == 3.0
    assert decode(decoder, path, start=0.3, end=1.7)[1].duration_seconds == 1.4
    assert decode(decoder, path, start=2.5, end=9.0)[1].duration_seconds == 0.5
    assert decode(decoder, videos("gaps.mp4"))[1].duration_seconds == 6.46


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_clip_that_starts_after_the_end_is_refused_with_both_times(decoder, videos):
    for end in (None, 9.0):
        with pytest.raises(DecodeError, match="starts at 4 s, the video ends at 3 s"):
            decode(decoder, videos("constant.mp4"), start=4.0, end=end)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_clock_that_is_set_back_goes_on_where_it_stopped(
    decoder, tmp_path, make_video, number_of
):
    parts = [
        make_video(
            tmp_path / f"{number}.ts",
            [begin + 90 * ms for ms in EVEN],
            time_base=MPEG_CLOCK,
            first_number=number,
        )
        for begin, number in ((270_000, 0), (0, 100))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    found, result = decode(decoder, joined)
    numbers = [number_of(picture) for _, _, picture in found]
    assert numbers == [*range(0, 75, 5), *range(100, 175, 5)]
    assert result.duration_seconds == pytest.approx(6.0)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_last_frame_is_shown_for_as_long_as_the_container_says(decoder, tmp_path, make_video):
    # More pictures than fit a pipe.
    path = make_video(tmp_path / "a.mp4", [0, 40], last_duration=60_000, size=(320, 240))
    found, result = decode(decoder, path)
    assert len(found) == 301
    assert result.duration_seconds == 60.04


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_limit_on_the_picture_is_kept_before_anything_is_decoded(decoder, videos):
    with pytest.raises(DecodeError, match=r"96 x 64 is over the limit of 0.001 megapixels"):
        decode(decoder, videos("constant.mp4"), max_megapixels=0.001)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_limit_on_the_picture_counts_its_pixels_as_shown(decoder, tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4", EVEN[:5], pixel_ratio=Fraction(20))
    with pytest.raises(DecodeError, match="1920 x 64 is over the limit of 0.1 megapixels"):
        decode(decoder, path, max_megapixels=0.1)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "name",
    ["a b.mp4", "-i.mp4", "-.mp4", "%03d.mp4", "a:b.mp4", "http:a.mp4", "'q'\".mp4", "a\nb.mp4"]
    + ["*?[x].mp4", "a,b;c=[0].mp4", "\\n.mp4", "größe 影.mp4", "concat:a|b.mp4", "#.mp4"],
)
def test_names_are_only_names(decoder, name, tmp_path, videos, number_of, monkeypatch):
    shutil.copy(videos("constant.mp4"), tmp_path / name)
    assert number_of(decode(decoder, tmp_path / name, fps=1.0)[0][1][2]) == 25
    monkeypatch.chdir(tmp_path)
    assert len(decode(decoder, type(tmp_path)(name), fps=1.0)[0]) == 3


@pytest.fixture(scope="module")
def strangers(tmp_path_factory, videos):
    """Files that hold no video of their own; secret.mp4 is what the disguised ones name."""
    folder = tmp_path_factory.mktemp("strangers")
    secret = shutil.copy(videos("constant.mp4"), folder / "secret.mp4")
    shutil.copy(videos("offset.ts"), folder / "secret.ts")
    (folder / "text.mp4").write_text("this is a letter, not a film\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "zeros.mp4").write_bytes(bytes(5000))
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "hls.mp4").write_text(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\nsecret.ts\n"
        "#EXT-X-ENDLIST\n"
    )
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {secret}\n")
    (folder / "sdp.mp4").write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n"
    )
    (folder / "dash.mp4").write_text(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>secret.mp4</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    _write_audio(folder / "audio.mp4")
    _write_with_cover(folder / "cover.m4a", folder)
    return folder


def _write_audio(path):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 16_000), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16_000
        output.mux([*stream.encode(frame), *stream.encode(None)])


def _run_ffmpeg(*arguments):
    command = [ffmpeg_program(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def _write_with_cover(path, folder, *, video=None):
    """An audio file, or a video, with a picture attached to it."""
    cover = folder / "cover.png"
    with av.open(str(cover), "w", format="image2") as output:
        stream = output.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb24"
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 9, dtype=np.uint8), format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    main = video or folder / "audio.mp4"
    _run_ffmpeg("-i", cover, "-i", main, "-map", "0", "-map", "1", "-c", "copy", "-f", "mp4",
                "-disposition:v:0", "attached_pic", path)  # fmt: skip


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "name",
    "text empty zeros noise hls concat sdp dash audio".split(),
)
def test_what_is_no_video_is_refused(decoder, name, strangers, monkeypatch):
    monkeypatch.chdir(strangers)
    with pytest.raises(DecodeError):
        decode(decoder, strangers / f"{name}.mp4")


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_playlist_does_not_open_the_file_it_names(decoder, strangers, tmp_path):
    os.mkfifo(tmp_path / "fifo")  # opening it without a writer blocks: stuck, not refused
    for name in ("hls.mp4", "concat.mp4", "dash.mp4"):
        content = (strangers / name).read_text().replace(str(strangers / "secret.mp4"), "fifo")
        content = content.replace("secret.ts", "fifo").replace("secret.mp4", "fifo")
        (tmp_path / name).write_text(content)
    for name in ("hls.mp4", "concat.mp4", "dash.mp4"):
        with pytest.raises(DecodeError, match="not a video that can be read"):
            decode(decoder, tmp_path / name)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_cover_picture_is_no_video(decoder, strangers, tmp_path, videos, number_of):
    with pytest.raises(DecodeError, match="there is no video stream"):
        decode(decoder, strangers / "cover.m4a")
    _write_with_cover(tmp_path / "both.mp4", tmp_path, video=videos("constant.mp4"))
    found, _ = decode(decoder, tmp_path / "both.mp4", fps=1.0)
    assert [number_of(picture) for _, _, picture in found] == [0, 25, 50]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_missing_file_is_refused(decoder, tmp_path):
    with pytest.raises(DecodeError, match="No such file"):
        decode(decoder, tmp_path / "nothing.mp4")


def outcome(decoder, path, number_of):
    """The numbers read and the problem; None and the reason when the file is refused."""
    try:
        # A damaged time stamp may lie a day ahead.
        found, result = decode(decoder, path, end=30.0)
    except DecodeError as error:
        return None, str(error)
    return [number_of(picture) for _, _, picture in found], result.problem


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", ["plain", "faststart"])
def test_a_truncated_video_is_refused_or_named_partial(
    decoder, kind, tmp_path, make_video, number_of
):
    options = {"container_options": {"movflags": "faststart"}} if kind == "faststart" else {}
    whole = make_video(tmp_path / "whole.mp4", EVEN, **options).read_bytes()
    cut = tmp_path / "cut.mp4"
    for part in (0.1, 0.5, 0.9) if decoder == "pyav" else (0.6,):
        cut.write_bytes(whole[: int(len(whole) * part)])
        numbers, problem = outcome(decoder, cut, number_of)
        assert problem, part
        if numbers is not None:
            assert numbers == list(range(0, 75, 5))[: len(numbers)], part


@pytest.mark.parametrize("name", ["b-frames.mp4", "variable.mkv", "offset.ts", "mpeg4.avi"])
def test_flipped_bits_never_end_in_another_error(name, tmp_path, videos, number_of):
    content = videos(name).read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 20)):
            damaged[place] ^= 1 << rng.integers(8)
        path = tmp_path / f"{trial}-{name}"
        path.write_bytes(damaged)
        outcome("pyav", path, number_of)
        if trial < 3:
            outcome("ffmpeg", path, number_of)


@pytest.mark.parametrize("decoder", DECODERS)
def test_lost_pictures_are_named(decoder, tmp_path, make_video, number_of):
    path = make_video(tmp_path / "a.mp4", EVEN, keyframe_every=100, size=(192, 128))
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + 4 + 9000
    content[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(content)
    numbers, problem = outcome(decoder, path, number_of)
    assert problem
    assert numbers is None or numbers[0] == 0


def test_closing_the_iteration_ends_the_program(videos, tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4", EVEN, size=(640, 480))
    frames = iter(
        open_decoder(
            "ffmpeg", path, sampling=Sampling(fps=25.0), start=0.0, end=None, limits=DecoderLimits()
        )
    )
    next(frames)
    frames.close()
    processes = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True)
    assert str(path) not in processes.stdout
