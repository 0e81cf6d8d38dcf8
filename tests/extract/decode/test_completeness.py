"""What makes a video partial, and the share that is named."""

from fractions import Fraction

import pytest

from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.completeness import Extent, shortfall
from mlalign.extract.decode.protocol import open_decoder
from mlalign.extract.segments.sampling import Sampling

EVEN = list(range(0, 6000, 40))


def missing(damage=None, *, declared=None, is_cut=False, over=4.0, lost=0.0, start=0.0, end=None):
    extent = Extent(
        declared_seconds=None if declared is None else Fraction(declared),
        is_cut=is_cut,
        gap_seconds=Fraction(1, 25),
    )
    return shortfall(
        extent,
        damage,
        over=Fraction(over),
        lost=Fraction(lost),
        start=Fraction(start),
        end=None if end is None else Fraction(end),
    )


@pytest.mark.parametrize("declared", [None, -7, 0.5, 4, 36_000, 1_000_000_000])
def test_a_whole_file_is_whole_whatever_it_declares(declared):
    assert missing(declared=declared) is None


def test_a_cut_file_is_partial_with_the_share_of_what_it_declares():
    assert missing(declared=8, is_cut=True) == (
        "the file is cut short; decoded 50 % of the declared 8 s"
    )
    assert missing(is_cut=True) == (
        "the file is cut short; 4 s were decoded, it does not say of how many"
    )
    assert missing(declared=4, is_cut=True) is None, "no picture was cut off"


def test_damage_is_never_the_whole():
    assert missing("bad") == "bad; decoded 99 % of the 4 s"
    assert missing("bad", lost=1.0) == "bad; decoded 75 % of the 4 s"
    assert missing("bad", declared=1) == "bad; decoded 99 % of the 4 s"
    assert missing("bad", declared=10, lost=1.0) == "bad; decoded 30 % of the declared 10 s"


def test_a_clip_is_judged_by_its_own_span():
    assert missing(declared=8, is_cut=True, end=3) is None
    assert missing(declared=8, is_cut=True, start=2, end=6) == (
        "the file is cut short; decoded 50 % of the declared 4 s"
    )


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_clip_before_the_cut_is_whole(decoder, name, tmp_path, make_video):
    options = {"container_options": {"movflags": "faststart"}} if name == "a.mp4" else {}
    whole = make_video(tmp_path / name, EVEN, size=(192, 128), **options).read_bytes()
    path = tmp_path / f"cut-{name}"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    problems = []
    for end in (1.0, None):
        sampling, limits = Sampling(fps=2.0), DecoderLimits()
        found = open_decoder(decoder, path, sampling=sampling, start=0.0, end=end, limits=limits)
        assert len(list(found)) >= 2
        problems.append(found.result().problem)
    if decoder == "pyav":  # the program reads ahead and may meet the damage all the same
        assert problems[0] is None
    assert "cut short" in problems[1] and "% of the declared 6 s" in problems[1]


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.9])
def test_no_cut_of_a_table_or_segment_goes_unseen(part, tmp_path, make_video):
    for name in ("a.mp4", "a.mkv", "b.avi"):
        options = {"container_options": {"movflags": "faststart"}} if name == "a.mp4" else {}
        pts = EVEN
        if name == "b.avi":
            pts, options = list(range(150)), {"codec": "mpeg4", "time_base": Fraction(1, 25)}
        whole = make_video(tmp_path / name, pts, **options).read_bytes()
        path = tmp_path / f"cut-{name}"
        size = int(len(whole) * part)
        for more in range(0, 400, 57):
            path.write_bytes(whole[: size + more])
            sampling, limits = Sampling(fps=2.0), DecoderLimits()
            found = open_decoder(
                "pyav", path, sampling=sampling, start=0.0, end=None, limits=limits
            )
            num_samples = len(list(found))
            problem = found.result().problem
            assert num_samples < 12 and problem or num_samples == 12, (name, size + more)
