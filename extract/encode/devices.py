"""Which devices encode: every GPU that is visible, one that is named, or the processor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from ..cache.contract import CacheError
from ..config import Precision

DRIVER_FILES = ("/proc/driver/nvidia/gpus/*", "/dev/nvidia[0-9]*", "/dev/dxg")
"""What an NVIDIA driver shows of its GPUs on Linux, and in WSL."""


class BackboneError(CacheError):
    """The backbone cannot be had: unknown name, missing weights, a checkpoint that does not fit."""


def pick_device(asked: str) -> torch.device:
    """auto: the first GPU when there is one. Raises BackboneError for one that is not there."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise BackboneError(f"unknown device {asked!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackboneError(
            f"device {asked} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def pick_precision(asked: Precision, device: torch.device) -> str:
    """auto: bfloat16 where it is native, float16 on other GPUs, float32 on other CPUs.

    A ViT-B-32 tower in bfloat16 ran 3.5 times faster than float32 on a CPU with avx512_bf16, its
    features within cosine 0.9999 of float32's; without native support it is many times slower.
    """
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if has_native_bfloat16() else "float32"


def has_native_bfloat16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 itself. cpu_info: asked where PyTorch cannot tell
    (older than get_capabilities); elsewhere than on Linux that means no."""
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        names = {name for name, is_there in capabilities.items() if is_there}
    else:
        try:
            lines = cpu_info.read_text().splitlines()
        except OSError:
            return False
        names = {name for line in lines if line.startswith("flags") for name in line.split()}
    return not names.isdisjoint({"avx512_bf16", "amx_bf16"})


def pick_devices(asked: str) -> tuple[torch.device, ...]:
    """The devices that each hold a backbone.

    auto: every GPU that torch sees, else cpu. cuda: every GPU. Else a device, or several with
    commas between them (cuda:0,cuda:2).
    Raises BackboneError for a device that is not there and for a mixture of kinds.
    """
    if asked in ("auto", "cuda"):
        first = pick_device(asked)
        if first.type != "cuda":
            return (first,)
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    devices = tuple(pick_device(name.strip()) for name in asked.split(","))
    if len({device.type for device in devices}) > 1:
        raise BackboneError(
            f"devices of one kind are needed, got {asked}: on another kind the precision, and "
            "with it the features, would be others"
        )
    return devices


def unused_gpu(
    asked: str,
    devices: tuple[torch.device, ...],
    *,
    environment: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
) -> str | None:
    """What to say when a GPU is there and the processor will do the work; None when all is well.

    asked: the setting; a processor that was asked for by name is no surprise, nor are GPUs hidden
    by CUDA_VISIBLE_DEVICES. root: where /dev and /proc are.
    """
    if asked != "auto" or any(device.type == "cuda" for device in devices):
        return None
    if environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        return None
    found = [path for files in DRIVER_FILES for path in sorted(root.glob(files.lstrip("/")))]
    if not found:
        return None
    return (
        f"WARNING: this machine has an NVIDIA GPU ({found[0]}), and it is NOT used: "
        f"{why_no_cuda()}. Extraction runs on the processor, many times slower. "
        "Mend it, or say --device cpu if that is what you want."
    )


def why_no_cuda() -> str:
    """Why torch.cuda.is_available() is false, as far as torch tells."""
    if torch.version.cuda is None:
        return (
            f"PyTorch {torch.__version__} is a build without CUDA "
            "(https://pytorch.org/get-started has the others)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        return f"PyTorch {torch.__version__} cannot start CUDA {torch.version.cuda} ({reason})"
    return f"PyTorch {torch.__version__} sees no CUDA device"
