"""Videos and texts into a feature cache, and the read side of that cache.

The names in `__all__` are the public ones (docs/python.md); importing this package imports none of
their modules.
"""

from typing import TYPE_CHECKING

if __name__ == "extract":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.extract; set PYTHONSAFEPATH=1 or run from another folder"
    )

if TYPE_CHECKING:
    from .api import extract
    from .cache.contract import CacheError
    from .cache.split_features import SplitFeatures
    from .cache.store import FeatureStore
    from .config import ExtractConfig
    from .run_stats import ExtractSummary

    __version__: str
else:
    from ..data_manifests.core.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "CacheError": "cache.contract",
            "ExtractConfig": "config",
            "ExtractSummary": "run_stats",
            "FeatureStore": "cache.store",
            "SplitFeatures": "cache.split_features",
            "extract": "api",
        },
    )

__all__ = [
    "__version__",
    "CacheError",
    "ExtractConfig",
    "ExtractSummary",
    "FeatureStore",
    "SplitFeatures",
    "extract",
]
