"""Extracting the way another cache was extracted: its settings, its weights, or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...data_manifests.core.settings import given_settings, load_settings, settings_dict
from ..cache.contract import CacheError, cache_key, read_settings
from ..cache.writer import setting_differences
from ..config import TINY, ExtractConfig
from ..decode.sources import file_sha256

OF_THE_MACHINE: Final = ("device", "workers", "shard_clips", "engine", "ray")
"""Settings that a recipe does not hold: they change no feature."""
WITH_DEFAULTS: Final = ("batch_frames", "limits")
"""Settings that come from the recipe and may be set otherwise: they change no feature that is meant
to be the same."""


class RecipeError(CacheError):
    """A recipe cannot be followed: it is contradicted, or its weights are not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What cache.json says of how its features were made."""

    cache: Path
    key: str
    settings: Mapping[str, Any]
    """That make the key."""
    layout: Mapping[str, Any]
    config: Mapping[str, Any]
    """All settings of the run that made the cache, as they were resolved."""
    checkpoint: Path | None
    """The file of the weights at that time; None for tiny and for pretrained tags."""
    versions: Mapping[str, str]

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the weights came from a file that the user named."""
        return self.settings["backbone"] != TINY and "pretrained" not in self.settings

    @property
    def bound(self) -> dict[str, Any]:
        """Settings, as plain values, that a run by this recipe must have; `pretrained` apart where
        that is a file."""
        exact = {
            **self.config,
            "precision": self.settings["precision"],
            "pretrained": self.settings.get("pretrained"),
            **{name: self.layout[name] for name in self.layout if name in self.config},
        }
        left_out = {*OF_THE_MACHINE, *WITH_DEFAULTS}
        if self.needs_checkpoint:
            left_out.add("pretrained")
        return {name: value for name, value in exact.items() if name not in left_out}


def read_recipe(cache: Path) -> Recipe:
    """Raises CacheError when there is no cache, or one that does not tell its recipe."""
    content = read_settings(cache)
    if "source" in content["settings"]:
        raise RecipeError(
            f"the features of {cache} were imported from {content['settings']['source']}: mlalign "
            "does not know the backbone that made them, and can neither extract nor encode texts "
            "in its way"
        )
    try:
        checkpoint = content["checkpoint"]
        return Recipe(
            cache=cache,
            key=content["key"],
            settings=content["settings"],
            layout=content["layout"],
            config=content["config"],
            checkpoint=None if checkpoint is None else Path(checkpoint),
            versions=content["versions"],
        )
    except KeyError as error:
        raise RecipeError(
            f"{cache} does not tell how it was made: its cache.json has no {error.args[0]}"
        ) from error


def settings_by_recipe(
    recipe: Recipe, config: Path | None, overrides: Sequence[str]
) -> ExtractConfig:
    """The settings of a run: the recipe's, with those on top that a recipe leaves open.

    config, overrides: as of `load_settings`. Raises SettingsError for wrong ones, RecipeError for
    those that contradict the recipe (all of them, with both values) and when the weights are not
    the recipe's.
    """
    given = given_settings(config, overrides)
    asked = load_settings(ExtractConfig, config, overrides)
    _refuse_contradictions(recipe, asked, given)
    taken = dict(recipe.bound)
    taken |= {
        name: recipe.config[name]
        for name in WITH_DEFAULTS
        if name in recipe.config and name not in given
    }
    if recipe.needs_checkpoint:
        taken["pretrained"] = str(_checkpoint(recipe, asked if "pretrained" in given else None))
    by_recipe = [f"{name}={json.dumps(value)}" for name, value in taken.items()]
    own = [text for text in overrides if text.partition("=")[0].strip() not in taken]
    return load_settings(ExtractConfig, config, (*by_recipe, *own))


def check_recipe(recipe: Recipe, made: Mapping[str, Any]) -> None:
    """Raises RecipeError, naming each difference, when a cache would not be the recipe's.

    made: its settings (all that make the key) and layout, as in cache.json. What differs here is
    what no flag says: the weights behind a tag, or how this machine's libraries preprocess.
    """
    settings, layout = made["settings"], made["layout"]
    if cache_key(dict(settings)) == recipe.key and not _differences(recipe.layout, layout):
        return
    raise RecipeError(
        "\n".join(
            [
                f"what this run would do is not the recipe of {recipe.cache}; nothing was written:",
                *_differences(recipe.settings, settings),
                *_differences(recipe.layout, layout),
            ]
        )
    )


def other_versions(recipe: Recipe, versions: Mapping[str, str]) -> list[str]:
    """ "name 1 (the recipe has 2)" for each library that is not of the recipe's version."""
    return [
        f"{name} {version} (the recipe has {recipe.versions[name]})"
        for name, version in versions.items()
        if recipe.versions.get(name, version) != version
    ]


def _refuse_contradictions(recipe: Recipe, asked: ExtractConfig, given: frozenset[str]) -> None:
    wanted = {name: value for name, value in settings_dict(asked).items() if name in given}
    if wanted.get("precision") == "auto" or wanted.get("segments") == []:
        wanted = {k: v for k, v in wanted.items() if k not in ("precision", "segments")}
    bound = recipe.bound
    lines = [
        f"  {name}: the recipe has {bound[name]}, this run asks for {value}"
        for name, value in wanted.items()
        if name in bound and bound[name] != value
    ]
    if recipe.needs_checkpoint and "pretrained" in given and asked.checkpoint is None:
        lines.append(
            f"  pretrained: the recipe has the checkpoint {recipe.checkpoint}, this run asks for "
            f"{asked.pretrained}"
        )
    if lines:
        raise RecipeError(
            "\n".join(
                [
                    f"the settings contradict the recipe of {recipe.cache}; nothing was written:",
                    *lines,
                    "  leave them out, or leave out --recipe",
                ]
            )
        )


def _checkpoint(recipe: Recipe, asked: ExtractConfig | None) -> Path:
    """The file of the recipe's weights: the one that is asked for, or where it was."""
    path = recipe.checkpoint if asked is None else asked.checkpoint
    wanted = recipe.settings["weights_sha256"]
    way_out = f"say where it lies now with --pretrained FILE (its SHA-256 is {wanted})"
    if path is None:
        raise RecipeError(f"the recipe of {recipe.cache} does not tell its checkpoint; {way_out}")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise RecipeError(
            f"cannot read the checkpoint {path} of the recipe of {recipe.cache} "
            f"({error.strerror}); {way_out}"
        ) from error
    if found != wanted:
        raise RecipeError(
            f"the weights differ from the recipe's of {recipe.cache}; nothing was written:\n"
            f"  weights_sha256: the recipe has {wanted}, {path} has {found}\n"
            f"  if the right file was moved, {way_out}"
        )
    return path


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    either = {name: asked.get(name) for name in (*found, *asked)}
    return [
        f"  {name}: the recipe has {has}, this run has {asks}"
        for name, has, asks in setting_differences(found, either)
    ]
