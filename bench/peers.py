"""List who is measured: fastridge, with "auto" and with each solver asked for by name, and scikit-learn's Ridge.

A contender fits (X, y, alpha) as a user would call it, everything included, and says what it claims about its accuracy.
fastridge runs at its default tol. scikit-learn's iterative solvers get the loosest tol that reaches the target accuracy
on the case at hand (`loosest_tol`), since their tol bounds other things; its default is a contender of its own.

Another package is one more `Contender` here: it needs the same penalty, an unpenalised intercept and a `coef_`.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse
from sklearn.linear_model import Ridge

from bench.cases import Data

TOLS = [10.0**-k for k in range(2, 15)]


@dataclass(frozen=True)
class Answer:
    """Hold what a fit returned: coef (p,) or (k, p), its intercept, and what it says of itself."""

    coef: np.ndarray
    intercept: float | np.ndarray
    solver: str
    n_iter: int | None = None
    status: str | None = None
    claimed_error: float | None = None
    claimed_bound: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Contender:
    """Name one way to fit; `fit(data, tol)` runs it, with its own default where tol is None."""

    name: str
    fit: Callable[[Data, float | None], Answer]
    takes: Callable[[Data], bool] = lambda data: True
    is_tuned: bool = False  # tol is searched for

    @property
    def is_ours(self) -> bool:
        """Tell whether this is fastridge."""
        return self.name.startswith("fastridge")


def contenders() -> list[Contender]:
    """List all contenders, ours first."""
    return [
        Contender("fastridge", partial(_fastridge, "auto")),
        Contender("fastridge-cholesky", partial(_fastridge, "cholesky"), takes=_has_small_side),
        Contender("fastridge-svd", partial(_fastridge, "svd"), takes=_is_small_enough_for_svd),
        Contender("fastridge-cg", partial(_fastridge, "cg")),
        Contender("fastridge-cd", partial(_fastridge, "cd"), takes=_is_small_enough_for_cd),
        Contender("sklearn-default", partial(_sklearn, "auto")),
        Contender("sklearn-cholesky", partial(_sklearn, "cholesky"), takes=_is_dense),
        Contender("sklearn-cholesky-f64", partial(_sklearn_float64, "cholesky"), takes=_is_dense_float32),
        Contender("sklearn-svd", partial(_sklearn, "svd"), takes=_is_small_enough_for_svd),
        Contender("sklearn-lsqr", partial(_sklearn, "lsqr"), is_tuned=True),
        Contender("sklearn-lsqr-f64", partial(_sklearn_float64, "lsqr"), takes=_is_float32, is_tuned=True),
        Contender("sklearn-sparse_cg", partial(_sklearn, "sparse_cg"), is_tuned=True),
        Contender("sklearn-sparse_cg-f64", partial(_sklearn_float64, "sparse_cg"), takes=_is_float32, is_tuned=True),
    ]


def loosest_tol(contender: Contender, data: Data, error: Callable[[Answer], float], target: float, *, seconds: float) -> float:
    """Return the first of TOLS at which the error is at most target, or the best one met within the seconds given."""
    errors, start = [], time.perf_counter()
    for tol in TOLS:
        errors.append(error(contender.fit(data, tol)))
        if errors[-1] <= target or time.perf_counter() - start > seconds:
            break
    return TOLS[int(np.argmin(errors))]


def _fastridge(solver: str, data: Data, tol: float | None) -> Answer:
    from fastridge import Ridge as FastRidge  # the rest of this module is of use without it

    # Whether it converged is in the report, and is measured from outside.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FastRidge(data.alpha, solver=solver, **({} if tol is None else {"tol": tol})).fit(data.X, data.y)
    report = model.report_
    return Answer(
        model.coef_,
        model.intercept_,
        solver=report.solver,
        n_iter=_largest(report.n_iter),
        status=str(report.status),
        claimed_error=_largest(report.error),
        claimed_bound=_largest(report.error_bound),
        reason=report.reason,
    )


def _sklearn(solver: str, data: Data, tol: float | None) -> Answer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {} if tol is None else {"tol": tol, "max_iter": _affordable_iterations(data)}
        model = Ridge(data.alpha, solver=solver, **options).fit(data.X, data.y)
    return Answer(model.coef_, model.intercept_, model.solver_, n_iter=_largest(model.n_iter_))


def _sklearn_float64(solver: str, data: Data, tol: float | None) -> Answer:
    """Fit on a float64 copy of X: what is left to do where float32 arithmetic does not reach the target."""
    return _sklearn(solver, Data(data.X.astype(np.float64), data.y, data.alpha), tol)


def _affordable_iterations(data: Data) -> int:
    """Return the steps that take about half a minute: float32 conjugate gradients may never meet a small tol."""
    return int(np.clip(30 / (2 * data.n_bytes / 5e9), 100, 20_000))  # two products a step at 5 GB/s


def _largest(values):
    """Return the largest of one value or one value per target, as a plain number; None stays None."""
    return None if values is None else np.max(values).item()


def _is_dense(data: Data) -> bool:
    return not sparse.issparse(data.X)


def _is_float32(data: Data) -> bool:
    return data.X.dtype == np.float32


def _is_dense_float32(data: Data) -> bool:
    return _is_dense(data) and _is_float32(data)


def _has_small_side(data: Data) -> bool:
    # A Gram matrix of this size takes 800 MB and 10 s; twice as far up lies all the memory of a small machine.
    return min(data.X.shape) <= 10_000


def _is_small_enough_for_svd(data: Data) -> bool:
    # n p min(n, p): above, an SVD takes half a minute and is never the fastest.
    return _is_dense(data) and data.X.size * min(data.X.shape) <= 2e10


def _is_small_enough_for_cd(data: Data) -> bool:
    # Plain coordinate descent needs thousands of sweeps where columns are correlated.
    return data.n_stored <= 5_000_000
