"""THE on-disk contract of a feature cache: its files, arrays, index columns, key and versions.

    CACHE/
      cache.json                  key, settings, layout, and how it was made (see below)
      shards/clips-*.h5           frame, segment and clip features of some clips
      shards/texts-*.h5           text features of some texts
      shards/segments-*.h5        segment features that were cut later (mlalign-extract resegment)
      shards/questions-*.h5       text features of some questions and their options
      index/clips/*.parquet       one row per clip, failed ones included; one file per clip shard
      index/segments/*.parquet    one row per segment
      index/texts/*.parquet       one row per text
      index/questions/*.parquet   one row per question
      runs/*.json                 one file per finished run that extracted something: its summary,
                                  frames per second, seconds per phase, bytes written, settings,
                                  device, versions, command; for people, never read back

Arrays of a clip shard (C clips, S segments, F frames, D features wide), clips end to end:

    clips/features       (C, D)  mean of the clip's L2-normalised frame features
    segments/features    (S, D)  mean of the segment's L2-normalised frame features
    frames/features      (F, D)  as the image tower gives them, not normalised (absent with
                                 keep_frames off)
    frames/seconds       (F,)    float64, when the frame came on the screen, from the clip's start;
                                 negative where that was before the clip began
    frames/sample_seconds (F,)   float64, the instant that asked for it: k / fps

Of a text shard: texts/features (T, D) and, with keep_tokens on, tokens/features (K, D), texts end
to end: of each text its tokens in their order, by the same final norm and projection as the text's
own feature, so that they lie in the shared space; not normalised. Its tokens are those of its words
and the end token, whose output is what CLIP's towers make the text's feature of: a text without
words has that one. The start token, which is the same for all texts, and padding are left out; what
the tower's context cuts off is not there. sentences/features (K, D), where a text of the shard has
several sentences: of each such text of the global level its sentences, as split_sentences cuts them
(data_manifests/tables/sentences.py), each encoded as a text of its own; a text of one sentence has
none there, and ``num_sentences`` 0. Of a question shard: questions/features (K, D) and
options/features (O, D): of multiple choice a row for each option, of the text "question option"; of
an open-ended question whose answer is known one row, of that answer. Features are float16 unless
the settings say float32; nothing but what is said above is normalised. Index rows name their shard
and the rows of its arrays. Times are seconds from the clip's start, float64; a clip's own start and
end are seconds from the first frame shown of the chosen video stream.

cache.json's ``settings`` are all that is meant to change the numbers and make the key; its
``layout`` (segment rules, whether frames and tokens are kept and shots looked for) says what is
stored of them. Both must be the same for all runs on a cache, but that one may begin to keep
tokens: its texts are then encoded again, as rows of a higher generation. The rest of it tells of
the run that made the cache: ``config`` (all settings, the decoder among them), ``checkpoint`` (the
file of the weights, when there was one), ``inputs`` (what was to be extracted), ``videos_root``,
``dataset``, ``official`` (of a benchmark, by split: how many clips, texts and questions its
official files have, videos or not), ``device``, ``versions``, ``command``. ``--recipe`` reads it. A
merged cache has the first source's, and that of each under ``merged``; its shards may hold rows
that the index does not name.

Of an imported cache (mlalign-extract import) the settings have ``backbone`` "imported: FORMAT",
``source``, ``text_source``, ``question_source`` (where there is one), ``seconds_per_feature`` and
the width (and ``text_width`` where texts and questions have another one), and neither weights nor
preprocessing; a clip's ``source_*`` columns speak of its file of features, those of the probe are
null, and row k of its frames was taken at k times seconds_per_feature. A question without words may
have zeros.

A segment row counts when its clip's live row is in its ``clip_shard`` and its rule is in the
layout. ``resegment`` puts what the clip shards lack by the new rules into segments shards, one per
clip shard and rule and named after both, then switches the layout in cache.json, and then removes
the segments shards of other rules: at every instant the cache has whole segments by the old or the
new rules. What clip shards hold by rules that are no longer in the layout stays in them.

A shard is committed when the last of its index files is there: it is written aside, flushed to disk
and renamed, then its index files are, the main one (clips, texts or questions) last. Each main
index row carries the SHA-256 of its shard, so a damaged shard is noticed on reading. When an item
was extracted again, the row of the highest ``generation`` counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...data_manifests.core.errors import UserError

FORMAT: Final = 4
"""Raised when the arrays or columns change their meaning; part of the cache key."""

Status = Literal["ok", "partial", "failed"]
Unit = Literal["clips", "texts", "questions"]
"""What a shard holds; also the name of its main index table."""


class CacheError(UserError):
    """A cache is missing, damaged, or made with other settings than asked for."""


class DiskError(CacheError):
    """The disk refuses to take more of a cache: it is full or read-only."""

    exit_code: ClassVar[int] = 1


_ROW = [
    ("shard", pa.string()),  # file name under shards/
    ("row", pa.int64()),  # in the shard's main array; null for a failed clip
    ("shard_sha256", pa.string()),
    ("item_digest", pa.string()),  # of everything that the row's features were made from
    ("generation", pa.int32()),
]

_SENTENCES = [
    ("first_sentence_row", pa.int64()),  # null: it is one sentence, or was encoded before 0.2
    ("num_sentences", pa.int64()),
    ("is_cut", pa.bool_()),  # longer than the tower reads; null: not known
]
LATER_COLUMNS: Final = frozenset(name for name, _ in _SENTENCES)
"""Which index files of older caches do not have: null in all of their rows."""

CLIPS: Final = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_path", pa.string()),  # relative to the videos root of cache.json
        ("split", pa.string()),
        ("start_seconds", pa.float64()),  # of the clip in its video; null: from the first frame
        ("end_seconds", pa.float64()),  # null: to the end
        ("status", pa.string()),  # ok, partial, failed
        ("reason", pa.string()),  # why not ok
        ("stage", pa.string()),  # of a failed clip: open, decode, worker or encode (frames.Stage)
        ("num_frames", pa.int64()),
        ("first_frame_row", pa.int64()),
        ("num_segments", pa.int64()),  # by all rules of the layout
        ("duration_seconds", pa.float64()),  # of the clip, from its decoded frames
        ("fps", pa.float64()),
        ("width", pa.int64()),  # as stored, before rotation
        ("height", pa.int64()),
        ("codec", pa.string()),
        ("pixel_format", pa.string()),
        (
            "hdr",
            pa.string(),
        ),  # pq or hlg, of a high dynamic range, which is not tone-mapped; or null
        ("rotation_degrees", pa.int64()),  # counter-clockwise, to be applied for showing
        ("stream_index", pa.int64()),
        ("first_pts_seconds", pa.float64()),  # the stream's own time of its first frame
        ("source_bytes", pa.int64()),
        ("source_mtime_ns", pa.int64()),
        ("source_sha256", pa.string()),
        # What rules cut by, so that resegment needs neither the manifest nor the video:
        ("text_spans", pa.list_(pa.list_(pa.float64()))),  # [start, end] of its texts, by start
        ("shot_seconds", pa.list_(pa.float64())),  # where its second, third ... shot begins; null:
        # not looked for
        *_ROW,
    ]
)

SEGMENTS: Final = pa.schema(
    [
        ("clip_id", pa.string()),
        ("rule", pa.string()),
        ("segment_index", pa.int64()),  # within clip and rule, by start
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("num_frames", pa.int64()),
        ("clip_shard", pa.string()),  # of the frames it was cut from
        ("shard", pa.string()),  # of its feature: clip_shard, or a segments shard
        ("row", pa.int64()),
        ("shard_sha256", pa.string()),
    ]
)

TEXTS: Final = pa.schema(
    [
        ("text_id", pa.string()),
        ("clip_id", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
        ("start_seconds", pa.float64()),  # null: global level
        ("end_seconds", pa.float64()),
        ("split", pa.string()),
        ("first_token_row", pa.int64()),  # null: tokens are not kept
        ("num_tokens", pa.int64()),
        *_SENTENCES,
        *_ROW,
    ]
)

QUESTIONS: Final = pa.schema(
    [
        ("question_id", pa.string()),
        ("clip_id", pa.string()),
        ("kind", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer_index", pa.int64()),
        ("answer", pa.string()),
        ("type", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("split", pa.string()),
        ("first_option_row", pa.int64()),
        *_ROW,
    ]
)

TABLES: Final[dict[str, pa.Schema]] = {
    "clips": CLIPS,
    "segments": SEGMENTS,
    "texts": TEXTS,
    "questions": QUESTIONS,
}

ID_COLUMNS: Final[dict[Unit, str]] = {
    "clips": "clip_id",
    "texts": "text_id",
    "questions": "question_id",
}


def feature_width(settings: Mapping[str, Any], group: str) -> int:
    """Width of the features of an array's group. settings: those of cache.json."""
    is_text = group in ("texts", "tokens", "sentences", "questions", "options")
    return int(settings.get("text_width", settings["width"]) if is_text else settings["width"])


def option_counts(questions: pa.Table) -> np.ndarray:
    """(K,) int64: how many rows of options/features each row of the table `questions` has."""
    options = pc.fill_null(pc.list_value_length(questions["options"]), 0).to_numpy()
    is_open = pc.equal(questions["kind"], "open_ended")
    answers = pc.fill_null(pc.and_kleene(is_open, questions["answer"].is_valid()), False)
    counts: np.ndarray = np.where(answers.to_numpy(), 1, options)
    return counts.astype(np.int64)


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, the same on every machine; 64 hex digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def cache_key(settings: dict[str, Any]) -> str:
    """Digest of everything that is meant to change the numbers, and of the format number."""
    return digest({"format": FORMAT, **settings})


def settings_path(cache: Path) -> Path:
    return cache / "cache.json"


def runs_folder(cache: Path) -> Path:
    return cache / "runs"


def shard_path(cache: Path, shard: str) -> Path:
    return cache / "shards" / shard


def segments_shard(clip_shard: str, rule: str) -> str:
    """The segments shard that has the segments of a clip shard's clips by a rule."""
    return f"segments-{digest([clip_shard, rule])[:16]}.h5"


def index_path(cache: Path, table: str, shard: str) -> Path:
    return cache / "index" / table / f"{Path(shard).stem}.parquet"


def read_settings(cache: Path) -> dict[str, Any]:
    """What cache.json says. Raises CacheError when it is missing, damaged or of another format."""
    path = settings_path(cache)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CacheError(
            f"{cache} is not a feature cache: it has no {path.name}; mlalign-extract makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise CacheError(f"cannot read {path}: {error}") from error
    parts = ("settings", "layout")
    if (
        not isinstance(content, dict)
        or "key" not in content
        or not all(isinstance(content.get(part), dict) for part in parts)
    ):
        raise CacheError(f"{path} is damaged: it lacks the settings, the layout or the key")
    if content.get("format") != FORMAT:
        raise CacheError(
            f"{cache} has cache format {content.get('format')}, this version reads {FORMAT}: "
            "extract again into a new folder"
        )
    if content["key"] != cache_key(content["settings"]):
        raise CacheError(f"{path} is damaged: its key does not fit its settings")
    return content
