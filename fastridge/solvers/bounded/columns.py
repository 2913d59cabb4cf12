"""Newton steps on the columns of the data, where A'A is not formed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastridge.krylov.iteration import conjugate_gradient
from fastridge.monitor import Monitor
from fastridge.operators.base import Array, Vector
from fastridge.preconditioners import Jacobi
from fastridge.problem import Problem
from fastridge.solvers.bounded import dual_newton
from fastridge.solvers.bounded.certificate import gains, inspect
from fastridge.solvers.bounded.newton import PROXIMAL, Newton, norm_over
from fastridge.solvers.bounded.records import Look, Step

MAX_BLOCK = 512
"""Columns between their bounds up to which they are copied and their block of A'A is factored, where that is not formed."""
ADDED = 0.01
"""Share of H that penalties put in the place of zeros may come to, where enough of its spectrum is known to say so."""
SMALLEST = np.finfo(np.float64).eps ** 2
"""Penalties on a step through n-vectors are at least this, relative to the diagonal."""


class ColumnNewton(Newton):
    """Steps by a Cholesky factor of the few columns chosen; of many by conjugate gradients, the others times zero, or on the
    n-vectors where those are fewer

    Sweeps run over the columns as lines, copied where they are not contiguous.
    """

    def __init__(self, problem: Problem, d: Vector, monitor: Monitor) -> None:
        super().__init__(problem, d, monitor)
        self.dual: Vector | None = None
        self.columns = problem.design.columns()
        n, p = problem.design.shape
        self.held = self.columns.extra_bytes - problem.design.extra_bytes + 8 * (8 * min(n, p) + 4 * p)
        if n < p and n <= dual_newton.MAX_FACTOR:
            self.held += 8 * n * n
        self.no_linear = np.zeros(len(d))

    def by_dual(self, w: Vector, tol: float, max_iter: int, on_step: Callable[[float, float], bool]) -> tuple[Vector, int]:
        n, p = self.problem.design.shape
        if n >= p or not self.pull.all():
            return w, 0
        value = self.place(w)
        by_columns = replace(self.problem, design=self.columns)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # where alpha d is all but zero
            point = dual_newton.maximise(by_columns, self.pull, self.rest, tol, max_iter, on_step, self.monitor)
            helps = self.place(point.w) < value
        if helps:
            self.dual = point.u
            return point.w, point.n_iter
        self.place(w)
        return w, point.n_iter

    def place(self, w: Vector) -> float:
        """Go to w; return 2 P(w)"""
        self.dual = None
        self.rest: Vector = self.problem.target[:, 0]
        if w.any():
            self.rest = self.rest - self.columns.matvec(w[:, None])[:, 0]
        return float(self.rest @ self.rest + np.sum((np.sqrt(self.pull) * w) ** 2))

    def sweep(self, w: Vector, n_sweeps: int) -> float:
        scale = self.columns.row_scale
        self.tau = self.rest * (1.0 if scale is None else scale)
        return self.sweeps(w, n_sweeps)

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> float:
        return self.columns.sweep(self.no_linear, self.alpha, w, self.tau, backward, lower, upper, self.d)

    def look(self, w: Vector, exact: bool) -> Look:
        look, self.rest = inspect(self, w)
        look.sq_bound = min(look.sq_bound, self._sq_gap(look, w))
        return look

    def _sq_gap(self, look: Look, w: Vector) -> float:
        """Bound of the squared error of w by the point of the dual problem at hand"""
        if self.dual is None:
            return np.inf
        off = self.rest - self.dual
        g = self.columns.rmatvec(self.dual[:, None])[:, 0] - self.pull * w
        total = float(off @ off + gains(self, g, w, self.doubt(self.dual, w)).sum())
        return float((np.sqrt(total) + look.off) ** 2)

    def sq_ahead(self, look: Look, w: Vector, step: Step) -> float:
        return np.inf if step.sq_upper < np.inf else self._sq_gap(look, w)

    def factors(self, chosen: Array) -> bool:
        return int(np.count_nonzero(chosen)) <= MAX_BLOCK

    def gram_of(self, chosen: Array) -> Vector:
        few = self.columns.take(chosen)
        gram = few.full_gram()
        held = gram.nbytes + sum(block.nbytes for block in self.blocks)
        self.block_bytes = max(self.block_bytes, few.extra_bytes - self.columns.extra_bytes + held)
        return gram

    def image(self, s: Vector) -> Vector:
        return self.problem.design.normal(s[:, None])[:, 0]

    def step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> Step:
        if not chosen.any():
            return Step(chosen, np.zeros(len(g)))
        if self.factors(chosen):
            return self.block_of(chosen).step(g)
        by_samples = self.problem.design.shape[0] < int(np.count_nonzero(chosen))
        return (self._dual_step if by_samples else self._primal_step)(g, chosen, sq_size, aim)

    def _dual_step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> Step:
        """Solve for n-vectors x: (I + A_Q P_Q^-1 A_Q') x = A_Q P_Q^-1 g and P_Q s = g - A_Q'x, P the penalties"""
        sq_scale = np.divide(1.0, self._positive(PROXIMAL), out=np.zeros(len(g)), where=chosen)
        residual = self.columns.matvec((sq_scale * g)[:, None])[:, 0]
        size = float(np.linalg.norm(residual))
        share = min(1.0, aim * np.sqrt(sq_size) / size) if sq_size > 0 and size > 0 else aim
        by_columns = replace(self.problem, design=self.columns)
        x = dual_newton.solve(by_columns, sq_scale, residual, share, self.monitor)
        s = sq_scale * (g - self.columns.rmatvec(x[:, None])[:, 0])
        if not np.isfinite(s).all():
            return Step(chosen, np.zeros(len(g)), np.inf, np.inf, np.inf)
        self.dual = self.rest - x
        return Step(chosen, s, max(float(g @ s), 0.0), np.inf, np.inf, guess=True)

    def _primal_step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> Step:
        """Run conjugate gradients on the columns chosen, divided by the roots of their penalties

        Those without a penalty, Z, are given one on the step: a share zeta of the diagonal of H_ZZ. With sigma^2 the least
        eigenvalue of that block, scaled to a diagonal of ones, and F^2 the sum of ||a_j||^2 / (alpha d_j) over the others, x'H x
        is at least x'(what is added)x sigma^2 / (zeta (1 + F)^2).
        """
        free, share, added = chosen & (self.pull == 0), PROXIMAL, 0.0
        if free.any():
            reach = 1 + norm_over(np.where(chosen & ~free, self.norms, 0.0), self.pull)
            least = self.block_of(free).smallest if self.factors(free) and reach > 1 else 0.0
            share, added = (least * ADDED / reach**2, ADDED) if least * ADDED > SMALLEST * reach**2 else (PROXIMAL, np.inf)
        pull, alpha = self._positive(share), self.alpha or 1.0
        root = np.sqrt(chosen * (alpha / pull))
        sub = self.problem.restricted(self.problem.design.with_columns_scaled(root**2), False)
        sub = replace(sub, penalty=np.full(1, alpha))
        sizes = np.array([sq_size]) if sq_size > 0 else None
        first, rest = np.zeros((len(g), 1)), (root * g)[:, None]
        limit, go_on = max(1000, 10 * len(g)), self.monitor.within_step
        run = conjugate_gradient(sub, first, rest, Jacobi.of(sub), sizes, aim, limit, go_on)
        s = root * run.x[:, 0]
        gained, sq_left = max(float(g @ s), 0.0), float(run.sq_bound[0])
        sq_error = gained + float(run.sq_error[0])
        if added == np.inf or (pull != self.pull)[chosen & ~free].any():
            return Step(chosen, s, sq_error, np.inf, np.inf)
        residual = np.divide(run.residual[:, 0], root, out=np.zeros(len(g)), where=chosen)
        return Step(chosen, s, sq_error, gained + sq_left, np.sqrt(sq_left), residual=residual, pull=pull, added=added)

    def _positive(self, share: float) -> Vector:
        """The penalties, with this share of the squared norm in place of zero; the others are kept from underflow"""
        sq_norms = self.problem.design.sq_norms
        pull = np.maximum(self.pull, np.where(self.pull == 0, share, SMALLEST) * sq_norms)
        return np.where(pull > 0, pull, 1.0)

    def prepare(self, d: Vector) -> float:
        self.change: Vector = self.problem.design.matvec(d[:, None])[:, 0]
        return float(self.change @ self.change + self.pull @ d**2)

    def move(self) -> None:
        self.rest = self.rest - self.change
