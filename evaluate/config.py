"""Settings of an evaluation: what is scored, which metrics, how sure they are, what is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from ..data_manifests.cards import Chunks, TypeGroup

Direction = Literal["text_to_clip", "clip_to_text"]
Pooling = Literal["max", "top_mean", "softmax"]
NormalisationName = Literal["qb_norm", "dual_softmax"]
TiePolicy = Literal["against", "mean", "first"]
CaptionRule = Literal["clips", "captions"]

EXACT: Final = "Flat"
"""The factory string of the index that compares with everything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentScoreConfig:
    """How the similarities of a text with the segments of a clip become one score."""

    pooling: Pooling = "max"
    """The best segment, the mean of the best `top_k`, or a softmax-weighted mean of all."""
    top_k: int = 3
    """Segments that count with `top_mean`; a clip with fewer counts all of its own."""
    temperature: float = 0.07
    """Of the weights of `softmax`; smaller is nearer to the best segment."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentConfig:
    """How moments are scored; the card of a benchmark says what is usual there."""

    recall_ks: tuple[int, ...] = (1, 5)
    """The K of R@K."""
    iou_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Overlaps that make a hit."""
    iou_comparison: Literal[">", ">="] = ">="
    """Whether an overlap that equals the threshold is a hit."""
    iou_denominator: Literal["union", "hull"] = "union"
    """hull: from the earlier start to the later end, larger than the union of spans apart."""
    nms_iou: float | None = None
    """Of two predictions that overlap more, the lower one is dropped before scoring; null: none."""
    max_predictions: int | None = None
    """How many of a query's predictions count; null: the largest of recall_ks."""
    average_precision: bool = False
    """Whether mAP over the windows of a query is a metric, by their length, too (QVHighlights)."""
    chunks: Chunks | None = None
    """The candidates, where they are chunks (DiDeMo); null: spans of segments."""
    corpus: bool = False
    """Whether moments are searched in all clips of the split, too."""
    corpus_clips: int = 100
    """Clips per query, the best by the fused score, whose moments are searched."""
    corpus_clip_factor: float = 20.0
    """With a moment head, a moment's score is exp(this times the clip's) times its probability."""

    def __post_init__(self) -> None:
        if self.nms_iou is not None and not 0 <= self.nms_iou <= 1:
            raise ValueError(f"nms_iou must be between 0 and 1, got {self.nms_iou}")
        if self.max_predictions is not None and self.max_predictions < 1:
            raise ValueError(f"max_predictions must be at least 1, got {self.max_predictions}")
        if self.corpus_clips < 1:
            raise ValueError(f"corpus_clips must be at least 1, got {self.corpus_clips}")
        if not self.recall_ks or min(self.recall_ks) < 1 or 1 not in self.recall_ks:
            raise ValueError(
                f"recall_ks must be numbers from 1 on, 1 among them, got {self.recall_ks}"
            )
        if not self.iou_thresholds or not all(0 < value <= 1 for value in self.iou_thresholds):
            raise ValueError(f"iou_thresholds must be in (0, 1], got {self.iou_thresholds}")

    @property
    def num_predictions(self) -> int:
        """How many predictions of a query count."""
        return max(self.recall_ks) if self.max_predictions is None else self.max_predictions


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """Which FAISS index finds neighbours, and how it is searched."""

    factory: str = EXACT
    """FAISS factory string: Flat (exact), SQfp16, HNSW32, "IVF2048,PQ32x4fs,Refine(SQ8)" ..."""
    search: str = ""
    """FAISS search parameters, commas between them: nprobe=64, efSearch=128, k_factor_rf=4."""

    def __post_init__(self) -> None:
        if self.search and not re.fullmatch(r"\w+=[\d.]+(,\w+=[\d.]+)*", self.search):
            raise ValueError(
                f"search must be NAME=NUMBER, with commas between several, got {self.search!r}"
            )

    @property
    def is_exact(self) -> bool:
        """Whether every neighbour that it gives is the right one."""
        return self.factory == EXACT


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Settings of `mlalign-evaluate`."""

    card: str | None = None
    """Whose rules hold where nothing else is said: a card's name, or its file; null: none."""
    annotations: str | None = None
    """The official files of the card, a folder or the split's file, for what the tables have no
    place for: all annotators of DiDeMo, saliency scores of QVHighlights."""
    split: str | None = "test"
    """The split whose clips and texts are scored; null: all clips of the cache."""
    validation_split: str | None = "val"
    """Used for one thing: choosing the weight of the fused score. Never the evaluated split."""
    segment_rule: str | None = None
    """Which of the cache's segment rules; null: the one that the runs were trained on, without runs
    the cache's first."""
    directions: tuple[Direction, ...] = ("text_to_clip", "clip_to_text")
    """Which way to search."""
    segment_score: SegmentScoreConfig = field(default_factory=SegmentScoreConfig)
    """The segment score of a text with a clip."""
    token_score: bool | None = None
    """Whether texts are compared with clips by words and frames, too. null: where a run was trained
    so and the cache has tokens."""
    frames_per_clip: int = 64
    """Of the token score: frames of a clip at most, evenly spread over a longer one."""
    moments: MomentConfig = field(default_factory=MomentConfig)
    """Where a text happens in its clip."""
    groups: tuple[TypeGroup, ...] = ()
    """Question types that are reported together, beside each type."""
    answer_moments: bool = False
    """Whether the moment of the answer is scored, too: mIoU over the hull, and ASA (TVQA+)."""
    fused_weight: float = 0.5
    """a in a * global + (1 - a) * segment where no validation split can choose it."""
    recall_ks: tuple[int, ...] = (1, 5, 10)
    """The K of R@K."""
    normalisations: tuple[NormalisationName, ...] = ()
    """Retrieval rows more: each row once again with its scores relative to a bank of training
    queries (qb_norm) or to all test queries (dual_softmax)."""
    bank_split: str = "train"
    """Whose texts and clips are the bank of qb_norm; never the evaluated split."""
    qb_norm_beta: float = 20.0
    """Scale of the cosines in qb_norm; the paper's 20."""
    dual_softmax_temperature: float = 0.01
    """Of the softmax over the test queries; 0.01 is CLIP's largest logit scale, 100."""
    several_captions: CaptionRule = "captions"
    """clip_to_text: the best own caption among all captions, or clips ranked by their best one."""
    median: Literal["mean", "lower"] = "mean"
    """Of an even number of ranks: the mean of the middle two, or the lower one, but of clip_to_text
    the mean (CLIP4Clip)."""
    ties: TiePolicy = "against"
    """Where equal scores rank: all before the right one, at their mean, or in the given order."""
    bootstrap_samples: int = 2000
    """Resamples behind every interval and p-value."""
    confidence: float = 0.95
    """Share of resamples inside an interval."""
    seed: int = 0
    """Of the resampling."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """One that is not exact is searched beside the exact one, and the report says what it costs;
    ranks are always exact."""
    shown_neighbours: int = 10
    """Best items kept for each query in queries.parquet; 0: none."""
    baseline: str = "zero-shot"
    """Name of the row that the others are compared with."""

    def __post_init__(self) -> None:
        faults = []
        if not self.directions or len(set(self.directions)) < len(self.directions):
            faults.append(f"directions must name each direction once, got {self.directions}")
        if not self.recall_ks or min(self.recall_ks) < 1:
            faults.append(f"recall_ks must be numbers of at least 1, got {self.recall_ks}")
        elif 1 not in self.recall_ks:
            faults.append(f"recall_ks must have 1, the K of comparisons, got {self.recall_ks}")
        if self.frames_per_clip < 1:
            faults.append(f"frames_per_clip must be at least 1, got {self.frames_per_clip}")
        if not 0 <= self.fused_weight <= 1:
            faults.append(f"fused_weight must be between 0 and 1, got {self.fused_weight}")
        if len(set(self.normalisations)) < len(self.normalisations):
            faults.append(f"normalisations must name each once, got {self.normalisations}")
        if "qb_norm" in self.normalisations and self.split in (None, self.bank_split):
            faults.append(
                f"qb_norm needs queries of another split than the evaluated one, got bank_split "
                f"{self.bank_split!r} and split {self.split!r}"
            )
        if not (self.qb_norm_beta > 0 and self.dual_softmax_temperature > 0):
            faults.append(
                f"qb_norm_beta and dual_softmax_temperature must be > 0, got "
                f"{self.qb_norm_beta} and {self.dual_softmax_temperature}"
            )
        if self.bootstrap_samples < 1:
            faults.append(f"bootstrap_samples must be at least 1, got {self.bootstrap_samples}")
        if not 0 < self.confidence < 1:
            faults.append(f"confidence must be between 0 and 1, got {self.confidence}")
        if self.shown_neighbours < 0:
            faults.append(f"shown_neighbours must be at least 0, got {self.shown_neighbours}")
        if self.seed < 0:
            faults.append(f"seed must be at least 0, got {self.seed}")
        if faults:
            raise ValueError("; ".join(faults))
