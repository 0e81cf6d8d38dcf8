"""The read side of a cache: open it with h5py and pyarrow, gather a split into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .contract import ID_COLUMNS, CacheError, feature_width, option_counts, read_settings
from .ragged import offsets_of
from .ragged_features import (
    check_kept,
    counts_in,
    read_frames,
    read_sentences,
    read_tokens,
)
from .shards import (
    Allocate,
    ShardReader,
    live_rows,
    positions_of,
    read_index,
    rows_of_clips,
    spans_of,
)
from .split_features import QuestionFeatures, SplitFeatures


class FeatureStore:
    """An existing cache. Opening reads the index; arrays are read, and their digests checked, by
    `split`."""

    def __init__(self, path: Path, *, content: dict[str, Any], tables: dict[str, pa.Table]) -> None:
        """Use `FeatureStore.open`."""
        self.path = path
        self.key: str = content["key"]
        self.settings: dict[str, Any] = content["settings"]
        self.record: dict[str, Any] = content
        """All of cache.json: also the versions and the folder of the videos."""
        self.segment_rules: tuple[str, ...] = tuple(content["layout"]["segments"])
        self.dim = feature_width(self.settings, "clips")
        """Width of the video features."""
        self.text_dim = feature_width(self.settings, "texts")
        """Width of the text features; the same but in some imported caches."""
        self.clips = tables["clips"]
        self.segments = tables["segments"]
        self.texts = tables["texts"]
        self.questions = tables["questions"]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Raises CacheError when there is no cache, or its index cannot be read."""
        path = Path(path)
        content = read_settings(path)
        tables: dict[str, pa.Table] = {
            unit: live_rows(read_index(path, unit), unit) for unit in ID_COLUMNS
        }
        segments = read_index(path, "segments")
        # A segment row counts with its clip's live shard: not before that is committed, nor after
        # it was replaced.
        clips = tables["clips"]
        live = pa.table({"clip_id": clips["clip_id"], "clip_shard": clips["shard"]})
        segments = segments.join(live, keys=["clip_id", "clip_shard"], join_type="left semi")
        tables["segments"] = segments.sort_by(
            [("clip_id", "ascending"), ("rule", "ascending"), ("segment_index", "ascending")]
        )
        return cls(path, content=content, tables=tables)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have clips, sorted."""
        return tuple(sorted(pc.unique(self.clips["split"]).to_pylist()))

    def feature_bytes(
        self,
        name: str,
        *,
        segments: str | None = None,
        frames_per_clip: int = 0,
        with_tokens: bool = False,
    ) -> int:
        """Of the features of a split in memory, counted from the index: clips that failed and
        subtitles among them. Arguments as of `split`. Raises CacheError for an unknown rule."""
        clips = self.clips.filter(pc.equal(self.clips["split"], name))
        ids = clips["clip_id"]
        cut = self.segments.filter(pc.equal(self.segments["rule"], self._rule(segments)))
        questions = rows_of_clips(self.questions, ids)
        videos = clips.num_rows + rows_of_clips(cut, ids).num_rows
        described = rows_of_clips(self.texts, ids)
        texts = described.num_rows + questions.num_rows + int(option_counts(questions).sum())
        frames = int(np.minimum(counts_in(clips, "num_frames"), frames_per_clip).sum())
        tokens = int(counts_in(described, "num_tokens").sum()) if with_tokens else 0
        texts += int(counts_in(described, "num_sentences").sum())
        size = np.dtype(self.settings["dtype"]).itemsize
        return int(
            (4 * videos + size * frames) * self.dim + (4 * texts + size * tokens) * self.text_dim
        )

    def check_kept(self, *, frames: bool, tokens: bool) -> None:
        """Raise CacheError where the cache does not keep what is asked for."""
        check_kept(self.path, self.record, frames=frames, tokens=tokens)

    def split(
        self,
        name: str | None,
        *,
        segments: str | None = None,
        leave_out_partial: bool = False,
        frames_per_clip: int = 0,
        with_tokens: bool = False,
        allocate: Allocate | None = None,
    ) -> SplitFeatures:
        """All features of a split (None: of every clip), cut by a segment rule (None: the cache's
        first).

        Clips are ordered by id, segments by clip and start, texts and questions by id. Texts of
        kind subtitle are left out: the table `texts` has them, but they describe nothing.
        leave_out_partial: whether clips of videos that were cut short are left out.
        frames_per_clip: read as many frames of a clip at most, evenly spread; 0: no frames.
        with_tokens: read the tokens of the texts, too.
        allocate: gives the arrays that features are gathered into, for those that do not fit in
        memory; shards are then in memory one at a time.
        Raises CacheError for an unknown split or rule, a split without any feature, frames or
        tokens that are not kept, or a damaged shard.
        """
        self.check_kept(frames=frames_per_clip > 0, tokens=with_tokens)
        rule = self._rule(segments)
        clips = self.clips
        if name is not None:
            if name not in self.splits:
                raise CacheError(f"{self.path} has no split {name!r}; it has {self._names()}")
            clips = clips.filter(pc.equal(clips["split"], name))
        has_features = clips.filter(pc.not_equal(clips["status"], "failed"))
        is_partial = pc.equal(has_features["status"], "partial")
        usable = has_features.filter(pc.invert(is_partial)) if leave_out_partial else has_features
        usable = usable.sort_by("clip_id")
        if usable.num_rows == 0:
            short = has_features.num_rows
            reason = f" but {short} that are cut short and left out" if short else ""
            raise CacheError(
                f"{self.path}: none of the {clips.num_rows} clips of split {name!r} has features"
                f"{reason}"
            )
        ids = usable["clip_id"]
        cut = self.segments.filter(pc.equal(self.segments["rule"], rule))
        cut = rows_of_clips(cut, ids)
        counts = np.bincount(positions_of(cut["clip_id"], ids), minlength=len(ids))
        if not counts.all():
            # Two commands that changed the rules at once were killed.
            raise CacheError(
                f"{self.path}: {(counts == 0).sum()} clips have no segments {rule!r}; "
                "run mlalign-extract resegment with the rules you want to finish it"
            )
        # What is said in a clip does not describe it.
        described = self.texts.filter(pc.not_equal(self.texts["kind"], "subtitle"))
        texts = rows_of_clips(described, ids).sort_by("text_id")
        reader = ShardReader(self.path, settings=self.settings, allocate=allocate)
        return SplitFeatures(
            cache_key=self.key,
            split=name or "all",
            segment_rule=rule,
            clip_ids=ids.to_pylist(),
            clip_features=reader.rows("clips/features", usable),
            clip_durations=usable["duration_seconds"].to_numpy(),
            segment_features=reader.rows("segments/features", cut),
            segment_offsets=offsets_of(counts),
            segment_spans=spans_of(cut),
            text_ids=texts["text_id"].to_pylist(),
            texts=texts["text"].to_pylist(),
            text_features=reader.rows("texts/features", texts),
            text_clips=positions_of(texts["clip_id"], ids),
            text_spans=spans_of(texts),
            num_failed_clips=clips.num_rows - has_features.num_rows,
            num_partial_clips=pc.sum(is_partial).as_py() or 0,
            questions=self._questions(ids, reader),
            frames=read_frames(usable, reader, max_count=frames_per_clip)
            if frames_per_clip
            else None,
            tokens=read_tokens(texts, reader) if with_tokens else None,
            sentences=read_sentences(texts, reader),
            clip_videos=_numbers_of(usable["video_path"]),
            clip_starts=pc.fill_null(usable["start_seconds"], 0.0).to_numpy(),
        )

    def _questions(self, clip_ids: pa.ChunkedArray, reader: ShardReader) -> QuestionFeatures:
        table = rows_of_clips(self.questions, clip_ids).sort_by("question_id")
        counts = option_counts(table)
        first = pc.fill_null(table["first_option_row"], 0).to_numpy()
        options = table.select(["shard", "shard_sha256"]).take(
            np.repeat(np.arange(len(counts)), counts)
        )
        within = np.arange(counts.sum()) - np.repeat(offsets_of(counts)[:-1], counts)
        options = options.append_column("row", pa.array(np.repeat(first, counts) + within))
        return QuestionFeatures(
            question_ids=table["question_id"].to_pylist(),
            kinds=table["kind"].to_pylist(),
            types=table["type"].to_pylist(),
            clips=positions_of(table["clip_id"], clip_ids),
            spans=spans_of(table),
            questions=table["question"].to_pylist(),
            answers=table["answer"].to_pylist(),
            answer_indices=pc.fill_null(table["answer_index"], -1).to_numpy(),
            question_features=reader.rows("questions/features", table),
            option_features=reader.rows("options/features", options),
            option_offsets=offsets_of(counts),
        )

    def _rule(self, asked: str | None) -> str:
        rule = asked or self.segment_rules[0]
        if rule not in self.segment_rules:
            raise CacheError(
                f"{self.path} has no segments {rule!r}; it has {', '.join(self.segment_rules)}"
            )
        return rule

    def _names(self) -> str:
        return ", ".join(self.splits) or "no clips yet"


def _numbers_of(values: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64, equal for equal values."""
    encoded = values.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(), dtype=np.int64)
