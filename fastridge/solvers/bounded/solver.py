"""The bounded problem of every target and penalty: by the dual problem where that is small, else or after it by rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastridge.monitor import Monitor
from fastridge.operators.base import Vector
from fastridge.problem import Problem
from fastridge.solution import Answer, Settings
from fastridge.solvers.bounded.certificate import inspect
from fastridge.solvers.bounded.columns import ColumnNewton
from fastridge.solvers.bounded.gram import GramNewton, by_gram
from fastridge.solvers.bounded.newton import Newton
from fastridge.solvers.bounded.records import End
from fastridge.solvers.bounded.rounds import ROOM, descend

DEFAULT_ROUNDS = 1000


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise P(w) = 1/2 ||y - A w||^2 + 1/2 alpha sum_j d_j w_j^2 over lower <= w <= upper, every target by itself"""
    return BoundedSolver(problem, settings.monitor).solve(np.arange(len(problem.penalty)), problem.penalty, settings)


def unsolved(problem: Problem, monitor: Monitor) -> Answer:
    """The point within the bounds that is nearest to zero, where there is no time to solve; zeros lack w*, an error of one"""
    answer = Answer.zero(problem)
    assert problem.bounds is not None
    nearest = problem.bounds.clip(np.zeros(len(answer.w)))
    if not nearest.any():
        return answer
    error, newton = np.empty(len(problem.penalty)), Newton(problem, _weights(problem), monitor)
    for target in range(len(error)):
        newton.begin(problem.for_target(target))
        error[target] = inspect(newton, nearest)[0].end(nearest, 0).error
    return replace(answer, w=np.repeat(nearest[:, None], len(error), axis=1), error=error, error_bound=error, x=None)


class BoundedSolver:
    """Minimises P(w) = 1/2 ||y - A w||^2 + 1/2 alpha sum_j d_j w_j^2 over lower <= w <= upper, for any targets and penalties

    What does not depend on those, A'A or the columns one after the other, is formed once.

    A round sweeps over the coordinates, clipping each, then solves H_RR s = g_R for the set R of those that are between their
    bounds or that the negative gradient g draws off one, and goes along the clipped step as far as P falls. Once R stays the
    same the sweeps are left out and what remains are Newton's steps on a quadratic: one, and refinements against the data.

    Where there are few samples, Newton steps on the dual problem come first (`dual_newton`), and may be all.

    Where w is feasible, P(w) - P* >= 1/2 ||w - w*||_H^2, and 2 (P(w) - P*) is at most

    - the separable gap, sum_j max over v in [l_j, u_j] of 2 g_j (v - w_j) - alpha d_j (v - w_j)^2, which is guaranteed, and
    - with every coordinate that may move, g_R'(H^-1)_RR g_R, guaranteed as far as it is known exactly: the estimate where the gap
      does not do,
    - g_R'H_RR^-1 g_R where every coordinate off R stays at its bound in w*, which the gap shows where |g_j| > sqrt(H_jj gap);
      elsewhere that only says when to look at the one before.

    References
    ----------
    Bertsekas (1982), DOI 10.1137/0320018 (projected Newton steps); Portugal, Judice & Vicente (1994), DOI
    10.1090/S0025-5718-1994-1250776-4 (block pivoting); Ndiaye, Fercoq, Gramfort & Salmon (2017), JMLR 18(128) (gap safe rules).
    """

    def __init__(self, problem: Problem, monitor: Monitor) -> None:
        assert problem.bounds is not None
        # The unknown is w, whatever the shape.
        self.problem, self.bounds = replace(problem, dual=False), problem.bounds
        kind: type[Newton] = GramNewton if by_gram(problem) else ColumnNewton
        self.newton: Newton = kind(self.problem, _weights(problem), monitor)

    def solve(self, targets: np.ndarray, penalties: Vector, settings: Settings) -> Answer:
        """Solve for `targets`, (k,), which may repeat, at `penalties`, (k,)

        `settings.start`, (p, k), is where to begin, clipped into the bounds; a column no better than zero is not used.
        """
        p, k = self.problem.design.shape[1], len(targets)
        limit = DEFAULT_ROUNDS if settings.max_iter is None else settings.max_iter
        start = settings.start if settings.start is not None and settings.start.shape == (p, k) else None
        w, n_iter, stalled = np.empty((p, k)), np.empty(k, dtype=np.int64), False
        history: list[float] = []
        error, bound, sq_size = np.empty((3, k))
        for i, target in enumerate(targets):
            if settings.monitor.stopped:
                rest = unsolved(self.problem.select(targets[i:], penalties[i:]), settings.monitor)
                w[:, i:], n_iter[i:] = rest.w, 0
                error[i:], bound[i:], sq_size[i:] = rest.error, rest.error_bound, rest.sq_size
                break
            self.newton.begin(self.problem.select(np.array([target]), penalties[i : i + 1]))
            first = self._first(None if start is None else start[:, i])
            end = _solve_one(self.newton, first, settings, limit, history)
            w[:, i], n_iter[i], stalled = end.w, end.n_iter, stalled or end.stalled
            error[i], bound[i], sq_size[i] = end.error, end.bound, end.sq_size
        return Answer(
            w,
            n_iter,
            error,
            bound,
            sq_size,
            stalled=stalled,
            workspace_bytes=self.newton.nbytes + 8 * p * (k + 12),
            history=tuple(history),
        )

    def _first(self, start: Vector | None) -> Vector:
        """Go to the feasible point nearest to `start`, or to zero where that is no worse; return it"""
        nearest = self.bounds.clip(np.zeros(self.problem.design.shape[1]))
        value = self.newton.place(nearest)
        if start is None:
            return nearest
        with np.errstate(all="ignore"):
            warm = self.bounds.clip(np.where(np.isfinite(start), start, 0.0))
            if self.newton.place(warm) < value:
                return warm
        self.newton.place(nearest)
        return nearest


def _solve_one(newton: Newton, w: Vector, settings: Settings, limit: int, history: list[float]) -> End:
    """Solve by the dual problem where that is small, and if that does not do by rounds, from w"""

    def on_step(error: float, bound: float) -> bool:
        history.append(error)
        return settings.monitor.after_step(error, bound)

    w, n_steps = newton.by_dual(w, ROOM * settings.tol, limit - 1, on_step)
    if n_steps or settings.monitor.stopped:
        end = newton.look(w, exact=True).end(w, n_steps)
        if end.bound <= settings.tol or settings.monitor.stopped:
            return end
    end = descend(newton, w, settings.tol, limit - n_steps, on_step)
    return replace(end, n_iter=end.n_iter + n_steps)


def _weights(problem: Problem) -> Vector:
    """D, (p,)"""
    return np.ones(problem.design.shape[1]) if problem.penalty_weights is None else problem.penalty_weights
