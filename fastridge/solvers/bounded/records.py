"""What the parts of the solver tell one another: the gradient, a step, what a step did, and the end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastridge.operators.base import Array, Vector


@dataclass
class Look:
    """The negative gradient g at w, (p,); `exact`: from the data, with ||w||_H^2 and what is proven of the squared error of w

    `doubt`, (p,), is how far rounding may have put g off; `blurred` are coordinates at a bound that g may draw off it or not.
    `off` is how far rounding may have put y - A w off, in the 2-norm, and `hidden` the H-norm error that it may hide besides;
    `sq_bound`, from the separable gap, includes that.
    """

    g: Vector
    sq_size: float
    exact: bool
    doubt: Vector
    blurred: Array
    off: float = 0.0
    hidden: float = 0.0
    sq_bound: float = np.inf

    def error(self, sq_error: float) -> float:
        """Relative to ||w*||_H"""
        return relative_near(sq_error, self.sq_size)

    def end(self, w: Vector, n_iter: int) -> End:
        """End at w with what the gradient there says of its error"""
        bound = self.error(self.sq_bound)
        return End(w, n_iter, bound, bound, self.sq_size, False)


@dataclass
class Step:
    """A solution s, (p,), of H_QQ s = g, roughly, zero off the coordinates Q, (p,) bool, and what is known about it

    `sq_error` is about g'H_QQ^-1 g, `sq_upper` an upper bound, `left` one of the H-norm error of s; inf where there is none.
    `least` is a lower bound of the spectrum of H_QQ scaled to a diagonal of ones, or 0. A `guess` knows nothing of H_QQ itself.

    Where `residual` is given, (p,), the bounds hold if that is g - H_QQ s, with the penalties `pull`, (p,), in which zeros are
    replaced, so that H_QQ grows by the share `added` at most.
    """

    chosen: Array
    s: Vector
    sq_error: float = 0.0
    sq_upper: float = 0.0
    left: float = 0.0
    least: float = 0.0
    guess: bool = False
    residual: Vector | None = None
    pull: Vector | None = None
    added: float = 0.0


@dataclass(frozen=True)
class Fall:
    """What a step did: whether it was taken in `full`, and by how much 2 P fell, or that it would lead `beyond` bounds w is at"""

    full: bool
    sq_fall: float = 0.0
    beyond: bool = False


@dataclass(frozen=True)
class End:
    """Where a solve of one target ended: at w, (p,), after `n_iter` rounds and steps on the dual

    `error`, an estimate, and `bound`, which is proven, say how far w is from w*, relative to ||w*||_H; `sq_size` is ||w||_H^2.
    `stalled`: rounding was in the way.
    """

    w: Vector
    n_iter: int
    error: float
    bound: float
    sq_size: float
    stalled: bool


def relative_near(sq_error: float, sq_size: float) -> float:
    """Error relative to ||w*||_H, given the squares of the error and of ||w||_H, which is at most the error away from it"""
    if not sq_error > 0:
        return 0.0 if sq_error == 0 else math.inf
    error = math.sqrt(sq_error)
    size = math.sqrt(sq_size) - error
    return error / size if size > 0 else math.inf
