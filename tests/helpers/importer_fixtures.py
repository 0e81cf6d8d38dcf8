"""What an importer's test needs: annotation files in the official shape, and what is reported.

The files are written by us, small, with the kinds of dirt that the real ones have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlalign.data_manifests.cards.card import Card, load_card

BLANKS = "blanks around a text, or line ends in it, taken off"


@dataclass(frozen=True, kw_only=True)
class Fixture:
    files: dict[str, str | bytes]
    mended: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    of: str | None = None
    """The card, where several fixtures are of one."""
    own_card: str | None = None
    """YAML of a card that does not come with mlalign."""

    def card(self, name: str, folder: Path) -> Card:
        """The card of the fixture, written into the folder if it is its own."""
        if self.own_card is None:
            return load_card(self.of or name)
        path = folder / f"{name}.yaml"
        path.write_text(f"name: {name}\n{self.own_card}")
        return load_card(str(path))

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(*items: Any) -> str:
    """JSON Lines."""
    return "".join(json.dumps(item) + "\n" for item in items)
