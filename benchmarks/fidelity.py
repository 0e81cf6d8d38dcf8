"""How near extraction's frame features are to open_clip's own, over backbones and resolutions.

Ours: PyAV decodes, Pillow preprocesses in the decoding process, the tower runs in --precision.
Theirs: the ffmpeg program decodes, open_clip's own transform, its tower in float32. Same frames,
same random weights. Since random weights squeeze all cosines towards 1, the cosine is also given
after the mean feature is taken off. PSNR is of the preprocessed pictures.

    python benchmarks/fidelity.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import ffmpeg
import numpy as np
import open_clip
import torch
from PIL import Image

from mlalign.data_manifests.core.ffmpeg_program import ffmpeg_program
from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.protocol import open_decoder
from mlalign.extract.encode.backbones import load_backbone
from mlalign.extract.segments.sampling import Sampling

MODELS = ("ViT-B-32", "ViT-B-32-256", "ViT-B-16-SigLIP", "RN50", "MobileCLIP-S1")
SOURCES = (
    ("mandelbrot", 320, 240),
    ("testsrc2", 640, 360),
    ("life", 1280, 720),
    ("cellauto", 1920, 1080),
    ("mandelbrot", 202, 360),
)
SECONDS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    precision = parser.parse_args().precision
    print(f"{'model':18}{'source':>22}{'PSNR dB':>9}{'cosine':>11}{'centred':>11}   (minima)")
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            weights = save_weights(model, Path(folder))
            for source in SOURCES:
                compare(model, weights, make_video(Path(folder), *source), source, precision)


def save_weights(model: str, folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / f"{model}.pt"
    torch.save(open_clip.create_model(model, pretrained_text=False).state_dict(), path)
    return path


def make_video(folder: Path, kind: str, width: int, height: int) -> Path:
    path = folder / f"{kind}-{width}x{height}.mp4"
    if not path.exists():
        source = ffmpeg.input(f"{kind}=size={width}x{height}:rate=25", f="lavfi", t=SECONDS)
        encoded = source.output(str(path), vcodec="libx264", pix_fmt="yuv420p")
        encoded.run(cmd=ffmpeg_program(), quiet=True)
    return path


def compare(
    name: str, weights: Path, video: Path, source: tuple[str, int, int], precision: str
) -> None:
    kind, width, height = source
    ours = load_backbone(
        name, tag=None, checkpoint=weights, precision=precision, device="cpu", with_text=False
    )
    decoder = open_decoder(
        "pyav", video, sampling=Sampling(fps=1.0), start=0.0, end=None, limits=DecoderLimits()
    )
    pictures = np.stack([ours.preprocessing.apply(sample.picture()) for sample in decoder])
    model = open_clip.create_model(name, pretrained=str(weights)).eval()
    config = open_clip.get_model_preprocess_cfg(model)
    transform = open_clip.image_transform(
        config["size"],
        is_train=False,
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
        fill_color=config["fill_color"],
    )
    raw, _ = (
        ffmpeg.input(str(video))
        .filter("select", f"not(mod(n,{25}))")
        .output("pipe:", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough")
        .run(cmd=ffmpeg_program(), capture_stdout=True, quiet=True)
    )
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    batch = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
    with torch.inference_mode():
        theirs = model.encode_image(batch).numpy()
    found = ours.encode_pictures(pictures)
    mean = theirs.mean(axis=0)
    std = np.array(config["std"])[:, None, None]
    values = batch.numpy() * std + np.array(config["mean"])[:, None, None]
    error = np.mean((pictures.transpose(0, 3, 1, 2) / 255 - values) ** 2, axis=(1, 2, 3))
    psnr = 10 * np.log10(1 / np.maximum(error, 1e-12)).min()
    print(
        f"{name:18}{f'{kind} {width}x{height}':>22}{psnr:9.1f}{cosine(found, theirs):11.6f}"
        f"{cosine(found - mean, theirs - mean):11.6f}",
        flush=True,
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The smallest of the rows' cosines."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    main()
