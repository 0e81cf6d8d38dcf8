"""YAML read strictly: 1e-3 is a number, dates stay text, a key given twice is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import SettingsError


class StrictLoader(yaml.SafeLoader):
    """Reads YAML by these rules."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", node.value[index][0].start_mark
                )
        return super().construct_mapping(node, deep=deep)


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(config: Path) -> dict[Any, Any]:
    """The mapping in a YAML file; SettingsError for an unreadable one."""
    try:
        tree = yaml.load(config.read_text(encoding="utf-8-sig"), Loader=StrictLoader)
    except OSError as error:
        raise SettingsError(f"cannot read the settings {config}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config} is not valid YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{config}: expected settings as 'name: value', got {value_text(tree)}")
    return tree


@dataclass(frozen=True)
class OverrideText:
    """The text of an override: its YAML reading is tried first, then the text itself."""

    text: str

    def readings(self) -> Iterator[Any]:
        try:
            yield yaml.load(self.text, Loader=StrictLoader)
        except yaml.YAMLError:
            pass
        yield self.text


def value_text(value: Any) -> str:
    """A value for a message, shortened."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
