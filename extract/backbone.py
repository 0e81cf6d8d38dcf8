"""The frozen two towers: any open_clip model, its preprocessing and tokenizer, in the precision of
the machine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import torch
from torch import Tensor, nn

from .config import TINY, Precision
from .contract import CacheError
from .preprocessing import Preprocessing
from .sources import file_sha256
from .weights import fill, no_random_weights

TINY_SEED: Final = 20_220_410
TEXT_BATCH: Final = 64

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BackboneError(CacheError):
    """The backbone cannot be had: unknown name, missing weights, a checkpoint that does not fit."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen image and text tower."""

    model: nn.Module
    tokenizer: Any
    preprocessing: Preprocessing
    weights_sha256: str
    """Of the checkpoint file, or of tiny's weights."""
    precision: str
    device: torch.device
    width: int
    """Of its features."""

    def encode_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """(n, width) float32 features, not normalised, of (n, height, width, 3) uint8 preprocessed
        pictures."""
        batch = torch.from_numpy(pictures)
        if self.device.type == "cuda":
            # Only from pinned memory does the copy leave the GPU free to go on with other batches.
            batch = batch.pin_memory()
        batch = batch.to(self.device, non_blocking=True)
        # The permuted view keeps channels last, which is what convolutions like best.
        batch = batch.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        mean, std = self._mean_and_std
        batch = batch.sub_(mean).div_(std).to(_DTYPES[self.precision])
        with torch.inference_mode():
            return _to_numpy(self.model.encode_image(batch))  # type: ignore[operator]

    @cached_property
    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        """(3, 1, 1) float32 each, on the device once: a copy per batch would wait for the GPU."""
        values = self.preprocessing.mean, self.preprocessing.std
        mean, std = (torch.tensor(value, device=self.device).view(3, 1, 1) for value in values)
        return mean, std

    def encode_texts(self, texts: Sequence[str], *, batch_texts: int = TEXT_BATCH) -> np.ndarray:
        """(n, width) float32 features, not normalised; texts longer than the tower's context are
        cut.

        batch_texts: texts that go through the tower together; a cache needs the default, so that
        its features are of batches of one shape.
        """
        features = np.empty((len(texts), self.width), dtype=np.float32)
        for start in range(0, len(texts), batch_texts):
            tokens = self.tokenizer(list(texts[start : start + batch_texts]))
            num_texts = len(tokens)
            # Batches of one shape: what a text's features are must not depend on how many come with
            # it.
            tokens = nn.functional.pad(tokens, (0, 0, 0, batch_texts - num_texts))
            with torch.inference_mode():
                encoded = self.model.encode_text(tokens.to(self.device))  # type: ignore[operator]
            features[start : start + num_texts] = _to_numpy(encoded)[:num_texts]
        return features


def load_backbone(
    name: str,
    *,
    tag: str | None,
    checkpoint: Path | None,
    precision: Precision,
    device: str,
    with_text: bool = True,
) -> Backbone:
    """Build the model and load its weights.

    tag: one of open_clip's pretrained tags; checkpoint: a file instead. tiny takes neither.
    with_text: False leaves the text tower out of memory, where only pictures are encoded.
    Raises BackboneError with the ways out when the weights cannot be had: never other weights in
    silence.
    """
    where = pick_device(device)
    exact_precision = pick_precision(precision, where)
    if name == TINY:
        model, sha256 = _tiny()
    else:
        _check_names(name, tag, checkpoint)
        model, sha256 = _pretrained(
            name, tag, checkpoint, dtype=_DTYPES[exact_precision], with_text=with_text
        )
    model.requires_grad_(False).eval().to(where, _DTYPES[exact_precision])
    return Backbone(
        model=model,
        tokenizer=open_clip.get_tokenizer(name) if with_text else None,
        preprocessing=Preprocessing.of(open_clip.get_model_preprocess_cfg(model)),
        weights_sha256=sha256,
        precision=exact_precision,
        device=where,
        width=_feature_width(model),
    )


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
    native = torch.cpu.get_capabilities()
    return "bfloat16" if native.get("avx512_bf16") or native.get("amx_bf16") else "float32"


def _check_names(name: str, tag: str | None, checkpoint: Path | None) -> None:
    """Raises BackboneError for names that mean nothing, before anything is built or fetched."""
    if name not in open_clip.list_models():
        raise BackboneError(
            f"open_clip has no model {name!r}; its list_models() has them all, "
            "and tiny needs no weights"
        )
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise BackboneError(f"the checkpoint {checkpoint} does not exist")
        return
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    if tag is None:
        raise BackboneError(
            f"backbone {name} needs --pretrained: a tag (it has {tags}) or a checkpoint file"
        )
    if not open_clip.is_pretrained_cfg(name, tag):
        raise BackboneError(
            f"backbone {name} has no pretrained tag {tag!r}, nor is that a file; its tags: {tags}"
        )


def _pretrained(
    name: str, tag: str | None, checkpoint: Path | None, *, dtype: torch.dtype, with_text: bool
) -> tuple[nn.Module, str]:
    path = checkpoint or _fetch(name, str(tag))
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    try:
        with _quiet(), no_random_weights():
            model = open_clip.create_model(
                name,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=bool(config.get("quick_gelu")),
                force_preprocess_cfg={
                    key: config[key]
                    for key in ("mean", "std", "interpolation", "resize_mode")
                    if key in config
                },
            )
            fill(model.requires_grad_(False), path, dtype=dtype, with_text=with_text)
    except Exception as error:  # torch, safetensors, pickle and open_clip each raise their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"
        raise BackboneError(f"{path} is not a checkpoint of {name} ({reason})") from error
    return model, file_sha256(path)


def _fetch(name: str, tag: str) -> Path:
    """The checkpoint file of a tag: from the hub's cache folder, or fetched into it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        with _quiet():
            return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, tag)))
    except Exception as error:  # whatever the hub's client or the network raises
        raise BackboneError(
            f"the weights of {name} ({tag}) are not in the cache folder {HF_HUB_CACHE} and cannot "
            f"be fetched ({type(error).__name__}). Ways out:\n"
            "  - run once where there is a network, or copy that machine's cache folder to this "
            "one (HF_HOME moves it)\n"
            f"  - --backbone {name} --pretrained FILE, a checkpoint file of {name} "
            "(.pt, .bin, .safetensors)\n"
            "  - --backbone tiny: random weights, no download; to try things out, not for results"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's retries and open_clip's warnings off the terminal: what matters comes as an
    error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _tiny() -> tuple[nn.Module, str]:
    """An open_clip model of a configuration of ours, its weights from a seeded integer stream.

    Only integer random numbers and IEEE multiplications are used, so that every machine gets the
    same bytes: the normal distributions of torch and numpy go through logarithms that differ
    between processors.
    """
    open_clip.add_model_config(Path(__file__).with_name("tiny.json"))
    with _quiet():
        model = open_clip.create_model(TINY)
    stream = np.random.PCG64(TINY_SEED)
    hasher = hashlib.sha256()
    for name, parameter in sorted(dict(model.named_parameters()).items()):
        if parameter.ndim >= 2 or "embedding" in name:
            values = _uniform(stream, parameter.numel()).reshape(parameter.shape)
            scale = _tiny_scale(name, parameter)
            parameter.data = torch.from_numpy((values * scale).astype(np.float32))
        elif name.endswith("bias"):
            parameter.data.zero_()
        # What is left are the weights of norms, which start at one, and the logit scale.
        hasher.update(name.encode())
        hasher.update(parameter.detach().numpy().tobytes())
    return model, hasher.hexdigest()


def _uniform(stream: np.random.PCG64, count: int) -> np.ndarray:
    """(count,) float64 in [-1, 1), exact on every machine."""
    bits = stream.random_raw(count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def _tiny_scale(name: str, parameter: nn.Parameter) -> float:
    """Half-width of the uniform distribution of one weight: variance 1 / fan-in, as for any linear
    layer."""
    if "embedding" in name:
        return 1.0 if name.startswith("token") else 0.1
    fan_in = parameter[0].numel()
    if (
        name.endswith("proj") and parameter.ndim == 2
    ):  # open_clip's projections are stored (in, out)
        fan_in = parameter.shape[0]
    return float(np.sqrt(3.0 / fan_in))


def _feature_width(model: nn.Module) -> int:
    visual: Any = model.visual
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    with torch.inference_mode():
        parameter = next(model.parameters())
        picture = torch.zeros(1, 3, height, width, dtype=parameter.dtype, device=parameter.device)
        return int(model.encode_image(picture).shape[1])  # type: ignore[operator]


def _to_numpy(features: Tensor) -> np.ndarray:
    values: np.ndarray = features.float().cpu().numpy()
    return values
