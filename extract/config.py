"""The settings of an extraction, checked at birth."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from ..data_manifests.core.cores import num_cores
from .segments.rules import SHOTS, parse_rule
from .segments.sampling import Sampling

Precision = Literal["auto", "float32", "bfloat16", "float16"]
DecoderName = Literal["pyav", "ffmpeg"]
HardwareName = Literal["cuda"]
EngineName = Literal["local", "ray"]

TINY = "tiny"
DEFAULT_BACKBONE = "ViT-B-32-256"
DEFAULT_PRETRAINED = "datacomp_s34b_b86k"
"""Quality per second. open_clip's own tables (docs/openclip_retrieval_results.csv and
openclip_results.csv of its repository): MS-COCO text-to-image R@1 39.9 and ImageNet 72.8 at 17.5
GFLOPs for a picture and a text, against 40.2 and 73.5 of ViT-B-16 (datacomp_xl_s13b_b90k) at 41.1,
37.1 and 69.2 of ViT-B-32 (datacomp_xl_s13b_b90k) at 14.8, and 47.8 of ViT-B-16-SigLIP (webli) at
46.4: on a laptop CPU the tower sets the pace, so the small one that retrieves like the middle ones
is the default; on a GPU decoding sets the pace and ViT-B-16-SigLIP costs little more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderLimits:
    """What one video may cost. A video over a limit fails alone, with the limit in its reason."""

    max_megapixels: float = 72.0
    """Of one picture; 8K is 33."""
    max_samples: int = 200_000
    """Frames taken of one clip; 55 hours at 1 fps."""
    stall_seconds: float = 120.0
    """A decoder that shows no progress for so long is ended."""
    decode_seconds: float = 6 * 3600.0
    """A decoder that is at work on one clip for so long is ended, whatever its progress; what it
    waits for others does not count."""
    memory_gib: float = 6.0
    """Address space of one decoding process (where the system can limit it)."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ValueError(f"{limit.name} must be > 0, got {getattr(self, limit.name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RayConfig:
    """How a Ray cluster is used."""

    address: str | None = None
    """Of the cluster. null: that of RAY_ADDRESS, or the one that runs on this machine, or a new one
    of this machine alone."""
    worker_cpus: int = 8
    """Processors of one worker, which has a backbone and as many decoding processes. On a machine
    with GPUs there is a worker for each of them, and they share its processors."""

    def __post_init__(self) -> None:
        if self.worker_cpus < 1:
            raise ValueError(f"worker_cpus must be >= 1, got {self.worker_cpus}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig:
    """How a cache is made."""

    backbone: str = DEFAULT_BACKBONE
    """An open_clip model name, or "tiny": small, with fixed random weights, for trying things
    out."""
    pretrained: str | None = None
    """A pretrained tag of the model, or a checkpoint file. None: the default backbone's tag."""
    sampling: str | None = None
    """frames:N (N spread over each clip), every-frame or keyframes. None: at fps."""
    fps: float = 1.0
    """Frames sampled per second of a clip."""
    image_fps: float | None = None
    """Rate of the images of clips that are folders of frame images; null refuses such clips."""
    segments: tuple[str, ...] = ()
    """Rules that cut clips: uniform:N, fixed:SECONDS[:STRIDE], shots, spans (of the manifest's
    texts). Empty: spans where the manifest has them, then uniform:4."""
    shots: bool | None = None
    """Look for shots and keep their times, so that the rule shots can be used now or later. null:
    when the rules ask for it."""
    precision: Precision = "auto"
    """Of the backbone. auto: bfloat16 where the processor has it natively, float16 on other GPUs,
    else float32."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the stored features; float16 halves the cache and moves a cosine by less than 0.001."""
    keep_frames: bool = True
    """Store frame features, so that segments can be cut anew without decoding."""
    keep_tokens: bool | None = None
    """Store the text tower's features of the tokens of every text, too, for the token level. About
    as many as words; how many and their bytes are said before they are encoded. null: when the
    cache has them."""
    decoder: DecoderName = "pyav"
    """pyav decodes in the worker process; ffmpeg runs the program through ffmpeg-python. Same
    frames."""
    hwaccel: HardwareName | None = None
    """cuda: the ffmpeg program decodes on an NVIDIA GPU (NVDEC) what that can, and the rest as
    usual."""
    device: str = "auto"
    """auto (every GPU, else cpu), cpu, cuda (every GPU), cuda:1, or several: cuda:0,cuda:2."""
    engine: EngineName = "local"
    """local: this machine; ray: a Ray cluster, with the cache and the videos on a file system that
    all its machines share."""
    ray: RayConfig = field(default_factory=RayConfig)
    workers: int = field(default_factory=num_cores)
    """Decoding processes, one thread each. By default one per core that this process may use. With
    engine ray, see ray.worker_cpus."""
    batch_frames: int | None = None
    """Pictures that go through the backbone together, of any clips. null: 16 on a processor, which
    are as fast as 32 and take 40 MiB less (ViT-B-32, two cores); 64 on a GPU."""
    shard_clips: int = 64
    """Clips committed together; what a killed run can lose, per shard in flight."""
    limits: DecoderLimits = field(default_factory=DecoderLimits)

    def __post_init__(self) -> None:
        problems = []
        try:
            Sampling(fps=self.fps, rule=self.sampling)
        except ValueError as error:
            problems.append(str(error))
        if self.image_fps is not None and not 0 < self.image_fps <= 1000:
            problems.append(f"image_fps must be > 0 and <= 1000, got {self.image_fps}")
        if self.hwaccel is not None and self.decoder != "ffmpeg":
            problems.append(f"hwaccel {self.hwaccel} needs decoder=ffmpeg, got {self.decoder}")
        if self.sampling is not None and self.decoder == "ffmpeg":
            problems.append(f"decoder ffmpeg samples at fps; sampling {self.sampling} needs pyav")
        for name in ("workers", "batch_frames", "shard_clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"{name} must be >= 1, got {value}")
        for rule in self.segments:
            try:
                parse_rule(rule)
            except ValueError as error:
                problems.append(str(error))
        if len(set(self.segments)) < len(self.segments):
            problems.append(f"segments names a rule twice: {', '.join(self.segments)}")
        if SHOTS in self.segments and self.shots is False:
            problems.append("segments names shots, and shots is false")
        if self.backbone == TINY and self.pretrained is not None:
            problems.append("backbone tiny has weights of its own; leave pretrained out")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def tag(self) -> str | None:
        """The pretrained tag; the default backbone has a default one. None: a checkpoint file,
        tiny, or missing."""
        if self.pretrained is None and self.backbone == DEFAULT_BACKBONE:
            return DEFAULT_PRETRAINED
        return None if self.checkpoint is not None else self.pretrained

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint file, when `pretrained` names one rather than a tag."""
        if self.pretrained is None:
            return None
        path = Path(self.pretrained).expanduser()
        looks_like_a_file = os.sep in self.pretrained or path.suffix in {
            ".bin",
            ".npz",
            ".pt",
            ".pth",
            ".safetensors",
        }
        return path if looks_like_a_file or path.is_file() else None
