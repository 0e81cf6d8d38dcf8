"""Which importer reads the official files of a card."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..cards import Card, ImporterName
from .activitynet_captions import import_activitynet_captions
from .activitynet_qa import import_activitynet_qa
from .captions_csv import import_captions_csv
from .charades_sta import import_charades_sta
from .dataset_rows import DatasetRows
from .didemo import import_didemo
from .how2qa import import_how2qa
from .how2r import import_how2r
from .lsmdc import import_lsmdc
from .lsmdc_choice import import_lsmdc_choice
from .moments_csv import import_moments_csv
from .msrvtt import import_msrvtt
from .msrvtt_choice import import_msrvtt_choice
from .msvd import import_msvd
from .next_qa import import_next_qa
from .official_files import OfficialFiles
from .questions_csv import import_questions_csv
from .qvhighlights import import_qvhighlights
from .tacos import import_tacos
from .tvqa import import_tvqa
from .tvr import import_tvr
from .vatex import import_vatex
from .violin import import_violin
from .vlep import import_vlep
from .xu_qa import import_xu_qa
from .youcook2 import import_youcook2

Importer = Callable[[Card, OfficialFiles, DatasetRows], None]
"""Fills the rows from the files of the card."""


def find_importer(name: ImporterName) -> Importer:
    """The importer of that name."""
    match name:
        case "activitynet_captions":
            return import_activitynet_captions
        case "activitynet_qa":
            return import_activitynet_qa
        case "captions_csv":
            return import_captions_csv
        case "charades_sta":
            return import_charades_sta
        case "didemo":
            return import_didemo
        case "how2qa":
            return import_how2qa
        case "how2r":
            return import_how2r
        case "lsmdc":
            return import_lsmdc
        case "lsmdc_choice":
            return import_lsmdc_choice
        case "moments_csv":
            return import_moments_csv
        case "msrvtt":
            return import_msrvtt
        case "msrvtt_choice":
            return import_msrvtt_choice
        case "msvd":
            return import_msvd
        case "next_qa":
            return import_next_qa
        case "questions_csv":
            return import_questions_csv
        case "qvhighlights":
            return import_qvhighlights
        case "tacos":
            return import_tacos
        case "tvqa":
            return import_tvqa
        case "tvr":
            return import_tvr
        case "vatex":
            return import_vatex
        case "violin":
            return import_violin
        case "vlep":
            return import_vlep
        case "xu_qa":
            return import_xu_qa
        case "youcook2":
            return import_youcook2
        case _:
            assert_never(name)
