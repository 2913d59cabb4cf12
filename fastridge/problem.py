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
from fastridge.design import Design
from fastridge.lines import Array, Vector
from fastridge.parallel import cached_property

ROUNDING = 4 * np.finfo(np.float64).eps
"""Relative error of one product with the data, as a multiple of norms: sums in lanes, a few roundings each."""

CHUNK_BYTES = 1 << 27
"""Of the vectors of targets that are solved together, at most."""
CHUNK_VECTORS = 6
"""On the small side that a target takes while it is solved, beside one on the long side."""


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
        ||w||_H^2.
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
    design : Design
        A, (n, p).
    target : (n, k)
        R (y - mean of y).
    penalty : (k,)
        alpha of every target, >= 0.
    x_mean, y_mean : (p,), (k,)
    bounds : Bounds or None
        Of the coefficients; only the solver for bounds looks at them.
    dual : bool or None
        Whether the unknown is z; None: where p > n.
    penalty_weights : (p,) or (p, p) float64, or None
        d of alpha sum_j d_j w_j^2, ones where None. Only the solver for bounds takes them; `standard_form` takes them away.
    streamed : Design or None
        A copy of `side` that CG's products read in one pass; all else reads `design`.
    sq_fitted : (k,) float64 or None
        Share of ||w*||_H^2 that unpenalised features have, whatever the others are.
    """

    design: Design
    target: Vector
    penalty: Vector
    x_mean: Vector
    y_mean: Vector
    bounds: Bounds | None = None
    dual: bool | None = None
    penalty_weights: Vector | None = None
    sq_fitted: Vector | None = None
    streamed: Design | None = None

    @property
    def wide(self) -> bool:
        """Whether the unknown is the n-vector z"""
        return self.design.shape[1] > self.design.shape[0] if self.dual is None else self.dual

    @cached_property
    def side(self) -> Design:
        """B: A, or A' of a wide problem"""
        return self.design.T if self.wide else self.design

    @cached_property
    def rhs(self) -> Vector:
        """b, (c, k): A'y, or y of a wide problem"""
        return self.target if self.wide else self.design.rmatvec(self.target)

    def with_rhs(self, rhs: Vector) -> Problem:
        """The same problem, b being known"""
        new = replace(self)
        new.__dict__["rhs"] = rhs
        return new

    @cached_property
    def silent(self) -> Vector | None:
        """Orthonormal directions, (n, q), in which A and the targets have nothing: centring and projections leave none"""
        lines, out = self.design.lines, self.design.projected_out
        if lines.cross_shift is None:
            return out
        n = self.design.shape[0]
        root = lines.line_scale if self.design.along else lines.cross_scale
        unit = np.full((n, 1), 1.0 / np.sqrt(n)) if root is None else (root / np.sqrt(root @ root))[:, None]
        return unit if out is None else np.hstack([unit, out])

    @cached_property
    def frobenius(self) -> float:
        """Frobenius norm of A"""
        return self.design.frobenius

    def product(self, x: Vector) -> Vector:
        """B'B x: (c, k) -> (c, k)"""
        return (self.streamed or self.side).normal(x)

    def normal(self, x: Vector, penalty: Vector) -> Vector:
        """M x for targets with the given penalties: (c, k) -> (c, k)"""
        out = self.product(x)
        vectors.add(out, x, penalty)
        return out

    def for_target(self, target: int) -> Problem:
        """The problem of one target alone"""
        return self.select(np.array([target]), self.penalty[[target]])

    def restricted(self, design: Design, dual: bool) -> Problem:
        """The problem with the columns of `design`, those of A scaled or left out, and the side to take; without bounds"""
        return replace(self, design=design, dual=dual, bounds=None, streamed=None)

    @property
    def targets_at_once(self) -> int:
        """How many targets a direct or a shared solve takes together, so that its memory does not grow with their number"""
        m, c = self.side.shape
        return max(1, CHUNK_BYTES // (8 * (m + CHUNK_VECTORS * c)))

    def select(self, targets: np.ndarray, penalty: Vector) -> Problem:
        """The problem of these targets, which may repeat, with these penalties"""
        new = replace(
            self,
            target=np.ascontiguousarray(self.target[:, targets]),
            penalty=penalty,
            y_mean=self.y_mean[targets],
            sq_fitted=None if self.sq_fitted is None else self.sq_fitted[targets],
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

    def intercept(self, w: Vector) -> Vector:
        """B of w: (k,)"""
        shift = np.empty(len(self.y_mean))
        vectors.weighted_sums(self.x_mean, np.ascontiguousarray(w), shift)  # BLAS would wake threads of its own
        return self.y_mean - shift

    def streaming(self) -> Problem:
        """The same problem with a copy of the data, in the order that the products of the small side read in one pass"""
        return replace(self, streamed=self.side.with_rows_as_lines(True))

    @property
    def extra_bytes(self) -> int:
        """Copies of the data"""
        return (self.streamed or self.design).extra_bytes

    def check(self, x: Vector) -> Check:
        """Compute the residual and the size of the answer `x`, (c, k), from the data

        w'H w = w'(b - g), where w is the unknown.
        """
        penalty = self.penalty
        sq_target = column_dots(self.target, self.target)
        if self.wide:
            w = self.design.rmatvec(x)
            fit = self.design.matvec(w)
            residual = self.target - fit - penalty * x
            sq_w = column_dots(w, w)
            sq_size = column_dots(fit, fit) + penalty * sq_w
        else:
            w = x
            residual = -self.side.normal(x, self.target) - penalty * x
            sq_w = column_dots(x, x)
            sq_size = np.maximum(column_dots(x, self.rhs) - column_dots(x, residual), 0.0)
        if self.sq_fitted is not None:
            sq_size = sq_size + self.sq_fitted
        # An error d in A w moves w by at most ||d|| in the H-norm, an error in A'r by its norm over sqrt(alpha).
        rounding = ROUNDING * (self.frobenius * np.sqrt(sq_w) + np.sqrt(sq_size))
        with np.errstate(divide="ignore", invalid="ignore"):
            hidden = penalty * column_dots(x, x) if self.wide else sq_target / penalty
            rounding += ROUNDING * self.frobenius * np.where(sq_target > 0, np.sqrt(hidden), 0.0)
        return Check(w, residual, sq_size, rounding)

    def rounding_loss(self, w: Vector, rounded: Vector, sq_size: Vector) -> tuple[Vector, Vector]:
        """Estimate and bound, relative to ||w||_H, of the H-norm of what rounding took from `w`, (p, k); each (k,)

        ||A d|| <= sum_j |d_j| ||a_j||; for rounding errors d, which are independent, about the root of the sum of squares.
        """
        d = np.abs(w - rounded)
        if not d.any():
            return np.zeros(d.shape[1]), np.zeros(d.shape[1])
        sq_norms = self.design.sq_norms
        sq_penalty = self.penalty * self._sq_weighted(d)
        sq_estimate = sq_norms @ d**2 + sq_penalty
        bound = np.sqrt(sq_norms) @ d + np.sqrt(sq_penalty)
        return relative(sq_estimate, sq_size), relative(bound**2, sq_size)

    def _sq_weighted(self, d: Vector) -> Vector:
        """At most d'D d for errors of the size of d >= 0, (p, k)"""
        weights = self.penalty_weights
        if weights is None:
            return column_dots(d, d)
        if weights.ndim == 2:
            return np.asarray(np.einsum("jl,jl->l", d, np.abs(weights) @ d))
        weighted = np.where(d > 0, d * np.sqrt(weights)[:, None], 0.0)
        return column_dots(weighted, weighted)

    def sq_bound(self, residual: Vector) -> Vector:
        """Upper bound of ||w - w*||_H^2 from the residual (c, k) alone: the duality gap, (k,); inf where alpha = 0

        ||g||^2 / alpha for the gradient, ||r||^2 for the residual of a wide problem (w = A'z and z are a primal-dual pair).
        """
        sq = column_dots(residual, residual)
        if self.wide:
            return np.where(self.penalty > 0, sq, np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.penalty > 0, sq / self.penalty, np.inf)

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
    """Error relative to ||w*||_H, given squares of the error and of ||w||_H: the latter is at most the error away from it"""
    error = np.sqrt(np.maximum(sq_error, 0.0))
    size = np.sqrt(sq_size) - error
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, np.where(size > 0, error / size, np.inf))


def column_dots(x: Vector, y: Vector) -> Vector:
    """(x * y).sum(axis=0) for C-contiguous (length, k) arrays"""
    out = np.empty(x.shape[1])
    vectors.dots(x, y, out)
    return out
