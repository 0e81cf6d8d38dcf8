"""Texts in a cache: sentence by sentence, and what the tower does not read of them is said."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlalign.data_manifests.tables.sentences import split_sentences
from mlalign.extract.cache.contract import LATER_COLUMNS
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.encode.backbones import load_tokenizer
from mlalign.extract.encode.texts import cut_texts, num_tokens
from mlalign.extract.maintenance.verify import verify_cache

WORDS = "a dog runs over the long green grass of the wide field"
LONG = " ".join([WORDS] * 10)
PARAGRAPH = f"{WORDS}. then it sleeps. {LONG}"


@pytest.fixture(scope="module")
def caption_cache(small_scenes, small_options, mlalign_extract, tmp_path_factory):
    """A cache of two clips with captions, and what extraction printed of it."""
    folder = tmp_path_factory.mktemp("captions")
    videos = sorted(path.name for path in (small_scenes / "videos").iterdir())[:2]
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video_path", "text", "split"])
        for video, texts in zip(videos, (["one dog.", PARAGRAPH], [LONG]), strict=True):
            rows.writerows([video, text, "train"] for text in texts)
    options = [*small_options, "--manifest", folder / "captions.csv"]
    done = mlalign_extract(small_scenes / "videos", "-o", folder / "cache", *options)
    assert done.exit_code == 0, done.output
    return folder / "cache", done.output


def test_a_paragraphs_sentences_have_the_features_of_the_same_texts(caption_cache):
    split = FeatureStore.open(caption_cache[0]).split("train")
    by_text = dict(zip(split.texts, range(len(split.texts)), strict=True))
    assert split.sentences is not None
    assert split.sentences[by_text["one dog."]].shape == (0, 256)
    assert split.sentences[by_text[LONG]].shape == (0, 256)
    sentences = split.sentences[by_text[PARAGRAPH]]
    assert len(sentences) == len(split_sentences(PARAGRAPH)) == 3
    np.testing.assert_array_equal(sentences[2], split.text_features[by_text[LONG]])


def test_texts_longer_than_the_tower_reads_are_counted_and_named(caption_cache, mlalign_extract):
    cache, output = caption_cache
    assert "2 of 3 texts are longer than the 77 tokens that the text tower reads" in output
    assert "of 0 of them all sentences fit" in output
    status = mlalign_extract("status", cache)
    assert "texts      3 (2 longer than the tower reads)" in status.output


def test_such_a_cache_is_whole_and_one_with_sentences_cut_off_is_not(caption_cache, tmp_path):
    cache = shutil.copytree(caption_cache[0], tmp_path / "cache")
    assert not verify_cache(cache).problems
    (path,) = (cache / "index" / "texts").iterdir()
    rows = pq.read_table(path)
    counts = [None if n is None else 5 * n for n in rows["num_sentences"].to_pylist()]
    place = rows.column_names.index("num_sentences")
    pq.write_table(rows.set_column(place, "num_sentences", [counts]), path)
    problems = "\n".join(map(str, verify_cache(cache).problems))
    assert "a text has sentences outside the 3 rows of sentences/features" in problems


def test_a_cache_from_before_there_were_sentences_opens(caption_cache, tmp_path):
    cache = shutil.copytree(caption_cache[0], tmp_path / "cache")
    (path,) = (cache / "index" / "texts").iterdir()
    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(sorted(LATER_COLUMNS)), path)
    split = FeatureStore.open(cache).split("train")
    expected = FeatureStore.open(caption_cache[0]).split("train")
    assert split.sentences is not None and split.sentences.counts.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(split.text_features, expected.text_features)


@pytest.mark.parametrize("text", ["", "a dog", LONG, "犬" * 80, "a " * 76])
def test_a_text_is_cut_where_the_tokenizer_has_more_than_it_keeps(text):
    tokenizer = load_tokenizer("tiny")
    full = num_tokens(tokenizer, text)
    (kept,) = (tokenizer([text]) != 0).sum(dim=1).tolist()
    assert (full == kept) == (not cut_texts(tokenizer, [text])[0])
    assert full >= kept
