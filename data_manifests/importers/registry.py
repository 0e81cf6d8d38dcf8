"""Which importer reads the official files of a card."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..cards import Card, ImporterName
from .captions_csv import import_captions_csv
from .dataset_rows import DatasetRows
from .lsmdc import import_lsmdc
from .msrvtt import import_msrvtt
from .msvd import import_msvd
from .official_files import OfficialFiles
from .questions_csv import import_questions_csv
from .vatex import import_vatex
from .youcook2 import import_youcook2

Importer = Callable[[Card, OfficialFiles, DatasetRows], None]
"""Fills the rows from the files of the card."""


def find_importer(name: ImporterName) -> Importer:
    """The importer of that name."""
    match name:
        case "captions_csv":
            return import_captions_csv
        case "lsmdc":
            return import_lsmdc
        case "msrvtt":
            return import_msrvtt
        case "msvd":
            return import_msvd
        case "questions_csv":
            return import_questions_csv
        case "vatex":
            return import_vatex
        case "youcook2":
            return import_youcook2
        case _:
            assert_never(name)
