"""`ridge` and `explain`: a solve, and what a solve would do, from plain arrays; numpy and scipy alone."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from fastridge import planner, validation
from fastridge.design import centred_design
from fastridge.lines import Matrix, Vector
from fastridge.parallel import resolve_threads
from fastridge.problem import Bounds, Problem
from fastridge.solution import FitReport, Settings, Solution, Status
from fastridge.standard_form import StandardForm, standard_form


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
    verbose : bool, default False
        Print the plan, and the error after every step, to standard error.

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
    validation.check_options(solver, tol, max_iter, n_threads, fit_intercept=fit_intercept)
    X = validation.check_X(X)
    y = validation.check_y(y, X.shape[0])
    weights = validation.check_sample_weight(sample_weight, X.shape[0])
    penalty = validation.check_alpha(alpha, 1 if y.ndim == 1 else y.shape[1])
    box = validation.check_bounds(positive, bounds, X.shape[1], solver)
    d = validation.check_penalty_weights(penalty_weights, X.shape[1], box)
    return solve_checked(X, y, penalty, weights, fit_intercept, solver, tol, max_iter, n_threads, verbose, np.float64, box, d)


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
    verbose: bool,
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
    if verbose:
        print(chosen, file=sys.stderr)
    if start is not None and not problem.wide:
        start = form.scaled(start)
    settings = Settings(tol, max_iter, on_step=print_step if verbose else None, start=start)
    answer, ran, reason = planner.run(form.problem, chosen, settings)
    exact = form.coefficients(answer.w)
    w = exact.astype(dtype) if bounds is None else bounds.rounded(exact, dtype)
    lost, lost_bound = problem.rounding_loss(exact, w.astype(np.float64), answer.sq_size)
    error, bound = float((answer.error + lost).max()), float((answer.error_bound + lost_bound).max())
    if penalty.min() == 0 and (bounds is None or bound == np.inf):
        status = Status.UNCERTIFIED
    elif error <= tol:
        status = Status.CONVERGED
    else:
        status = Status.STALLED if answer.stalled or answer.error.max() <= tol else Status.MAX_ITER
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
    intercept = problem.intercept(w.astype(np.float64)).astype(dtype) if fit_intercept else np.zeros(len(penalty), dtype)
    if y.ndim == 1:
        return Solution(np.ascontiguousarray(w[:, 0]), intercept[0], report, answer.x)
    return Solution(np.ascontiguousarray(w.T), intercept, report, answer.x)


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
    """Centre and weight the data without copying X"""
    target = y.reshape(len(y), -1)
    y_mean = np.zeros(target.shape[1])
    if fit_intercept:
        # A first mean and the mean of what is left: y may lie far away from zero.
        y_mean = np.average(target, axis=0, weights=weights)
        y_mean = y_mean + np.average(target - y_mean, axis=0, weights=weights)
    target = target - y_mean
    if weights is not None:
        target *= np.sqrt(weights)[:, None]
    wanted = target[:, 0] if target.shape[1] == 1 and X.shape[0] >= X.shape[1] else None
    design, x_mean, image = centred_design(X, weights, fit_intercept, resolve_threads(n_threads), wanted)
    problem = Problem(design, target, penalty, x_mean, y_mean, bounds, penalty_weights=penalty_weights)
    return problem if image is None else problem.with_rhs(image[:, None])


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


def print_step(step: int, error: float) -> None:
    """Say on standard error how far a solve has got"""
    print(f"step {step}: error {error:.2e}", file=sys.stderr)
