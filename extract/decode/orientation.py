"""How a stored picture is turned and mirrored to stand upright: the display matrix of its frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class Orientation:
    """x' = a x + c y, y' = b x + d y: where the pixel at (x, y) is shown (ISO 14496-12, 6.2.2), up
    to a positive factor and a shift."""

    a: int = 1
    b: int = 0
    c: int = 0
    d: int = 1

    @property
    def is_mirrored(self) -> bool:
        return self.a * self.d - self.b * self.c < 0

    @property
    def _is_transposed(self) -> bool:
        return abs(self.a) + abs(self.d) < abs(self.b) + abs(self.c)

    @property
    def rotation_degrees(self) -> int:
        """0, 90, 180 or 270: the turn counter-clockwise that shows the picture upright, once it is
        mirrored left to right if need be."""
        a, b = (-self.a, -self.b) if self.is_mirrored else (self.a, self.b)
        if self._is_transposed:
            return 270 if b > 0 else 90
        return 180 if a < 0 else 0

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """The stored (height, width, 3) picture as it is to be shown, contiguous."""
        across, down = (self.c, self.b) if self._is_transposed else (self.a, self.d)
        shown = picture.swapaxes(0, 1) if self._is_transposed else picture
        return np.ascontiguousarray(shown[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


class Orientations:
    """Of the frames of one video, by the rotation that each is said to have.

    PyAV ties a frame to its side data in a circle that only the garbage collector undoes, and
    frames are large: the matrix is read once for each rotation.
    """

    def __init__(self) -> None:
        self._of_rotation: dict[int, Orientation] = {}

    def of(self, frame: VideoFrame) -> Orientation:
        found = self._of_rotation.get(frame.rotation)
        if found is None:
            found = self._of_rotation[frame.rotation] = orientation_of(frame)
        return found


def orientation_of(frame: VideoFrame) -> Orientation:
    """By the display matrix that comes with the frame; without one it stands upright as stored."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # a buffer, which the stubs do not tell
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    return Orientation(a, b, c, d)
