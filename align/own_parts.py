"""Heads and losses from outside of the package: registered by name, or as module:attribute."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

from ..data_manifests.core.errors import SettingsError
from .config import RunConfig
from .head_config import HeadName
from .loss_config import LossName

T = TypeVar("T")


class PartError(SettingsError):
    """A head or a loss that cannot be found, or does not do what one must."""


class Registry:
    """Parts of one kind by name, beside the built-in ones."""

    def __init__(self, kind: str, built_in: Sequence[str]) -> None:
        self._kind = kind
        self._built_in = tuple(built_in)
        self._registered: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that makes a part known under a name.

        Raises ValueError for a built-in name, one with a colon, and one that another part has.
        """
        if name in self._built_in or ":" in name or not name:
            raise ValueError(
                f"expected a new name for the {self._kind}, without a colon and other than "
                f"{', '.join(self._built_in)}; got {name!r}"
            )

        def decorate(part: T) -> T:
            known = self._registered.get(name)
            if known is not None and _address(known) != _address(part):  # not a reloaded module
                raise ValueError(f"the name {name!r} is taken by {self._kind} {_address(known)}")
            self._registered[name] = part
            return part

        return decorate

    def check(self, name: str) -> None:
        """Raise PartError for a name that nothing can have. Imports nothing."""
        known = [*self._built_in, *self._registered]
        if name in known or ":" in name:
            return
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise PartError(
            f"no {self._kind} is called {name!r}; {hint}Known: {', '.join(known)}. Import the "
            f"module that registers your own {self._kind} first, or write module:attribute"
        )

    def find(self, name: str) -> Any:
        """The part of that name, registered or module:attribute. Raises PartError."""
        self.check(name)
        if name in self._registered:
            return self._registered[name]
        module_name, _, attribute = name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as error:
            raise PartError(
                f"{self._kind} {name!r}: cannot import {module_name!r} ({error}); install it, or "
                f"add its folder to PYTHONPATH"
            ) from error
        if not hasattr(module, attribute):
            near = difflib.get_close_matches(attribute, dir(module), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PartError(f"{self._kind} {name!r}: {module_name} has no {attribute!r}{hint}")
        return getattr(module, attribute)


HEADS = Registry("head", get_args(HeadName))
LOSSES = Registry("loss", get_args(LossName))


def check_names(config: RunConfig) -> None:
    """Raise PartError for unknown heads and losses, before anything heavy is imported."""
    for setting, registry, name in (
        ("heads.video.name", HEADS, config.heads.video.name),
        ("heads.text.name", HEADS, config.heads.text.name),
        ("losses.name", LOSSES, config.losses.name),
    ):
        try:
            registry.check(name)
        except PartError as error:
            raise PartError(f"{setting}: {error}") from error


def _address(part: object) -> str:
    return f"{getattr(part, '__module__', '?')}:{getattr(part, '__qualname__', part)}"
