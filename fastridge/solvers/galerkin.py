"""Galerkin projections on one growing space for every penalty of a target, where Jacobi scaling is what makes CG fast."""

from __future__ import annotations

import numpy as np

from fastridge.krylov.proof import ROOM, settle
from fastridge.operators.base import Vector, column_dots
from fastridge.problem import ROUNDING, Check, Problem, relative
from fastridge.solution import Answer, Settings

ENERGY_ROUNDING = 4 * np.finfo(np.float64).eps
"""A gain smaller than this share of the energy is lost in the difference of energies."""
TRAINING = 24
"""Penalties that the space is built for; w is analytic in log alpha, and their answers span those between them nearly."""
TOGETHER = 8
"""Directions that one block product adds, at most."""
CAPTURED = 0.2
"""Share of a new direction that may lie outside what is added in its step."""
SPENT = 1e-10
"""A direction that loses all but this share when made orthogonal to the space is rounding."""
MAX_BASIS_BYTES = 1 << 29
"""The space and its products with B'B take at most this."""
MAX_BASIS = 400
"""Directions that the space has, at most."""


class Space:
    """Orthonormal directions S, (c, m), with B'B S and the projection S'B'B S = V diag(s) V'

    At every penalty the Galerkin answer S V (s + alpha)^-1 V'S'b is the one of least H-norm error in the space, and its residual
    a combination of b, B'B S and S: no product with the data.
    """

    def __init__(self, problem: Problem, capacity: int) -> None:
        self.problem = problem
        self.b = problem.rhs[:, 0]
        c = len(self.b)
        self._directions, self._products = np.empty((c, capacity), order="F"), np.empty((c, capacity), order="F")
        self._projected = np.zeros((capacity, capacity))
        self._slopes = np.zeros(capacity)
        self.m = 0

    @property
    def directions(self) -> Vector:
        """S"""
        return self._directions[:, : self.m]

    @property
    def products(self) -> Vector:
        """B'B S"""
        return self._products[:, : self.m]

    @property
    def room(self) -> int:
        """How many directions may still be added"""
        return self._directions.shape[1] - self.m

    def add(self, directions: Vector) -> int:
        """Add the part of `directions`, (c, k), that matters, in one block product; return how many that were"""
        S = self.directions
        length = np.sqrt(np.einsum("ij,ij->j", directions, directions))
        rest = directions / np.where(length > 0, length, 1.0)
        for _ in range(2):
            rest -= S @ (S.T @ rest)
        left = np.sqrt(np.einsum("ij,ij->j", rest, rest))
        rest = rest[:, left > SPENT]
        rest /= left[left > SPENT]
        # Pivoted Gram-Schmidt, until all have all but CAPTURED of their length within.
        chosen: list[Vector] = []
        while len(chosen) < min(TOGETHER, self.room) and rest.shape[1]:
            lengths = np.sqrt(np.einsum("ij,ij->j", rest, rest))
            longest = int(lengths.argmax())
            if lengths[longest] <= CAPTURED and chosen:
                break
            q = rest[:, longest] / lengths[longest]
            for _ in range(2):  # what is added is orthogonal to rounding, however little of it was left
                q -= S @ (S.T @ q)
                for other in chosen:
                    q -= other * (other @ q)
            q /= np.sqrt(q @ q)
            rest -= np.outer(q, q @ rest)
            chosen.append(q)
        if not chosen:
            return 0
        new = np.ascontiguousarray(np.stack(chosen, axis=1))
        products = self.problem.product(new)
        lo, hi = self.m, self.m + len(chosen)
        self._directions[:, lo:hi], self._products[:, lo:hi] = new, products
        self.m = hi
        cross = self.directions.T @ products
        self._projected[:hi, lo:hi], self._projected[lo:hi, :hi] = cross, cross.T
        corner = cross[lo:hi]
        self._projected[lo:hi, lo:hi] = (corner + corner.T) / 2
        self._slopes[lo:hi] = new.T @ self.b
        s, v = np.linalg.eigh(self._projected[:hi, :hi])
        self._s, self._v = np.maximum(s, 0.0), v
        self._rotated = v.T @ self._slopes[:hi]
        return len(chosen)

    def energies(self, penalties: Vector) -> Vector:
        """||x||_M^2 of the answers, (k,)"""
        if not self.m:
            return np.zeros(len(penalties))
        total: Vector = (self._rotated[:, None] ** 2 / (self._s[:, None] + penalties)).sum(axis=0)
        return total

    def weights(self, penalties: Vector) -> Vector:
        """Coefficients of the answers in S, (m, k)"""
        weights: Vector = self._v @ (self._rotated[:, None] / (self._s[:, None] + penalties))
        return weights

    def residual(self, weights: Vector, penalties: Vector) -> Vector:
        """B - M x of the answers, (c, k)"""
        out = self.products @ -weights
        out -= self.directions @ (weights * penalties)
        out += self.b[:, None]
        return np.ascontiguousarray(out)

    def check(self, penalties: Vector, off_centre: Vector | float) -> Check:
        """Check the answers: as `Problem.check`, but for the rounding of many products in place of one"""
        weights = self.weights(penalties)
        x = np.ascontiguousarray(self.directions @ weights)
        residual = self.residual(weights, penalties)
        slope = self.b @ x
        sq_own = np.maximum(slope - column_dots(x, residual), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            sq_size = np.where(sq_own > 0, np.maximum(slope, 0.0) * (slope / sq_own), 0.0)
        # sum_j |t_j| ||A s_j|| <= ||t|| sqrt(trace S'A'A S): the errors of the products, and so of A'y, over sqrt(alpha).
        frobenius, sq_target = self.problem.frobenius, float(self.problem.sq_target[0])
        size = np.sqrt(np.einsum("ij,ij->j", weights, weights))
        seen = np.sqrt(np.trace(self._projected[: self.m, : self.m]))
        rounding = ROUNDING * (np.sqrt(sq_target) + size * (seen + penalties / max(frobenius, np.finfo(np.float64).tiny)))
        rounding = ROUNDING * (frobenius * size + np.sqrt(sq_own)) + rounding * frobenius / np.sqrt(penalties)
        rounding += off_centre * np.sqrt(sq_own)
        return Check(x, residual, sq_size, rounding)


def solve(problem: Problem, penalties: Vector, settings: Settings) -> Answer:
    """Minimise the ridge objective of the one target of a tall `problem` at every one of `penalties`, (k,), > 0

    A step takes the residuals of penalties that have not converged, scaled by Jacobi at their own penalty, and adds what they
    span to one space; the answers at all penalties are the best in that space. So a step does for each at least about what one
    of preconditioned CG does, and most of the space is shared. First for `TRAINING` penalties, then for any other that fails.

    It ends with the gradient bound ||g|| / sqrt(alpha). Residuals are combinations of products with the data, computed once, by
    weights that are no larger than the answer; CG goes on from the answers that those do not prove. Which penalties failed is in
    `error_bound`.

    References
    ----------
    Simoncini & Gallopoulos (1995), DOI 10.1137/0916053 (several right-hand sides, one space); Kressner & Tobler (2011),
    DOI 10.1137/100799010 (systems that depend analytically on a parameter); Benner, Gugercin & Willcox (2015),
    DOI 10.1137/130932715 (projection on the answers at chosen parameters).
    """
    c, k = len(problem.rhs), len(penalties)
    capacity = int(min(c, MAX_BASIS, MAX_BASIS_BYTES // (16 * c)))
    limit = max(1000, c) if settings.max_iter is None else settings.max_iter
    order = np.argsort(penalties)
    training = np.unique(order[np.linspace(0, k - 1, min(k, TRAINING)).round().astype(int)])
    space = Space(problem, max(capacity, 1))
    sq_norms = problem.side.sq_norms[:, None]
    energy = np.zeros(k)
    history: list[float] = []
    n_iter, step, told = np.zeros(k, dtype=np.int64), 0, 0
    ended = np.zeros(k, dtype=bool)
    for columns in (training, np.arange(k)):
        todo = columns[~ended[columns]]
        while len(todo):
            if space.m:
                alpha = penalties[todo]
                residual = space.residual(space.weights(alpha), alpha)
                error = relative(column_dots(residual, residual) / alpha, energy[todo])
                history.append(float(error.max()))
                if step > told:
                    settings.monitor.after_step(history[-1], history[-1])
                    told = step
                ended[todo] |= error <= ROOM * settings.tol
                residual, todo = residual[:, ~ended[todo]], todo[~ended[todo]]
            else:
                residual = np.repeat(problem.rhs, len(todo), axis=1)
            stop = settings.monitor.stopped or step >= limit
            if not len(todo) or stop or not space.add(residual / (sq_norms + penalties[todo])):
                break
            step += 1
            n_iter[todo] = step
            new = space.energies(penalties)
            # Where the energy no longer grows the bound is loose, and CG proves the answer for less.
            ended[todo] |= new[todo] - energy[todo] <= ENERGY_ROUNDING * new[todo]
            energy = new
    if not space.m:  # A'y is zero
        return Answer(np.zeros((c, k)), n_iter, np.zeros(k), np.zeros(k), np.zeros(k), x=np.zeros((c, k)))

    def answers(part: slice, here: Problem) -> tuple[Vector, Check]:
        check = space.check(penalties[part], here.off_centre())
        return check.w, check

    workspace = 16 * c * space.m + 8 * c * 3 * TRAINING
    return settle(problem, penalties, n_iter, settings, tuple(history), workspace, answers)
