"""Penalties that differ between features, reduced to the plain ridge problem that every solver knows.

    minimise over w    1/2 ||y - A w||^2 + 1/2 alpha sum_j d_j w_j^2

With w_j = u_j / sqrt(d_j) the penalty is alpha ||u||^2 and the columns of A are scaled as they are read; d_j = inf scales one
to zero. Columns U with d_j = 0 are projected out of the others and of y, as the intercept is by centring: they fit what is left.
The H-norm of an error in u is that of the error in w, so certificates carry over.

A penalty matrix w'D w is taken to its eigenvectors: D = V S V' and w = V u; from there on S is a d as above.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm

import numpy as np
from scipy.linalg import eigh, qr, svd

from fastridge._kernels import vectors
from fastridge.operators.base import Operator, Vector, column_dots
from fastridge.operators.composed import Projected, Transformed
from fastridge.problem import Problem

COLUMNS_AT_ONCE = 64
"""Unpenalised columns that are read together."""
MEAN_SHARE = 1e-18
"""The rounding of means may be this share of the squared norms of columns, summed: means up to some 1e7 standard deviations."""
NEGLIGIBLE = 1e-12
"""A column counts as having at least this share of the largest squared norm: a smaller one may be rounding alone."""


BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Error of unpenalised columns and their singular values, relative to norms, over the roots of longer side and number."""
SIMPLE = 64
"""Largest denominator of the fractions that are tried as weights of columns that depend on one another."""


@dataclass(frozen=True)
class StandardForm:
    """A problem in u with the plain penalty, and the way back to w

    Attributes
    ----------
    problem : Problem
    scale : (p,) float64 or None
        w = scale o u but for unpenalised features, where it is 0.
    free : (q,) int
        Unpenalised features.
    solve_free : (q, r) float64
        From Q'(y - A w) of the others to w of the unpenalised.
    fit : (r, k) float64
        Q'y.
    image : (p, r) float64
        A'Q, of the columns of the others.
    vectors : (p, p) float64 or None
        Eigenvectors of a penalty matrix, in whose coordinates all the above is.
    sizes : (q,) float64
        Norms of the unpenalised columns.
    tilt : float
        How far what they span may be from what is projected out, as the sine of an angle; 1 where that is not known.
    """

    problem: Problem
    scale: Vector | None
    free: np.ndarray
    solve_free: Vector
    fit: Vector
    image: Vector = field(default_factory=lambda: np.empty((0, 0)))
    vectors: Vector | None = None
    sizes: Vector = field(default_factory=lambda: np.empty(0))
    tilt: float = 0.0

    @classmethod
    def of(cls, problem: Problem) -> StandardForm:
        """A problem that needs no reduction"""
        return cls(problem, None, np.empty(0, dtype=np.intp), np.empty((0, 0)), np.empty((0, 0)))

    def coefficients(self, u: Vector) -> Vector:
        """W of u: (p, k) -> (p, k)"""
        if self.scale is None:
            return u
        w = u * self.scale[:, None]
        if self.vectors is not None:
            return self.vectors @ self._with_free(w, u)
        return self._with_free(w, u)

    def _with_free(self, w: Vector, u: Vector) -> Vector:
        if len(self.free):
            w[self.free] = self.solve_free @ (self.fit - self.image.T @ u)
        return w

    def doubt(self, u: Vector, penalty: Vector) -> Vector | float:
        """What the unpenalised may add to the H-norm error of an answer u, (p, k), at penalties (k,): (k,)

        Rounding of what they are solved with is relative to the terms that cancel in it. What they span is known up to an angle,
        whose share of what is left to fit, 2 P(w) = ||y - A w||^2 + alpha ||u||^2, they may miss.
        """
        if not len(self.free):
            return 0.0
        design, u = self.problem.design, np.ascontiguousarray(u)
        solve, image = np.abs(self.solve_free), np.abs(self.image.T)
        terms = self.sizes @ (solve @ (np.abs(self.fit) + image @ np.abs(u))) + np.sqrt(design.sq_read_norms) @ np.abs(u)
        left = self.problem.target - design.matvec(u)
        sq_left = column_dots(left, left) + penalty * column_dots(u, u)
        return np.asarray(BACKWARD_ERROR * np.sqrt(len(self.free)) * terms + self.tilt * np.sqrt(sq_left))

    def scaled(self, w: Vector) -> Vector:
        """U of w: (p, k) -> (p, k)"""
        if self.scale is None:
            return w
        if self.vectors is not None:
            w = self.vectors.T @ w
        return np.divide(w, self.scale[:, None], out=np.zeros_like(w), where=self.scale[:, None] > 0)


def standard_form(problem: Problem) -> StandardForm:
    """Reduce a problem without bounds to one whose penalty is alpha ||u||^2

    Unpenalised columns are read once more, and held as a dense (n, q) array.

    References
    ----------
    Hansen (1998), Rank-Deficient and Discrete Ill-Posed Problems, ch. 2, DOI 10.1137/1.9780898719697.
    """
    d = problem.penalty_weights
    if d is None:
        return StandardForm.of(_with_true_means(problem))
    if d.ndim == 2:
        values, vectors = eigh(d, check_finite=False, driver="evd")
        # Rounding makes zeros of a semi-definite matrix small numbers of either sign.
        values[values <= len(d) * np.finfo(np.float64).eps * np.abs(values).max(initial=0.0)] = 0.0
        problem = _with_true_means(problem, surely=not values.all())
        rotated = replace(problem, design=Transformed(problem.design, vectors, columns_combined=True), penalty_weights=values)
        return replace(standard_form(rotated), vectors=vectors)
    problem = _with_true_means(problem, surely=not d.all())
    nothing = np.empty((0, 0))
    with np.errstate(divide="ignore"):
        sq_scale = np.where(d > 0, 1.0 / d, 0.0)
    scale = np.sqrt(sq_scale)
    free = np.flatnonzero(d == 0)
    scaled = problem.design.with_columns_scaled(sq_scale)
    if not len(free):
        plain = replace(problem, design=scaled, penalty_weights=None)
        return StandardForm(plain, scale, free, nothing, nothing)
    columns = _columns(problem.design, free)
    # Columns of very different size are no less independent for it.
    sizes = np.sqrt((columns**2).sum(axis=0))
    inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    u, s, vt = svd(columns * inverse, full_matrices=False, check_finite=False)
    longest = max(columns.shape)
    rank = int((s > longest * np.finfo(np.float64).eps * s.max(initial=0.0)).sum())
    tilt = min(1.0, BACKWARD_ERROR * float(np.sqrt(longest * len(free))) / float(s[rank - 1])) if rank else 0.0
    n_taken = 0 if problem.design.left_null is None else problem.design.left_null.shape[1]
    most = min(int(np.count_nonzero(sizes)), int(columns.any(axis=1).sum()) - n_taken)
    if rank < most and not _exactly_dependent(problem.design, free[sizes > 0], columns[:, sizes > 0]):
        tilt = 1.0
    basis = np.ascontiguousarray(u[:, :rank])
    solve_free = inverse[:, None] * (vt[:rank].T / s[:rank])
    fit = basis.T @ problem.target
    target = problem.target - basis @ fit
    target -= basis @ (basis.T @ target)
    design = Projected(scaled, basis, rows=True)
    # What rounding leaves of a column that the unpenalised all but span is relative to what cancelled.
    cancelled = np.sqrt(len(free)) * (sizes @ (np.abs(solve_free) @ np.abs(design.image.T)))
    assert design.origin is not None
    design.origin = replace(design.origin, sq_read=(np.sqrt(design.origin.sq_read) + cancelled) ** 2)
    plain = replace(problem, design=design, target=target, penalty_weights=None, sq_fitted=(fit**2).sum(axis=0))
    return StandardForm(plain, scale, free, solve_free, fit, design.image, sizes=sizes, tilt=tilt)


def _columns(design: Operator, chosen: np.ndarray) -> Vector:
    """Some columns, (n, q)"""
    n, p = design.shape
    columns = np.empty((n, len(chosen)))
    for lo in range(0, len(chosen), COLUMNS_AT_ONCE):
        some = chosen[lo : lo + COLUMNS_AT_ONCE]
        unit = np.zeros((p, len(some)))
        unit[some, np.arange(len(some))] = 1.0
        columns[:, lo : lo + len(some)] = design.matvec(unit)
    return columns


def _exactly_dependent(design: Operator, chosen: np.ndarray, columns: Vector) -> bool:
    """Whether columns that float64 finds dependent are: sums of them by simple numbers, such as those of dummies, leave nothing

    Without such a proof the direction that they do not quite share may fit anything.
    """
    if design.raw is None:
        return False
    sizes = np.sqrt((columns**2).sum(axis=0))
    s, vt = svd(columns / sizes, full_matrices=True, check_finite=False)[1:]
    null = vt[int((s > max(columns.shape) * np.finfo(np.float64).eps * s.max()).sum()) :].T / sizes[:, None]
    pivots = qr(null.T, mode="r", pivoting=True, check_finite=False)[1][: null.shape[1]]
    combinations = null @ np.linalg.inv(null[pivots])
    raw = np.ascontiguousarray(_columns(design.raw, chosen).T)
    sums = np.empty((2, raw.shape[1]))
    for combination in combinations.T:
        simple = [Fraction(float(weight)).limit_denominator(SIMPLE) for weight in combination]
        whole = [float(weight * lcm(*(weight.denominator for weight in simple))) for weight in simple]
        vectors.accurate_sums(np.array(whole), raw, sums)
        wanted = 0.0 if design.left_null is None else sums[:, :1]  # centring takes a constant away
        if (sums != wanted).any():
            return False
    return True


def _with_true_means(problem: Problem, surely: bool = False) -> Problem:
    """Take off what the rounding of means has left in the design where it matters, or `surely` where there is any

    Unpenalised columns are projected out anyway, and no penalty would bound what such an error does to them.
    """
    design = problem.design
    error = design.mean_error
    if error is None:
        return problem
    sq_norms = np.maximum(design.sq_norms, NEGLIGIBLE * design.sq_norms.max())
    share = np.divide(error**2, sq_norms, out=np.zeros_like(error), where=sq_norms > 0).sum()
    return replace(problem, design=design.recentred()) if surely or share > MEAN_SHARE else problem
