"""Cyclic coordinate descent on the small side: over the Gram matrix where that is small, else over the lines of the data."""

from __future__ import annotations

import numpy as np

from fastridge._kernels import descent
from fastridge.factor import ScaledFactor
from fastridge.krylov.iteration import First
from fastridge.krylov.proof import measure
from fastridge.monitor import Monitor
from fastridge.operators.base import Vector, column_dots
from fastridge.problem import ROUNDING, Check, Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

MAX_GRAM = 2048
"""A Gram matrix of up to this many columns (32 MB) is formed once and swept instead of the data."""
DEFAULT_SWEEPS = 10_000
FIRST_LOOK = 4
"""Sweeps before the error is looked at; the gaps between looks then grow with the sweeps done."""
MEASURE_STEPS = 200
"""CG steps that one measurement of the error may take where no Gram matrix is at hand to factor."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective one coordinate after the other, every target by itself

    A sweep forward and one back give a direction; together with the last step taken it spans a plane, and the next iterate is
    the minimiser in that plane. In exact arithmetic that is conjugate gradients preconditioned by symmetric Gauss-Seidel, so that
    any tolerance within reach of CG is. The plane costs at most one product with the data.

    Stops on a proven bound: the duality gap (gradient over alpha; r'r of a wide problem), or, where that is too loose to pass
    although a sweep no longer moves the answer, a measurement of the error: through a factor of the Gram matrix, or by CG on
    M e = residual.

    With alpha = 0 the answer of a wide problem is of minimum norm, being A'z, and its error is at most ||y - A w||. That of a
    tall one is where columns are independent; where a factor of the Gram matrix does not show that they are, the error is inf.

    References
    ----------
    Wright (2015), DOI 10.1007/s10107-015-0892-3 (the method); Hsieh et al. (2008), DOI 10.1145/1390156.1390208 (on the dual);
    Axelsson (1972), DOI 10.1007/BF01932955 (symmetric sweeps within conjugate gradients).
    """
    c, k = problem.rhs.shape
    monitor = settings.monitor
    sweeper = _GramSweeper(problem, monitor) if by_gram(problem) else _LineSweeper(problem, monitor)
    if not monitor.go_on():
        return Answer.zero(problem)
    limit = DEFAULT_SWEEPS if settings.max_iter is None else settings.max_iter
    x, n_iter, stalled = np.zeros((c, k)), np.zeros(k, dtype=np.int64), False
    error, bound = np.ones((2, k))  # of zeros
    history: list[float] = []
    first = First.of(problem, settings.start)
    for target in range(k):
        if monitor.stopped:
            break
        one = problem.for_target(target)
        z, look = np.zeros(c) if first is None else first.x[:, target].copy(), FIRST_LOOK
        sweeper.begin(one, z)
        provable = float(one.penalty[0]) > 0
        last_step: tuple[Vector, Vector] | None = None
        told = 0
        while True:
            n_sweeps = min(2, limit - int(n_iter[target]))
            z, last_step, moved = _forth_and_back(sweeper, z, last_step, n_sweeps)
            n_iter[target] += n_sweeps
            last = n_iter[target] >= limit or not monitor.go_on()
            if not last and n_iter[target] < look:
                continue
            check = one.check(z[:, None])
            sq_bound = one.sq_bound(check.residual)
            error[target], bound[target] = relative(sq_bound, check.sq_size)[0], relative_bound(sq_bound, check)[0]
            # ||z|| in the norm of M, in which a sweep's decrease is measured.
            size = np.sqrt(max(0.0, float(z @ (one.rhs - check.residual)[:, 0])))
            settled, at_rest = moved <= settings.tol * size, moved <= ROUNDING * size
            unknown = False
            if bound[target] > settings.tol and (settled or at_rest or last) and not monitor.stopped:
                sq_rest = column_dots(check.residual, check.residual)
                measured = relative(sq_rest, check.sq_size)[0] if one.wide else sweeper.measure(one, check)
                error[target] = min(error[target], measured)
                if provable:
                    bound[target] = min(bound[target], measured + relative(check.rounding**2, check.sq_size)[0])
                unknown = not provable and measured == np.inf
            history.append(float(error[target]))
            last |= not monitor.after_step(history[-1], float(bound[target]), int(n_iter[target]) - told)
            told = int(n_iter[target])
            done = (bound if provable else error)[target] <= settings.tol
            if done or last or at_rest or unknown:
                stalled |= bool((at_rest or unknown) and not done)
                break
            sweeper.refresh(z)
            look = n_iter[target] + max(FIRST_LOOK, n_iter[target] // 4)
        x[:, target] = z
    check = problem.check(x)
    return Answer(
        check.w,
        n_iter,
        error,
        bound,
        check.sq_size,
        stalled=stalled,
        workspace_bytes=sweeper.nbytes + 8 * c * (k + 8),
        history=tuple(history),
        x=x,
    )


def by_gram(problem: Problem) -> bool:
    """Whether the Gram matrix is swept: where it is small, or where columns cannot be"""
    return problem.side.shape[1] <= MAX_GRAM or not problem.side.traits.sweeps


def _forth_and_back(
    sweeper: _GramSweeper | _LineSweeper, z: Vector, last_step: tuple[Vector, Vector] | None, n_sweeps: int
) -> tuple[Vector, tuple[Vector, Vector], float]:
    """Return the next iterate, the step to it (and of the sweeper's state), and about how far the sweep moved in the H-norm

    One sweep, the last that is allowed, is a direction as well.
    """
    first = z, sweeper.state
    swept, sweeper.state = z.copy(), first[1].copy()
    moved = np.sqrt(sweeper.sweep(swept, backward=False))
    if n_sweeps == 2:
        sweeper.sweep(swept, backward=True)
    directions = [(swept - z, sweeper.state_step(swept - z, first[1]))]
    if last_step is not None:
        directions.append(last_step)
    curvature = np.array([[sweeper.curvature(d, e) for e in directions] for d in directions])
    slope = np.array([sweeper.slope(first, d) for d in directions])
    # Scaled to a unit diagonal, a matrix of two by two is singular only where the directions are parallel.
    # One that has shrunk to nothing gets the weight zero.
    diagonal = np.diag(curvature)
    scale = np.where(diagonal > np.finfo(np.float64).tiny, np.sqrt(np.maximum(diagonal, 0.0)), np.inf)
    if not (np.isfinite(curvature).all() and np.isfinite(slope).all()):  # numbers that float64 does not hold: no step
        sweeper.state = first[1]
        return z, (np.zeros_like(z), np.zeros_like(first[1])), 0.0
    weights = np.linalg.lstsq(curvature / np.outer(scale, scale), slope / scale, rcond=1e-12)[0] / scale
    step = sum(weight * d for weight, (d, _) in zip(weights, directions, strict=True))
    state_step = sum(weight * d for weight, (_, d) in zip(weights, directions, strict=True))
    sweeper.state = first[1] + state_step
    return z + step, (step, state_step), float(moved)


class _GramSweeper:
    """Sweeps over B'B in full, C order; the state is the residual b - M z, and a step d of z moves it by -M d"""

    def __init__(self, problem: Problem, monitor: Monitor) -> None:
        self.gram = problem.side.full_gram(monitor.go_on).T
        self.nbytes = 2 * self.gram.nbytes  # with the factor that measures

    def begin(self, problem: Problem, z: Vector) -> None:
        """Turn to another target, from z"""
        self.penalty = float(problem.penalty[0])
        self.rhs = problem.rhs[:, 0]
        self._factor: ScaledFactor | None = None
        self.refresh(z)

    def refresh(self, z: Vector) -> None:
        """Compute the state anew"""
        self.state: Vector = self.rhs - self.gram @ z - self.penalty * z

    def sweep(self, z: Vector, backward: bool) -> float:
        """Sweep once, changing z and the state in place; return the decrease of the objective, times two"""
        return float(descent.sweep_gram(self.gram, self.penalty, z, self.state, backward))

    def state_step(self, d: Vector, before: Vector) -> Vector:
        """What the step d did to the state, which was `before`"""
        step: Vector = self.state - before
        return step

    def curvature(self, d: tuple[Vector, Vector], e: tuple[Vector, Vector]) -> float:
        """D'M e"""
        return -float(d[0] @ e[1])

    def slope(self, first: tuple[Vector, Vector], d: tuple[Vector, Vector]) -> float:
        """Decrease of the objective along d: d'(b - M z)"""
        return float(first[1] @ d[0])

    def measure(self, problem: Problem, check: Check) -> float:
        """Upper bound of the relative error of an answer to a tall problem; inf where a factor does not tell"""
        if self._factor is None:
            self._factor = ScaledFactor(
                self.gram.T.copy(order="F"),
                self.penalty,
                max(problem.design.shape),
                cancelled=problem.cancelled(self.penalty),
            )
        if self._factor.loss == np.inf:
            return np.inf
        sq_error = problem.sq_error(check.residual, self._factor.solve(check.residual)) / (1 - self._factor.loss)
        return float(relative(sq_error, check.sq_size)[0])


class _LineSweeper:
    """Sweeps over the columns of B as lines, copied where they are not contiguous

    The state is tau = r o (rho_0 - B z), as in `_kernels.descent`; a step d of z moves it by -r o (B d).
    """

    def __init__(self, problem: Problem, monitor: Monitor) -> None:
        self.monitor = monitor
        self.columns = problem.side.columns()
        self.nbytes = self.columns.extra_bytes - problem.side.extra_bytes + 40 * self.columns.shape[0]
        weights = self.columns.sq_row_scale
        # Rows of weight zero are zero in B and in tau.
        self._inverse = None if weights is None else np.divide(1.0, weights, out=np.zeros_like(weights), where=weights > 0)

    def begin(self, problem: Problem, z: Vector) -> None:
        """Turn to another target, from z"""
        self.problem = problem
        self.penalty = float(problem.penalty[0])
        self.linear = np.ascontiguousarray(problem.target[:, 0]) if problem.wide else np.zeros(problem.side.shape[1])
        self.refresh(z)

    def refresh(self, z: Vector) -> None:
        """Compute the state anew"""
        tau = -self.columns.matvec(z[:, None])[:, 0]
        if not self.problem.wide:
            tau += self.problem.target[:, 0]
        scale = self.columns.row_scale
        self.state: Vector = tau if scale is None else tau * scale

    def sweep(self, z: Vector, backward: bool) -> float:
        """Sweep once, changing z and the state in place; return the decrease of the objective, times two"""
        return self.columns.sweep(self.linear, self.penalty, z, self.state, backward)

    def state_step(self, d: Vector, before: Vector) -> Vector:
        """What the step d did to the state, by a product: the difference of states has lost digits where the residual is large"""
        step: Vector = -self.columns.matvec(d[:, None])[:, 0]
        scale = self.columns.row_scale
        return step if scale is None else step * scale

    def _dot(self, s: Vector, t: Vector) -> float:
        return float(s @ (t if self._inverse is None else t * self._inverse))

    def curvature(self, d: tuple[Vector, Vector], e: tuple[Vector, Vector]) -> float:
        """D'M e"""
        return self._dot(d[1], e[1]) + self.penalty * float(d[0] @ e[0])

    def slope(self, first: tuple[Vector, Vector], d: tuple[Vector, Vector]) -> float:
        """Decrease of the objective along d: d'(b - M z)"""
        return float((self.linear - self.penalty * first[0]) @ d[0]) - self._dot(first[1], d[1])

    def measure(self, problem: Problem, check: Check) -> float:
        """Relative error of an answer to a tall problem; inf where alpha = 0"""
        return float(measure(problem, check, MEASURE_STEPS, self.monitor)[0]) if self.penalty > 0 else np.inf
