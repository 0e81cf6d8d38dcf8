"""Strict settings: YAML and `key=value` overrides into a tree of frozen dataclasses and back."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from .atomic_write import atomic_write
from .errors import SettingsError, UserError
from .strict_yaml import OverrideText, read_yaml, value_text

T = TypeVar("T")


def load_settings(
    cls: type[T],
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    below: Mapping[str, Any] | None = None,
) -> T:
    """An instance of the dataclass `cls` from a YAML file, with overrides on top.

    config: a YAML mapping, or None for the defaults.   overrides: "a.b=value", value in YAML.
    below: settings that hold where neither of them says anything, instead of the defaults.
    Raises SettingsError with every fault at once: unknown keys (with the nearest right name),
    wrong types, missing required settings, and the ValueErrors of each `__post_init__`.
    """
    faults: list[str] = []
    tree = {} if config is None else read_yaml(Path(config))
    if below is not None:
        tree = _laid_over(tree, below)
    for override in overrides:
        _apply(override, tree, faults)
    source = "the settings" if config is None else f"the settings ({config})"
    return settings_of(cls, tree, source=source, faults=faults)


def settings_of(
    cls: type[T], tree: Mapping[Any, Any], *, source: str, faults: Sequence[str] = ()
) -> T:
    """An instance of the dataclass `cls` from nested mappings; see `load_settings`.

    source: what they are, for messages.   faults: those that are known already.
    """
    faults = list(faults)
    value = _build(cls, tree, path="", faults=faults, names=tuple(_setting_names(cls)))
    if faults:
        count = f"{len(faults)} problem{'s' if len(faults) > 1 else ''} in {source}:"
        raise SettingsError("\n  ".join([count, *faults]))
    assert isinstance(value, cls)
    return value


def given_settings(config: Path | None, overrides: Sequence[str] = ()) -> frozenset[str]:
    """Names of the settings (groups as a whole) that the YAML file and the overrides set.

    They are not checked here: `load_settings` does. Raises SettingsError for an unreadable file.
    """
    tree = {} if config is None else read_yaml(config)
    for override in overrides:
        _apply(override, tree, [])
    return frozenset(map(str, tree))


def settings_dict(settings: Any) -> dict[str, Any]:
    """The settings as plain dicts, lists, strings and numbers, for YAML or JSON."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def save_settings(settings: Any, path: Path) -> None:
    """Write the settings as YAML; `load_settings(type(settings), path)` gives them back."""
    text = yaml.safe_dump(settings_dict(settings), sort_keys=False, allow_unicode=True)
    atomic_write(path, text)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return settings_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _laid_over(tree: Mapping[Any, Any], below: Mapping[Any, Any]) -> dict[Any, Any]:
    """The settings of `tree`, and of `below` those that it lacks, group by group."""
    merged = {**below, **tree}
    for name in set(tree) & set(below):
        if isinstance(tree[name], Mapping) and isinstance(below[name], Mapping):
            merged[name] = _laid_over(tree[name], below[name])
    return merged


def _apply(override: str, tree: dict[Any, Any], faults: list[str]) -> None:
    key, equals, text = override.partition("=")
    *parents, name = key.strip().split(".")
    if not equals or not all([*parents, name]):
        faults.append(f"{override!r}: expected name=value or group.name=value")
        return
    for parent in parents:
        below = tree.get(parent)
        if isinstance(below, OverrideText):
            below = next(below.readings())
        tree[parent] = dict(below) if isinstance(below, dict) else {}
        tree = tree[parent]
    tree[name] = OverrideText(text.strip())


def _setting_names(cls: Any, prefix: str = "") -> Iterator[str]:
    """Every setting by its full name, groups included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield prefix + field.name
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(kind):
                yield from _setting_names(kind, f"{prefix}{field.name}.")


def _build(
    cls: Any, tree: Mapping[Any, Any], *, path: str, faults: list[str], names: tuple[str, ...]
) -> Any:
    """An instance of `cls`, or None when that is impossible; the reasons go to `faults`."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in tree:
        if key not in fields:
            faults.append(f"{path}{key}: no such setting{_suggestion(f'{path}{key}', names)}")
    values: dict[str, Any] = {}
    complete = True
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if name in tree:
            before = len(faults)
            value = _convert(
                tree[name], hints[name], path=f"{path}{name}", faults=faults, names=names
            )
            if len(faults) == before:
                values[name] = value
                continue
            # The default stands in, so that the checks of the other settings still speak.
        elif required:
            faults.append(f"{path}{name}: required, but not given")
        complete = complete and not required
    if not complete:
        return None
    try:
        return cls(**values)
    except (ValueError, UserError) as error:
        faults.append(f"{path[:-1]}: {error}" if path else str(error))
        return None


def _suggestion(name: str, names: Sequence[str]) -> str:
    name = re.sub(r"\[\d+\]", "", name)  # names have no places in lists
    group, _, leaf = name.rpartition(".")
    siblings = [n for n in names if n.rpartition(".")[0] == group]
    near = difflib.get_close_matches(name, siblings, n=1) or difflib.get_close_matches(
        leaf, [n.rpartition(".")[2] for n in names], n=1, cutoff=0.8
    )
    if not near:
        return f"; there are: {', '.join(siblings)}" if siblings else ""
    full = next(n for n in (*siblings, *names) if near[0] in (n, n.rpartition(".")[2]))
    return f"; did you mean {full}?"


def _convert(value: Any, hint: Any, *, path: str, faults: list[str], names: tuple[str, ...]) -> Any:
    """`value` as the type `hint`; what does not fit is said in `faults`."""
    if isinstance(value, OverrideText):
        attempts = []
        for reading in value.readings():
            attempt: list[str] = []
            result = _convert(reading, hint, path=path, faults=attempt, names=names)
            if not attempt:
                return result
            attempts.append(attempt)
        faults.extend(attempts[0])
        return None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for member in args:
            if member is type(None) and value is None:
                return None
        members = [member for member in args if member is not type(None)]
        for member in members:
            attempt = []
            result = _convert(value, member, path=path, faults=attempt, names=names)
            if not attempt:
                return result
        # One real alternative: its own words say more than "expected A or null".
        faults.extend(attempt if len(members) == 1 else [_expected(path, hint, value)])
        return None
    if origin is tuple and isinstance(value, list | tuple):
        open_ended = len(args) == 2 and args[1] is Ellipsis
        if open_ended or len(args) == len(value):
            kinds = [args[0]] * len(value) if open_ended else list(args)
            return tuple(
                _convert(item, kind, path=f"{path}[{index}]", faults=faults, names=names)
                for index, (item, kind) in enumerate(zip(value, kinds, strict=True))
            )
    elif origin is Mapping and isinstance(value, dict):
        return _converted_mapping(value, args[1], path=path, faults=faults, names=names)
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _build(hint, value, path=f"{path}.", faults=faults, names=names)
    elif _is_scalar(value, hint):
        return Path(value) if hint is Path else float(value) if hint is float else value
    faults.append(_expected(path, hint, value))
    return None


def _converted_mapping(
    value: Mapping[Any, Any], kind: Any, *, path: str, faults: list[str], names: tuple[str, ...]
) -> dict[str, Any]:
    """The values as `kind`, under names that are text."""
    for name in value:
        if not isinstance(name, str):
            faults.append(f"{path}: expected names that are text, got {value_text(name)}")
    return {
        name: _convert(item, kind, path=f"{path}.{name}", faults=faults, names=names)
        for name, item in value.items()
    }


def _is_scalar(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if typing.get_origin(hint) is Literal:
        return any(type(value) is type(arg) and value == arg for arg in typing.get_args(hint))
    if hint is float:
        if type(value) is int:
            return abs(value) <= sys.float_info.max
        return isinstance(value, float) and math.isfinite(value)
    if hint is Path:
        return isinstance(value, str | Path) and str(value) != ""
    return hint in (int, str, bool) and type(value) is hint


def _expected(path: str, hint: Any, value: Any) -> str:
    return f"{path}: expected {_kind(hint)}, got {value_text(value)}"


def _kind(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin is Mapping:
        return "a group of names and values"
    if origin is tuple:
        return f"a list of {_kind(args[0])}" if args[-1] is Ellipsis else f"{len(args)} values"
    if dataclasses.is_dataclass(hint):
        return "a group of settings"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return {**words, Path: "a path", type(None): "null"}.get(hint, str(hint))
