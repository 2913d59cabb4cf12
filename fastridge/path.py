"""`ridge_path`: the answers at many penalties, from one eigendecomposition or one Krylov space, each certified by itself."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.linalg.lapack import dpotrf, dpstrf

from fastridge import planner, validation
from fastridge.functional import make_problem, plain_form, print_step
from fastridge.lines import Array, Vector
from fastridge.parallel import blas_for
from fastridge.problem import Problem, column_dots
from fastridge.solution import Answer, FitReport, Settings, Status
from fastridge.solvers import bounded, eigen, galerkin, shifted
from fastridge.standard_form import StandardForm

LARGEST_SHARE = 1e-3
"""Of ||y||^2 that the fit at the largest penalty chosen here explains, at most."""
LEFT_OUT, LEFT_OUT_BY_PRODUCTS = 1e-3, 1e-2
"""Share of the degrees of freedom that the smallest penalty chosen here still takes away: where the Gram matrix says so, and
where a few products do. With so many unknowns answers at small penalties cost much."""
MAX_GRAM = 500
"""Unknowns up to which the smallest penalty comes from the Gram matrix."""
LANCZOS_STEPS = 10
"""Products that it takes beyond."""
QUANTILES = 1000
"""Of the squared norms of so many columns, that stand for them all."""
ROUNDING_ROOM = 100 * np.finfo(np.float64).eps
"""Share of the squared norm of a column, or of the norm of a scaled matrix, that may be nothing but rounding; times the square
root of the longer side."""
HALVINGS = 16
"""Of an interval in log alpha, which ends a hundredth wide at most."""
LEAST_DECADES = 3
"""From the largest penalty chosen here to the smallest."""
KRYLOV_STEPS = 100
"""Products that a path takes on one Krylov space, as the planner's EXPECTED_STEPS: a guess."""


@dataclass(frozen=True)
class RidgePath:
    """The answers at many penalties

    Attributes
    ----------
    alphas : (n_alphas,) float64
        In the order given; from the largest to the smallest where they were chosen by `ridge_path`.
    coefs : (n_alphas, n_features) or (n_alphas, n_targets, n_features) float64
    intercepts : (n_alphas,) or (n_alphas, n_targets) float64
    reports : tuple of FitReport
        One for every alpha: its own error and bound. `n_iter` is 0 where the space built for others held its answer; `seconds`
        and `extra_bytes` are those of the whole path.
    """

    alphas: Vector
    coefs: Vector = field(repr=False)
    intercepts: Vector = field(repr=False)
    reports: tuple[FitReport, ...] = field(repr=False)

    @property
    def converged(self) -> bool:
        """Whether every answer is as accurate as was asked"""
        return all(report.converged for report in self.reports)

    def __str__(self) -> str:
        low, high = self.alphas.min(), self.alphas.max()
        solvers = ", ".join(sorted({report.solver for report in self.reports}))
        worst = max(report.error for report in self.reports)
        return (
            f"ridge path of {len(self.alphas)} alphas from {high:.3g} to {low:.3g} by {solvers}: "
            f"error at most {worst:.1e}, {self.reports[0].seconds:.2g} s"
        )

    def predict(self, X: Any) -> Array:
        """Return X w + b at every alpha: (n_alphas, n_samples) or (n_alphas, n_samples, n_targets)

        Raises
        ------
        ValueError, TypeError
            If X is not what it should be, or has another number of features.
        """
        X = validation.check_X(X)
        p = self.coefs.shape[-1]
        if X.shape[1] != p:
            raise ValueError(f"X has {X.shape[1]} features, the path was fitted with {p}")
        fits = np.asarray(X @ self.coefs.reshape(-1, p).T).T.reshape(*self.intercepts.shape, X.shape[0])
        return np.moveaxis(fits + self.intercepts[..., None], -1, 1)

    def plot(self, ax: Any = None, *, n_features: int = 50) -> Any:
        """Draw the coefficients against alpha and return the axes; of many features those that become largest

        Parameters
        ----------
        ax : matplotlib Axes or None
            None: the current ones.
        n_features : int
            Lines to draw, at most, per target.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        try:
            pyplot = import_module("matplotlib.pyplot")
        except ImportError as error:
            raise ImportError('plot needs matplotlib: pip install "fastridge-solvers[plot]"') from error
        ax = pyplot.gca() if ax is None else ax
        order = np.argsort(self.alphas)
        coefs = self.coefs.reshape(len(self.alphas), -1, self.coefs.shape[-1])
        for of_target in np.moveaxis(coefs[order], 1, 0):
            largest = np.argsort(-np.abs(of_target).max(axis=0), kind="stable")[:n_features]
            ax.plot(self.alphas[order], of_target[:, largest])
        ax.set_xscale("log")
        ax.set_xlabel("alpha")
        ax.set_ylabel("coefficient")
        return ax


def ridge_path(
    X: Any,
    y: Any,
    alphas: Any = 100,
    *,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    penalty_weights: Any = None,
    tol: float = 1e-6,
    solver: str = "auto",
    max_iter: int | None = None,
    positive: bool = False,
    bounds: Any = None,
    n_threads: int | None = None,
    verbose: bool = False,
) -> RidgePath:
    """Solve a ridge regression at many penalties for about the price of a few, with bounds for less than one by one

    "auto" takes one eigendecomposition on the small side where that is estimated to cost less, else one Krylov space for all
    penalties of a target (multi-shift CG, or projections on a space shared by them where Jacobi scaling makes the difference).
    Whatever misses tol in that way is solved by CG from where it got to, and if need be by what `ridge` falls back to.

    With bounds, from the largest penalty down every answer begins at the one before; the Gram matrix, or the copy of the columns,
    is formed once.

    Parameters
    ----------
    X, y, sample_weight, fit_intercept, positive, bounds, penalty_weights, n_threads
        As in `ridge`.
    alphas : int or (n_alphas,) array, default 100
        Penalties >= 0 in any order, repeats included; 0 is least squares, of which no error is certified. Or how many:
        they are then spaced evenly in log alpha, with and without bounds the same. The largest is ``1000 ||A'y||^2 / ||y||^2``
        (A, y: centred, weighted; of several targets the largest): the fit explains at most a thousandth of ``||y||^2``. At the
        smallest all but a thousandth of the degrees of freedom, ``sum s / (s + alpha)`` over the eigenvalues s of A'A, are
        there, or rounding errors begin; where both n and p exceed 500, all but a hundredth, as estimated from ten products. They
        span three decades or more.
    tol : float, default 1e-6
        As in `ridge`, at every alpha.
    solver : {"auto", "cholesky", "svd", "cg", "cd"}, default "auto"
        "cg" keeps to Krylov spaces; the others solve at each alpha by itself. With bounds "auto" or "cd".
    max_iter : int or None
        Limit on steps or sweeps at each alpha.
    verbose : bool, default False
        Print what is done, and the error after every step, to standard error.

    Returns
    -------
    RidgePath
        alphas, coefs, intercepts, and a report for every alpha. Nothing is raised or warned where tol is not reached.

    Raises
    ------
    ValueError, TypeError
        If an argument is not what it should be; before any work.
    numpy.linalg.LinAlgError
        If solver="cholesky" meets a matrix that is not positive definite.

    References
    ----------
    Frommer & Maass (1999), DOI 10.1137/S1064827596313310; the solvers name their own sources.

    Examples
    --------
    >>> import numpy as np, fastridge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 5))
    >>> y = X @ [1.0, 2.0, 0.0, 0.0, -1.0] + 3.0
    >>> path = fastridge.ridge_path(X, y, [1e3, 1.0, 1e-3])
    >>> path.coefs.shape
    (3, 5)
    >>> np.round(path.coefs[-1], 2) + 0.0
    array([ 1.,  2.,  0.,  0., -1.])
    >>> all(report.error <= 1e-6 for report in path.reports)
    True
    >>> path = fastridge.ridge_path(X, y, [1e3, 1.0, 1e-3], positive=True)
    >>> bool((path.coefs >= 0).all()), path.converged
    (True, True)
    """
    validation.check_options(solver, tol, max_iter, n_threads, fit_intercept=fit_intercept)
    given = validation.check_alphas(alphas)
    X = validation.check_X(X)
    y = validation.check_y(y, X.shape[0])
    weights = validation.check_sample_weight(sample_weight, X.shape[0])
    begin = time.perf_counter()
    k = 1 if y.ndim == 1 else y.shape[1]
    box = validation.check_bounds(positive, bounds, X.shape[1], solver)
    d = validation.check_penalty_weights(penalty_weights, X.shape[1], box)
    original = make_problem(X, y, np.ones(k), weights, fit_intercept, n_threads, box, d)
    form = plain_form(original)
    problem = form.problem
    gram = None
    if isinstance(given, int):
        plain = form if box is None else plain_form(replace(original, bounds=None))
        with np.errstate(all="ignore"):  # what overflows is seen at the end
            given, gram = _useful_alphas(plain, len(y) if weights is None else float(weights.sum()), given)
    penalties = given
    problem = replace(problem, penalty=np.full(k, penalties.min()))
    settings = Settings(tol, max_iter, on_step=print_step if verbose else None)
    points = _Points(problem, penalties, gram)
    if box is None:
        _solve(problem, penalties, solver, settings, points, verbose)
    else:
        _solve_bounded(problem, penalties, solver, settings, points, verbose)
    points.repeat()
    coefs = points.coefs if d is None else np.stack([form.coefficients(coef.T).T for coef in points.coefs])
    intercepts = np.stack([original.intercept(coef.T) if fit_intercept else np.zeros(k) for coef in coefs])
    seconds = time.perf_counter() - begin
    reports = tuple(points.report(i, tol, seconds) for i in range(len(penalties)))
    if y.ndim == 1:
        return RidgePath(penalties, coefs[:, 0], intercepts[:, 0], reports)
    return RidgePath(penalties, coefs, intercepts, reports)


class _Points:
    """What is known at every (alpha, target)"""

    def __init__(self, problem: Problem, penalties: Vector, gram: Vector | None) -> None:
        self.gram = gram  # for whoever needs it first
        shape = (len(penalties), len(problem.penalty))
        self.penalties, self.unbounded = penalties, problem.bounds is None
        self.coefs = np.zeros((*shape, problem.design.shape[1]))
        self.error, self.bound = np.full(shape, np.inf), np.full(shape, np.inf)
        self.rcond = np.full(shape[0], np.nan)
        self.n_iter = np.zeros(shape, dtype=np.int64)
        self.stalled = np.zeros(shape, dtype=bool)
        self.solver, self.reason = np.full(shape[0], "", dtype=object), np.full(shape[0], "", dtype=object)
        self.held = problem.design.extra_bytes + problem.target.nbytes
        self.workspace_bytes = 0

    def keep(self, rows: np.ndarray, targets: np.ndarray, answer: Answer, solver: str, reason: str) -> None:
        """Take the answers at penalties `rows` of `targets`, (k,) each"""
        self.coefs[rows, targets] = answer.w.T
        self.error[rows, targets], self.bound[rows, targets] = answer.error, answer.error_bound
        self.n_iter[rows, targets] += answer.n_iter
        self.stalled[rows, targets] = answer.stalled
        self.rcond[rows], self.solver[rows], self.reason[rows] = answer.rcond, solver, reason
        self.workspace_bytes = max(self.workspace_bytes, answer.workspace_bytes)

    def repeat(self) -> None:
        """Give penalties that come again what the first of them got"""
        every = _first_of_each(self.penalties)
        first = every[np.searchsorted(self.penalties[every], self.penalties)]
        of_all = (self.coefs, self.error, self.bound, self.n_iter, self.stalled, self.rcond, self.solver, self.reason)
        for i in np.flatnonzero(first != np.arange(len(first))):
            for kept in of_all:
                kept[i] = kept[first[i]]

    def report(self, i: int, tol: float, seconds: float) -> FitReport:
        """The report on penalty i"""
        error = float(self.error[i].max())
        bound = float(self.bound[i].max())
        if self.penalties[i] == 0 and (self.unbounded or bound == np.inf):
            status = Status.UNCERTIFIED
        elif error <= tol:
            status = Status.CONVERGED
        else:
            status = Status.STALLED if self.stalled[i].any() else Status.MAX_ITER
        return FitReport(
            solver=self.solver[i],
            reason=self.reason[i],
            status=status,
            n_iter=self.n_iter[i],
            error=error,
            error_bound=bound,
            rcond=float(self.rcond[i]),
            seconds=seconds,
            extra_bytes=self.held + self.workspace_bytes,
        )


def _first_of_each(penalties: Vector) -> np.ndarray:
    """Where every distinct penalty comes first, from the smallest to the largest"""
    return np.unique(penalties, return_index=True)[1]


def _useful_alphas(form: StandardForm, total_weight: float, n_alphas: int) -> tuple[Vector, Vector | None]:
    """Penalties from the largest down, and the Gram matrix of the small side (lower triangle) where it was formed

    The largest: ||w||_H^2 = y'A H^-1 A'y <= ||A'y||^2 / alpha, a share of ||y||^2. The smallest: every eigenvalue s > 0 of B'B is
    a degree of freedom, of which alpha / (s + alpha) is taken away; in the mean that is a share.
    """
    problem = form.problem
    sizes = np.abs(problem.target).max(axis=0)
    unit = problem.target / np.where(sizes > 0, sizes, 1.0)  # squares of y itself may overflow or vanish
    unit /= np.sqrt(np.where(sizes > 0, column_dots(unit, unit), 1.0))
    image = problem.design.rmatvec(unit)
    sq_norms = problem.side.sq_norms
    # Without a y to explain, the mean eigenvalue; without an X, anything.
    largest = (float(column_dots(image, image).max()) or float(sq_norms.mean()) or 1.0) / LARGEST_SHARE
    gram = problem.side.gram() if len(sq_norms) <= MAX_GRAM else None
    sq_rounding: float | Vector = 0.0
    if not problem.wide:  # of a constant column, rounding of its mean may be left
        mean = problem.x_mean if form.vectors is None else form.vectors.T @ problem.x_mean
        sq_rounding = total_weight * (ROUNDING_ROOM * mean * (1.0 if form.scale is None else form.scale)) ** 2
    used = (sq_norms if gram is None else gram.diagonal()) > sq_rounding
    rounding = ROUNDING_ROOM * float(np.sqrt(max(problem.design.shape)))
    if not used.any():
        smallest = 0.0
    elif gram is not None:
        smallest = _least_by_gram(gram, used, rounding)
    else:
        smallest = _least_by_products(problem, used, rounding)
    room, most = 10.0**LEAST_DECADES, float(np.sqrt(np.finfo(np.float64).max))
    largest = min(max(largest, room * smallest, 1 / most), most) if np.isfinite(smallest) else 1.0
    return np.geomspace(largest, smallest if 0 < smallest < largest else largest / room, n_alphas), gram


def _least_by_gram(gram: Vector, used: np.ndarray, rounding: float) -> float:
    """The smallest useful penalty for the columns `used`, (c,) bool, from Cholesky factors

    With pivoting, the squares on the diagonal stand for the eigenvalues: what of a column lies outside the span of the larger
    ones before it. Unlike eigenvalues they keep their digits where columns differ in scale. Rounding begins where B'B + alpha I,
    scaled to make the diagonal of B'B one, has an eigenvalue below `rounding` times its norm.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, sections 10.1 and 10.3, DOI 10.1137/1.9780898718027.
    """
    lower = np.tril(gram[np.ix_(used, used)])
    sq_norms = lower.diagonal()
    outside = np.zeros(len(lower))
    with blas_for(len(lower)):
        factor, pivots, rank, _ = dpstrf(lower, lower=1, tol=0.0)
    outside[pivots[:rank] - 1] = factor.diagonal()[:rank] ** 2
    least = _leaving_out(LEFT_OUT, outside[outside > rounding * sq_norms])
    scaled = lower / np.sqrt(sq_norms)
    scaled /= np.sqrt(sq_norms)[:, None]
    floor = rounding * float(np.linalg.norm(scaled))

    def holds(alpha: float) -> bool:
        shifted = scaled + np.diag(alpha / sq_norms - floor)
        with blas_for(len(shifted)):
            return not dpotrf(shifted, lower=1, clean=0, overwrite_a=1)[1]

    most = floor * float(sq_norms.max())
    if not least < most or holds(least):
        return least
    for _ in range(HALVINGS):
        middle = float(np.sqrt(least) * np.sqrt(most))
        least, most = (least, middle) if holds(middle) else (middle, most)
    return most


def _least_by_products(problem: Problem, used: np.ndarray, rounding: float) -> float:
    """The smallest useful penalty for the columns `used`, by a few Lanczos steps on C, B'B scaled to ones on its diagonal d

    Every product of a Ritz value and a d stands for an eigenvalue of B'B. That is right where columns are alike in scale or
    orthogonal, and near enough in between.

    References
    ----------
    Ubaru, Chen & Saad (2017), DOI 10.1137/16M1104974 (spectral sums from Lanczos steps on random vectors).
    """
    sq_norms = problem.side.sq_norms[:, None]
    inverse = np.sqrt(np.divide(1.0, sq_norms, out=np.zeros_like(sq_norms), where=used[:, None]))
    v = np.where(used[:, None], np.random.default_rng(0).choice([-1.0, 1.0], sq_norms.shape), 0.0)
    v /= np.sqrt(column_dots(v, v))
    last, size = np.zeros_like(v), 0.0
    diagonal, beside = np.empty(0), np.empty(0)
    for _ in range(LANCZOS_STEPS):
        image = inverse * problem.product(inverse * v) - size * last
        along = float(column_dots(image, v)[0])
        image -= along * v
        size = float(np.sqrt(column_dots(image, image)[0]))
        diagonal, beside = np.append(diagonal, along), np.append(beside, size)
        if size <= rounding * np.abs(diagonal).max():
            break
        last, v = v, image / size
    values, vectors = eigh_tridiagonal(diagonal, beside[:-1])
    free = values > rounding * values.max()
    scales = np.quantile(sq_norms[used], np.linspace(0, 1, QUANTILES))
    weights = np.tile(vectors[0, free] ** 2, QUANTILES)
    least = _leaving_out(LEFT_OUT_BY_PRODUCTS, np.outer(scales, values[free]).ravel(), weights)
    return max(least, rounding * float(np.median(scales)))


def _leaving_out(share: float, eigenvalues: Vector, weights: Vector | None = None) -> float:
    """The penalty at which alpha / (s + alpha) is `share` in the mean over s > 0, from below"""
    largest = float(eigenvalues.max())
    s = eigenvalues / largest
    low, high = max(share * float(s.min()), np.finfo(np.float64).tiny), 1.0
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low) * np.sqrt(high))
        if np.average(middle / (s + middle), weights=weights) > share:
            high = middle
        else:
            low = middle
    return low * largest


def _solve(problem: Problem, penalties: Vector, solver: str, settings: Settings, points: _Points, verbose: bool) -> None:
    """Solve at every penalty for every target"""
    k = len(problem.penalty)
    every = _first_of_each(penalties)
    positive = every[penalties[every] > 0]
    starts: dict[int, Vector] = {}
    if solver == "auto" and len(positive):
        direct, reason = _prefer_eigen(problem, len(positive))
        if verbose:
            print(reason, file=sys.stderr)
        if direct:
            _by_eigen(problem, penalties, positive, settings, points, reason)
        else:
            problem = _by_krylov(problem, penalties, positive, settings, points, reason, starts)
    elif solver == "cg" and len(positive):
        problem = _by_krylov(problem, penalties, positive, settings, points, "asked for", starts)
    # What is left: all of it, where neither is meant; penalties of zero; those that missed tol.
    for target in range(k):
        left = every[~(points.error[every, target] <= settings.tol)]
        at_once = max(1, min(problem.targets_at_once, _FACTORS_AT_ONCE // (8 * len(problem.rhs) ** 2 + 1)))
        for lo in range(0, len(left), at_once if solver == "cholesky" else problem.targets_at_once):
            rows = left[lo : lo + (at_once if solver == "cholesky" else problem.targets_at_once)]
            rows = rows[np.argsort(penalties[rows] > 0, kind="stable")]
            for group in (rows[penalties[rows] == 0], rows[penalties[rows] > 0]):
                if len(group):
                    _one_by_one(problem, penalties, group, target, solver, settings, points, starts.get(target))


_FACTORS_AT_ONCE = 1 << 28
"""Bytes of the Cholesky factors that are held together."""


def _solve_bounded(problem: Problem, penalties: Vector, solver: str, settings: Settings, points: _Points, verbose: bool) -> None:
    """Solve at every penalty for every target within the bounds, from the largest penalty down, each from the answer before"""
    chosen = planner.plan(problem, solver)
    if verbose:
        print(chosen, file=sys.stderr)
    within = bounded.BoundedSolver(problem)
    for target in range(len(problem.penalty)):
        start: Vector | None = None
        for row in _first_of_each(penalties)[::-1]:
            answer = within.solve(np.array([target]), penalties[[row]], replace(settings, start=start))
            points.keep(np.array([row]), np.array([target]), answer, chosen.solver, chosen.reason)
            start = answer.w


def _prefer_eigen(problem: Problem, n_penalties: int) -> tuple[bool, str]:
    c = len(problem.rhs)
    direct, shared = planner.path_seconds(problem, n_penalties, KRYLOV_STEPS)
    if direct <= shared:
        return True, f"one eigendecomposition of size {c} serves all penalties"
    return False, f"one Krylov space for all penalties costs less than an eigendecomposition of size {c}"


def _by_eigen(problem: Problem, penalties: Vector, rows: np.ndarray, settings: Settings, points: _Points, reason: str) -> None:
    k = len(problem.penalty)
    spectrum, points.gram = eigen.Spectrum(problem, points.gram), None
    pairs = [np.repeat(rows, k), np.tile(np.arange(k), len(rows))]
    size = problem.targets_at_once
    for lo in range(0, len(pairs[0]), size):
        at, targets = (pair[lo : lo + size] for pair in pairs)
        answer = spectrum.solve(problem.select(targets, penalties[at]), settings)
        points.keep(at, targets, answer, "eigh", reason)


def _by_krylov(
    problem: Problem,
    penalties: Vector,
    rows: np.ndarray,
    settings: Settings,
    points: _Points,
    reason: str,
    starts: dict[int, Vector],
) -> Problem:
    """Solve every target on a space of its own; return the problem as it is best read, and put into `starts` what missed tol"""
    if not problem.side.streams:
        held = problem.extra_bytes
        problem = problem.streaming().with_rhs(problem.rhs)
        points.held += problem.extra_bytes - held
    solve, name = shifted.solve, "multi-shift CG"
    if not problem.wide and not shifted.suits(problem, penalties[rows]):
        solve, name = galerkin.solve, "Galerkin projections on one space"
    for target in range(len(problem.penalty)):
        answer = solve(problem.for_target(target), penalties[rows], settings)
        targets = np.full(len(rows), target)
        points.keep(rows, targets, answer, "cg", f"{reason}: {name}")
        if (answer.error > settings.tol).any():
            assert answer.x is not None
            starts[target] = np.zeros((len(problem.rhs), len(penalties)))
            starts[target][:, rows] = answer.x
    return problem


def _one_by_one(
    problem: Problem,
    penalties: Vector,
    rows: np.ndarray,
    target: int,
    solver: str,
    settings: Settings,
    points: _Points,
    start: Vector | None,
) -> None:
    """Solve at penalties that share nothing but products, by one solver and what it falls back to"""
    targets = np.full(len(rows), target)
    here = problem.select(targets, penalties[rows])
    first = None if start is None else np.ascontiguousarray(start[:, rows])
    if settings.max_iter is not None and points.n_iter[rows, target].max() >= settings.max_iter:
        return
    if start is not None and solver == "auto":
        # From where the shared space got to CG has less to do than a new start of anything else.
        answer = planner.SOLVERS["cg"](here, replace(settings, start=first))
        points.keep(rows, targets, answer, "cg", f"{points.reason[rows[0]]}, finished by CG")
        left = answer.error > settings.tol
        if not left.any() or len(problem.rhs) > planner.MAX_DIRECT:
            return
        rows, targets = rows[left], targets[left]
        here = problem.select(targets, penalties[rows])
    chosen = planner.plan(here, solver)
    answer, ran, reason = planner.run(here, chosen, replace(settings, start=first if solver == "cg" else None))
    if answer.error.max() <= points.error[rows, target].max():
        points.keep(rows, targets, answer, ran, reason)
