"""Powers of two between the numbers a user has and those of the problem that is solved, whose squares float64 can hold.

With y = sigma y', X = X' / rho, s = omega s' and d = delta d' the problem in w' = w / (sigma rho) is the same, its penalty being
alpha' = rho^2 delta / omega alpha. Where that outweighs the data by many orders, so that w is (alpha D)^-1 A'y to all digits and
far more, alpha' is made smaller by a power of two and w' larger by it.

Factors that are powers of two cost no digits. All are one unless something would overflow or underflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastridge._kernels import vectors
from fastridge.operators.base import Vector

SQ_TARGET = 332
"""Squared norms of targets are to lie between two to this power and its inverse, about 1e100 and 1e-100."""
SQ_COLUMN = 466
"""The same of the columns, after division by the roots of penalty weights: about 1e140."""
WEIGHT = 66
"""The same of the largest sample weight: about 1e20."""
OUTWEIGHED = 300
"""Power of two that a penalty is at most, times the largest squared norm of a column: 2e90."""
LEAST = 2.0**-1000
"""What penalties are at least. Less than this, beside the data, is nothing."""
LARGEST_WEIGHT = 1000
"""Power of two above which penalty weights are cut off. What they weigh on has no share in the answer."""


@dataclass(frozen=True)
class Units:
    """How many times two the numbers of the problem are to be multiplied by to be the user's

    Attributes
    ----------
    target : (k,) int
        Of targets: sigma.
    coefficient : int
        Of coefficients, besides that: rho.
    penalty : int
        Of penalties, the other way: alpha' is alpha times two to this power.
    cap : int
        Penalties of the problem are at most two to this power.
    free : (p,) bool or None
        Features without a penalty: one that is too large says nothing about them.
    """

    target: np.ndarray
    coefficient: int
    penalty: int
    cap: int
    free: np.ndarray | None

    def own_penalty(self, alpha: Vector) -> Vector:
        """The problem's penalties that stand for the user's"""
        with np.errstate(under="ignore"):
            own = np.ldexp(alpha, self.penalty - self.excess(alpha))
        return np.where(alpha > 0, np.maximum(own, LEAST), 0.0)

    def user_penalty(self, penalty: Vector) -> Vector:
        """The user's penalties that the problem's stand for; inf or 0 where float64 ends"""
        with np.errstate(over="ignore", under="ignore"):
            alpha: Vector = np.ldexp(penalty, -self.penalty)
        return alpha

    def excess(self, alpha: Vector) -> np.ndarray:
        """Power of two by which the user's penalties are too large, 0 where they are not"""
        return np.where(alpha > 0, np.maximum(np.frexp(alpha)[1] + self.penalty - self.cap, 0), 0)

    def user_coefficients(self, w: Vector, alpha: Vector) -> Vector:
        """The user's coefficients (p, k) at penalties (k,); inf or 0 where float64 ends"""
        with np.errstate(over="ignore", under="ignore"):
            coef: Vector = np.ldexp(w, self.powers(alpha))
        return coef

    def own_coefficients(self, w: Vector, alpha: Vector) -> Vector:
        """The inverse of `user_coefficients`"""
        with np.errstate(over="ignore", under="ignore"):
            coef: Vector = np.ldexp(w, -self.powers(alpha))
        return coef

    def powers(self, alpha: Vector) -> np.ndarray:
        """Those that coefficients are multiplied by at the user's penalties, (1, k), or (p, k) with features without a penalty"""
        excess = self.excess(alpha) if self.free is None else np.where(self.free[:, None], 0, self.excess(alpha))
        return np.atleast_2d(self.target + self.coefficient - excess)


def of_weights(weights: Vector | None) -> tuple[Vector | None, int]:
    """Return sample weights s' and the even power of two omega"""
    if weights is None:
        return None, 0
    power = int(np.frexp(weights.max())[1])
    if -WEIGHT < power < WEIGHT:
        return weights, 0
    power -= power % 2
    with np.errstate(under="ignore"):
        return np.ldexp(weights, -power), power


def of_targets(y: Vector, weights: Vector | None, together: bool) -> np.ndarray | None:
    """Return sigma of the targets, (n, k), as powers of two (k,), the same for all of them where `together`; None: ones

    Raises
    ------
    ValueError
        If one sigma cannot do for all.
    """
    sq_norms = np.empty(y.shape[1])
    vectors.dots(y, y, sq_norms)
    low, high = 2.0**-SQ_TARGET, 2.0**SQ_TARGET
    if low < sq_norms.min() and sq_norms.max() < high:
        return None
    fine = (low < sq_norms) & (sq_norms < high) | (sq_norms == 0) & ~y.any(axis=0)
    if fine.all():
        return None
    counted = y if weights is None else y[weights > 0]
    sizes = np.maximum(counted.max(axis=0), -counted.min(axis=0))
    powers = np.frexp(sizes)[1]
    if not together:
        return np.where(fine, 0, powers)
    powers = powers[sizes > 0]
    if np.ptp(powers) > SQ_TARGET:
        raise ValueError("with bounds, targets cannot be fitted together where one is 1e100 times as large as another")
    return np.full(y.shape[1], (powers.max() + powers.min()) // 2)


def of_penalty_weights(d: Vector | None, sq_norms: Vector) -> tuple[Vector | None, int, int]:
    """Return penalty weights d', delta, and about the largest squared norm of a column of A D'^-1/2, as powers of two

    `sq_norms`, (p,), are of the columns of A.
    """
    if d is None or d.ndim == 2:
        largest = int(np.frexp(sq_norms.max(initial=0.0))[1])
        if d is None:
            return None, 0, largest
        power = int(np.frexp(np.abs(d).max(initial=0.0))[1])
        if -SQ_TARGET < power < SQ_TARGET:
            return d, 0, largest
        with np.errstate(under="ignore"):
            return np.ldexp(d, -power), power, largest
    counted = np.isfinite(d) & (d > 0) & (sq_norms > 0)
    if not counted.any():
        return d, 0, 0
    powers = np.frexp(sq_norms[counted])[1] - np.frexp(d[counted])[1]
    low, high = int(powers.min()), int(powers.max())
    if -SQ_COLUMN < high < SQ_COLUMN:
        return d, 0, high
    power = -max((low + high) // 2, high - SQ_COLUMN)
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(d, -power)
    return np.where(np.isinf(d), d, np.minimum(scaled, 2.0**LARGEST_WEIGHT)), power, high + power
