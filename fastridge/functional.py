"""`ridge` and `explain`: a solve, and what a solve would do, from plain arrays; numpy and scipy alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastridge import planner, units, validation
from fastridge.design import centred_design
from fastridge.least_squares import plainly_failed
from fastridge.lines import Array, Matrix, Vector
from fastridge.monitor import Monitor, Progress
from fastridge.parallel import resolve_threads
from fastridge.problem import Bounds, Problem, relative
from fastridge.solution import Answer, FitReport, Settings, Solution, Status, status_of
from fastridge.standard_form import StandardForm, standard_form
from fastridge.units import Units

EPS = float(np.finfo(np.float64).eps)
ROOM_TO_ROUND = 0.9
"""Share of the tolerance that is solved to where coefficients are then rounded to float32."""


def ridge(
    X: Any,
    y: Any,
    alpha: Any = 1.0,
    *,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    solver: str = "auto",
    tol: float = 1e-6,
    max_iter: int | None = None,
    positive: bool = False,
    bounds: Any = None,
    penalty_weights: Any = None,
    n_threads: int | None = None,
    time_limit: float | None = None,
    callback: Callable[[Progress], object] | None = None,
    verbose: bool = False,
) -> Solution:
    """Solve a ridge regression and say how accurate the answer is

    minimise over w, b    1/2 sum_i s_i (y_i - x_i'w - b)^2 + 1/2 alpha sum_j d_j w_j^2

    Parameters
    ----------
    X : (n_samples, n_features) array or sparse matrix
        float32 and float64 are used as they are, anything else numeric is converted to float64. Rows or columns that are
        contiguous (C or F order), CSR and CSC are not copied.
    y : (n_samples,) or (n_samples, n_targets)
    alpha : float or (n_targets,), default 1.0
        Penalty, >= 0. 0 is least squares, of minimum norm where several w fit equally well.
    sample_weight : float, (n_samples,) or None
        s, >= 0.
    fit_intercept : bool, default True
        Whether there is a b; it is not penalised.
    solver : {"auto", "cholesky", "svd", "cg", "cd"}, default "auto"
        Anything but "auto" runs as asked, or raises.
    tol : float, default 1e-6
        Accept w when ``||w - w*||_H <= tol ||w*||_H``, with H = A'A + alpha D and A the centred, weighted X. Squared, that is the
        share of the achievable decrease of the objective still missing.
    max_iter : int or None
        Limit on CG steps or sweeps; None leaves it to the solver.
    positive : bool, default False
        Whether w >= 0 is asked for.
    bounds : (lower, upper) or None
        lower <= w <= upper: two numbers or arrays (n_features,), -inf and inf where there is none; equal ones fix a coefficient.
        b is not bounded. With bounds, w* is the minimiser within them, and the solver is "cd".
    penalty_weights : (n_features,), (n_features, n_features) or None
        d: the penalty is alpha sum_j d_j w_j^2. 0 leaves a feature unpenalised, inf fixes its coefficient at 0; None: ones. Or a
        symmetric positive semi-definite matrix D, dense or sparse, of alpha w'D w (up to 5000 features, without bounds).
    n_threads : int or None
        None: what the process may use. The result has the same bits for any number.
    time_limit : float or None
        Seconds, > 0, after which the best answer so far comes back with its error, its proven bound and the status "time_limit":
        zeros, where nothing had been solved. It is looked at between steps and between parts of them. A pass over the data, a
        decomposition into eigenvalues or singular values, and what comes before the first step, are not cut short. None: none.
    callback : callable or None
        Called after every step with a `Progress`: solver, step, error, error_bound, seconds. What it raises ends the solve.
    verbose : bool, default False
        Print the plan, and a few times a second how far the solve has got, to standard error.

    Returns
    -------
    Solution
        coef, intercept, report. Nothing is raised or warned where tol is not reached: ``report.status`` says so.

    Raises
    ------
    ValueError, TypeError
        If an argument is not what it should be; before any work.
    numpy.linalg.LinAlgError
        If solver="cholesky" meets a matrix that is not positive definite.
    OverflowError
        If float64 does not hold the coefficients or the intercept.

    References
    ----------
    Hoerl & Kennard (1970), DOI 10.1080/00401706.1970.10488634.

    Examples
    --------
    >>> import numpy as np, fastridge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 5))
    >>> y = X @ [1.0, 2.0, 0.0, 0.0, -1.0] + 3.0
    >>> solution = fastridge.ridge(X, y, alpha=0.1)
    >>> np.round(solution.coef, 2) + 0.0
    array([ 1.,  2.,  0.,  0., -1.])
    >>> solution.report.error <= 1e-6
    True
    """
    validation.check_options(solver, tol, max_iter, n_threads, time_limit, callback, fit_intercept=fit_intercept)
    X = validation.check_X(X)
    y = validation.check_y(y, X.shape[0])
    weights = validation.check_sample_weight(sample_weight, X.shape[0])
    penalty = validation.check_alpha(alpha, 1 if y.ndim == 1 else y.shape[1])
    box = validation.check_bounds(positive, bounds, X.shape[1], solver)
    d = validation.check_penalty_weights(penalty_weights, X.shape[1], box)
    monitor = Monitor(time_limit, callback, verbose)
    return solve_checked(X, y, penalty, weights, fit_intercept, solver, tol, max_iter, n_threads, monitor, np.float64, box, d)


def solve_checked(
    X: Matrix,
    y: Vector,
    penalty: Vector,
    weights: Vector | None,
    fit_intercept: bool,
    solver: str,
    tol: float,
    max_iter: int | None,
    n_threads: int | None,
    monitor: Monitor,
    dtype: Any,
    bounds: Bounds | None,
    penalty_weights: Vector | None,
    start: Vector | None = None,
) -> Solution:
    """Solve for arrays that have passed `validation`; the coefficients are rounded to `dtype`, and the report is about those

    `start`, (min(n, p), k), is where iterative solvers begin on the small side; with bounds (p, k), coefficients, which are moved
    into them. Another shape is ignored.
    """
    begin = time.perf_counter()
    problem = make_problem(X, y, penalty, weights, fit_intercept, n_threads, bounds, penalty_weights)
    form = plain_form(problem)
    chosen = planner.plan(form.problem, solver)
    monitor.say(chosen)
    if start is not None and not problem.wide:
        start = form.scaled(problem.own_coefficients(start, penalty))
    room = 1.0 if np.dtype(dtype) == np.float64 else ROOM_TO_ROUND
    settings = Settings(room * tol, max_iter, monitor=monitor, start=start)
    answer, ran, reason = planner.run(form.problem, chosen, settings)
    w, lost = _rounded(problem, form, answer, penalty, bounds, dtype)
    # Rounding took more than was left for it: go on from there to what is still within reach.
    left = tol - float(lost.max())
    again = ran in ("cg", "cd") and float((answer.error_bound + lost).max()) > tol >= float(answer.error_bound.max())
    if again and left > (1 - room) * tol and max_iter is None and monitor.go_on():
        start = answer.x if bounds is None else answer.w
        more = planner.run(form.problem, chosen, replace(settings, tol=room * left, start=start))[0]
        answer = replace(more, n_iter=answer.n_iter + more.n_iter, history=answer.history + more.history)
        w, lost = _rounded(problem, form, answer, penalty, bounds, dtype)
    bound = float((answer.error_bound + lost).max())
    error = min(bound, max(float((answer.error + lost).max()), EPS))  # zero only where that is proven
    provable = penalty.min() > 0 or bound < np.inf
    stalled = answer.stalled or answer.error_bound.max() <= tol
    status = status_of(error, bound, tol, bool(stalled), provable, monitor.timed_out)
    judged = provable or monitor.timed_out
    if not judged and plainly_failed(problem, problem.own_coefficients(w.astype(np.float64), penalty), tol):
        status = Status.FAILED
    report = FitReport(
        solver=ran,
        reason=reason,
        status=status,
        n_iter=answer.n_iter,
        error=error,
        error_bound=bound,
        rcond=answer.rcond,
        seconds=time.perf_counter() - begin,
        extra_bytes=form.problem.design.extra_bytes + problem.target.nbytes + answer.workspace_bytes,
        history=answer.history,
    )
    intercept = problem.intercept(w.astype(np.float64)) if fit_intercept else np.zeros(len(penalty))
    if report.converged and not np.isfinite(intercept).all():
        raise OverflowError("the intercept overflows float64; rescale y")
    if y.ndim == 1:
        return Solution(np.ascontiguousarray(w[:, 0]), intercept[0], report, answer.x)
    return Solution(np.ascontiguousarray(w.T), intercept, report, answer.x)


def _rounded(
    problem: Problem, form: StandardForm, answer: Answer, alpha: Vector, bounds: Bounds | None, dtype: Any
) -> tuple[Array, Vector]:
    """The user's coefficients, (p, k), rounded to `dtype`, and what that and the way there add to the error, relative, (k,)"""
    own = form.coefficients(answer.w)
    w = rounded_coefficients(problem, own, alpha, bounds, dtype)
    lost = problem.rounding_loss(own, problem.own_coefficients(w.astype(np.float64), alpha), answer.sq_size)
    return w, lost + relative(np.square(form.doubt(answer.w, form.problem.penalty)), answer.sq_size)


def rounded_coefficients(problem: Problem, own: Vector, alpha: Vector, bounds: Bounds | None, dtype: Any) -> Array:
    """Coefficients of a problem, (p, k), in the user's units, within the user's bounds and rounded to `dtype`

    Raises
    ------
    OverflowError
        If `dtype` does not hold them.
    """
    exact = problem.user_coefficients(own, alpha)
    if bounds is not None:
        return bounds.rounded(np.clip(exact, bounds.lower[:, None], bounds.upper[:, None]), dtype)
    with np.errstate(over="ignore", under="ignore"):
        w = exact.astype(dtype)
    if not np.isfinite(w).all() and np.isfinite(exact).all():
        raise OverflowError(f"the coefficients overflow {np.dtype(dtype)}; convert X to float64, or rescale y")
    return w


def make_problem(
    X: Matrix,
    y: Vector,
    penalty: Vector,
    weights: Vector | None,
    fit_intercept: bool,
    n_threads: int | None,
    bounds: Bounds | None = None,
    penalty_weights: Vector | None = None,
) -> Problem:
    """Centre and weight the data, without copying X but where its squares leave float64

    Where any numbers are so large or small that squares would overflow or underflow, those of the problem are theirs times powers
    of two (`Problem.units`); the penalties of a path must then be taken into its units, and coefficients back.

    Raises
    ------
    ValueError
        If X has entries that are not finite; if several targets within bounds, or a penalty that may leave something unpenalised,
        are too far from one another or from the data in size.
    """
    target = y.reshape(len(y), -1)
    weights, omega = units.of_weights(weights)
    sigma = units.of_targets(target, weights, together=bounds is not None)
    if sigma is not None:
        target = np.ldexp(target, -sigma)
    y_mean = np.zeros((2, target.shape[1]))
    if fit_intercept:  # of what is left after a first mean too: y may lie far away from zero
        first = _mean(target, weights)
        rest = _mean(target - first, weights)
        y_mean[0] = first + rest
        y_mean[1] = rest - (y_mean[0] - first)
    target = target - y_mean[0]
    if fit_intercept:
        y_mean[1] *= target.any(axis=0)  # the mean of a constant is that constant
        target -= y_mean[1]
    if weights is not None:
        target *= np.sqrt(weights)[:, None]
    wanted = target[:, 0] if target.shape[1] == 1 and X.shape[0] >= X.shape[1] else None
    centred = centred_design(X, weights, fit_intercept, resolve_threads(n_threads), wanted)
    problem = Problem(centred.design, target, penalty, centred.mean, y_mean, bounds, penalty_weights=penalty_weights)
    problem = _in_units(problem, sigma, omega, centred.power)
    if centred.image is None:
        return problem
    moved = 0 if problem.units is None else int(problem.units.target[0]) - (0 if sigma is None else int(sigma[0]))
    return problem.with_rhs(np.ldexp(centred.image[:, None], -moved) if moved else centred.image[:, None])


def _mean(y: Vector, weights: Vector | None) -> Vector:
    """Of the targets (n, k), weighted: (k,)"""
    if weights is None:
        return np.asarray(np.add.reduce(y, axis=0) / len(y))
    return np.asarray(np.add.reduce(weights[:, None] * y, axis=0) / weights.sum())


def _in_units(problem: Problem, sigma: np.ndarray | None, omega: int, rho: int) -> Problem:
    """The problem with its penalties, penalty weights and bounds in the units of its data, which the powers of two say"""
    alpha, k, sq_norms = problem.penalty, len(problem.penalty), problem.design.sq_norms
    plain = sigma is None and omega == rho == 0 and problem.penalty_weights is None and problem.bounds is None
    if plain and alpha.max() <= 2.0**units.OUTWEIGHED * sq_norms.max():
        return problem
    d, delta, largest = units.of_penalty_weights(problem.penalty_weights, sq_norms)
    none = np.zeros(k, dtype=np.intp)
    free = None if d is None or d.ndim == 2 or d.all() else d == 0
    own = Units(none if sigma is None else sigma, rho, 2 * rho + delta - omega, largest + units.OUTWEIGHED, free)
    if problem.bounds is not None:
        problem, own = _bounds_in_units(problem, own, largest)
    excess = own.excess(alpha)
    if not (own.target.any() or own.penalty or own.coefficient or excess.any()):
        return problem
    if excess.any() and d is not None and d.ndim == 2 and np.linalg.matrix_rank(d) < len(d):
        raise ValueError(
            "alpha times penalty_weights outweighs the data by 1e90, and leaves combinations of features unpenalised; lower alpha"
        )
    return replace(problem, penalty=own.own_penalty(alpha), penalty_weights=d, units=own)


def _bounds_in_units(problem: Problem, own: Units, largest: int) -> tuple[Problem, Units]:
    """The problem with its bounds in its units, and those, in which what they make coefficients differ from zero has a square"""
    assert problem.bounds is not None
    powers = own.powers(problem.penalty)
    if np.ptp(powers, axis=1).any():
        raise ValueError(
            "with bounds, targets cannot be fitted together where an alpha outweighs the data by 1e90; fit each alone"
        )
    lower, upper = problem.bounds.lower, problem.bounds.upper
    nearest = np.frexp(problem.bounds.clip(np.zeros(len(lower))))
    sizes = np.where(nearest[0] != 0, nearest[1] - powers[:, 0], -units.SQ_COLUMN)
    penalty = np.frexp(problem.penalty.max())[1] + own.penalty - own.excess(problem.penalty).max()
    more = max(0, int(sizes.max()) + max(largest, int(penalty)) // 2 - units.SQ_TARGET // 2)
    if more:
        own = replace(own, target=own.target + more)
        powers = powers + more
        with np.errstate(under="ignore"):
            problem = replace(problem, target=np.ldexp(problem.target, -more), y_mean=np.ldexp(problem.y_mean, -more))
    if powers.any():
        with np.errstate(over="ignore", under="ignore"):
            bounds = Bounds(np.ldexp(lower, -powers[:, 0]), np.ldexp(upper, -powers[:, 0]))
        problem = replace(problem, bounds=bounds)
    return problem, own


def plain_form(problem: Problem) -> StandardForm:
    """The problem as solvers take it: penalty weights taken away, but for bounds, whose solver takes them

    There an infinite weight becomes bounds of zero, which must have been allowed.
    """
    d = problem.penalty_weights
    if problem.bounds is None or d is None:
        return standard_form(problem)
    assert d.ndim == 1
    fixed = np.isinf(d)
    box = Bounds(np.where(fixed, 0.0, problem.bounds.lower), np.where(fixed, 0.0, problem.bounds.upper))
    return StandardForm.of(replace(problem, bounds=box, penalty_weights=np.where(fixed, 1.0, d)))


def explain(
    X: Any,
    y: Any = None,
    *,
    alpha: Any = 1.0,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    solver: str = "auto",
    positive: bool = False,
    bounds: Any = None,
    penalty_weights: Any = None,
    n_threads: int | None = None,
) -> planner.Plan:
    """Say what a fit would do, why, and what every solver is estimated to cost, without fitting

    Parameters
    ----------
    X, y, alpha, sample_weight, fit_intercept, solver, positive, bounds, penalty_weights, n_threads
        As in `ridge`. Without y one target is assumed.

    Returns
    -------
    Plan
        ``str(plan)`` is a table: the choice, its reason, what it falls back to, and the estimated cost of every solver.

    Raises
    ------
    ValueError, TypeError
        As `ridge` does.

    Examples
    --------
    >>> import numpy as np, fastridge
    >>> plan = fastridge.explain(np.eye(50, 10), alpha=1.0)
    >>> plan.solver
    'cholesky'
    """
    validation.check_options(solver, 0.5, None, n_threads, fit_intercept=fit_intercept)
    X = validation.check_X(X)
    y = np.zeros(X.shape[0]) if y is None else validation.check_y(y, X.shape[0])
    weights = validation.check_sample_weight(sample_weight, X.shape[0])
    penalty = validation.check_alpha(alpha, 1 if y.ndim == 1 else y.shape[1])
    box = validation.check_bounds(positive, bounds, X.shape[1], solver)
    d = validation.check_penalty_weights(penalty_weights, X.shape[1], box)
    return planner.plan(plain_form(make_problem(X, y, penalty, weights, fit_intercept, n_threads, box, d)).problem, solver)
