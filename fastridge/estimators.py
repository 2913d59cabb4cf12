"""Ridge as a scikit-learn estimator, on its base classes, validation, tags and metadata routing; and what its kin share."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg import LinAlgWarning
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from fastridge import validation
from fastridge.checkpoint import Kept
from fastridge.functional import solve, solve_rows
from fastridge.moments import Moments
from fastridge.monitor import Progress
from fastridge.operators.base import Array, Vector
from fastridge.request import Method, Request
from fastridge.rows import RowSource, alone
from fastridge.solution import FitReport, Solution, Status

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support"""

    def with_callbacks(method: Any) -> Any:
        """The method as it is"""
        return method


ADVICE = {
    Status.TIME_LIMIT: 'raise time_limit, loosen tol, or use solver="auto"',
    Status.MAX_ITER: 'raise max_iter, loosen tol, or use solver="auto"',
    Status.ESTIMATED: 'that error is an estimate; raise alpha, loosen tol, or use solver="auto"',
    Status.FAILED: 'without a penalty this solver has lost the digits of the answer; raise alpha, or use solver="svd"',
    Status.STALLED: "rounding errors are in the way: pass X as float64, raise alpha, rescale columns, or, without bounds, "
    'use solver="svd"',
}
SOLVERS_OF_SUMS = ("auto", "cholesky")
"""What the solver of `partial_fit` may be called: it solves normal equations."""
KINDS_OF_X: dict[str, Any] = {"accept_sparse": ("csr", "csc"), "dtype": (np.float64, np.float32)}
SEARCHED = "RidgeCV and RidgeClassifierCV choose alpha by cross-validation"
INSTEAD = {
    "alphas": "RidgeCV and RidgeClassifierCV choose from several, ridge_path(X, y, alphas) solves at all of them",
    **dict.fromkeys(("cv", "scoring", "gcv_mode", "store_cv_results", "store_cv_values", "alpha_per_target"), SEARCHED),
    "feature_groups": "RidgeCV and RidgeClassifierCV find a penalty for each group; here penalty_weights sets them",
    "normalize": "put a StandardScaler before it in a pipeline",
    **dict.fromkeys(("lambda_", "lambd", "lam", "l2", "reg", "reg_lambda", "reg_param"), "it is called alpha here"),
    "C": "alpha=alpha_from_C(C)",
    "l1_ratio": "no L1 penalty here; scikit-learn's ElasticNet has one",
    "n_jobs": "it is called n_threads here",
    "class_weight": "RidgeClassifier has it",
    **dict.fromkeys(("sample_weight", "sample_weights", "weights"), "fit takes sample_weight"),
    **dict.fromkeys(("lower", "upper"), "bounds=(lower, upper)"),
}
"""What to say of parameters that others have"""


@lru_cache(maxsize=16)
def _signature(function: Callable[..., None]) -> inspect.Signature:
    return inspect.signature(function)  # a tenth of a millisecond


class _Called:
    """Refuse arguments that `__init__` does not take by the name of the class that was called, and say what was meant

    This is a class of its own, above the one that has `__init__`: of the two `inspect.signature` takes the one that comes first.
    """

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        signature = _signature(cls.__init__)
        try:
            signature.bind(None, *args, **keywords)
        except TypeError as error:
            known = [name for name in signature.parameters if name != "self"]
            unknown = next((name for name in keywords if name not in known), None)
            if unknown is None:
                raise TypeError(f"{cls.__name__}: {error}; all parameters but the first are given by name") from None
            close = get_close_matches(unknown, known, n=1)
            hint = INSTEAD.get(unknown) or (f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}")
            raise TypeError(f"{cls.__name__} has no parameter {unknown!r}: {hint}") from None
        return super().__new__(cls)


def sums_suffice(model: Any) -> bool:
    """Whether an estimator can be fitted in pieces; raises an AttributeError that says why not"""
    if model.solver not in SOLVERS_OF_SUMS or model.positive or model.bounds is not None:
        raise AttributeError(
            f"partial_fit keeps sums and no rows: it takes solver 'auto' or 'cholesky' and no bounds, "
            f"got solver={model.solver!r}, positive={model.positive!r}, bounds={model.bounds!r}"
        )
    return True


class Scored:
    """`score` as scikit-learn has it, of a scan as well"""

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return how well predictions agree with y: R2, of classifiers the share of labels that are right

        Parameters
        ----------
        X : (n_samples, n_features) array, data frame or sparse matrix
            Or rows as `fastridge.scan` gives them, with their targets; they are read twice.
        y : (n_samples,) or (n_samples, n_targets), or labels
            None where X is a scan, which has it.
        sample_weight : (n_samples,) or None

        Raises
        ------
        sklearn.exceptions.NotFittedError, ValueError
            As `predict` does; if a scan has no target, or can be read once only.
        """
        if isinstance(X, RowSource):
            check_is_fitted(self)
            y, sample_weight = alone(X, y, sample_weight).targets()
        return float(super().score(X, y, sample_weight))  # type: ignore[misc]


class RidgeBase(_Called, CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """What the estimators share: parameters (described in `Ridge`), the solve, what is kept of it, X w + b

    `fit` is `_solve`, then `_keep`. A class whose targets are not numbers as they come overrides `_targets`.
    """

    _small_side: Vector
    _moments: Moments | None = None

    def __init__(
        self,
        alpha: validation.Penalties = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-6,
        solver: validation.SolverName = "auto",
        positive: bool = False,
        bounds: tuple[Any, Any] | None = None,
        penalty_weights: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        n_threads: int | None = None,
        time_limit: float | None = None,
        verbose: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.alpha: Any = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.positive = positive
        self.bounds = bounds
        self.penalty_weights = penalty_weights
        self.random_state = random_state
        self.warm_start = warm_start
        self.n_threads = n_threads
        self.time_limit = time_limit
        self.verbose = verbose
        self.checkpoint = checkpoint

    def _targets(self, y: Any, sample_weight: Any, n_samples: int) -> tuple[Vector, Vector | None]:
        """Return the targets (n,) or (n, k) and the weights (n,) of the regression that is solved"""
        return validation.check_y(y, n_samples), validation.check_sample_weight(sample_weight, n_samples)

    def _coded(
        self, X: Any, y: Any, sample_weight: Any, targets: Callable[..., tuple[Vector, Vector | None]], reset: bool = True
    ) -> tuple[Any, Vector, Vector | None]:
        """Return X and what `targets` makes of the others, checked; `reset`: X may have other features than before"""
        X = _before_scikit_learn(X)
        validation.look(y, "y")
        regression = isinstance(self, RegressorMixin)
        if sp.issparse(y):
            y = validation.check_sparse_labels(y, allowed=not regression)
        kinds = {"ensure_all_finite": False, "multi_output": True, "y_numeric": regression, "reset": reset, **KINDS_OF_X}
        with _naming_what_is_no_number(X, y if regression else None):
            # Entries that are not finite show in the column sums, without another pass over X.
            X, y = validate_data(self, X, y, **kinds)
        if not sp.issparse(X):
            X = validation.check_X(X)
        return X, *targets(y, sample_weight, X.shape[0])

    def _method(self) -> Method:
        """The parameters that say how to solve, checked"""
        flags = {"fit_intercept": self.fit_intercept, "copy_X": self.copy_X, "warm_start": self.warm_start}
        report_to = {"time_limit": self.time_limit, "verbose": self.verbose, "checkpoint": self.checkpoint}
        return Method.checked(self.solver, self.tol, self.max_iter, self.n_threads, **report_to, **flags)

    @with_callbacks  # type: ignore[untyped-decorator]
    def _solve(self, X: Any, y: Any, sample_weight: Any) -> Solution:
        """Check everything and solve; where that raises, what was fitted before stays

        The callbacks of scikit-learn, where there are any, are told of the fit and of every step.
        """
        method = self._method()
        if not hasattr(self, "_skl_callbacks"):
            return self._solved(X, y, sample_weight, method)
        context = self._init_callback_context(max_subtasks=self.max_iter)
        told = {"estimator": self, "X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        context.call_on_fit_task_begin(**told)

        def step(progress: Progress) -> None:
            one = context.subcontext(task_name=progress.solver)
            one.call_on_fit_task_begin(**told)
            one.call_on_fit_task_end(**told)

        solution = self._solved(X, y, sample_weight, replace(method, callback=step))
        context.call_on_fit_task_end(**told)
        return solution

    def _solved(self, X: Any, y: Any, sample_weight: Any, method: Method) -> Solution:
        """As `_solve`"""
        asked = {name: getattr(self, name) for name in ("alpha", "fit_intercept", "positive", "bounds", "penalty_weights")}
        with unchanged_on_failure(self):
            if isinstance(X, RowSource):
                solution = self._solve_rows(X, y, sample_weight, method, asked)
                self._moments = None
                return solution
            X, y, weights = self._coded(X, y, sample_weight, self._targets)
            request = Request.of_data(X, y, weights, method, **asked, dtype=X.dtype)
            solution = solve(request, method, self._start(request) if self.warm_start else None)
        self._moments = None
        return solution

    def _solve_rows(self, source: RowSource, y: Any, sample_weight: Any, method: Method, asked: dict[str, Any]) -> Solution:
        """As `_solve`, of rows that a source yields"""
        self._met(source)
        source = self._source(Kept.of(alone(source, y, sample_weight), method.checkpoint))
        start = self._last_coefficients(source.n_features, source.n_targets) if self.warm_start else None
        return solve_rows(source, None, None, method, start, **asked)

    def _met(self, source: RowSource) -> None:
        """Keep what scikit-learn keeps of the features"""
        self.n_features_in_ = source.n_features
        if source.feature_names is not None:
            self.feature_names_in_ = np.array(source.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _source(self, source: RowSource) -> RowSource:
        """The source with the targets of the regression that is solved"""
        return source

    def _add(self, X: Any, y: Any, sample_weight: Any, targets: Callable[..., tuple[Vector, Vector | None]]) -> Solution:
        """Check everything, add the rows to those before and solve; where that raises, everything is as it was"""
        self._method()
        if hasattr(self, "coef_") and self._moments is None:
            warnings.warn("fit kept no sums that partial_fit could go on from: it begins with these rows", stacklevel=3)
        with unchanged_on_failure(self):
            X, y, weights = self._coded(X, y, sample_weight, targets, reset=self._moments is None)
            penalty = validation.check_alpha(self.alpha, 1 if y.ndim == 1 else y.shape[1])
            moments = Moments(n_threads=self.n_threads) if self._moments is None else copy(self._moments)
            moments.update(X, y, weights)
            options = {"penalty_weights": self.penalty_weights, "fit_intercept": self.fit_intercept, "tol": self.tol}
            solution = moments.solve_targets(penalty, **options)
            self._moments = moments
        return solution

    def _start(self, request: Request) -> Vector | None:
        """What was fitted last, as `solve` takes it; None where the shapes do not fit

        The coefficients, (p, n_targets); of a wide problem without bounds the small side, (n, n_targets).
        """
        (n, p), n_targets = request.X.shape, len(request.penalty)
        if p > n and request.bounds is None:
            last = getattr(self, "_small_side", None)
            return last if last is not None and last.shape == (n, n_targets) else None
        return self._last_coefficients(p, n_targets)

    def _last_coefficients(self, p: int, n_targets: int) -> Vector | None:
        """Those of the last fit, (p, n_targets); None where there are none of that shape"""
        if not hasattr(self, "coef_"):
            return None
        start = np.atleast_2d(np.asarray(self.coef_, dtype=np.float64)).T
        return start if start.shape == (p, n_targets) else None

    def _keep(self, coef: Array, solution: Solution) -> Self:
        """Set what a fit leaves, and warn where it did not converge; `fit` calls this itself, the warning names its caller"""
        report = solution.report
        self.coef_ = coef
        self.intercept_ = solution.intercept if self.fit_intercept else 0.0
        self.n_iter_ = report.n_iter if report.solver in ("cg", "cd") else report.n_iter + 1
        self.solver_ = report.solver
        self.report_ = report
        if hasattr(self, "_small_side"):
            del self._small_side
        if self.warm_start and solution._small_side is not None and len(solution._small_side) != self.n_features_in_:
            self._small_side = solution._small_side  # of a wide problem: from the coefficients it could not be had
        if report.solver != self.solver == "cholesky":
            warnings.warn(
                "the columns of X depend on one another, and without a penalty their normal matrix has no Cholesky factor: "
                f'{report.solver} gave the answer of minimum norm; raise alpha, or use solver="svd"',
                LinAlgWarning,
                stacklevel=3,  # who called fit
            )
        _warn_unless_converged(report, self.tol)
        return self

    def _linear(self, X: Any) -> Array:
        """Return X w + b after the checks of scikit-learn"""
        check_is_fitted(self)
        if isinstance(X, RowSource):
            self._check_features(X)
            parts = [np.asarray(block.X @ self.coef_.T + self.intercept_) for block in X.blocks()]
            return np.concatenate(parts)
        X = _before_scikit_learn(X)
        with _naming_what_is_no_number(X):
            X = validate_data(self, X, reset=False, **KINDS_OF_X)
        return np.asarray(X @ self.coef_.T + self.intercept_).astype(np.result_type(X, self.coef_), copy=False)

    def _check_features(self, source: RowSource) -> None:
        """Raise a ValueError where the features are not those of the fit, by name where both have names"""
        names, own = getattr(self, "feature_names_in_", None), source.feature_names
        if names is not None and own is not None:
            for name, fitted in zip_longest(own, names.tolist()):
                if name != fitted:
                    raise ValueError(
                        f"{source!r} has {'no more features' if name is None else f'the feature {name!r}'} where the fit had "
                        f"{'none' if fitted is None else repr(fitted)}: scan it with the features, and the categories, of the fit"
                    )
        elif source.n_features != self.n_features_in_:
            raise ValueError(f"{source!r} has {source.n_features} features, the fit had {self.n_features_in_}")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class Ridge(Scored, MultiOutputMixin, RegressorMixin, RidgeBase):  # type: ignore[misc]
    """Ridge regression with a certified answer: a drop-in for ``sklearn.linear_model.Ridge``

    minimise over w, b    sum_i s_i (y_i - x_i'w - b)^2 + alpha ||w||^2

    Parameters
    ----------
    alpha : float or (n_targets,), default 1.0
        Penalty, >= 0, on scikit-learn's scale; 0 is least squares (of minimum norm).
    fit_intercept : bool, default True
        Fit b, which is not penalised. Data are centred as they are read, never copied, sparse ones never filled in.
    copy_X : bool, default True
        Accepted for compatibility; X is never changed.
    max_iter : int or None
        Limit on CG steps or sweeps of coordinate descent; None leaves it to the solver.
    tol : float, default 1e-6
        Accept w when ``||w - w*||_H <= tol ||w*||_H``, H = A'A + alpha I with A the centred, weighted X. Unlike the size of a
        gradient this does not depend on how columns are scaled; squared it is the share of the achievable decrease still missing.
    solver : {"auto", "cholesky", "svd", "cg", "cd"}, default "auto"
        "auto" takes the one that is estimated to be fastest (see `fastridge.explain`). The others run as asked, or raise. But
        where alpha = 0 and columns depend on one another, "cholesky" gives way to "svd", with a warning.
    positive : bool, default False
        Whether coef_ >= 0 is asked for; as bounds=(0, inf).
    bounds : (lower, upper) or None
        lower <= coef_ <= upper: two numbers or arrays (n_features,), -inf and inf where there is none; equal ones fix a
        coefficient. The intercept is not bounded. Bounds hold for every target, with solver "auto" or "cd"; w* above is then the
        minimiser within them.
    penalty_weights : (n_features,), (n_features, n_features) or None
        d: the penalty is alpha sum_j d_j w_j^2. 0 leaves a feature unpenalised, inf fixes its coefficient at 0; None: ones. Or a
        symmetric positive semi-definite matrix D, dense or sparse, of alpha w'D w (up to 5000 features, without bounds).
    random_state : int, RandomState or None
        Accepted for compatibility; no solver is random.
    warm_start : bool, default False
        Begin "cg" and "cd" where the last fit ended, if the shapes agree: the number of features and targets, and of samples
        where there are fewer than features. With bounds that is at coef_, moved into them, whatever the number of samples. For
        a slightly different alpha, y or X that saves steps; a bad start costs a product. Direct solvers ignore it. tol means
        the same. Of a `scan` "cg" begins at coef_: every step that is saved is a pass over the rows.
    n_threads : int or None
        None: what the process may use. The result has the same bits for any number.
    time_limit : float or None
        Seconds, > 0, from the beginning of the solve, after which the best answer so far is kept, with a warning; zeros where
        nothing had been solved. A pass over the data or a decomposition that has begun is not cut short. None: no limit.
    verbose : bool, default False
        Print the plan, and a few times a second how far the solve has got, to standard error.
    checkpoint : path or None
        Of a fit to a `scan`: a folder where what passes over the rows gave is kept, every 30 seconds, until the fit is done. The
        same fit after a kill goes on from there, to an answer of the same bits; so does one that `time_limit` or `max_iter`
        ended. A checkpoint of other rows or settings is refused. None: nothing is kept.

    Attributes
    ----------
    coef_ : (n_features,) or (n_targets, n_features)
        One row where y is 1-D or has one column. float32 where X is float32 (computed in float64), else float64.
    intercept_ : float or (n_targets,) float64
        0.0 without an intercept.
    n_iter_ : (n_targets,) int array
        Steps of an iterative solver; 0 where it began at the answer. Of a direct one how often it solved with its factor: 1, and
        once more for every refinement.
    solver_ : str
        What really ran; "eigh" where "auto" chose one eigendecomposition for several penalties.
    report_ : FitReport
        Status, H-norm error and its upper bound, reason, seconds, extra memory.
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str
        Where X has column names that are strings.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If tol was not reached, or not proven to be: the message says what was.
    scipy.linalg.LinAlgWarning
        If solver="cholesky" gave way to "svd".

    References
    ----------
    Hoerl & Kennard (1970), DOI 10.1080/00401706.1970.10488634; the solvers name their own sources.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastridge import Ridge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = Ridge(alpha=0.1).fit(X, y)
    >>> round(model.score(X, y), 4)
    0.5126
    >>> model.report_.error < 1e-6
    True
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to data

        Parameters
        ----------
        X : (n_samples, n_features) array, data frame or sparse matrix
            C or F order, CSR and CSC of float32 or float64 are used without a copy. Or rows that need not fit in memory, as
            `fastridge.scan` gives them.
        y : (n_samples,) or (n_samples, n_targets)
            None where X is a scan, which has it.
        sample_weight : float, (n_samples,) or None
            >= 0.

        Returns
        -------
        Ridge
            self

        Raises
        ------
        ValueError, TypeError
            If an argument or parameter is not what it should be; nothing fitted before is lost.
        numpy.linalg.LinAlgError
            If solver="cholesky" meets a matrix that is not positive definite.
        OverflowError
            If float64 (float32 for float32 data) does not hold the coefficients.
        """
        solution = self._solve(X, y, sample_weight)
        coef = solution.coef
        # scikit-learn's shapes: one column of y gives one row of coefficients, but an array of intercepts.
        return self._keep(coef.ravel() if coef.size == self.n_features_in_ else coef, solution)

    @available_if(sums_suffice)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to these rows and those of all calls before, which need not be at hand any more

        After any pieces in any order the answer is that of one `fit` to all rows, to within the errors that reports name. What is
        kept are the sums of `Moments`: two arrays (n_features, n_features) of float64, 3.2 GB each for 20,000 features, and a
        third during a call. A call costs a Gram matrix of its rows and one solve, so pieces should have some thousand rows.

        After a `fit`, which keeps no sums, it begins anew, with a warning.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; of later pieces with the same features and targets.

        Returns
        -------
        Ridge
            self; coef_ is float64.

        Raises
        ------
        ValueError, TypeError
            As `fit` does; if features or targets disagree with those before. The rows are then not counted.
        AttributeError
            With bounds, or a solver that needs the rows: anything but "auto" and "cholesky".
        MemoryError
            If two Gram matrices would take more than half of the memory of this machine; before any work.
        """
        solution = self._add(X, y, sample_weight, self._targets)
        coef = solution.coef
        return self._keep(coef.ravel() if coef.size == self.n_features_in_ else coef, solution)

    def predict(self, X: Any) -> Array:
        """Return X w + b, (n_samples,) or (n_samples, n_targets)

        Parameters
        ----------
        X : (n_samples, n_features) array, data frame or sparse matrix

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If `fit` has not run.
        ValueError
            If X has another number of features, or is not finite.
        """
        return self._linear(X)


def _before_scikit_learn(X: Any) -> Any:
    """X, refused where scikit-learn would misread it or crash; sparse ones as the inner layers take them"""
    validation.look(X, "X")
    return validation.check_X(X) if sp.issparse(X) else X


@contextmanager
def _naming_what_is_no_number(X: Any, y: Any = None) -> Iterator[None]:
    """Where numpy could not convert an entry, say which"""
    try:
        with np.errstate(over="ignore"):  # long doubles beyond float64: refused as infinite
            yield
    except (TypeError, ValueError, OverflowError):
        validation.name_what_is_no_number(X, "X")
        validation.name_what_is_no_number(y, "y")
        raise


@contextmanager
def unchanged_on_failure(estimator: BaseEstimator) -> Iterator[None]:
    """Put back the attributes that validation has changed where what follows raises"""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _warn_unless_converged(report: FitReport, tol: float) -> None:
    if report.status in ADVICE:
        warnings.warn(
            f"{report.solver} reached an H-norm error of {report.error:.1e} (bound {report.error_bound:.1e}) where tol={tol:g} "
            f"was asked: {ADVICE[report.status]}",
            ConvergenceWarning,
            stacklevel=4,  # who called fit
        )
