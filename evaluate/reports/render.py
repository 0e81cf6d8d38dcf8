"""Pages from templates: one engine and one look for all of them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from ...data_manifests.core.atomic_write import atomic_write


def write_page_of(template: str, path: Path, content: dict[str, Any]) -> None:
    """Fill a template of evaluate/reports/templates and write the page, whole or not at all.

    Texts are escaped; a name that the content lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**content)
    atomic_write(path, page)


def _template(name: str) -> str:
    return files("mlalign.evaluate.reports").joinpath("templates", name).read_text("utf-8")
