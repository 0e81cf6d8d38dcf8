"""Where the answer to a question is seen: its moment in the clip, and ASA (TVQA+)."""

from __future__ import annotations

import numpy as np

from ...align.model.model import AlignmentModel
from ...data_manifests.cards.scoring_rules import ANSWER_MOMENT_IOU
from ...data_manifests.cards.spans import span_iou
from ...extract.cache.store import SplitFeatures
from ..scores.vectors import Embeddings
from .moments import start_and_end


def answer_moment_values(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: AlignmentModel | None,
    *,
    chosen: np.ndarray,
    rows: np.ndarray,
    right: np.ndarray,
) -> dict[str, np.ndarray]:
    """mIoU over the hull and ASA, (Q,) each in percent; a question without a moment has IoU 0.

    chosen: (Q,) rows of the chosen options.   rows: (Q,) rows of the questions.   right: (Q,) bool,
    whether the option is the right one.
    """
    found = answer_moments(features, embeddings, encoder, chosen=chosen, rows=rows)
    truth = features.questions.spans[rows]
    is_told = ~np.isnan(truth[:, 0])
    ious = span_iou(found, np.where(is_told[:, None], truth, -1.0), denominator="hull")
    return {"mIoU": 100.0 * ious, "ASA": 100.0 * (right & (ious >= ANSWER_MOMENT_IOU))}


def answer_moments(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: AlignmentModel | None,
    *,
    chosen: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """(Q, 2) seconds: where the question with its chosen option happens, as for moments of texts.

    chosen: (Q,) rows of the options.   rows: (Q,) rows of the questions.
    """
    spans = np.zeros((len(rows), 2))
    for question, (option, row) in enumerate(zip(chosen.tolist(), rows.tolist(), strict=True)):
        own = slice(*features.segment_offsets[features.questions.clips[row] :][:2])
        segments = features.segment_spans[own]
        cosines = embeddings.segments[own] @ embeddings.option_sentences[option]
        first = last = int(cosines.argmax())
        if encoder is not None and encoder.moment_head is not None:
            starts, ends = start_and_end(cosines, encoder)
            pairs = np.triu(np.ones((len(cosines), len(cosines)), dtype=bool))
            joint = np.where(pairs, starts[:, None] + ends, -np.inf)
            first, last = map(int, np.unravel_index(joint.argmax(), joint.shape))
        spans[question] = segments[first, 0], segments[last, 1]
    return spans
