"""A backbone's own preprocessing, on Pillow alone, so that decoding processes need not load
torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

ResizeMode = Literal["shortest", "longest", "squash"]

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """What open_clip's preprocessing configuration says of the picture's geometry and values."""

    height: int
    """Pixels, as the tower wants them."""
    width: int
    resize_mode: ResizeMode
    """shortest: the shorter side fits, the rest is cut; longest: the longer fits, padded; squash:
    both fit."""
    interpolation: str
    """bicubic or bilinear."""
    fill: int
    """Grey level of the padding."""
    mean: tuple[float, float, float]
    """Of red, green and blue, in [0, 1]."""
    std: tuple[float, float, float]

    @classmethod
    def of(cls, config: dict[str, Any]) -> Preprocessing:
        """From open_clip's `preprocess_cfg` of a model."""
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
        interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        mode: ResizeMode = config["resize_mode"] or "shortest"
        if mode == "shortest" and height != width:
            interpolation = "bicubic"  # open_clip does not hand the filter on in this one case
        return cls(
            height=height,
            width=width,
            resize_mode=mode,
            interpolation=interpolation,
            fill=config["fill_color"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        )

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8: resized and cropped as open_clip's transform does, not yet
        normalised.

        picture: (any height, any width, 3) uint8 RGB. Equal to open_clip's transform to the last
        bit.
        """
        image = Image.fromarray(picture)
        size = self._resized(image.width, image.height)
        if image.size != size:
            image = image.resize(size, _FILTERS[self.interpolation])
        return np.asarray(self._fit(image))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing. Rounding follows torchvision's Resize and timm's
        ResizeKeepRatio."""
        if self.resize_mode == "squash":
            return self.width, self.height
        if self.resize_mode == "shortest" and self.height == self.width:
            short = self.height
            if width <= height:
                return short, int(short * height / width)
            return int(short * width / height), short
        ratios = height / self.height, width / self.width
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        # open_clip fails on a picture so slim that nothing is left of it; one pixel is.
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _fit(self, image: Image.Image) -> Image.Image:
        """Pad what is too small, then cut what is too large, both about the centre."""
        missing_width = max(self.width - image.width, 0)
        missing_height = max(self.height - image.height, 0)
        if missing_width or missing_height:
            canvas = Image.new(
                "RGB",
                (image.width + missing_width, image.height + missing_height),
                (self.fill,) * 3,
            )
            canvas.paste(image, (missing_width // 2, missing_height // 2))
            image = canvas
        left = round((image.width - self.width) / 2)
        top = round((image.height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))
