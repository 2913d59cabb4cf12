"""Newton steps where A'A is formed."""

from __future__ import annotations

import numpy as np

from fastridge._kernels import descent
from fastridge.monitor import Monitor
from fastridge.operators.base import Array, Vector
from fastridge.problem import Problem
from fastridge.solvers.bounded.certificate import inspect
from fastridge.solvers.bounded.newton import Newton
from fastridge.solvers.bounded.records import Look, Step

MAX_GRAM = 4096
"""A'A (128 MB, and as much for its factor) is formed once for up to this many columns."""
GRAM_RATIO = 2
"""A'A is formed up to this ratio of columns to rows: past it conjugate gradients on the n-vectors are the shorter way."""
FACTOR_WORTH = 200
"""Of nearly empty data A'A is not formed where p^3 is more than this times their bytes: 25 products cost less than a factor."""


def by_gram(problem: Problem) -> bool:
    """Whether A'A is formed"""
    (n, p), n_bytes = problem.design.shape, problem.design.traits.n_bytes
    nearly_empty = n_bytes < n * p
    return p <= min(MAX_GRAM, GRAM_RATIO * n) and not (nearly_empty and p**3 > FACTOR_WORTH * n_bytes)


class GramNewton(Newton):
    """Steps through a Cholesky factor of the block of A'A + alpha D; the gradient is kept up to date"""

    def __init__(self, problem: Problem, d: Vector, monitor: Monitor) -> None:
        super().__init__(problem, d, monitor)
        self.gram = problem.design.full_gram(monitor.go_on).T
        # A'y of all targets, for each to take from.
        self.held = self.gram.nbytes + problem.rhs.nbytes

    def begin(self, problem: Problem) -> None:
        super().begin(problem)
        self.rhs = problem.rhs[:, 0]
        self.nothing = np.zeros(len(self.rhs)), np.zeros(len(self.rhs), dtype=bool)

    def place(self, w: Vector) -> float:
        """Go to w; return 2 (P(w) - P(0))"""
        self.g: Vector = self.rhs - self.gram @ w - self.pull * w
        return -float(w @ (self.rhs + self.g))

    def sweep(self, w: Vector, n_sweeps: int) -> float:
        return self.sweeps(w, n_sweeps)

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> float:
        return float(descent.sweep_gram(self.gram, self.alpha, w, self.g, backward, lower, upper, self.d))

    def look(self, w: Vector, exact: bool) -> Look:
        if not exact:
            return Look(self.g, max(float(w @ (self.rhs - self.g)), 0.0), False, *self.nothing)
        look = inspect(self, w)[0]
        self.g = look.g.copy()
        return look

    def step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> Step:
        return self.block_of(chosen).step(g) if chosen.any() else Step(chosen, np.zeros(len(g)))

    def image(self, s: Vector) -> Vector:
        out: Vector = self.gram @ s
        return out

    def factors(self, chosen: Array) -> bool:
        return True

    def gram_of(self, chosen: Array) -> Vector:
        part: Vector = self.gram.copy() if chosen.all() else self.gram[np.ix_(chosen, chosen)]
        return part.T  # symmetric; now in F order

    def prepare(self, d: Vector) -> float:
        self.change: Vector = self.gram @ d + self.pull * d
        return float(d @ self.change)

    def move(self) -> None:
        self.g -= self.change
