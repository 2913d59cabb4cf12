"""The ridge problem in terms of the design operator, its small side, and the certificate of an answer.

    minimise over w    1/2 ||y - A w||^2 + 1/2 alpha ||w||^2        H = A'A + alpha I

Where p <= n the unknown is w itself: H w = A'y. Where p > n it is the n-vector z with w = A'z: (A A' + alpha I) z = y. Both are
M x = b with M = B'B + alpha I, B = A or A' (`side`), so that one solver serves both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastridge._kernels import vectors
from fastridge.operators.base import Array, Operator, Target, Vector, column_dots
from fastridge.parallel import cached_property
from fastridge.units import Units

ROUNDING = 4 * np.finfo(np.float64).eps
"""Relative error of one product with the data, as a multiple of norms: sums in lanes, a few roundings each."""

UNKNOWN = 1e100
"""This stands for a relative error of which nothing is known."""
SLACK = 16 * np.finfo(np.float64).eps
"""Error of a difference of squares, relative to the squares."""
CANCELLED = 4.0
"""Ratio of what is subtracted in M to what is left, from which on products take care of it, in two passes if need be."""

CHUNK_BYTES = 1 << 27
"""Bytes of the vectors of targets that are solved together, at most."""
CHUNK_VECTORS = 6
"""Vectors on the small side that a target takes while it is solved, beside one on the long side."""


@dataclass(frozen=True)
class Check:
    """The residual of an answer and its size, computed anew from the data

    Attributes
    ----------
    w : (p, k)
        The coefficients: x, or A'x of a wide problem.
    residual : (c, k)
        b - M x on the small side: the negative gradient g = A'(y - A w) - alpha w, or r = y - A w - alpha z.
    sq_size : (k,)
        Lower bound of ||w*||_H^2, what errors are relative to: (w'H w*)^2 / ||w||_H^2, and all of it where w is w*.
    rounding : (k,)
        How large an H-norm error of w the rounding of `residual` may hide.
    """

    w: Vector
    residual: Vector
    sq_size: Vector
    rounding: Vector


@dataclass(frozen=True)
class Bounds:
    """lower <= w <= upper, each (p,) float64, -inf and inf where there is none; the same for every target"""

    lower: Vector
    upper: Vector

    def clip(self, w: Vector) -> Vector:
        """The nearest w within, (p,)"""
        return np.clip(w, self.lower, self.upper)

    def rounded(self, w: Vector, dtype: Any) -> Array:
        """`w`, (p, k) and within, in another precision: the nearest number there that is within too, where there is one"""
        rounded = w.astype(dtype)
        if rounded.dtype == w.dtype:
            return w
        for outside, inwards in ((rounded < self.lower[:, None], np.inf), (rounded > self.upper[:, None], -np.inf)):
            next_one = np.nextafter(rounded, rounded.dtype.type(inwards))
            within = (next_one >= self.lower[:, None]) & (next_one <= self.upper[:, None])
            rounded = np.where(outside & within, next_one, rounded)
        return rounded


@dataclass(frozen=True)
class Problem:
    """Design, centred targets and penalties

    Attributes
    ----------
    design : Operator
        A, (n, p).
    target : (n, k)
        R (y - mean of y); or what `design` takes for it, where rows live elsewhere.
    penalty : (k,)
        alpha of every target, >= 0.
    x_mean, y_mean : (2, p), (2, k)
        In two parts, whose sums are the means.
    bounds : Bounds or None
        Of the coefficients; only the solver for bounds looks at them.
    dual : bool or None
        Whether the unknown is z; None: where p > n and A can be transposed.
    penalty_weights : (p,) or (p, p) float64, or None
        d of alpha sum_j d_j w_j^2, ones where None. Only the solver for bounds takes them; `standard_form` takes them away.
    relaid : Operator or None
        A copy of `side` that CG's products read in one pass; all else reads `design`.
    sq_fitted : (k,) float64 or None
        Share of ||w*||_H^2 that unpenalised features have, whatever the others are.
    units : Units or None
        What the numbers are multiplied by to be the user's; None: by one.
    """

    design: Operator
    target: Target
    penalty: Vector
    x_mean: Vector
    y_mean: Vector
    bounds: Bounds | None = None
    dual: bool | None = None
    penalty_weights: Vector | None = None
    sq_fitted: Vector | None = None
    relaid: Operator | None = None
    units: Units | None = None

    @property
    def wide(self) -> bool:
        """Whether the unknown is the n-vector z"""
        n, p = self.design.shape
        return p > n and self.design.traits.transposes if self.dual is None else self.dual

    @cached_property
    def side(self) -> Operator:
        """B: A, or A' of a wide problem"""
        return self.design.T if self.wide else self.design

    @cached_property
    def rhs(self) -> Vector:
        """b, (c, k): A'y, or y of a wide problem"""
        return self.target if self.wide else self.design.rmatvec(self.target)

    @cached_property
    def image(self) -> Vector:
        """A'y, (p, k)"""
        return self.design.rmatvec(self.target) if self.wide else self.rhs

    @cached_property
    def sq_target(self) -> Vector:
        """||y||^2, (k,)"""
        return self.design.sq_target(self.target)

    def with_rhs(self, rhs: Vector) -> Problem:
        """The same problem, b being known"""
        new = replace(self)
        new.__dict__["rhs"] = rhs
        return new

    @cached_property
    def frobenius(self) -> float:
        """Frobenius norm of A as it is read, to which the rounding of products is relative"""
        return float(np.sqrt(self.design.sq_read_norms.sum()))

    def cancelled(self, penalty: float) -> float:
        """How much larger than its diagonal the terms of M may be: 1 unless scalars centre it or something is projected out"""
        sq_norms, sq_read = self.side.sq_norms, self.side.sq_read_norms
        if sq_read is sq_norms:
            return 1.0
        left = sq_norms + penalty
        return float(np.divide(sq_read + penalty, left, out=np.ones_like(left), where=left > 0).max())

    def product(self, x: Vector) -> Vector:
        """B'B x: (c, k) -> (c, k)"""
        side = self.relaid or self.side
        return side.stable_normal(x) if self._cancels else side.normal(x)

    @cached_property
    def _cancels(self) -> bool:
        """Whether a product in one pass would be a difference of numbers much larger than M: its rounding may exceed alpha"""
        return self.cancelled(float(self.penalty.min())) > CANCELLED

    def normal(self, x: Vector, penalty: Vector) -> Vector:
        """M x for targets with the given penalties: (c, k) -> (c, k)"""
        out = self.product(x)
        vectors.add(out, x, penalty)
        return out

    def for_target(self, target: int) -> Problem:
        """The problem of one target alone"""
        return self.select(np.array([target]), self.penalty[[target]])

    def restricted(self, design: Operator, dual: bool) -> Problem:
        """The problem with the columns of `design`, those of A scaled or left out, and the side to take; without bounds"""
        return replace(self, design=design, dual=dual, bounds=None, relaid=None)

    @property
    def targets_at_once(self) -> int:
        """How many targets a direct or a shared solve takes together, so that its memory does not grow with their number"""
        m, c = self.side.shape
        return max(1, CHUNK_BYTES // (8 * (m + CHUNK_VECTORS * c)))

    def select(self, targets: np.ndarray, penalty: Vector) -> Problem:
        """The problem of these targets, which may repeat, with these penalties"""
        new = replace(
            self,
            target=self.design.take_targets(self.target, targets),
            penalty=penalty,
            y_mean=self.y_mean[:, targets],
            sq_fitted=None if self.sq_fitted is None else self.sq_fitted[targets],
            units=None if self.units is None else replace(self.units, target=self.units.target[targets]),
        )
        return new if self.wide else new.with_rhs(np.ascontiguousarray(self.rhs[:, targets]))

    def chunks(self) -> Iterator[tuple[np.ndarray, Problem]]:
        """Yield (targets, the problem of those), as many together as `targets_at_once` says"""
        k, size = len(self.penalty), self.targets_at_once
        if k <= size:
            yield np.arange(k), self
            return
        for lo in range(0, k, size):
            targets = np.arange(lo, min(lo + size, k))
            yield targets, self.select(targets, self.penalty[targets])

    def own_penalties(self, alpha: Vector) -> Vector:
        """The problem's penalties that stand for the user's"""
        return alpha if self.units is None else self.units.own_penalty(alpha)

    def user_penalties(self, penalty: Vector) -> Vector:
        """The user's penalties that the problem's stand for

        Raises
        ------
        OverflowError
            If float64 does not hold them.
        """
        if self.units is None:
            return penalty
        alpha = self.units.user_penalty(penalty)
        if not (np.isfinite(alpha) & (alpha > 0)).all():
            raise OverflowError("the penalties that suit these data are no float64 numbers; rescale X")
        return alpha

    def user_coefficients(self, w: Vector, alpha: Vector) -> Vector:
        """The user's coefficients that `w`, (p, k), stand for at the user's penalties, (k,)

        Raises
        ------
        OverflowError
            If float64 does not hold them.
        """
        if self.units is None:
            return w
        out = self.units.user_coefficients(w, alpha)
        if np.isinf(out).any():
            raise OverflowError("the coefficients overflow float64: y is too large for X so small; rescale one of them")
        return out

    def own_coefficients(self, w: Vector, alpha: Vector) -> Vector:
        """The inverse of `user_coefficients`"""
        return w if self.units is None else self.units.own_coefficients(w, alpha)

    def intercept(self, w: Vector) -> Vector:
        """B of the user's coefficients, (p, k): mean of y less x_mean'w, which may cancel, with all the digits w has; (k,)

        Infinite where float64 does not hold it.
        """
        units = self.units
        w = np.ascontiguousarray(w if units is None else np.ldexp(w, -units.target - units.coefficient))
        shift, low = np.empty((2, w.shape[1])), np.empty(w.shape[1])
        vectors.accurate_sums(self.x_mean[0], w, shift)
        vectors.weighted_sums(self.x_mean[1], w, low)
        b: Vector = (self.y_mean[0] - shift[0]) + ((self.y_mean[1] - shift[1]) - low)
        if units is not None:
            with np.errstate(over="ignore"):
                b = np.ldexp(b, units.target)
        return b

    def with_one_pass(self) -> Problem:
        """The same problem with a copy of the data, in the order that the products of the small side read in one pass"""
        return replace(self, relaid=self.side.with_one_pass())

    @property
    def extra_bytes(self) -> int:
        """Bytes of copies of the data"""
        return (self.relaid or self.design).extra_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes of copies of the data, and of the targets"""
        return self.extra_bytes + self.target_bytes

    @property
    def target_bytes(self) -> int:
        """Bytes of the targets, as far as they are here"""
        return int(getattr(self.target, "nbytes", 0))

    def check(self, x: Vector, smallest: Vector | None = None) -> Check:
        """Compute the residual of the answer `x`, (c, k), from the data, and the size that its error is relative to

        `smallest`, (k,), is a lower bound of the spectrum of M scaled to a diagonal of ones, where one is known: rounding then
        hides less. By Cauchy and Schwarz ||w*||_H >= w'H w* / ||w||_H, and w'H w* = w'A'y.
        """
        penalty, sq_target = self.penalty, self.sq_target
        if self.wide:
            smallest = None  # M is not H
            w = self.design.rmatvec(x)
            fit = self.design.matvec(w)
            residual = self.target - fit - penalty * x
            sq_own = column_dots(fit, fit) + penalty * column_dots(w, w)
            slope = column_dots(self.target, fit)
        else:
            w = x
            residual = self.side.gradient(x, self.target) - penalty * x
            slope = column_dots(x, self.rhs)
            sq_own = np.maximum(slope - column_dots(x, residual), 0.0)
        moved = np.empty(len(penalty))
        vectors.weighted_sums(np.sqrt(self.design.sq_read_norms), np.abs(w), moved)
        doubt = ROUNDING * np.sqrt(sq_target) * moved
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            least = np.maximum(slope - doubt, 0.0)
            sq_size = np.where(sq_own > 0, least * (least / sq_own), 0.0)
            sq_lost = np.minimum(1.0, self.frobenius**2 / penalty) * sq_target
        sq_rest = 0.0 if self.wide else sq_target - 2 * slope + sq_own + SLACK * sq_target + 4 * doubt
        sq_lost = np.where(sq_target > 0, sq_lost, 0.0)
        rounding = ROUNDING * (moved + np.sqrt(sq_own) + np.sqrt(sq_lost)) + self._hidden(x, sq_rest, smallest)
        with np.errstate(invalid="ignore"):  # an answer that is not finite
            rounding = rounding + self.off_centre(smallest) * np.sqrt(sq_own)
        if self.sq_fitted is not None:
            sq_size = sq_size + self.sq_fitted
            rounding = rounding + ROUNDING * np.sqrt(self.sq_fitted)
        return Check(w, residual, sq_size, rounding)

    def _hidden(self, x: Vector, sq_fit_left: Vector | float, smallest: Vector | None) -> Vector:
        """What rounding in the last product of a residual may hide, (k,), in the H-norm of w

        That product is A'r with r = y - A w, or A'z of a wide problem, in which alpha z stands for r. Its error for column j is
        at most ||a_j|| ||r|| times the rounding. The H^-1-norm of the errors is at most their norm over sqrt(alpha); or, with
        rows and columns of H scaled to a diagonal of ones, over the root of `smallest`.

        `sq_fit_left` is y'y - 2 y'A w + ||w||_H^2 = ||r||^2 + alpha ||w||^2.
        """
        penalty, sq_x = self.penalty, column_dots(x, x)
        if self.wide:
            return ROUNDING * self.frobenius * np.sqrt(penalty * sq_x)
        rest = np.sqrt(np.maximum(sq_fit_left - penalty * sq_x, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.sqrt(self._in_inverse(self.design.sq_read_norms, smallest))
            return np.where(rest > 0, ROUNDING * rest * weight, 0.0)

    def off_centre(self, smallest: Vector | None = None) -> Vector | float:
        """How far the rounding of column means moves the answer, relative in the H-norm, (k,): H is off by e e' at most"""
        off = self.design.mean_error
        if off is None:
            return 0.0
        theta = self._in_inverse(off**2, smallest)
        # Where it cannot be told, a finite number, so that an answer of zero has no error.
        return np.where(theta < 0.5, theta / (1 - np.minimum(theta, 0.5)), UNKNOWN)

    def _in_inverse(self, sq: Vector, smallest: Vector | None) -> Vector:
        """At most v'H^-1 v, (k,), for any v with v_j^2 <= `sq`_j, (p,), whichever of alpha and `smallest` says less"""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            largest = np.where(self.penalty > 0, sq.sum() / self.penalty, np.inf)
            if smallest is not None:
                diagonal = self.design.sq_norms[:, None] + self.penalty
                shares = np.divide(sq[:, None], diagonal, out=np.zeros_like(diagonal), where=sq[:, None] > 0).sum(axis=0)
                largest = np.fmin(largest, shares / smallest)
        return largest

    def rounding_loss(self, w: Vector, rounded: Vector, sq_size: Vector) -> Vector:
        """H-norm of what rounding took from `w`, (p, k), relative to a size with the square `sq_size`; (k,)"""
        d = np.ascontiguousarray(w - rounded)
        if not d.any():
            return np.zeros(d.shape[1])
        return relative(self.design.sq_image(d) + self.penalty * self._sq_weighted(d), sq_size)

    def _sq_weighted(self, d: Vector) -> Vector:
        """The squares d'D d of the columns of d, (p, k)"""
        weights = self.penalty_weights
        if weights is None:
            return column_dots(d, d)
        if weights.ndim == 2:
            return np.asarray(np.einsum("jl,jl->l", d, weights @ d))
        weighted = d * np.sqrt(np.where(np.isinf(weights), 0.0, weights))[:, None]  # where infinite, coefficients are zero
        return column_dots(weighted, weighted)

    def sq_bound(self, residual: Vector) -> Vector:
        """Upper bound of ||w - w*||_H^2 from the residual (c, k) alone: the duality gap, (k,); inf where alpha = 0

        ||g||^2 / alpha for the gradient, ||r||^2 for the residual of a wide problem (w = A'z and z are a primal-dual pair); and
        less where alpha outweighs A, since what is meant is r'A A'(A A' + alpha I)^-1 r.
        """
        sq = column_dots(residual, residual)
        if self.wide:
            most = self.frobenius**2
            return np.where(self.penalty > 0, sq * (most / (most + self.penalty)) if most else 0.0, np.inf)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(self.penalty > 0, sq / self.penalty, np.inf)

    def sq_error_bound(self, residual: Vector, sq_error: Vector, loss: Vector) -> Vector:
        """Upper bound of ||w - w*||_H^2, (k,), from `sq_error` by a solve with a matrix M' that is near M; inf where alpha = 0

        M >= (1 - loss) M', so that g'H^-1 g <= g'(H')^-1 g / (1 - loss). Of a wide problem r'r - alpha r'M^-1 r is at most
        loss / (1 - loss) times r'r larger, since M^-1 >= (1 - loss) (M')^-1 as well, and M' >= (1 - loss) alpha.
        """
        sq_bound = self.sq_bound(residual)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.wide:
                better = np.where(loss < 1, sq_error + loss / (1 - loss) * column_dots(residual, residual), np.inf)
            else:
                better = np.where(loss < 1, sq_error / (1 - loss), np.inf)
        return np.where(self.penalty > 0, np.fmin(better, sq_bound), np.inf)

    def sq_error(self, residual: Vector, solved: Vector) -> Vector:
        """||w - w*||_H^2, (k,), from the residual and `solved` = M^-1 residual

        g'H^-1 g; for a wide problem r'(A A') M^-1 r = r'r - alpha r'M^-1 r.
        """
        sq = column_dots(residual, solved)
        if self.wide:
            sq_residual = column_dots(residual, residual)
            sq = np.maximum(sq_residual - self.penalty * sq, np.finfo(np.float64).eps * sq_residual)
        return np.maximum(sq, 0.0)


def relative(sq_error: Vector, sq_size: Vector) -> Vector:
    """Error relative to ||w*||_H, given the squares of the error and of a lower bound of ||w*||_H"""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sq_error > 0, np.sqrt(sq_error / sq_size), np.where(sq_error == 0, 0.0, np.inf))


def relative_bound(sq_bound: Vector, check: Check) -> Vector:
    """The bound of the error relative to ||w*||_H, with what the rounding of the residual may hide added"""
    with np.errstate(over="ignore"):
        return relative((np.sqrt(sq_bound) + check.rounding) ** 2, check.sq_size)
