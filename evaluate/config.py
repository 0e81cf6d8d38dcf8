"""Settings of an evaluation: what is scored, which metrics, how sure they are, what is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from ..data_manifests.cards.scoring_rules import MomentRules, RetrievalRules, TypeGroup

Pooling = Literal["max", "top_mean", "softmax"]
NormalisationName = Literal["qb_norm", "dual_softmax"]

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
class MomentConfig(MomentRules):
    """How moments are scored: the rules, which a card may give, and how a corpus is searched."""

    corpus_clips: int = 100
    """Clips per query, the best by the fused score, whose moments are searched."""
    corpus_clip_factor: float = 20.0
    """With a moment head, a moment's score is exp(this times the clip's) times its probability."""

    def __post_init__(self) -> None:
        faults = self.rule_faults()
        if self.corpus_clips < 1:
            faults.append(f"corpus_clips must be at least 1, got {self.corpus_clips}")
        if faults:
            raise ValueError("; ".join(faults))


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
class EvaluationConfig(RetrievalRules):
    """Settings of `mlalign-evaluate`. A card sets the inherited rules of retrieval."""

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
    normalisations: tuple[NormalisationName, ...] = ()
    """Retrieval rows more: each row once again with its scores relative to a bank of training
    queries (qb_norm) or to all test queries (dual_softmax)."""
    bank_split: str = "train"
    """Whose texts and clips are the bank of qb_norm; never the evaluated split."""
    qb_norm_beta: float = 20.0
    """Scale of the cosines in qb_norm; the paper's 20."""
    dual_softmax_temperature: float = 0.01
    """Of the softmax over the test queries; 0.01 is CLIP's largest logit scale, 100."""
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
        faults = self.rule_faults()
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
