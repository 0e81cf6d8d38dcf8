"""Free-text search: a text in, the clips and the moment in each out, also as a page of players."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch

from ...align.runs.checkpoint import load_run
from ...data_manifests.core.atomic_write import check_writable
from ...data_manifests.core.errors import UserError
from ...extract.cache.split_features import SplitFeatures
from ...extract.cache.store import FeatureStore
from ...extract.encode.query_encoder import TextEncoder, load_query_encoder
from ..config import EvaluationConfig
from ..indexes.clip_search import ClipSearch
from ..indexes.index import load_or_build_index
from ..inputs.rows import check_cache_keys
from ..inputs.splits import ClipVideos, clip_videos, with_segment_rule
from ..reports.render import write_page_of
from ..scores.vectors import Encoder, TwoLevelVectors, ZeroShot, clip_vectors, embed
from ..tasks.retrieval import FusedWeight, choose_fused_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One clip that was found, and where in it."""

    text: str
    """What was searched."""
    rank: int
    """1 is the best."""
    score: float
    """a * global + (1 - a) * segment, cosines."""
    clip_id: str
    video: str
    """The file, below the folder of videos that the cache remembers."""
    start_seconds: float
    """Of the moment, in the video: the segment that is nearest to the text."""
    end_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """The clips of a cache, ready to be searched."""

    features: SplitFeatures
    places: ClipVideos
    """Of its N clips."""
    encoder: Encoder
    """The heads of a run, or the backbone as it is."""
    weight: FusedWeight
    """Of the global score."""
    clip_search: ClipSearch
    encode: TextEncoder

    @classmethod
    def open(
        cls,
        cache: Path,
        *,
        run_path: Path | None,
        config: EvaluationConfig,
        checkpoint: Path | None = None,
    ) -> Self:
        """Read the features of config.split (null: all clips) and the text tower behind them.

        Raises UserError and its kin: no cache, a run of another cache, weights that are missing.
        """
        store = FeatureStore.open(cache)
        runs = [] if run_path is None else [load_run(run_path)]
        check_cache_keys(runs, store)
        rule = with_segment_rule(config, runs).segment_rule
        run = runs[0] if runs else None
        features = store.split(config.split, segments=rule)
        model: Encoder = ZeroShot() if run is None else run.model
        clips = clip_vectors(features, embed(features, model))
        name = config.validation_split
        validation = store.split(name, segments=rule) if name in store.splits else None
        return cls(
            features=features,
            places=clip_videos(store, features.clip_ids),
            encoder=model,
            weight=choose_fused_weight(validation, model, config),
            clip_search=ClipSearch(
                clips,
                clip_index=load_or_build_index(clips.wholes, config.index, cache=cache).index,
                segment_index=load_or_build_index(clips.parts, config.index, cache=cache).index,
                segment_score=config.segment_score,
            ),
            encode=load_query_encoder(cache, checkpoint=checkpoint),
        )

    def _vectors(self, texts: Sequence[str]) -> TwoLevelVectors:
        """The texts with their sentences in the shared space."""
        features, sentences = self.encode(texts)
        with torch.inference_mode():
            wholes, parts = self.encoder.encode_texts(
                torch.from_numpy(features),
                torch.from_numpy(sentences.values),
                torch.from_numpy(sentences.counts),
            )
        return TwoLevelVectors(
            wholes=wholes.numpy(), parts=parts.numpy(), offsets=sentences.offsets
        )

    def search(self, texts: Sequence[str], *, top: int) -> list[list[Hit]]:
        """The `top` best clips of each text, best first; fewer when there are fewer clips.

        Raises UserError for a text without any letter.
        """
        blank = [text for text in texts if not text.strip()]
        if blank:
            raise UserError(f"expected a text to search for, got {blank[0]!r}")
        if not texts:
            return []
        results = self.clip_search.search(self._vectors(texts), k=top, weight=self.weight.value)
        spans = self.features.segment_spans
        return [
            [
                Hit(
                    text=text,
                    rank=rank,
                    score=float(score),
                    clip_id=self.features.clip_ids[clip],
                    video=str(self.places.videos[clip]),
                    start_seconds=float(self.places.start_seconds[clip] + spans[segment, 0]),
                    end_seconds=float(self.places.start_seconds[clip] + spans[segment, 1]),
                )
                for rank, (clip, score, segment) in enumerate(
                    zip(
                        results.clips[row], results.scores[row], results.segments[row], strict=True
                    ),
                    1,
                )
                if clip >= 0
            ]
            for row, text in enumerate(texts)
        ]


def check_page_file(path: Path) -> None:
    """Raise UserError when `path` cannot become the page; called before any work."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the page's file with --html")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    check_writable(path.parent)


def write_search_page(
    answers: Sequence[tuple[str, Sequence[Hit]]], path: Path, *, about: str
) -> None:
    """Write a page with each text and its hits; it shows the videos from where they are.

    about: one line on what was searched and how. The page asks nothing of a network.
    """
    content = {
        "about": about,
        "answers": [
            {"text": text, "hits": [{**asdict(hit), "address": _address(hit)} for hit in hits]}
            for text, hits in answers
        ],
    }
    write_page_of("search.html", path, content)


def _address(hit: Hit) -> str | None:
    """The file with its moment as a media fragment (W3C Media Fragments URI 1.0, section 4.2.1);
    None when it is not there."""
    if not Path(hit.video).is_file():
        return None
    video = Path(hit.video).absolute().as_uri()
    return f"{video}#t={hit.start_seconds:.3f},{hit.end_seconds:.3f}"
