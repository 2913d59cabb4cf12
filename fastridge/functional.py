"""`ridge` and `explain`: a solve, and what a solve would do, from plain arrays; numpy and scipy alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastridge import validation
from fastridge.checkpoint import Kept
from fastridge.formulation import plain_form, rounded_coefficients
from fastridge.least_squares import plainly_failed
from fastridge.moments import Moments
from fastridge.monitor import Progress
from fastridge.operators.base import Array, Vector
from fastridge.planning import planner
from fastridge.problem import Problem, relative
from fastridge.request import Method, Request, RowsRequest
from fastridge.rows import RowSource, alone
from fastridge.solution import Answer, Settings, Solution, Status, report_of
from fastridge.standard_form import StandardForm

ROOM_TO_ROUND = 0.9
"""Share of the tolerance that is solved to where coefficients are then rounded to float32."""


def ridge(
    X: Any,
    y: Any = None,
    alpha: validation.Penalties = 1.0,
    *,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    solver: validation.SolverName = "auto",
    tol: float = 1e-6,
    max_iter: int | None = None,
    positive: bool = False,
    bounds: tuple[Any, Any] | None = None,
    penalty_weights: Any = None,
    n_threads: int | None = None,
    time_limit: float | None = None,
    callback: Callable[[Progress], object] | None = None,
    verbose: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Solution:
    """Solve a ridge regression and say how accurate the answer is

    minimise over w, b    1/2 sum_i s_i (y_i - x_i'w - b)^2 + 1/2 alpha sum_j d_j w_j^2

    Parameters
    ----------
    X : (n_samples, n_features) array or sparse matrix
        float32 and float64 are used as they are, anything else numeric is converted to float64. Rows or columns that are
        contiguous (C or F order), CSR and CSC are not copied. Or rows that need not fit in memory, as `scan` gives them.
    y : (n_samples,) or (n_samples, n_targets)
        None where X is a `scan`, which has it.
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
        Called after every step with a `Progress`: solver, step, errors, seconds, those to come, passes and rows a second. What it
        raises ends the solve.
    verbose : bool, default False
        Print the plan, and a few times a second how far the solve has got, to standard error.
    checkpoint : path or None
        Of a `scan`: a folder where what passes gave is kept, every 30 seconds, until the solve is done. The same call after a
        kill goes on from there, to an answer of the same bits. Kept after "time_limit" and "max_iter" too. None: nothing is kept.

    Returns
    -------
    Solution
        coef, intercept, report. Nothing is raised or warned where tol is not reached: ``report.status`` says so.

    Raises
    ------
    ValueError, TypeError
        If an argument is not what it should be; before any work. If a checkpoint is of other rows or settings, or damaged.
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
    report_to = {"time_limit": time_limit, "callback": callback, "verbose": verbose, "checkpoint": checkpoint}
    method = Method.checked(solver, tol, max_iter, n_threads, **report_to, fit_intercept=fit_intercept)
    asked = {"fit_intercept": fit_intercept, "positive": positive, "bounds": bounds, "penalty_weights": penalty_weights}
    if isinstance(X, RowSource):
        return solve_rows(X, y, sample_weight, method, alpha=alpha, **asked)
    return solve(Request.checked(X, y, sample_weight, method, alpha=alpha, **asked), method)


@np.errstate(all="ignore")
def solve(request: Request, method: Method, start: Vector | None = None, likely: bool = False) -> Solution:
    """Solve what is asked for

    `start`, (min(n, p), k), is where iterative solvers begin on the small side; with bounds (p, k), coefficients, which are moved
    into them. Another shape is ignored. `likely`: it may well be the answer, to be proven and no more.

    Numbers that leave float64 on the way end in a bound that is not finite, which says so; numpy need not warn of them.
    """
    begin, monitor = time.perf_counter(), method.monitor()
    penalty, tol = request.penalty, method.tol
    problem = request.problem(method.n_threads)
    form = plain_form(problem)
    chosen = planner.plan(form.problem, method.solver)
    monitor.say(f"{chosen}\nto reach: an error that is proven to be at most {tol:g}")
    monitor.passes = problem.design.passes or monitor.passes
    if start is not None and not problem.wide:
        start = form.scaled(problem.own_coefficients(start, penalty))
    room = 1.0 if request.dtype == np.float64 else ROOM_TO_ROUND
    settings = Settings(room * tol, method.max_iter, monitor=monitor, start=start, likely=likely)
    answer, ran, reason = planner.run(form.problem, chosen, settings)
    w, lost = _rounded(request, problem, form, answer)
    # Rounding took more than was left for it: go on from there to what is still within reach.
    left = tol - float(lost.max())
    again = ran in ("cg", "cd") and float((answer.error_bound + lost).max()) > tol >= float(answer.error_bound.max())
    if again and left > (1 - room) * tol and method.max_iter is None and monitor.go_on():
        start = answer.x if request.bounds is None else answer.w
        more = planner.run(form.problem, chosen, replace(settings, tol=room * left, start=start, likely=False))[0]
        answer = replace(more, n_iter=answer.n_iter + more.n_iter, history=answer.history + more.history)
        w, lost = _rounded(request, problem, form, answer)
    report = report_of(
        ran,
        reason,
        tol,
        provable=bool(penalty.min() > 0),
        stalled=answer.stalled or bool(answer.error_bound.max() <= tol),
        error=answer.error + lost,
        error_bound=answer.error_bound + lost,
        timed_out=monitor.timed_out,
        n_iter=answer.n_iter,
        rcond=answer.rcond,
        seconds=time.perf_counter() - begin,
        extra_bytes=form.problem.held_bytes + answer.workspace_bytes,
        history=answer.history,
    )
    exact = w.astype(np.float64)
    if report.status is Status.UNCERTIFIED and plainly_failed(problem, problem.own_coefficients(exact, penalty), tol):
        report = replace(report, status=Status.FAILED)
    monitor.say(report)
    intercept = problem.intercept(exact) if request.fit_intercept else np.zeros(len(penalty))
    if report.converged and not np.isfinite(intercept).all():
        raise OverflowError("the intercept overflows float64; rescale y")
    if request.y.ndim == 1:
        return Solution(np.ascontiguousarray(w[:, 0]), intercept[0], report, answer.x)
    return Solution(np.ascontiguousarray(w.T), intercept, report, answer.x)


def solve_rows(
    source: RowSource, y: Any, sample_weight: Any, method: Method, start: Vector | None = None, **asked: Any
) -> Solution:
    """Solve what is asked, by the names of `ridge`, of rows that a source yields; `y` and `sample_weight` must be None

    `start`, (p, k), is where conjugate gradients begin: coefficients. Another shape is ignored.

    Rows that can be read once only are summed, and the answer is that of `Moments.solve`.
    """
    source = Kept.of(alone(source, y, sample_weight), method.checkpoint)
    request = RowsRequest.of_source(source, method, **asked)
    if isinstance(source, Kept):
        return _solve_kept(source, request, method, start)
    if source.repeatable:
        return solve(request, method, start)
    if method.solver not in ("auto", "cholesky"):
        raise ValueError(f'{source!r} can be read once: one pass does for solver "auto" or "cholesky", got {method.solver!r}')
    begin = time.perf_counter()
    moments = Moments(n_threads=method.n_threads)
    for block in source.blocks():
        moments.update(block.X, block.y[:, 0] if source.one_target else block.y, block.weights)
    options = {"penalty_weights": request.penalty_weights, "fit_intercept": request.fit_intercept, "tol": method.tol}
    solution = moments.solve_targets(request.penalty, **options)
    report = replace(solution.report, reason="rows that can be read once are summed", seconds=time.perf_counter() - begin)
    return replace(solution, report=report)


def _solve_kept(source: Kept, request: RowsRequest, method: Method, start: Vector | None) -> Solution:
    """Solve what is asked of rows, going on from the checkpoint of the source"""
    settings = {"alpha": request.penalty, "penalty_weights": request.penalty_weights, "fit_intercept": request.fit_intercept}
    sizes = {"n_features": source.n_features, "n_targets": source.n_targets, "dtype": str(source.dtype)}
    source.checkpoint.agree(sizes | settings | {"solver": method.solver})
    try:
        solution = solve(request, method, start)
    except BaseException:
        source.checkpoint.leave()
        raise
    source.end(solution.report.status)
    return solution


def _rounded(request: Request, problem: Problem, form: StandardForm, answer: Answer) -> tuple[Array, Vector]:
    """The user's coefficients, (p, k), rounded, and what that and the way there add to the error, relative, (k,)"""
    alpha, own = request.penalty, form.coefficients(answer.w)
    w = rounded_coefficients(problem, own, alpha, request.bounds, request.dtype)
    lost = problem.rounding_loss(own, problem.own_coefficients(w.astype(np.float64), alpha), answer.sq_size)
    return w, lost + relative(np.square(form.doubt(answer.w, form.problem.penalty)), answer.sq_size)


def explain(
    X: Any,
    y: Any = None,
    *,
    alpha: validation.Penalties = 1.0,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    solver: validation.SolverName = "auto",
    positive: bool = False,
    bounds: tuple[Any, Any] | None = None,
    penalty_weights: Any = None,
    n_threads: int | None = None,
) -> planner.Plan:
    """Say what a fit would do, why, and what every solver is estimated to cost, without fitting

    Parameters
    ----------
    X, y, alpha, sample_weight, fit_intercept, solver, positive, bounds, penalty_weights, n_threads
        As in `ridge`. Without y one target is assumed. The rows of a `scan` are read once.

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
    method = Method.checked(solver, 0.5, None, n_threads, fit_intercept=fit_intercept)
    asked = {"fit_intercept": fit_intercept, "positive": positive, "bounds": bounds, "penalty_weights": penalty_weights}
    if isinstance(X, RowSource):
        rows = RowsRequest.of_source(alone(X, y, sample_weight), method, alpha=alpha, **asked)
        return planner.plan(plain_form(rows.problem(n_threads)).problem, solver)
    if y is None:
        X = validation.check_X(X)
        y = np.zeros(X.shape[0])
    request = Request.checked(X, y, sample_weight, method, alpha=alpha, **asked)
    return planner.plan(plain_form(request.problem(n_threads)).problem, solver)
