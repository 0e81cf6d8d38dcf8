"""The frozen two towers: any open_clip model, its preprocessing and tokenizer, in the precision of
the machine."""

from __future__ import annotations

import contextlib
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

from ..config import TINY, Precision
from ..decode.preprocessing import Preprocessing
from ..decode.sources import file_sha256
from .devices import BackboneError, pick_device, pick_precision
from .text_tokens import TokenLayers, is_kept, knows_its_end, token_layers
from .tiny import register_tiny, tiny_model
from .weights import fill, no_random_weights

TEXT_BATCH: Final = 64

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        for start, ids, num_texts in self._text_batches(texts, batch_texts):
            with torch.inference_mode():
                encoded = self.model.encode_text(ids.to(self.device))  # type: ignore[operator]
            features[start : start + num_texts] = _to_numpy(encoded)[:num_texts]
        return features

    def encode_tokens(
        self, texts: Sequence[str], *, dtype: str
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """What `encode_texts` gives, and of each text (k, width) features of its kept tokens, of
        type `dtype`, not normalised. Raises BackboneError where the tower has none."""
        layers = self.token_layers()
        features = np.empty((len(texts), self.width), dtype=np.float32)
        tokens: list[np.ndarray] = []
        for start, ids, num_texts in self._text_batches(texts, TEXT_BATCH):
            with torch.inference_mode(), layers.recorded() as passes:
                encoded = self.model.encode_text(ids.to(self.device))  # type: ignore[operator]
                # Of the whole batch, padding too: a product of one shape, as the tower's own.
                projected = layers.project(passes[0])[:num_texts]
                kept = is_kept(ids[:num_texts], self.tokenizer)
                rows = _to_numpy(projected[kept.to(self.device)]).astype(dtype)
            features[start : start + num_texts] = _to_numpy(encoded)[:num_texts]
            tokens += np.split(rows, kept.sum(dim=1).cumsum(0)[:-1].tolist())
        return features, tokens

    def token_layers(self) -> TokenLayers:
        """The layers that give tokens. Raises BackboneError where the text tower has none."""
        layers = token_layers(self.model)
        if layers is None or not knows_its_end(self.tokenizer):
            tower = type(getattr(self.model, "text", self.model)).__name__
            raise BackboneError(
                f"keep_tokens: the text tower of this backbone ({tower}) gives no features of "
                "tokens in the space of its texts; leave --keep-tokens out, or choose a backbone "
                "with a text tower like CLIP's"
            )
        return layers

    def _text_batches(
        self, texts: Sequence[str], batch_texts: int
    ) -> Iterator[tuple[int, Tensor, int]]:
        """First text, ids, and number of texts of each batch. Batches have one shape: what a text's
        features are must not depend on how many come with it."""
        for start in range(0, len(texts), batch_texts):
            ids = self.tokenizer(list(texts[start : start + batch_texts]))
            yield start, nn.functional.pad(ids, (0, 0, 0, batch_texts - len(ids))), len(ids)


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
        with _quiet():
            model, sha256 = tiny_model()
    else:
        _check_names(name, tag, checkpoint)
        model, sha256 = _pretrained(
            name, tag, checkpoint, dtype=_DTYPES[exact_precision], with_text=with_text
        )
    model.requires_grad_(False).eval().to(where, _DTYPES[exact_precision])
    return Backbone(
        model=model,
        tokenizer=load_tokenizer(name) if with_text else None,
        preprocessing=Preprocessing.of(open_clip.get_model_preprocess_cfg(model)),
        weights_sha256=sha256,
        precision=exact_precision,
        device=where,
        width=_feature_width(model),
    )


def load_tokenizer(name: str) -> Any:
    """What cuts texts into the ids that the text tower of a backbone takes."""
    if name == TINY:
        register_tiny()
    return open_clip.get_tokenizer(name)


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
