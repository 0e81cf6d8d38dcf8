"""Opening video files: what the container says besides its pictures must be harmless."""

from fractions import Fraction

import av
import pytest

from mlalign.extract.decode.container import as_fraction, open_container, time_base, video_stream

PLACEHOLDER = b"title in Latin-1"


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_metadata_that_is_not_utf_8_is_harmless(make_video, tmp_path, container):
    plain = make_video(tmp_path / "plain", [0, 500, 1000], container=container, codec="mpeg4")
    tagged = tmp_path / "tagged"
    with av.open(str(plain)) as source, av.open(str(tagged), "w", format=container) as target:
        target.metadata["title"] = PLACEHOLDER.decode()
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = tagged.read_bytes()
    assert PLACEHOLDER in content
    tagged.write_bytes(content.replace(PLACEHOLDER, b"\xe9\xff\xfe\xc3 in Latin-1   "))
    with open_container(tagged) as opened:
        frames = list(opened.decode(video_stream(opened)))
    assert len(frames) == 3


def test_rationals_of_every_version_become_fractions(make_video, tmp_path):
    assert as_fraction(None, default=Fraction(25)) == 25
    assert as_fraction(Fraction(0), default=Fraction(25)) == 25
    assert as_fraction(Fraction(1001, 30_000), default=Fraction(25)) == Fraction(1001, 30_000)
    with open_container(make_video(tmp_path / "v.mkv", [0, 500])) as opened:
        assert time_base(video_stream(opened)) == Fraction(1, 1000)
        assert type(time_base(video_stream(opened))) is Fraction
