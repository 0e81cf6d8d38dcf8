"""Pictures stand upright whichever way they were stored: both decoders, and by the definition."""

import gc
import itertools

import numpy as np
import pytest
from av.video.frame import VideoFrame

from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.orientation import Orientation
from mlalign.extract.decode.protocol import open_decoder
from mlalign.extract.segments.sampling import Sampling

MATRICES = [
    *(matrix for matrix in itertools.product((1, -1), (0,), (0,), (1, -1))),
    *((0, b, c, 0) for b, c in itertools.product((1, -1), (1, -1))),
]


def by_definition(picture, a, b, c, d):
    """Pixel by pixel: (x, y) goes to (a x + c y, b x + d y), shifted to begin at 0."""
    height, width = picture.shape[:2]
    places = {
        (a * x + c * y, b * x + d * y): picture[y, x] for y in range(height) for x in range(width)
    }
    columns = sorted({x for x, _ in places})
    rows = sorted({y for _, y in places})
    return np.array([[places[x, y] for x in columns] for y in rows])


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_matrix_does_what_its_definition_says(matrix):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(
        Orientation(*matrix).upright(picture), by_definition(picture, *matrix)
    )


@pytest.mark.parametrize("matrix", MATRICES)
def test_the_rotation_is_what_is_left_after_mirroring(matrix):
    orientation = Orientation(*matrix)
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    mirrored = picture[:, ::-1] if orientation.is_mirrored else picture
    turned = np.rot90(mirrored, orientation.rotation_degrees // 90)
    np.testing.assert_array_equal(turned, orientation.upright(picture))


def test_the_size_of_the_matrix_does_not_matter():
    assert Orientation(0, 1 << 16, -1 << 16, 0).rotation_degrees == 270
    assert Orientation(-3, 0, 0, -5).rotation_degrees == 180


@pytest.mark.parametrize("matrix", MATRICES)
def test_both_decoders_show_what_a_player_shows(make_video, tmp_path, matrix):
    plain = make_video(tmp_path / "plain.mp4", [0, 500], first_number=5)
    content = plain.read_bytes()
    a, b, c, d = (value << 16 for value in matrix)
    start = content.index(b"tkhd") + 44
    numbers = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=">i4")
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:start] + numbers.tobytes() + content[start + 36 :])
    stored, *shown = (
        next(
            sample.picture()
            for sample in open_decoder(
                decoder,
                path,
                sampling=Sampling(fps=1.0),
                start=0.0,
                end=None,
                limits=DecoderLimits(),
            )
        )
        for decoder, path in (("pyav", plain), ("pyav", turned), ("ffmpeg", turned))
    )
    for picture in shown:
        np.testing.assert_array_equal(picture, Orientation(*matrix).upright(stored))


def test_frames_are_let_go_without_the_garbage_collector(make_video, tmp_path):
    """A frame of 8K has 50 MB: a hundred that wait for the collector fill the memory."""
    video = make_video(tmp_path / "v.mp4", list(range(0, 6000, 100)))
    every = Sampling(fps=1.0, rule="every-frame")
    decoder = open_decoder(
        "pyav", video, sampling=every, start=0.0, end=None, limits=DecoderLimits()
    )
    gc.collect()
    gc.disable()
    try:
        for sample in decoder:
            sample.picture()
        alive = sum(type(found) is VideoFrame for found in gc.get_objects())
    finally:
        gc.enable()
    assert alive <= 3
