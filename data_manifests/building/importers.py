"""Which importer reads the official files of a card."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..cards.card import Card, ImporterName
from ..importers.activitynet import import_activitynet_captions, import_activitynet_qa
from ..importers.clip_captions import import_lsmdc, import_lsmdc_choice, import_msvd, import_vatex
from ..importers.clip_questions import import_next_qa, import_xu_qa
from ..importers.didemo import import_didemo
from ..importers.how2 import import_how2qa, import_how2r
from ..importers.msrvtt import import_msrvtt, import_msrvtt_choice
from ..importers.own_csv import import_captions_csv, import_moments_csv, import_questions_csv
from ..importers.qvhighlights import import_qvhighlights
from ..importers.sentence_moments import import_charades_sta, import_tacos
from ..importers.tv import import_tvqa, import_tvr, import_vlep
from ..importers.violin import import_violin
from ..importers.youcook2 import import_youcook2

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
