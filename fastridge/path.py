"""`ridge_path`: the answers at many penalties, from one eigendecomposition or one Krylov space, each certified by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastridge import validation
from fastridge.formulation import plain_form, rounded_coefficients
from fastridge.monitor import Progress
from fastridge.operators.base import Array, Vector
from fastridge.penalty_range import useful_penalties
from fastridge.planning import costs, planner
from fastridge.problem import Bounds, Problem, relative
from fastridge.request import Method, Request, RowsRequest
from fastridge.rows import RowSource, alone
from fastridge.solution import Answer, FitReport, Settings, report_of
from fastridge.solvers import bounded, eigen, galerkin, shifted
from fastridge.standard_form import StandardForm


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
        worst = max(report.error_bound for report in self.reports)
        n, converged = len(self.alphas), sum(report.converged for report in self.reports)
        of_all = f"all converged, every error is proven to be at most {worst:.1e}"
        return (
            f"ridge path of {n} alphas from {high:.3g} to {low:.3g} by {solvers}: "
            f"{of_all if converged == n else f'{converged} of {n} converged'}, {self.reports[0].seconds:.2g} s"
        )

    def __repr__(self) -> str:
        return f"<{self}>"

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


def ridge_path(
    X: Any,
    y: Any = None,
    alphas: validation.Penalties = 100,
    *,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    penalty_weights: Any = None,
    tol: float = 1e-6,
    solver: validation.SolverName = "auto",
    max_iter: int | None = None,
    positive: bool = False,
    bounds: tuple[Any, Any] | None = None,
    n_threads: int | None = None,
    time_limit: float | None = None,
    callback: Callable[[Progress], object] | None = None,
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
        As in `ridge`. X may be a `fastridge.scan`.
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
    time_limit, callback
        As in `ridge`, of the whole path. Points that were not reached have the status "time_limit" and coefficients of zero (with
        bounds, the nearest to zero), whose error is at most the bound that their report names.
    verbose : bool, default False
        Print what is done, and a few times a second how far it has got, to standard error.

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
    OverflowError
        If float64 does not hold the coefficients, an intercept, or the penalties that suit the data.

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
    report_to = {"time_limit": time_limit, "callback": callback, "verbose": verbose}
    method = Method.checked(solver, tol, max_iter, n_threads, **report_to, fit_intercept=fit_intercept)
    given = validation.check_alphas(alphas)
    asked = {"fit_intercept": fit_intercept, "positive": positive, "bounds": bounds, "penalty_weights": penalty_weights}
    highest = 1.0 if isinstance(given, int) else float(given.max())
    if isinstance(X, RowSource):
        return _path_of_rows(alone(X, y, sample_weight), method, given, alpha=highest, **asked)
    return solve_path(Request.checked(X, y, sample_weight, method, alpha=highest, **asked), method, given)


def _path_of_rows(source: RowSource, method: Method, alphas: Vector | int, **asked: Any) -> RidgePath:
    """Solve at `alphas` what is asked of rows that a source yields"""
    request = RowsRequest.of_source(source, method, **asked)
    if source.repeatable:
        return solve_path(request, method, alphas)
    raise ValueError(f"{source!r} can be read once: sum its blocks in Moments, whose solve takes many penalties")


@np.errstate(all="ignore")
def solve_path(request: Request, method: Method, alphas: Vector | int) -> RidgePath:
    """Solve what is asked for at `alphas`, or at `alphas` penalties chosen here; the penalty of the request is the largest

    Numbers that leave float64 on the way end in bounds that are not finite, which say so; numpy need not warn of them.
    """
    begin, monitor = time.perf_counter(), method.monitor()
    k, box = len(request.penalty), request.bounds
    original = request.problem(method.n_threads)
    form = plain_form(original)
    problem = form.problem
    gram = None
    if isinstance(alphas, int):
        plain = problem if box is None else plain_form(replace(original, bounds=None)).problem
        penalties, gram = useful_penalties(plain, alphas)
        given = original.user_penalties(penalties)
    else:
        given, penalties = alphas, original.own_penalties(alphas)
    problem = replace(problem, penalty=np.full(k, penalties.min()))
    points = _Points(problem, penalties, gram, given)
    monitor.say(
        f"{len(given)} alphas from {given.max():.3g} to {given.min():.3g}, to reach: errors proven to be at most {method.tol:g}"
    )
    settings = Settings(method.tol, method.max_iter, monitor=monitor)
    (_solve if box is None else _solve_bounded)(problem, penalties, method.solver, settings, points)
    monitor.end()
    points.repeat()
    own = points.coefs if request.penalty_weights is None else _in_own_units(form, penalties, points)
    coefs = own if original.units is None else _in_user_units(original, box, own, given, penalties, points)
    intercepts = np.stack([original.intercept(coef.T) if request.fit_intercept else np.zeros(k) for coef in coefs])
    seconds = time.perf_counter() - begin
    reports = tuple(points.report(i, method.tol, seconds) for i in range(len(penalties)))
    of_one = request.y.ndim == 1
    found = RidgePath(given, coefs[:, 0] if of_one else coefs, intercepts[:, 0] if of_one else intercepts, reports)
    monitor.say(found)
    return found


def _in_own_units(form: StandardForm, penalties: Vector, points: _Points) -> Vector:
    """Coefficients (n_alphas, k, p) of the problem that its standard form has; what the way back may lose counts as an error"""
    for i, u in enumerate(points.coefs):
        points.lose(i, relative(np.square(form.doubt(u.T, penalties[i])), points.sq_size[i]))
    return np.stack([form.coefficients(u.T).T for u in points.coefs])


def _in_user_units(
    problem: Problem, bounds: Bounds | None, own: Vector, alphas: Vector, penalties: Vector, points: _Points
) -> Vector:
    """Coefficients (n_alphas, k, p) of the problem in the user's units; what is lost where float64 ends counts as an error"""
    coefs = np.empty_like(own)
    for i, w in enumerate(own):
        at, alpha = (replace(problem, penalty=np.full(own.shape[1], penalties[i])), np.full(own.shape[1], alphas[i]))
        coefs[i] = rounded_coefficients(problem, w.T, alpha, bounds, np.float64).T
        points.lose(i, at.rounding_loss(w.T, problem.own_coefficients(coefs[i].T, alpha), points.sq_size[i]))
    return coefs


class _Points:
    """What is known at every (alpha, target)"""

    def __init__(self, problem: Problem, penalties: Vector, gram: Vector | None, alphas: Vector) -> None:
        self.gram = gram  # for whoever needs it first
        self.alphas = alphas  # as the user knows them
        shape = (len(penalties), len(problem.penalty))
        self.penalties = penalties
        self.coefs = np.zeros((*shape, problem.design.shape[1]))
        self.error, self.bound = np.full(shape, np.inf), np.full(shape, np.inf)
        self.sq_size = np.zeros(shape)
        self.rcond = np.full(shape[0], np.nan)
        self.n_iter = np.zeros(shape, dtype=np.int64)
        self.stalled, self.timed_out = np.zeros((2, *shape), dtype=bool)
        self.solver, self.reason = np.full(shape[0], "", dtype=object), np.full(shape[0], "", dtype=object)
        self.held = problem.held_bytes
        self.workspace_bytes = 0

    def keep(self, rows: np.ndarray, targets: np.ndarray, answer: Answer, solver: str, reason: str, timed_out: bool) -> None:
        """Take the answers at penalties `rows` of `targets`, (k,) each, which the time limit may have cut short"""
        self.coefs[rows, targets] = answer.w.T
        self.error[rows, targets], self.bound[rows, targets] = answer.error, answer.error_bound
        self.sq_size[rows, targets] = answer.sq_size
        self.n_iter[rows, targets] += answer.n_iter
        self.stalled[rows, targets], self.timed_out[rows, targets] = answer.stalled, timed_out
        self.rcond[rows], self.solver[rows], self.reason[rows] = answer.rcond, solver, reason
        self.workspace_bytes = max(self.workspace_bytes, answer.workspace_bytes)

    def reach_nothing(self, problem: Problem, solver: str) -> None:
        """Take the point within the bounds that is nearest to zero, everywhere; of zeros the error is one"""
        assert problem.bounds is not None
        nearest = problem.bounds.clip(np.zeros(self.coefs.shape[-1]))
        self.coefs[...], self.solver[:], self.reason[:], self.timed_out[...] = nearest, solver, "not reached", True
        if not nearest.any():
            self.error[...] = self.bound[...] = 1.0

    def lose(self, row: int, lost: Vector | float) -> None:
        """Count what the answers at a penalty lose on the way to the user, relative, as an error"""
        self.error[row] += lost
        self.bound[row] += lost

    def name(self, rows: np.ndarray, target: int | None = None) -> str:
        """Say which of the alphas, and of several targets which"""
        of = self.alphas[rows]
        which = f"alpha {of[0]:.3g}" if len(of) == 1 else f"{len(of)} alphas from {of.max():.3g} to {of.min():.3g}"
        return which if target is None or self.error.shape[1] == 1 else f"{which}, target {target}"

    def left(self, rows: np.ndarray, target: int, tol: float) -> np.ndarray:
        """Those of the penalties `rows` at which the target is not proven to be solved; of alpha = 0 by the estimate"""
        judged = np.where(self.penalties[rows] > 0, self.bound[rows, target], self.error[rows, target])
        return np.asarray(rows[~(judged <= tol)])

    def repeat(self) -> None:
        """Give penalties that come again what the first of them got"""
        every = _first_of_each(self.penalties)
        first = every[np.searchsorted(self.penalties[every], self.penalties)]
        of_all = (
            self.coefs,
            self.error,
            self.bound,
            self.sq_size,
            self.n_iter,
            self.stalled,
            self.timed_out,
            self.rcond,
            self.solver,
            self.reason,
        )
        for i in np.flatnonzero(first != np.arange(len(first))):
            for kept in of_all:
                kept[i] = kept[first[i]]

    def report(self, i: int, tol: float, seconds: float) -> FitReport:
        """The report on penalty i"""
        return report_of(
            self.solver[i],
            self.reason[i],
            tol,
            provable=bool(self.penalties[i] > 0),
            stalled=bool(self.stalled[i].any()),
            error=self.error[i],
            error_bound=self.bound[i],
            timed_out=bool(self.timed_out[i].any()),
            n_iter=self.n_iter[i],
            rcond=float(self.rcond[i]),
            seconds=seconds,
            extra_bytes=self.held + self.workspace_bytes,
        )


def _first_of_each(penalties: Vector) -> np.ndarray:
    """Where every distinct penalty comes first, from the smallest to the largest"""
    return np.unique(penalties, return_index=True)[1]


def _solve(problem: Problem, penalties: Vector, solver: str, settings: Settings, points: _Points) -> None:
    """Solve at every penalty for every target"""
    k = len(problem.penalty)
    every = _first_of_each(penalties)
    positive = every[penalties[every] > 0]
    starts: dict[int, Vector] = {}
    if solver == "auto" and len(positive):
        direct, reason = _prefer_eigen(problem, len(positive))
        settings.monitor.say(reason)
        if direct:
            _by_eigen(problem, penalties, positive, settings, points, reason)
        else:
            problem = _by_krylov(problem, penalties, positive, settings, points, reason, starts)
    elif solver == "cg" and len(positive):
        problem = _by_krylov(problem, penalties, positive, settings, points, "asked for", starts)
    # What is left: all of it, where neither is meant; penalties of zero; those that missed tol.
    for target in range(k):
        left = points.left(every, target, settings.tol)
        at_once = max(1, min(problem.targets_at_once, _FACTORS_AT_ONCE // (8 * len(problem.rhs) ** 2 + 1)))
        for lo in range(0, len(left), at_once if solver == "cholesky" else problem.targets_at_once):
            rows = left[lo : lo + (at_once if solver == "cholesky" else problem.targets_at_once)]
            rows = rows[np.argsort(penalties[rows] > 0, kind="stable")]
            for group in (rows[penalties[rows] == 0], rows[penalties[rows] > 0]):
                if len(group):
                    _one_by_one(problem, penalties, group, target, solver, settings, points, starts.get(target))


_FACTORS_AT_ONCE = 1 << 28
"""Bytes of the Cholesky factors that are held together."""


def _solve_bounded(problem: Problem, penalties: Vector, solver: str, settings: Settings, points: _Points) -> None:
    """Solve at every penalty for every target within the bounds, from the largest penalty down, each from the answer before"""
    chosen, monitor = planner.plan(problem, solver), settings.monitor
    monitor.say(chosen)
    monitor.turn_to(chosen.solver)
    points.reach_nothing(problem, chosen.solver)
    within = bounded.BoundedSolver(problem, monitor)
    for target in range(len(problem.penalty)):
        start: Vector | None = None
        for row in _first_of_each(penalties)[::-1]:
            if not monitor.go_on():
                return
            monitor.come_to(points.name(np.array([row]), target))
            answer = within.solve(np.array([target]), penalties[[row]], replace(settings, start=start))
            points.keep(np.array([row]), np.array([target]), answer, chosen.solver, chosen.reason, monitor.timed_out)
            start = answer.w


def _prefer_eigen(problem: Problem, n_penalties: int) -> tuple[bool, str]:
    c = len(problem.rhs)
    direct, shared = costs.path_seconds(problem, n_penalties)
    if direct <= shared:
        return True, f"one eigendecomposition of size {c} serves all penalties"
    return False, f"one Krylov space for all penalties costs less than an eigendecomposition of size {c}"


def _by_eigen(problem: Problem, penalties: Vector, rows: np.ndarray, settings: Settings, points: _Points, reason: str) -> None:
    k = len(problem.penalty)
    monitor = settings.monitor
    monitor.come_to(points.name(rows))
    monitor.turn_to("eigh")
    gram = problem.side.gram(monitor.go_on) if points.gram is None else points.gram
    if not monitor.go_on():
        return
    spectrum, points.gram = eigen.Spectrum(problem, gram), None
    pairs = [np.repeat(rows, k), np.tile(np.arange(k), len(rows))]
    size = problem.targets_at_once
    for lo in range(0, len(pairs[0]), size):
        if monitor.stopped:
            return
        at, targets = (pair[lo : lo + size] for pair in pairs)
        answer = spectrum.solve(problem.select(targets, penalties[at]), settings)
        points.keep(at, targets, answer, "eigh", reason, monitor.timed_out)


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
    monitor = settings.monitor
    monitor.turn_to("cg")
    solve, name = shifted.solve, "multi-shift CG"
    if not problem.wide and not shifted.suits(problem, penalties[rows]):
        solve, name = galerkin.solve, "Galerkin projections on one space"
        if problem.side.traits.passes > 1 and monitor.go_on():  # its products are of several vectors
            held = problem.extra_bytes
            problem = problem.with_one_pass().with_rhs(problem.rhs)
            points.held += problem.extra_bytes - held
    for target in range(len(problem.penalty)):
        if not monitor.go_on():
            break
        monitor.come_to(points.name(rows, target))
        answer = solve(problem.for_target(target), penalties[rows], settings)
        targets = np.full(len(rows), target)
        points.keep(rows, targets, answer, "cg", f"{reason}: {name}", monitor.timed_out)
        if len(points.left(rows, target, settings.tol)):
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
    if settings.monitor.stopped:
        rows = rows[np.isinf(points.error[rows, target])]  # zeros for those alone that nothing is known at
    if not len(rows):
        return
    targets = np.full(len(rows), target)
    here = problem.select(targets, penalties[rows])
    first = None if start is None else np.ascontiguousarray(start[:, rows])
    if settings.max_iter is not None and points.n_iter[rows, target].max() >= settings.max_iter:
        return
    if start is not None and len(problem.rhs) > costs.MAX_DIRECT:
        return  # CG has gone as far as it can
    chosen = planner.plan(here, solver)
    settings.monitor.come_to(points.name(rows, target))
    answer, ran, reason = planner.run(here, chosen, replace(settings, start=first))
    before = points.bound[rows, target].max(), points.error[rows, target].max()
    if (answer.error_bound.max(), answer.error.max()) <= before:
        points.keep(rows, targets, answer, ran, reason, settings.monitor.timed_out)
