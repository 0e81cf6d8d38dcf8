"""A folder of hostile files, extracted in one run: each ends as the table says, and the good ones
beside them are complete."""

import os
import re
import struct
import subprocess
import zlib
from fractions import Fraction

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from mlalign.data_manifests.core.ffmpeg_program import ffmpeg_program
from mlalign.extract.cache.store import FeatureStore

EVEN = list(range(0, 2000, 40))
"""25 frames a second for 2 s, in milliseconds."""
GAPS = [0, 40, 80, 1500, 1540, 4000]
FPS = 2
SECRET = "quokka-archive"
"""Stands in a neighbouring file that the disguised ones name."""
OPTIONS = ["--backbone", "tiny", "--fps", FPS, "--workers", 2, "--segments", "uniform:2"]
LIMITS = ["--set", "limits.max_samples=100", "--set", "limits.stall_seconds=30"]
FRAMES_OF_2_S = 2 * FPS


def ok(num_frames=FRAMES_OF_2_S):
    return "ok", "^$", num_frames


def partial(reason, num_frames=None):
    return "partial", reason, num_frames


def failed(reason):
    return "failed", reason, 0


REFUSED = failed("not a video that can be read")
NO_VIDEO = failed("there is no video stream")

# Written by tests/conftest.py's write_video: times of the frames, options, what is expected.
MADE = {
    "plain.mp4": (EVEN, {}, ok()),
    "b-frames.mkv": (EVEN, {"b_frames": 2}, ok()),
    "gaps.mp4": (GAPS, {"last_duration": 40}, ok(9)),
    "gaps.mkv": (GAPS, {"last_duration": 40}, ok(9)),
    "edit-list.mp4": (
        [ms - 1000 for ms in EVEN],
        {"b_frames": 2, "container_options": {"avoid_negative_ts": "disabled"}},
        ok(2),
    ),
    # The transport stream's clock runs over after a second.
    "starts-before-0.ts": (
        [2**33 - 90_000 + 90 * ms for ms in EVEN],
        {"time_base": Fraction(1, 90_000)},
        ok(),
    ),
    "starts-3-s-late.mkv": ([3000 + ms for ms in EVEN], {}, ok()),
    "starts-40000-s-late.mp4": ([40_000_000 + ms for ms in EVEN], {}, ok()),
    "starts-40000-s-late.ts": (
        [90 * (40_000_000 + ms) for ms in EVEN],
        {"time_base": Fraction(1, 90_000)},
        ok(),
    ),
    "rotated-90.mp4": (EVEN, {"rotation": 90}, ok()),
    "rotated-180.mp4": (EVEN, {"rotation": 180}, ok()),
    "rotated-270.mp4": (EVEN, {"rotation": 270}, ok()),
    "29.97-fps.mp4": ([1001 * i for i in range(60)], {"time_base": Fraction(1, 30_000)}, ok(5)),
    "240-fps.mp4": (list(range(480)), {"time_base": Fraction(1, 240)}, ok()),
    "0.2-fps.mp4": (list(range(3)), {"time_base": Fraction(5)}, ok(15 * FPS)),
    "bare.h264.mp4": (
        list(range(50)),
        {"time_base": Fraction(1, 25), "container": "h264"},
        ok(),
    ),
    "bare.hevc.mp4": (
        list(range(50)),
        {"time_base": Fraction(1, 25), "container": "hevc", "codec": "libx265"},
        ok(),
    ),
    "one-frame.mp4": ([0], {"last_duration": 40}, ok(1)),
    "one-frame.mkv": ([0], {"last_duration": 40}, ok(1)),
    "wide-pixels.mp4": (EVEN, {"pixel_ratio": Fraction(2)}, ok()),
    "4-4-4.mp4": (EVEN, {"pixel_format": "yuv444p"}, ok()),
    "10-bit.mp4": (EVEN, {"pixel_format": "yuv420p10le"}, ok()),
    "grey.mp4": (EVEN, {"pixel_format": "gray"}, ok()),
    "full-range.mov": (EVEN, {"codec": "mjpeg", "pixel_format": "yuvj420p"}, ok()),
    "odd-size.mkv": (EVEN, {"codec": "ffv1", "size": (95, 63)}, ok()),
    "alpha.mov": (EVEN[::5], {"codec": "png", "pixel_format": "rgba"}, ok()),
    "alpha.mkv": (EVEN[::5], {"codec": "ffv1", "pixel_format": "yuva420p"}, ok()),
    "alpha.webm": (EVEN[::5], {"codec": "libvpx-vp9", "pixel_format": "yuva420p"}, ok()),
    "prores-alpha.mov": (EVEN[::5], {"codec": "prores_ks", "pixel_format": "yuva444p10le"}, ok()),
    "a day apart.mp4": ([0, 86_400_000], {}, failed("more than 100 frames are sampled")),
    # Names that are only names.
    "-i.mp4": (EVEN, {}, ok()),
    "two words.mp4": (EVEN, {}, ok()),
    "'single' and \"double\".mp4": (EVEN, {}, ok()),
    "two\nlines.mp4": (EVEN, {}, ok()),
    "100%03d.mp4": (EVEN, {}, ok()),
    "http:::colons.mp4": (EVEN, {}, ok()),
    "\x1b[31mred\x07.mp4": (EVEN, {}, ok()),
    "größe 影.mp4": (EVEN, {}, ok()),
    "folder.mp4/inside.mp4": (EVEN, {}, ok()),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_video):
    """(folder, {name: (status, reason pattern, frames or None)})"""
    folder = tmp_path_factory.mktemp("hostile") / "videos"
    (folder / "folder.mp4").mkdir(parents=True)
    expected = {}
    for name, (pts, options, outcome) in MADE.items():
        make_video(folder / name, pts, **options)
        expected[name] = outcome
    for write in (
        _lying_durations,
        _joined,
        _tagged_colours,
        _disguised,
        _no_regular_files,
        _without_pictures,
        _broken,
        _huge,
        _many_streams,
    ):
        expected |= write(folder, make_video)
    return folder, expected


def _lying_durations(folder, make_video):
    plain = (folder / "plain.mp4").read_bytes()
    for name, seconds in (("half-a-second", 0.5), ("10-hours", 36_000), ("1e9-seconds", 1e9)):
        content = bytearray(plain)
        for box, timescale_at, duration_at in ((b"mvhd", 16, 20), (b"mdhd", 16, 20)):
            start = content.index(box)
            (rate,) = struct.unpack_from(">I", content, start + timescale_at)
            length = min(int(seconds * rate), 2**32 - 2)
            struct.pack_into(">I", content, start + duration_at, length)
        (rate,) = struct.unpack_from(">I", content, content.index(b"mvhd") + 16)
        length = min(int(seconds * rate), 2**32 - 2)
        struct.pack_into(">I", content, content.index(b"tkhd") + 24, length)
        (folder / f"says-{name}.mp4").write_bytes(content)
    mkv = (folder / "b-frames.mkv").read_bytes()
    place = mkv.index(b"\x44\x89\x88") + 3  # Segment/Info/Duration, eight bytes, in milliseconds
    flv = make_video(folder / "whole.flv", EVEN).read_bytes()
    flv_place = flv.index(b"duration\x00") + 9
    for name, seconds in (
        ("half-a-second", 0.5),
        ("10-hours", 36_000.0),
        ("1e9-seconds", 1e9),
        ("nan", float("nan")),
        ("negative", -7.0),
    ):
        content = mkv[:place] + struct.pack(">d", seconds * 1000) + mkv[place + 8 :]
        (folder / f"says-{name}.mkv").write_bytes(content)
        content = flv[:flv_place] + struct.pack(">d", seconds) + flv[flv_place + 8 :]
        (folder / f"says-{name}.flv").write_bytes(content)
    mp4 = ("half-a-second", "10-hours", "1e9-seconds")
    floats = [f"{name}.{end}" for name in (*mp4, "nan", "negative") for end in ("mkv", "flv")]
    lying = [*(f"{name}.mp4" for name in mp4), *floats]
    return {f"says-{name}": ok() for name in lying} | {"whole.flv": ok()}


def _joined(folder, make_video):
    """Recordings that were put end to end: the clock is set back, the picture changes its size."""
    parts = [
        make_video(
            folder.parent / f"{begin}-{size[0]}.ts",
            [begin + 90 * ms for ms in EVEN],
            time_base=Fraction(1, 90_000),
            size=size,
        ).read_bytes()
        for begin, size in ((270_000, (96, 64)), (0, (96, 64)), (270_000 + 180_000, (160, 96)))
    ]
    (folder / "clock-set-back.ts").write_bytes(parts[0] + parts[1])
    (folder / "size-changes.ts").write_bytes(parts[0] + parts[2])
    return {"clock-set-back.ts": ok(8), "size-changes.ts": ok(8)}


def _ffmpeg(*arguments):
    command = [ffmpeg_program(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


TAGS = {
    "bt709.mp4": (1, 1, 1),
    "bt601.mp4": (6, 6, 6),
    "bt2020.mp4": (9, 14, 9),
    "pq.mp4": (9, 16, 9),
    "hlg.mp4": (9, 18, 9),
}
"""Primaries, transfer and matrix, by the numbers of ITU-T H.273."""


def _tagged_colours(folder, make_video):
    for name, (primaries, transfer, matrix) in TAGS.items():
        with av.open(str(folder / name), "w") as output:
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
            stream.options = {"preset": "ultrafast"}
            context = stream.codec_context
            context.color_primaries, context.color_trc = primaries, transfer
            context.colorspace, context.color_range = matrix, 1
            for i in range(50):
                picture = np.full((64, 96, 3), 5 * i, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                output.mux(stream.encode(frame.reformat(format="yuv420p10le")))
            output.mux(stream.encode(None))
    _ffmpeg("-i", f"file:{folder}/plain.mp4", "-c:v", "mpeg2video", "-flags", "+ildct+ilme",
            "-vf", "setfield=tff", f"file:{folder}/interlaced.mpg")  # fmt: skip
    return dict.fromkeys(TAGS, ok()) | {"interlaced.mpg": ok()}


def _disguised(folder, make_video):
    """What would make a decoder open another file, a connection, or draw text."""
    secret = make_video(folder.parent / f"{SECRET}.mp4", EVEN, first_number=1000)
    _ffmpeg("-i", secret, "-c", "copy", folder.parent / f"{SECRET}.ts")
    (folder.parent / f"{SECRET}.txt").write_text(f"{SECRET}\n" * 50)
    for number in range(3):
        _png(folder / f".{SECRET}-{number}.png", 96, 64)
    above = folder.parent
    texts = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\n../{SECRET}.ts\n"
        "#EXT-X-ENDLIST\n",
        "hls-http.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\n"
        f"http://127.0.0.1:9/{SECRET}.ts\n#EXT-X-ENDLIST\n",
        "list.m3u.mp4": f"#EXTM3U\n#EXTINF:2,x\n{above}/{SECRET}.mp4\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{above}/{SECRET}.mp4'\n",
        "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>../{SECRET}.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "drawing.mp4": '<svg xmlns="http://www.w3.org/2000/svg" width="96" height="64">'
        f'<image href="file://{above}/{SECRET}.png"/></svg>',
        "sequence.mp4": f".{SECRET}-%d.png\n",
        "terminal.mp4": "\x1b[2J\x1b[31mtext\n" * 200,
        "metadata.mp4": f";FFMETADATA1\ntitle={SECRET}\n[CHAPTER]\nSTART=0\nEND=1\n",
        "letter.mp4": "this is a letter, not a film\n" * 100,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    _png(folder / "picture.mp4", 96, 64)
    return dict.fromkeys([*texts, "picture.mp4"], REFUSED)


def _no_regular_files(folder, make_video):
    (folder / "link.mp4").symlink_to("plain.mp4")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.mp4")
    return {
        "link.mp4": ok(),
        "dangling.mp4": failed("does not exist"),
        "loop.mp4": failed("cannot be reached"),
        "device.mp4": failed("not a regular file"),
        "fifo.mp4": failed("not a regular file"),
    }


def _without_pictures(folder, make_video):
    plain = f"file:{folder}/plain.mp4"
    cover = folder.parent / "cover.png"
    _png(cover, 96, 64)
    sound = ("-f", "lavfi", "-i", "sine=duration=2")
    key, name = "0" * 31 + "1", "0" * 31 + "2"
    _ffmpeg("-i", plain, "-c", "copy", "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key,
            "-encryption_kid", name, folder / "encrypted.mp4")  # fmt: skip
    _ffmpeg("-i", plain, "-c", "copy", "-movflags", "frag_keyframe+empty_moov",
            folder / "fragments.mp4")  # fmt: skip
    _ffmpeg(*sound, "-c:a", "aac", folder / "audio.mp4")
    _ffmpeg(*sound, "-i", cover, "-map", "0", "-map", "1", "-c:a", "aac", "-c:v", "copy",
            "-disposition:v:0", "attached_pic", folder / "song.mp4")  # fmt: skip
    _ffmpeg("-i", cover, "-i", plain, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0",
            "attached_pic", folder / "cover-first.mp4")  # fmt: skip
    _ffmpeg("-i", plain, "-c", "copy", "-attach", cover, "-metadata:s:t:0", "mimetype=image/png",
            "-metadata", "title=\x1b[2J\x1b]0;owned\x07", folder / "attachment.mkv")  # fmt: skip
    fragments = (folder / "fragments.mp4").read_bytes()
    first = fragments.index(b"moof") - 4
    (folder / "init-only.mp4").write_bytes(fragments[:first])
    second = fragments.index(b"moof", first + 8) - 4
    (folder / "one-fragment-and-a-half.mp4").write_bytes(fragments[: second + 300])
    with av.open(str(folder / "no-frames.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        output.start_encoding()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "zeros.mp4").write_bytes(bytes(5000))
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    return {
        "encrypted.mp4": failed("encrypted"),
        "fragments.mp4": ok(),
        "one-fragment-and-a-half.mp4": partial("cut short", 1),
        "init-only.mp4": failed("no frame could be decoded"),
        "no-frames.mp4": NO_VIDEO,
        "audio.mp4": NO_VIDEO,
        "song.mp4": NO_VIDEO,
        "cover-first.mp4": ok(),
        "attachment.mkv": ok(),
        "empty.mp4": REFUSED,
        "zeros.mp4": REFUSED,
        "noise.mp4": REFUSED,
    }


def _broken(folder, make_video):
    """Files that were cut off or overwritten."""
    long = list(range(0, 6000, 40))
    rng = np.random.default_rng(0)
    expected = {}
    for end, options in (
        ("mp4", {"container_options": {"movflags": "faststart"}}),
        ("mkv", {}),
        ("flv", {}),
        ("ts", {"time_base": Fraction(1, 90_000)}),
        ("avi", {"codec": "mpeg4", "time_base": Fraction(1, 25)}),
    ):
        pts = long
        if "time_base" in options:
            pts = [round(ms / 1000 / options["time_base"]) for ms in long]
        whole = make_video(folder.parent / f"long.{end}", pts, size=(192, 128), **options)
        content = whole.read_bytes()
        (folder / f"cut-in-the-middle.{end}").write_bytes(content[: len(content) // 2 + 50])
        expected[f"cut-in-the-middle.{end}"] = partial("cut short|damaged|decoding errors")
        damaged = bytearray(content)
        third = len(content) // 3
        damaged[third : third + 1500] = rng.bytes(1500)
        (folder / f"overwritten.{end}").write_bytes(damaged)
        expected[f"overwritten.{end}"] = partial("(damaged|decoding errors).* %")
    mp4 = folder.parent / "long.mp4"
    content = mp4.read_bytes()
    with av.open(str(mp4)) as container:
        places = [entry.pos for entry in container.streams.video[0].index_entries]
    (folder / "cut-between-frames.mp4").write_bytes(content[: places[75]])
    expected["cut-between-frames.mp4"] = partial(r"cut short.* 50 % of the declared 6 s", 6)
    (folder / "header-only.mp4").write_bytes(content[: content.index(b"mdat") - 4])
    expected["header-only.mp4"] = failed("no frame could be decoded.*: ")
    (folder / "half-a-header.mp4").write_bytes(content[: content.index(b"stbl")])
    expected["half-a-header.mp4"] = failed("")
    plain = (folder / "plain.mp4").read_bytes()
    (folder / "no-index.mp4").write_bytes(plain[: plain.index(b"moov") - 4])
    expected["no-index.mp4"] = REFUSED
    return expected


def _png(path, width, height):
    """Black, one bit per pixel: few bytes, whatever its size."""

    def chunk(kind, content):
        size, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(kind + content))
        return size + kind + content + check

    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def _huge(folder, make_video):
    picture = _png(folder.parent / "huge.png", 12_000, 12_000)
    _ffmpeg("-i", picture, "-c", "copy", folder / "huge.mov")
    content = (folder / "huge.mov").read_bytes()
    small = content.replace(struct.pack(">HH", 12_000, 12_000), struct.pack(">HH", 96, 64))
    (folder / "huge-and-says-small.mov").write_bytes(small)
    return dict.fromkeys(("huge.mov", "huge-and-says-small.mov"), failed("limits.max_megapixels"))


def _many_streams(folder, make_video):
    with (
        av.open(f"file:{folder}/plain.mp4") as source,
        av.open(str(folder / "60-streams.mkv"), "w") as output,
    ):
        video = source.streams.video[0]
        streams = [output.add_stream_from_template(video) for _ in range(60)]
        for packet in source.demux(video):
            if packet.size:
                for stream in streams:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                    copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                    output.mux(copy)
    return {"60-streams.mkv": ok()}


@pytest.fixture(scope="module")
def extracted(corpus, mlalign_extract, tmp_path_factory):
    """(clip rows by name, what the command printed, the cache)"""
    folder, _ = corpus
    cache = tmp_path_factory.mktemp("hostile-cache") / "cache"
    done = mlalign_extract(folder, "-o", cache, *OPTIONS, *LIMITS)
    assert done.exit_code in (0, 1), done.output
    return clip_rows(cache), done.output, cache


def clip_rows(cache):
    tables = [pq.read_table(path) for path in cache.glob("index/clips/*.parquet")]
    return {row["clip_id"]: row for table in tables for row in table.to_pylist()}


def check(rows, expected, *, output):
    assert sorted(rows) == sorted(expected), output
    wrong = []
    for name, (status, reason, num_frames) in expected.items():
        row = rows[name]
        is_right = row["status"] == status and re.search(reason, row["reason"] or "")
        if not is_right or num_frames not in (None, row["num_frames"] or 0):
            found = row["status"], row["reason"], row["num_frames"]
            wrong.append(f"{name!r}: {found}, not {(status, reason, num_frames)}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_file_ends_as_expected(corpus, extracted):
    rows, output, _ = extracted
    assert len(corpus[1]) >= 60
    check(rows, corpus[1], output=output)


@pytest.mark.slow
def test_every_file_ends_as_expected_through_the_program(corpus, mlalign_extract, tmp_path):
    arguments = ["-o", tmp_path / "cache", *OPTIONS, *LIMITS, "--set", "decoder=ffmpeg"]
    done = mlalign_extract(corpus[0], *arguments)
    check(clip_rows(tmp_path / "cache"), corpus[1], output=done.output)


def test_high_dynamic_range_is_flagged_in_the_index(extracted):
    flagged = {name: row["hdr"] for name, row in extracted[0].items() if row["hdr"]}
    assert flagged == {"pq.mp4": "pq", "hlg.mp4": "hlg"}


@pytest.fixture(scope="module")
def good(corpus, mlalign_extract, tmp_path_factory):
    """(names of the files that are whole, the cache of a run on them alone)"""
    folder, expected = corpus
    alone = tmp_path_factory.mktemp("good") / "videos"
    names = sorted(name for name, (status, _, _) in expected.items() if status == "ok")
    for name in names:
        (alone / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(os.path.realpath(folder / name), alone / name)
    cache = alone.parent / "cache"
    done = mlalign_extract(alone, "-o", cache, *OPTIONS, *LIMITS)
    assert done.exit_code == 0, done.output
    return names, cache


def features_of(cache):
    """Clip id to its clip feature, segment features and segment spans."""
    found = FeatureStore.open(cache).split(None)
    parts = zip(found.segment_offsets, found.segment_offsets[1:], strict=False)
    return {
        clip: (feature, found.segment_features[begin:end], found.segment_spans[begin:end])
        for clip, feature, (begin, end) in zip(
            found.clip_ids, found.clip_features, parts, strict=True
        )
    }


def test_the_good_files_are_as_complete_as_without_the_bad_ones(extracted, good):
    names, cache = good
    alone, beside = features_of(cache), features_of(extracted[2])
    assert sorted(alone) == names and set(names) < set(beside)
    for name in names:
        for ours, theirs in zip(beside[name], alone[name], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_nothing_of_a_neighbouring_file_shows(extracted):
    _, output, cache = extracted
    assert SECRET not in output
    for path in cache.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_no_terminal_escape_of_a_name_or_of_metadata_is_printed(extracted, mlalign_extract):
    _, output, cache = extracted
    for printed in (output, mlalign_extract("status", cache).output):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printed)
