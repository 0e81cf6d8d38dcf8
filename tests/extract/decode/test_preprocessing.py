"""Our preprocessing against open_clip's own transform: equal to the last bit."""

import warnings

import numpy as np
import open_clip
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from mlalign.extract.decode.preprocessing import Preprocessing

SQUARE, WIDE, TALL = 32, (24, 40), (41, 23)
SHAPES = [(32, 32), (24, 40), (48, 64), (17, 90), (90, 17), (301, 33), (5, 7), (33, 31), (1, 40)]
"""Height and width: equal to the target, up and down, odd, extreme."""


def config(size, mode="shortest", interpolation="bicubic", fill=0):
    return {
        "size": size,
        "mode": "RGB",
        "mean": (0.48, 0.46, 0.41),
        "std": (0.27, 0.26, 0.28),
        "interpolation": interpolation,
        "resize_mode": mode,
        "fill_color": fill,
    }


def theirs(picture, settings):
    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    return transform(Image.fromarray(picture)).permute(1, 2, 0).numpy()


def ours(picture, settings):
    """The tower's input, with the normalisation in the order of open_clip's."""
    preprocessing = Preprocessing.of(settings)
    values = preprocessing.apply(picture).astype(np.float32) / np.float32(255)
    mean = np.array(preprocessing.mean, dtype=np.float32)
    return (values - mean) / np.array(preprocessing.std, dtype=np.float32)


def random_picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [SQUARE, WIDE, TALL], ids=str)
def test_pictures_equal_open_clips_to_the_last_bit(size, mode, interpolation):
    settings = config(size, mode, interpolation, fill=0 if mode == "shortest" else 114)
    for shape in SHAPES:
        if mode == "longest" and min(shape) * 32 < max(shape):
            continue  # open_clip itself fails on a picture that scales to nothing
        picture = random_picture(shape)
        np.testing.assert_array_equal(
            ours(picture, settings), theirs(picture, settings), str(shape)
        )


@pytest.mark.parametrize("seed", range(30))
def test_random_shapes_equal_open_clips(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(8, 50, 2).tolist())
    shape = tuple(rng.integers(8, 120, 2).tolist())
    for mode in ("shortest", "longest", "squash"):
        settings = config(size, mode)
        picture = random_picture(shape, seed)
        np.testing.assert_array_equal(ours(picture, settings), theirs(picture, settings))


def test_every_open_clip_models_own_configuration_is_understood():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = open_clip.list_pretrained()
    base = PreprocessCfg()
    seen = set()
    for name, tag in tags:
        own = open_clip.get_pretrained_cfg(name, tag)
        settings = config(
            48, own.get("resize_mode") or base.resize_mode, own.get("interpolation") or "bicubic"
        )
        key = (settings["resize_mode"], settings["interpolation"])
        if key not in seen:
            seen.add(key)
            picture = random_picture((60, 90))
            np.testing.assert_array_equal(ours(picture, settings), theirs(picture, settings))
    assert len(seen) >= 2


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1)])
def test_a_picture_of_any_shape_comes_out_in_the_towers_size(mode, shape):
    made = Preprocessing.of(config((24, 40), mode)).apply(random_picture(shape))
    assert made.shape == (24, 40, 3)
    assert made.dtype == np.uint8


def test_a_padded_picture_stands_in_the_middle_of_its_fill():
    picture = np.full((10, 30, 3), 200, dtype=np.uint8)
    made = Preprocessing.of(config(30, "longest", fill=7)).apply(picture)
    assert (made[:10] == 7).all() and (made[20:] == 7).all() and (made[10:20] == 200).all()
