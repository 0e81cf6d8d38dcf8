"""Both decoders: the colour that was meant, whatever matrix and range it is stored in."""

import av
import numpy as np
import pytest

from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.protocol import open_decoder
from mlalign.extract.segments.sampling import Sampling

MATRICES = {"bt709": (1, 0.2126, 0.0722), "bt601": (6, 0.299, 0.114), "bt2020": (9, 0.2627, 0.0593)}
"""Number in ITU-T H.273, and the weights of red and blue in the brightness."""
COLOUR = (220, 60, 40)


def stored(colour, *, red, blue, is_full, bits):
    """The three numbers that are stored for a colour, by the definition of the matrix."""
    r, g, b = (value / 255 for value in colour)
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scale = 2 ** (bits - 8)
    if is_full:
        top = 2**bits - 1
        return [round(top * y), *(round(top * c + 128 * scale) for c in chroma)]
    return [round((16 + 219 * y) * scale), *(round((128 + 224 * c) * scale) for c in chroma)]


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_a_known_colour_comes_as_it_was_meant(tmp_path, decoder, matrix, is_full, bits):
    number, red, blue = MATRICES[matrix]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=10)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuv444p" if bits == 8 else "yuv444p10le"
        stream.codec_context.colorspace = number
        stream.codec_context.color_range = 2 if is_full else 1
        frame = av.VideoFrame(96, 64, stream.pix_fmt)
        values = stored(COLOUR, red=red, blue=blue, is_full=is_full, bits=bits)
        for plane, value in zip(frame.planes, values, strict=True):
            dtype = np.uint8 if bits == 8 else np.uint16
            plane.update(np.full(plane.buffer_size // dtype().itemsize, value, dtype).tobytes())
        frame.colorspace, frame.color_range, frame.pts = number, 2 if is_full else 1, 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    sampling, limits = Sampling(fps=1.0), DecoderLimits()
    found = open_decoder(decoder, path, sampling=sampling, start=0.0, end=None, limits=limits)
    [picture] = [sample.picture() for sample in found]
    assert np.abs(picture.astype(int) - COLOUR).max() <= 2
