"""What every way to take a Newton step within bounds shares, and the free set on which it is taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastridge.factor import ScaledFactor
from fastridge.monitor import Monitor
from fastridge.operators.base import Array, GoOn, Vector
from fastridge.problem import ROUNDING, Problem
from fastridge.solvers.bounded.records import Look, Step

PROXIMAL = 1e-8
"""Penalty on a step, relative to the diagonal, of a coordinate without a penalty or of a singular block."""


class Newton:
    """What both ways to take a step share: the problem of one target, its bounds, and the factors of its blocks"""

    def __init__(self, problem: Problem, d: Vector, monitor: Monitor) -> None:
        assert problem.bounds is not None
        self.d, self.bounds, self.monitor = d, problem.bounds, monitor
        self.lower, self.upper = problem.bounds.lower, problem.bounds.upper
        self.norms: Vector = np.sqrt(problem.design.sq_norms)
        self.blocks: list[Block] = []
        self.held = self.block_bytes = 0

    @property
    def nbytes(self) -> int:
        """Held at most so far"""
        return self.held + self.block_bytes

    def begin(self, problem: Problem) -> None:
        """Turn to another target or penalty"""
        self.problem, self.alpha = problem, float(problem.penalty[0])
        self.pull = self.alpha * self.d
        self.curvatures: Vector = problem.design.sq_norms + self.pull
        self.blocks = []

    def by_dual(self, w: Vector, tol: float, max_iter: int, on_step: Callable[[float, float], bool]) -> tuple[Vector, int]:
        """Go to where Newton steps on the dual problem lead, if it is small and they help; return that, and their number"""
        return w, 0

    def doubt(self, u: Vector, w: Vector) -> Vector:
        """How far rounding may put A'u - alpha D w off, coordinate by coordinate"""
        return ROUNDING * (self.norms * float(np.linalg.norm(u)) + self.pull * np.abs(w))

    def step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> Step:
        """Solve H_QQ s = g for the chosen coordinates Q, with an error of `aim` relative to the root of `sq_size`"""
        raise NotImplementedError

    def image(self, s: Vector) -> Vector:
        """A'A s"""
        raise NotImplementedError

    def sq_ahead(self, look: Look, w: Vector, step: Step) -> float:
        """Bound of the squared error of w by a point of the dual problem that the step led to; inf where it did not"""
        return np.inf

    def factors(self, chosen: Array) -> bool:
        """Whether a step on these takes a factor"""
        raise NotImplementedError

    def block_of(self, chosen: Array) -> Block:
        """A factor of the block of H of the coordinates chosen; the last two are kept"""
        for i, block in enumerate(self.blocks):
            if (block.chosen == chosen).all():
                self.blocks.insert(0, self.blocks.pop(i))
                return block
        del self.blocks[1:]
        longest, go_on = max(self.problem.design.shape), self.monitor.go_on
        self.blocks.insert(0, Block(self.gram_of(chosen), chosen, self.pull, longest, go_on))
        self.block_bytes = max(self.block_bytes, sum(block.nbytes for block in self.blocks))
        return self.blocks[0]

    def gram_of(self, chosen: Array) -> Vector:
        """The block of A'A of the coordinates chosen, in F order, to be overwritten"""
        raise NotImplementedError

    def place(self, w: Vector) -> float:
        """Go to w; return 2 P(w) but for a constant"""
        raise NotImplementedError

    def look(self, w: Vector, exact: bool) -> Look:
        """Return the gradient at w; from the data where that must be `exact`"""
        raise NotImplementedError

    def prepare(self, d: Vector) -> float:
        """Get ready to move by d; return d'H d"""
        raise NotImplementedError

    def move(self) -> None:
        """Take the step prepared"""
        raise NotImplementedError

    def sweep(self, w: Vector, n_sweeps: int) -> float:
        """Sweep over w, in place, as `sweeps` does; return the decrease of 2 P"""
        raise NotImplementedError

    def sweeps(self, w: Vector, n_sweeps: int) -> float:
        """Sweep forth and back in turn, the first time over all coordinates, then over those left between their bounds

        Return the decrease of 2 P.
        """
        lower, upper, sq_fall = self.lower, self.upper, 0.0
        for i in range(n_sweeps):
            sq_fall += self.sweep_once(w, bool(i % 2), lower, upper)
            if i == 0:
                inside = (w > lower) & (w < upper)
                lower, upper = np.where(inside, lower, w), np.where(inside, upper, w)
        return sq_fall

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> float:
        """Minimise P in every coordinate of w in turn, in place, within bounds; return the decrease of 2 P"""
        raise NotImplementedError


class Block(ScaledFactor):
    """A factor of the block of H = A'A + alpha D of the coordinates chosen; a singular one has a little added"""

    def __init__(self, gram: Vector, chosen: Array, pull: Vector, longest: int, go_on: GoOn) -> None:
        super().__init__(gram, pull[chosen], longest, PROXIMAL**1.5, go_on=go_on)
        self.chosen = chosen

    def step(self, g: Vector) -> Step:
        """The Newton step from the negative gradient g, (p,): with a singular block one of the proximal point method"""
        s = np.zeros(len(g))
        if not self.complete:
            return Step(self.chosen, s, np.inf, np.inf, np.inf)
        s[self.chosen] = self.solve(g[self.chosen])
        sq_error = max(float(g @ s), 0.0)
        if self.loss == np.inf:
            return Step(self.chosen, s, sq_error, np.inf, np.inf)
        sq_upper = sq_error / (1 - self.loss)
        return Step(self.chosen, s, sq_error, sq_upper, self.loss * np.sqrt(sq_upper), self.smallest)


def free(g: Vector, w: Vector, lower: Vector, upper: Vector) -> tuple[Array, Array]:
    """Return which coordinates are between their bounds, and which the negative gradient draws off one"""
    movable = lower < upper
    inside = (w > lower) & (w < upper)
    drawn = movable & (((w <= lower) & (g > 0)) | ((w >= upper) & (g < 0)))
    return inside, drawn


def norm_over(v: Vector, diagonal: Vector) -> float:
    """The root of the sum of v^2 / diagonal over those v that are not zero"""
    some = v != 0
    with np.errstate(divide="ignore", over="ignore"):
        return float(np.linalg.norm(v[some] / np.sqrt(diagonal[some])))
