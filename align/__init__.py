"""Alignment heads trained on a feature cache, and finished runs.

The names in `__all__` are the public ones (docs/python.md); importing this package imports none of
their modules.
"""

from typing import TYPE_CHECKING

if __name__ == "align":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.align; set PYTHONSAFEPATH=1 or run from another folder"
    )

if TYPE_CHECKING:
    from .api import fit
    from .config import DataConfig, OptimiserConfig, RunConfig, ValidationConfig
    from .head_config import HeadConfig, HeadsConfig
    from .loss_config import LossConfig, TaskConfig
    from .model.heads import register_head
    from .objective.contrast import register_loss
    from .runs.checkpoint import Run, RunError, load_run

    __version__: str
else:
    from ..data_manifests.core.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "DataConfig": "config",
            "HeadConfig": "head_config",
            "HeadsConfig": "head_config",
            "LossConfig": "loss_config",
            "OptimiserConfig": "config",
            "Run": "runs.checkpoint",
            "RunConfig": "config",
            "RunError": "runs.checkpoint",
            "TaskConfig": "loss_config",
            "ValidationConfig": "config",
            "fit": "api",
            "load_run": "runs.checkpoint",
            "register_head": "model.heads",
            "register_loss": "objective.contrast",
        },
    )

__all__ = [
    "__version__",
    "DataConfig",
    "HeadConfig",
    "HeadsConfig",
    "LossConfig",
    "OptimiserConfig",
    "Run",
    "RunConfig",
    "RunError",
    "TaskConfig",
    "ValidationConfig",
    "fit",
    "load_run",
    "register_head",
    "register_loss",
]
