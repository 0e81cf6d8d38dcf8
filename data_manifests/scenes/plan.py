"""What happens in a procedural clip: its scenes, drawn at random from one seed."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, replace
from typing import Final

FRAMES_PER_SECOND: Final = 8  # a power of two: every time is exact as float64
WIDTH: Final = 128
HEIGHT: Final = 96

RGB = tuple[int, int, int]
COLOURS: Final[dict[str, RGB]] = {
    "red": (228, 26, 28),
    "green": (40, 190, 50),
    "blue": (40, 80, 245),
    "yellow": (250, 230, 40),
    "purple": (170, 50, 220),
    "orange": (255, 140, 20),
    "cyan": (40, 225, 235),
    "white": (250, 250, 250),
}
SHAPES: Final = ("circle", "square", "triangle", "ring", "cross", "diamond")
RADIUS_PIXELS: Final = {"small": 17.0, "large": 30.0}
OTHER_RADIUS_PIXELS: Final = 12.0
BACKGROUNDS: Final[dict[str, RGB]] = {
    "black": (18, 18, 18),
    "grey": (100, 100, 100),
    "brown": (95, 68, 45),
    "navy": (24, 30, 75),
    "olive": (78, 84, 40),
    "maroon": (84, 28, 38),
    "teal": (22, 78, 80),
    "plum": (80, 50, 90),
}
CENTRE: Final = "in the centre"
ROWS: Final = ("at the top", CENTRE, "at the bottom")
COLUMNS: Final = ("on the left", CENTRE, "on the right")
PLACES: Final = (*ROWS, "on the left", "on the right")
PLACES_OF_MOTION: Final[dict[str, tuple[str, ...]]] = {
    "stays still": PLACES,
    "moves left": ROWS,
    "moves right": ROWS,
    "moves up": COLUMNS,
    "moves down": COLUMNS,
    "grows": PLACES,
    "shrinks": PLACES,
    "blinks": PLACES,
}

HELD_OUT: Final = frozenset(
    (colour, SHAPES[index % len(SHAPES)]) for index, colour in enumerate(COLOURS)
)
"""Colour and shape pairs that only the test split shows; each colour and shape is in others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One scene: a main object, sometimes another one at rest in a corner."""

    num_frames: int
    background: str
    colour: str
    shape: str
    size: str
    place: str
    motion: str
    nudge: tuple[int, int]
    """Pixels to the right and downwards that the main object is off its place."""
    other: tuple[str, str] | None
    """Colour and shape of the other object; both differ from those of the main one."""
    corner: tuple[float, float]
    """Centre of the other object in pixels."""

    @property
    def name(self) -> str:
        """The main object's name, which no other object of the clip has."""
        return f"{self.size} {self.colour} {self.shape}"

    def centre(self, frame: int) -> tuple[float, float]:
        """Pixels (x, y) of the main object's centre in a frame of the scene."""
        reach = RADIUS_PIXELS[self.size] + 4
        low_x, high_x, low_y, high_y = reach, WIDTH - reach, reach, HEIGHT - reach
        x = {"on the left": low_x, "on the right": high_x}.get(self.place, WIDTH / 2)
        y = {"at the top": low_y, "at the bottom": high_y}.get(self.place, HEIGHT / 2)
        done = frame / (self.num_frames - 1)
        match self.motion:
            case "moves left":
                x = high_x + done * (low_x - high_x)
            case "moves right":
                x = low_x + done * (high_x - low_x)
            case "moves up":
                y = high_y + done * (low_y - high_y)
            case "moves down":
                y = low_y + done * (high_y - low_y)
        return x + self.nudge[0], y + self.nudge[1]


def plan_clip(*, seed: int, index: int, split: str) -> tuple[Scene, ...]:
    """3 to 6 scenes of 5 to 11 frames; all objects of the clip differ in (colour, shape).

    The same arguments give the same scenes. Splits other than test leave HELD_OUT out.
    """
    rng = random.Random(f"mlalign scenes {seed} {index}")
    pairs = allowed_pairs(split)
    rng.shuffle(pairs)
    return tuple(_scene(rng, pairs) for _ in range(rng.randint(3, 6)))


def allowed_pairs(split: str) -> list[tuple[str, str]]:
    """The (colour, shape) pairs that may be seen in a split."""
    return [p for p in itertools.product(COLOURS, SHAPES) if split == "test" or p not in HELD_OUT]


def _scene(rng: random.Random, pairs: list[tuple[str, str]]) -> Scene:
    """A scene whose objects are taken out of `pairs`."""
    colour, shape = pairs.pop()
    motion = rng.choice(list(PLACES_OF_MOTION))
    scene = Scene(
        num_frames=rng.randint(5, 11),
        background=rng.choice(list(BACKGROUNDS)),
        colour=colour,
        shape=shape,
        size=rng.choice(list(RADIUS_PIXELS)),
        place=rng.choice(PLACES_OF_MOTION[motion]),
        motion=motion,
        nudge=(rng.randint(-3, 3), rng.randint(-3, 3)),
        other=None,
        corner=(0.0, 0.0),
    )
    corners = _free_corners(scene)
    if not corners or rng.random() > 0.4:
        return scene
    fitting = [pair for pair in pairs if pair[0] != colour and pair[1] != shape]
    pairs.remove(fitting[-1])
    return replace(scene, other=fitting[-1], corner=rng.choice(corners))


def _free_corners(scene: Scene) -> list[tuple[float, float]]:
    """Corners where another object is never touched by the main one."""
    inset = OTHER_RADIUS_PIXELS + 2
    corners = itertools.product((inset, WIDTH - inset), (inset, HEIGHT - inset))
    room = RADIUS_PIXELS[scene.size] + OTHER_RADIUS_PIXELS
    path = [scene.centre(frame) for frame in range(scene.num_frames)]
    return [corner for corner in corners if min(math.dist(corner, at) for at in path) > room]
