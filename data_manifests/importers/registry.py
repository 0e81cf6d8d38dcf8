"""Which importer reads the official files of a card."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..cards import Card, ImporterName
from .dataset_rows import DatasetRows
from .official_files import OfficialFiles

Importer = Callable[[Card, OfficialFiles, DatasetRows], None]
"""Fills the rows from the files of the card."""


def find_importer(name: ImporterName) -> Importer:
    """The importer of that name."""
    match name:
        case "msrvtt":
            from .msrvtt import import_msrvtt

            return import_msrvtt
        case _:
            assert_never(name)
