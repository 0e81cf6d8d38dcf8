"""--recipe: extracting the very way that another cache was extracted, or an error."""

import hashlib
import json
import shutil

import pytest

from mlalign.data_manifests.core.settings import given_settings
from mlalign.extract.cache.contract import CacheError
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.cache.writer import open_for_writing
from mlalign.extract.planning.recipe import (
    RecipeError,
    check_recipe,
    read_recipe,
    settings_by_recipe,
)


@pytest.fixture(scope="module")
def videos(make_video, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "new.mp4", [0, 500, 1000])
    return folder


@pytest.fixture
def with_checkpoint(small_cache, tmp_path):
    """A recipe whose weights came from a file."""
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"all the weights")
    content = json.loads((small_cache / "cache.json").read_text())
    settings = {**content["settings"], "backbone": "ViT-B-32"}
    settings["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = {**content["config"], "backbone": "ViT-B-32", "pretrained": "weights.pt"}
    record = {"config": config, "checkpoint": str(weights), "versions": {}}
    path = tmp_path / "recipe"
    open_for_writing(path, settings=settings, layout=content["layout"], record=record)
    return read_recipe(path), weights


def test_a_recipe_alone_gives_a_cache_of_the_same_key_and_layout(
    mlalign_extract, make_video, videos, tmp_path
):
    make_video(tmp_path / "old.mp4", [0, 500])
    options = ["--backbone", "tiny", "--fps", 3, "--segments", "uniform:3", "--segments", "fixed:1"]
    odd = ["dtype=float32", "precision=float32", "keep_frames=false", "batch_frames=5"]
    options += [part for setting in (*odd, "limits.max_samples=77") for part in ("--set", setting)]
    other = tmp_path / "other"
    assert mlalign_extract(tmp_path / "old.mp4", "-o", other, *options).exit_code == 0
    ours = tmp_path / "ours"
    done = mlalign_extract(videos, "-o", ours, "--recipe", other, "--workers", 1)
    assert done.exit_code == 0, done.output
    one, two = FeatureStore.open(ours), FeatureStore.open(other)
    assert one.key == two.key
    assert one.record["layout"] == two.record["layout"]
    for name in ("decoder", "batch_frames", "limits", "dtype"):
        assert one.record["config"][name] == two.record["config"][name]
    assert one.record["config"]["workers"] == 1
    again = mlalign_extract(videos, "-o", ours, "--recipe", other, "--json")
    assert json.loads(again.stdout)["new_clips"] == 0


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["fps=3"], "fps: the recipe has 2.0, this run asks for 3.0"),
        (["fps=1"], "fps: the recipe has 2.0, this run asks for 1.0"),  # although the default
        (["decoder=ffmpeg"], "decoder: the recipe has pyav, this run asks for ffmpeg"),
        (["dtype=float32"], "dtype: the recipe has float16, this run asks for float32"),
        (["keep_frames=false"], "keep_frames: the recipe has True, this run asks for False"),
        (["segments=[uniform:4]"], "segments: the recipe has ['spans', 'uniform:4']"),
        (
            ["backbone=ViT-B-32", "pretrained=openai"],
            "backbone: the recipe has tiny, this run asks for ViT-B-32",
        ),
    ],
)
def test_settings_that_contradict_the_recipe_are_refused_with_both_values(small_cache, given, line):
    with pytest.raises(RecipeError) as caught:
        settings_by_recipe(read_recipe(small_cache), None, given)
    assert line in str(caught.value)


def test_a_config_file_is_held_to_the_recipe_too(small_cache, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("fps: 1.0\nworkers: 7\n")  # the default is said, and contradicts
    with pytest.raises(RecipeError, match=r"fps: the recipe has 2.0, this run asks for 1.0"):
        settings_by_recipe(read_recipe(small_cache), config, [])
    config.write_text("fps: 2\nworkers: 7\nlimits: {max_samples: 5}\n")
    settings = settings_by_recipe(read_recipe(small_cache), config, ["limits.stall_seconds=9"])
    assert (settings.fps, settings.workers) == (2.0, 7)
    assert (settings.limits.max_samples, settings.limits.stall_seconds) == (5, 9)


def test_what_agrees_and_what_is_of_the_machine_may_be_said(small_cache):
    recipe = read_recipe(small_cache)
    given = ["fps=2", "backbone=tiny", "precision=auto", "device=cpu", "workers=3", "shard_clips=9"]
    settings = settings_by_recipe(recipe, None, given)
    assert settings.precision == recipe.settings["precision"]
    assert settings.segments == ("spans", "uniform:4")
    assert (settings.device, settings.workers, settings.shard_clips) == ("cpu", 3, 9)


def test_given_settings_are_those_of_the_file_and_the_overrides(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("fps: 2\nlimits:\n  max_samples: 3\n")
    assert given_settings(config, ["workers=1", "limits.x=2"]) == {"fps", "limits", "workers"}
    assert given_settings(None) == frozenset()


def test_the_checkpoint_is_found_where_it_was_or_where_it_lies_now(with_checkpoint, tmp_path):
    recipe, weights = with_checkpoint
    assert settings_by_recipe(recipe, None, []).checkpoint == weights
    moved = weights.rename(tmp_path / "moved.pt")
    with pytest.raises(RecipeError, match="cannot read the checkpoint .*--pretrained FILE"):
        settings_by_recipe(recipe, None, [])
    assert settings_by_recipe(recipe, None, [f"pretrained={moved}"]).checkpoint == moved


def test_other_weights_than_the_recipes_are_refused_with_both_digests(with_checkpoint, tmp_path):
    recipe, weights = with_checkpoint
    weights.write_bytes(b"trained on")
    found = hashlib.sha256(b"trained on").hexdigest()
    for given in ([], [f"pretrained={weights}"]):
        with pytest.raises(RecipeError) as caught:
            settings_by_recipe(recipe, None, given)
        assert found in str(caught.value)
        assert recipe.settings["weights_sha256"] in str(caught.value)
    with pytest.raises(RecipeError, match="has the checkpoint .*, this run asks for openai"):
        settings_by_recipe(recipe, None, ["pretrained=openai"])


def test_what_no_flag_says_is_compared_too(small_cache):
    """The weights behind a tag, or preprocessing, can change with no setting changed."""
    recipe = read_recipe(small_cache)
    check_recipe(recipe, {"settings": recipe.settings, "layout": recipe.layout})
    changed = {**recipe.settings, "weights_sha256": "0" * 64}
    with pytest.raises(RecipeError, match=f"weights_sha256: the recipe has .*{'0' * 64}"):
        check_recipe(recipe, {"settings": changed, "layout": recipe.layout})
    more = {**recipe.settings, "pretrained": "openai"}
    with pytest.raises(RecipeError, match="pretrained: the recipe has None, this run has openai"):
        check_recipe(recipe, {"settings": more, "layout": recipe.layout})


def test_a_contradiction_leaves_nothing_on_disk(mlalign_extract, videos, small_cache, tmp_path):
    ours = tmp_path / "ours"
    done = mlalign_extract(videos, "-o", ours, "--recipe", small_cache, "--fps", 5)
    assert done.exit_code == 2
    assert "fps: the recipe has 2.0, this run asks for 5.0" in done.stderr
    assert not ours.exists()


def test_a_recipe_that_is_no_whole_cache_is_wrong_usage(
    mlalign_extract, videos, copied_cache, small_scenes, tmp_path
):
    for path in (tmp_path / "nowhere", small_scenes):
        done = mlalign_extract(videos, "-o", tmp_path / "c", "--recipe", path)
        assert done.exit_code == 2 and f"{path} is not a feature cache" in done.stderr
    record = copied_cache / "cache.json"
    content = json.loads(record.read_text())
    del content["config"]
    record.write_text(json.dumps(content))
    with pytest.raises(CacheError, match="does not tell how it was made"):
        read_recipe(copied_cache)
    record.write_text("{}")
    done = mlalign_extract(videos, "-o", tmp_path / "c", "--recipe", copied_cache)
    assert done.exit_code == 2 and "damaged" in done.stderr
    assert not (tmp_path / "c").exists()


def test_the_recipe_is_in_the_cache(small_cache):
    record = FeatureStore.open(small_cache).record
    assert record["settings"].keys() >= {
        *("backbone", "weights_sha256", "preprocessing", "precision", "fps", "dtype", "width")
    }
    assert record["layout"].keys() >= {"segments", "keep_frames"}
    assert record.keys() >= {"config", "checkpoint", "inputs", "decoder", "device", "command"}
    assert record["versions"].keys() >= {"av", "torch", "open_clip_torch", "libavcodec", "mlalign"}


def test_the_version_of_the_ffmpeg_program_is_kept_where_it_decodes():
    from mlalign.extract.config import ExtractConfig
    from mlalign.extract.run_stats import versions

    assert versions(ExtractConfig(decoder="ffmpeg"))["ffmpeg"].startswith("ffmpeg version")
    assert "ffmpeg" not in versions(ExtractConfig(decoder="pyav"))


@pytest.mark.slow
def test_features_by_recipe_are_those_of_the_recipe_whatever_the_path_of_the_weights(
    mlalign_extract, videos, tmp_path
):
    import open_clip
    import torch

    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), weights)
    other, ours = tmp_path / "other", tmp_path / "ours"
    options = ["--backbone", "ViT-S-32-alt", "--pretrained", weights, "--workers", 1]
    assert mlalign_extract(videos, "-o", other, *options).exit_code == 0
    moved = shutil.move(weights, tmp_path / "elsewhere.pt")
    done = mlalign_extract(videos, "-o", ours, "--recipe", other)
    assert done.exit_code == 2 and "cannot read the checkpoint" in done.stderr
    done = mlalign_extract(videos, "-o", ours, "--recipe", other, "--pretrained", moved)
    assert done.exit_code == 0, done.output
    one, two = FeatureStore.open(ours), FeatureStore.open(other)
    assert one.key == two.key
    assert (one.split(None).clip_features == two.split(None).clip_features).all()
