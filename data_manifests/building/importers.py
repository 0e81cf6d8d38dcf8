"""Which importer reads the official files of a card."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..cards.card import Card, ImporterName
from ..importers.moments.charades_sta import import_charades_sta
from ..importers.moments.didemo import import_didemo
from ..importers.moments.how2r import import_how2r
from ..importers.moments.moments_csv import import_moments_csv
from ..importers.moments.qvhighlights import import_qvhighlights
from ..importers.moments.tacos import import_tacos
from ..importers.moments.tvr import import_tvr
from ..importers.questions.activitynet_qa import import_activitynet_qa
from ..importers.questions.how2qa import import_how2qa
from ..importers.questions.lsmdc_choice import import_lsmdc_choice
from ..importers.questions.msrvtt_choice import import_msrvtt_choice
from ..importers.questions.next_qa import import_next_qa
from ..importers.questions.questions_csv import import_questions_csv
from ..importers.questions.tvqa import import_tvqa
from ..importers.questions.violin import import_violin
from ..importers.questions.vlep import import_vlep
from ..importers.questions.xu_qa import import_xu_qa
from ..importers.retrieval.activitynet_captions import import_activitynet_captions
from ..importers.retrieval.captions_csv import import_captions_csv
from ..importers.retrieval.lsmdc import import_lsmdc
from ..importers.retrieval.msrvtt import import_msrvtt
from ..importers.retrieval.msvd import import_msvd
from ..importers.retrieval.vatex import import_vatex
from ..importers.retrieval.youcook2 import import_youcook2

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
