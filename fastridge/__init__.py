"""Ridge regression on large dense and sparse data: fast, in little memory, with certified accuracy.

>>> from fastridge import Ridge
>>> model = Ridge(alpha=1.0).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
>>> model.report_.status
<Status.CONVERGED: 'converged'>
"""

from importlib import import_module
from typing import TYPE_CHECKING

from fastridge._version import __version__
from fastridge.functional import explain, ridge
from fastridge.moments import Moments, Score
from fastridge.monitor import Progress
from fastridge.path import RidgePath, ridge_path
from fastridge.planning.planner import Plan
from fastridge.scales import (
    alpha_from_C,
    alpha_from_glmnet,
    alpha_from_mean_loss,
    alpha_from_spark,
    alpha_to_C,
    alpha_to_glmnet,
    alpha_to_mean_loss,
    alpha_to_spark,
)
from fastridge.solution import FitReport, Solution, Status

if TYPE_CHECKING:
    from fastridge.classifier import RidgeClassifier
    from fastridge.estimators import Ridge
    from fastridge.io.scan import scan
    from fastridge.model_file import load, save
    from fastridge.ridge_cv import RidgeClassifierCV, RidgeCV
    from fastridge.selection.choice import Choice

__all__ = [
    "Choice",
    "FitReport",
    "Moments",
    "Plan",
    "Progress",
    "Ridge",
    "RidgeCV",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "RidgePath",
    "Score",
    "Solution",
    "Status",
    "__version__",
    "alpha_from_C",
    "alpha_from_glmnet",
    "alpha_from_mean_loss",
    "alpha_from_spark",
    "alpha_to_C",
    "alpha_to_glmnet",
    "alpha_to_mean_loss",
    "alpha_to_spark",
    "explain",
    "load",
    "ridge",
    "ridge_path",
    "save",
    "scan",
]

_LAZY = {  # these load scikit-learn, or what few need
    "Choice": "fastridge.selection.choice",
    "Ridge": "fastridge.estimators",
    "RidgeClassifier": "fastridge.classifier",
    "RidgeCV": "fastridge.ridge_cv",
    "RidgeClassifierCV": "fastridge.ridge_cv",
    "load": "fastridge.model_file",
    "save": "fastridge.model_file",
    "scan": "fastridge.io.scan",
}

if not TYPE_CHECKING:  # a type checker that saw it would take every name for one of ours

    def __getattr__(name):
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module 'fastridge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
