"""What a dataset is: manifests, cards of benchmarks, and their checks.

The names in `__all__` are the public ones (docs/python.md); importing this package imports none of
their modules.
"""

from typing import TYPE_CHECKING

if __name__ == "data_manifests":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.data_manifests; set PYTHONSAFEPATH=1 or run from another folder"
    )

if TYPE_CHECKING:
    from .cards.card import Card, card_names, load_card
    from .core.errors import ManifestError, SettingsError, UserError
    from .core.settings import load_settings
    from .tables.reader import read_manifest, write_manifest
    from .tables.schema import Manifest

    __version__: str
else:
    from .core.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Card": "cards.card",
            "Manifest": "tables.schema",
            "ManifestError": "core.errors",
            "SettingsError": "core.errors",
            "UserError": "core.errors",
            "card_names": "cards.card",
            "load_card": "cards.card",
            "load_settings": "core.settings",
            "read_manifest": "tables.reader",
            "write_manifest": "tables.reader",
        },
    )

__all__ = [
    "__version__",
    "Card",
    "Manifest",
    "ManifestError",
    "SettingsError",
    "UserError",
    "card_names",
    "load_card",
    "load_settings",
    "read_manifest",
    "write_manifest",
]
