"""Numbers with intervals of a cache and its runs, or of similarities from any other program.

The names in `__all__` are the public ones (docs/python.md); importing this package imports none of
their modules.
"""

from typing import TYPE_CHECKING

if __name__ == "evaluate":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.evaluate; set PYTHONSAFEPATH=1 or run from another folder"
    )

if TYPE_CHECKING:
    from .api import report
    from .config import EvaluationConfig
    from .evaluation import Evaluation, evaluate
    from .own_scores import evaluate_scores, rank_metrics

    __version__: str
else:
    from ..data_manifests.core.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Evaluation": "evaluation",
            "EvaluationConfig": "config",
            "evaluate": "evaluation",
            "evaluate_scores": "own_scores",
            "rank_metrics": "own_scores",
            "report": "api",
        },
    )

__all__ = [
    "__version__",
    "Evaluation",
    "EvaluationConfig",
    "evaluate",
    "evaluate_scores",
    "rank_metrics",
    "report",
]
