"""The engine of this machine: its devices, and processes that decode for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from ..cache.contract import Unit
from ..config import ExtractConfig
from ..encode.clips import encode_clips
from ..encode.texts import encode_questions, encode_texts
from ..planning.plan import Work
from ..planning.progress import (
    ExtractionProgress,
    ProgressCounter,
    ProgressCounts,
    reported_progress,
)
from .protocol import EngineFacts

if TYPE_CHECKING:
    from ..encode.encoders import Encoders


class LocalEngine:
    """See `protocol.Engine`."""

    def __init__(
        self, config: ExtractConfig, *, with_text: bool, say: Callable[[str], None]
    ) -> None:
        from ..encode.encoders import load_encoders

        self._config = config
        self._encoders = load_encoders(config, with_text=with_text, say=say)
        self.facts = facts_of(self._encoders)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.close()

    def encode(
        self, unit: Unit, works: Sequence[Work], cache: Path, *, videos_root: Path
    ) -> ProgressCounts:
        if not works:
            return ProgressCounts()
        counter = ProgressCounter()
        num_clips = sum(len(work.items) for work in works) if unit == "clips" else 0
        with (
            shown_progress(num_clips, self.facts) as progress,
            reported_progress(counter, progress.add),
        ):
            encode_unit(
                unit,
                works,
                cache,
                videos_root=videos_root,
                config=self._config,
                encoders=self._encoders,
                counter=counter,
            )
        return progress.total


def facts_of(encoders: Encoders) -> EngineFacts:
    """What these backbones are."""
    backbone = encoders.backbone
    return EngineFacts(
        preprocessing=backbone.preprocessing,
        weights_sha256=backbone.weights_sha256,
        precision=backbone.precision,
        width=backbone.width,
        devices=encoders.devices,
        device_name=encoders.device_name,
    )


def encode_unit(
    unit: Unit,
    works: Iterable[Work],
    cache: Path,
    *,
    videos_root: Path,
    config: ExtractConfig,
    encoders: Encoders,
    counter: ProgressCounter,
) -> None:
    """Encode and commit works of one unit in this process, and count it."""

    def committed(name: str) -> None:
        counter.count(ProgressCounts(committed=[name]))

    match unit:
        case "clips":
            encode_clips(
                works,
                cache,
                videos_root=videos_root,
                config=config,
                encoders=encoders,
                counter=counter,
                committed=committed,
            )
        case "texts" | "questions":
            encode = encode_texts if unit == "texts" else encode_questions
            encode(works, cache, config=config, backbone=encoders.backbone, committed=committed)
        case _:
            assert_never(unit)


def shown_progress(num_clips: int, facts: EngineFacts) -> ExtractionProgress:
    """The progress of clips (none: of texts, which are not shown)."""
    return ExtractionProgress(num_clips=num_clips, title=f"extracting ({facts.where})")
