"""Tokens of texts: which are kept, what their features are, and how a cache keeps them."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch

from mlalign.extract import pipeline
from mlalign.extract.cache.contract import TABLES, CacheError
from mlalign.extract.cache.ragged_features import spread_rows
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.cache.writer import commit_shard
from mlalign.extract.encode.backbones import load_backbone
from mlalign.extract.encode.devices import BackboneError
from mlalign.extract.encode.text_tokens import count_tokens, is_kept
from mlalign.extract.maintenance.verify import verify_cache

TEXTS = ["a red ring", "", "!", "green squares move left, twice", "word " * 200]


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny", tag=None, checkpoint=None, precision="float32", device="cpu")


def test_words_and_the_end_are_kept_start_and_padding_are_not(tiny):
    ids = tiny.tokenizer(TEXTS)
    kept = is_kept(ids, tiny.tokenizer)
    for own, mask, text in zip(ids, kept, TEXTS, strict=True):
        words = tiny.tokenizer.encode(text)[:75]  # 77 with start and end
        assert own[mask].tolist() == [*words, tiny.tokenizer.eot_token_id]
    assert count_tokens(tiny.tokenizer, TEXTS).tolist() == [4, 1, 2, 7, 76]


def test_tokenizers_without_a_start_and_with_other_padding_are_understood():
    class Inner:
        bos_token_id, eos_token_id = None, 1

    class T5:
        """As SigLIP's: no start, ends with 1 and pads with it."""

        tokenizer, strip_sep_token, tokenizer_mode = Inner(), False, ""

    ids = torch.tensor([[5, 6, 1, 1, 1], [1, 1, 1, 1, 1], [5, 6, 7, 8, 9]])
    assert is_kept(ids, T5()).sum(dim=1).tolist() == [3, 1, 5]


def by_hand(model, ids):
    """(n, L, D): every token through the tower's own parts, as its documentation has them."""
    tower = getattr(model, "text", model)
    with torch.inference_mode():
        x = tower.token_embedding(ids) + tower.positional_embedding
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))
        projection = tower.text_projection
        return projection(x) if isinstance(projection, torch.nn.Module) else x @ projection


def custom_text_clip():
    """A CustomTextCLIP with SigLIP's kind of text tower: both ways, pooled at the end, a layer with
    a bias at last."""
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    text |= {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    return open_clip.CustomTextCLIP(24, vision, text).eval()


@pytest.mark.parametrize("name", ["CLIP", "CustomTextCLIP"])
def test_tokens_are_the_towers_own_through_the_last_layers_of_the_feature(tiny, name):
    backbone = tiny
    if name == "CustomTextCLIP":
        backbone = dataclasses.replace(tiny, model=custom_text_clip(), width=24)
    features, tokens = backbone.encode_tokens(TEXTS, dtype="float32")
    assert np.array_equal(features, backbone.encode_texts(TEXTS))
    ids = backbone.tokenizer(TEXTS)
    expected = by_hand(backbone.model, ids)
    for own, rows, mask in zip(tokens, expected, is_kept(ids, backbone.tokenizer), strict=True):
        np.testing.assert_allclose(own, rows[mask].numpy(), atol=1e-4)


def test_the_end_token_is_the_feature_of_a_text(tiny):
    features, tokens = tiny.encode_tokens(TEXTS, dtype="float32")
    np.testing.assert_allclose([own[-1] for own in tokens], features, atol=1e-4)


def test_a_text_has_the_same_tokens_in_any_company(tiny):
    _, together = tiny.encode_tokens(TEXTS, dtype="float16")
    for text, own in zip(TEXTS, together, strict=True):
        assert np.array_equal(own, tiny.encode_tokens([text], dtype="float16")[1][0])


def coca(path):
    """A checkpoint of a small CoCa, registered as "coca-small"."""
    config = {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {"width": 32, "heads": 2, "layers": 1, "embed_cls": True},
        "multimodal_cfg": {"width": 32, "heads": 2, "layers": 1, "attn_pooler_heads": 2},
    }
    config["text_cfg"] |= {"context_length": 76, "vocab_size": 49408, "output_tokens": True}
    config["multimodal_cfg"] |= {"context_length": 76, "vocab_size": 49408}
    (path / "coca-small.json").write_text(json.dumps(config))
    open_clip.add_model_config(path / "coca-small.json")
    model = open_clip.create_model("coca-small")
    torch.save(model.state_dict(), path / "weights.pt")
    return path / "weights.pt"


def test_a_tower_that_has_none_is_an_error_before_anything_is_written(
    tmp_path, small_scenes, mlalign_extract, tiny
):
    options = ["--backbone", "coca-small", "--pretrained", coca(tmp_path), "--keep-tokens"]
    done = mlalign_extract(small_scenes, "-o", tmp_path / "cache", *options)
    assert done.exit_code == 2, done.output
    assert "the text tower of this backbone (TextTransformer) gives no features" in done.stderr
    assert not (tmp_path / "cache").exists()
    other = dataclasses.replace(tiny, tokenizer=lambda texts: torch.zeros(len(texts), 77))
    with pytest.raises(BackboneError, match="leave --keep-tokens out"):
        other.encode_tokens(["a"], dtype="float32")


def test_a_cache_keeps_the_tokens_of_all_texts_and_all_else_as_without(
    token_cache, small_cache, tiny
):
    store, plain = FeatureStore.open(token_cache), FeatureStore.open(small_cache)
    assert store.key == plain.key  # what is kept changes no number
    found = store.split(None, with_tokens=True)
    expected = plain.split(None)
    assert np.array_equal(found.text_features, expected.text_features)
    assert np.array_equal(found.questions.option_features, expected.questions.option_features)
    tokens = found.tokens
    assert tokens.values.dtype == np.float16
    exact = load_backbone(
        "tiny",
        tag=None,
        checkpoint=None,
        precision=store.settings["precision"],
        device="cpu",
    ).encode_tokens(found.texts, dtype="float16")[1]
    for number, own in enumerate(exact):
        rows = slice(tokens.offsets[number], tokens.offsets[number + 1])
        assert np.array_equal(tokens.values[rows], own)


def test_what_tokens_take_is_said_to_the_byte_before(
    mlalign_extract, small_scenes, small_options, tmp_path, token_cache
):
    options = [*small_options, "--keep-tokens", "--set", "dtype=float32"]
    done = mlalign_extract(small_scenes, "-o", tmp_path / "cache", *options)
    lines = [line for line in done.stderr.splitlines() if line.startswith("tokens of")]
    bytes_of_arrays = rows = 0
    for path in (tmp_path / "cache" / "shards").glob("texts-*.h5"):
        with h5py.File(path) as file:
            bytes_of_arrays += file["tokens/features"].nbytes
            rows += len(file["tokens/features"])
    (line,) = lines
    assert f"are kept: {rows} x 256 float32, {bytes_of_arrays} bytes (" in line
    again = mlalign_extract(small_scenes, "-o", tmp_path / "cache", *options)
    assert "tokens of" not in again.stderr
    assert f" ({rows} tokens), questions" in mlalign_extract("status", tmp_path / "cache").output


def test_tokens_are_added_to_a_cache_and_nothing_else_is_done_again(
    mlalign_extract, small_scenes, small_options, token_cache, copied_cache, monkeypatch
):
    """Also when that is killed between two shards of texts."""
    monkeypatch.setattr(pipeline, "SHARD_TEXTS_WITH_TOKENS", 9)
    options = [small_scenes, "-o", copied_cache, *small_options]
    before = {path: path.stat().st_mtime_ns for path in copied_cache.glob("shards/*")}
    with monkeypatch.context() as patch:
        commits = []

        def killed(*arguments, **options):
            commits.append(commit_shard(*arguments, **options))
            if len(commits) == 2:
                raise KeyboardInterrupt

        patch.setattr("mlalign.extract.encode.texts.commit_shard", killed)
        assert mlalign_extract(*options, "--keep-tokens").exit_code == 130
    problems = [found.problem for found in verify_cache(copied_cache).problems]
    assert problems and all(problem.endswith("texts have no tokens") for problem in problems)
    with pytest.raises(CacheError, match=r"\d+ of \d+ texts have no tokens yet: run the same"):
        FeatureStore.open(copied_cache).split(None, with_tokens=True)
    done = mlalign_extract(*options, "--keep-tokens")
    assert done.exit_code == 0, done.output
    assert "new: 0 clips, 0 frames" in done.output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not verify_cache(copied_cache).problems
    found = FeatureStore.open(copied_cache).split(None, with_tokens=True)
    expected = FeatureStore.open(token_cache).split(None, with_tokens=True)
    assert np.array_equal(found.text_features, expected.text_features)
    assert np.array_equal(found.tokens.values, expected.tokens.values)
    again = mlalign_extract(*options, "--keep-tokens")
    assert "0 texts" in again.output
    recipe = ["--recipe", copied_cache, "-o", copied_cache, small_scenes]
    assert mlalign_extract(*recipe, "--workers", 1).exit_code == 0


def test_other_settings_are_refused_before_tokens_are_added(
    mlalign_extract, small_scenes, small_options, copied_cache, token_cache
):
    record = (copied_cache / "cache.json").read_bytes()
    options = [*small_options, "--keep-tokens", "--set", "dtype=float32"]
    more = mlalign_extract(small_scenes, "-o", copied_cache, *options)
    assert more.exit_code == 2
    assert "dtype: the cache has float16, this run asks for float32" in more.stderr
    assert (copied_cache / "cache.json").read_bytes() == record
    less = [small_scenes, "-o", token_cache, *small_options]
    assert mlalign_extract(*less).exit_code == 0  # as the cache has it
    refused = mlalign_extract(*less, "--set", "keep_tokens=false")
    assert "keep_tokens: the cache has True, this run asks for False" in refused.stderr


def test_a_recipe_has_tokens_kept_too(mlalign_extract, small_scenes, token_cache, tmp_path):
    options = ["--recipe", token_cache, "--set", "shard_clips=2"]
    done = mlalign_extract(small_scenes, "-o", tmp_path / "cache", *options)
    assert done.exit_code == 0, done.output
    one, two = (FeatureStore.open(path) for path in (token_cache, tmp_path / "cache"))
    assert one.record["layout"] == two.record["layout"]
    ours, theirs = one.split(None, with_tokens=True), two.split(None, with_tokens=True)
    assert np.array_equal(ours.tokens.values, theirs.tokens.values)


def test_a_lost_text_shard_is_made_again_with_its_tokens(
    mlalign_extract, small_scenes, small_options, token_cache, files_of, tmp_path
):
    cache = shutil.copytree(token_cache, tmp_path / "cache")
    next((cache / "shards").glob("texts-*.h5")).unlink()
    done = mlalign_extract(small_scenes, "-o", cache, *small_options, "--keep-tokens")
    assert done.exit_code == 0, done.output
    assert files_of(cache) == files_of(token_cache)


@pytest.mark.slow
def test_merged_and_resegmented_caches_have_the_same_tokens(
    mlalign_extract, small_scenes, small_options, token_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "SHARD_TEXTS_WITH_TOKENS", 7)
    parts = [tmp_path / "one", tmp_path / "two"]
    for number, part in enumerate(parts, start=1):
        options = [*small_options, "--keep-tokens", "--shard", f"{number}/2"]
        assert mlalign_extract(small_scenes, "-o", part, *options).exit_code == 0
        assert len(list((part / "shards").glob("texts-*.h5"))) > 1
    assert mlalign_extract("merge", *parts, "-o", tmp_path / "all").exit_code == 0
    done = mlalign_extract("resegment", tmp_path / "all", "--segments", "uniform:2")
    assert done.exit_code == 0, done.output
    assert not verify_cache(tmp_path / "all").problems
    found = FeatureStore.open(tmp_path / "all").split(None, with_tokens=True)
    expected = FeatureStore.open(token_cache).split(None, with_tokens=True)
    assert found.texts == expected.texts
    assert np.array_equal(found.tokens.offsets, expected.tokens.offsets)
    assert np.array_equal(found.tokens.values, expected.tokens.values)


def without_tokens(arrays, rows):
    del arrays["tokens/features"]


def with_a_token_that_is_not_finite(arrays, rows):
    arrays["tokens/features"][3, 5] = np.nan


def with_a_text_without_tokens(arrays, rows):
    rows[0]["num_tokens"] = None


def with_tokens_that_are_not_there(arrays, rows):
    rows[-1]["num_tokens"] += 1


def with_shared_tokens(arrays, rows):
    rows[1]["first_token_row"] -= 1


FAULTS = {
    without_tokens: "a text has tokens, and there is no array tokens/features",
    with_a_token_that_is_not_finite: "tokens/features has values that are not finite",
    with_a_text_without_tokens: "a text has no tokens, or some outside",
    with_tokens_that_are_not_there: "a text has no tokens, or some outside",
    with_shared_tokens: "two texts share tokens",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_verify_names_what_is_wrong_with_tokens(token_cache, tmp_path, fault):
    cache = shutil.copytree(token_cache, tmp_path / "cache")
    assert not verify_cache(cache).problems
    shard = next((cache / "shards").glob("texts-*.h5"))
    with h5py.File(shard) as file:
        arrays = {f"{name}/features": file[name]["features"][()] for name in file}
    index = cache / "index" / "texts" / f"{shard.stem}.parquet"
    rows = pq.read_table(index, schema=TABLES["texts"]).to_pylist()
    fault(arrays, rows)
    commit_shard(cache, "texts", shard.stem, arrays=arrays, tables={"texts": rows})
    (problem,) = verify_cache(cache).problems
    assert problem.file == f"shards/{shard.name}"
    assert FAULTS[fault] in problem.problem


@pytest.mark.parametrize("max_count", [1, 3, 1000])
def test_frames_of_a_split_are_those_of_its_clips_evenly_spread(token_cache, max_count):
    store = FeatureStore.open(token_cache)
    split = store.split("train", frames_per_clip=max_count)
    frames = split.frames
    assert split.tokens is None
    for number, clip_id in enumerate(split.clip_ids):
        row = next(row for row in store.clips.to_pylist() if row["clip_id"] == clip_id)
        with h5py.File(token_cache / "shards" / row["shard"]) as file:
            first, count = row["first_frame_row"], row["num_frames"]
            own = file["frames/features"][first : first + count]
        kept = min(max_count, count)
        places = [int((k + 0.5) * count / kept) for k in range(kept)]
        found = frames.values[frames.offsets[number] : frames.offsets[number + 1]]
        assert np.array_equal(found, own[places])


def test_rows_are_spread_as_a_loop_over_equal_parts_does():
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(1, 30, size=6)
        first = rng.integers(0, 100, size=6)
        max_count = int(rng.integers(1, 20))
        expected = []
        for start, count in zip(first, counts, strict=True):
            kept = min(max_count, count)
            expected += [start + (2 * k + 1) * count // (2 * kept) for k in range(kept)]
        assert spread_rows(first, counts, max_count=max_count).tolist() == expected


def test_nothing_is_read_that_was_not_asked_for_or_kept(small_cache, token_cache, tmp_path):
    split = FeatureStore.open(token_cache).split(None)
    assert split.frames is None
    assert split.tokens is None
    store = FeatureStore.open(small_cache)
    with pytest.raises(CacheError, match="keeps no features of\n.*extract with --keep-tokens adds"):
        store.split(None, with_tokens=True)
    store.record["layout"]["keep_frames"] = False
    with pytest.raises(CacheError) as caught:
        store.split(None, frames_per_clip=3, with_tokens=True)
    assert "frames (keep_frames is false)" in str(caught.value)
    assert "tokens (keep_tokens is false)" in str(caught.value)
