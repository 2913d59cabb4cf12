"""Penalties that differ between features, reduced to the plain ridge problem that every solver knows.

    minimise over w    1/2 ||y - A w||^2 + 1/2 alpha sum_j d_j w_j^2

With w_j = u_j / sqrt(d_j) the penalty is alpha ||u||^2 and the columns of A are scaled as they are read; d_j = inf scales one
to zero. Columns U with d_j = 0 are projected out of the others and of y, as the intercept is by centring: they fit what is left.
The H-norm of an error in u is that of the error in w, so certificates carry over.

A penalty matrix w'D w is taken to its eigenvectors: D = V S V' and w = V u; from there on S is a d as above.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm

import numpy as np
from scipy.linalg import eigh, qr, svd

from fastridge._kernels import vectors
from fastridge.design import SUM_ERROR, Design, Origin
from fastridge.lines import GoOn, Vector
from fastridge.problem import Problem, column_dots

COLUMNS_AT_ONCE = 64
"""Unpenalised columns that are read together."""
MEAN_SHARE = 1e-18
"""Of the squared norms of columns, summed, that the rounding of their means may be: means up to some 1e7 standard deviations."""
NEGLIGIBLE = 1e-12
"""Of the largest squared norm of a column, below which one counts as no less: such a column may be rounding alone."""


BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Of unpenalised columns and their singular values, relative to norms; times the roots of the longer side and of their number."""
SIMPLE = 64
"""Largest denominator of the fractions that are tried as weights of columns that depend on one another."""


class Projected(Design):
    """(I - Q Q') A for `base` A (m, c) and orthonormal Q (m, q), or A (I - Q Q') for Q (c, q) where not `rows`"""

    plain = False

    def __init__(self, base: Design, basis: Vector, rows: bool) -> None:
        super().__init__(base.lines, base.along, base.extra_bytes + basis.nbytes * (1 + rows))
        self.base, self.basis, self.rows = base, basis, rows
        self.projected_out = basis if rows and basis.size else None
        self.origin = Origin.of(base) if rows else None
        self._image: Vector | None = None

    def _project(self, v: Vector) -> Vector:
        out: Vector = v - self.basis @ (self.basis.T @ v)
        return out

    @property
    def image(self) -> Vector:
        """A'Q where `rows`, (c, q); else A Q, (m, q)"""
        if self._image is None:
            self._image = self.base.rmatvec(self.basis) if self.rows else self.base.matvec(self.basis)
        return self._image

    @property
    def T(self) -> Design:
        return self._of(self.base.T, not self.rows, self._image)

    def _of(self, base: Design, rows: bool, image: Vector | None) -> Projected:
        """The same projection of another base"""
        other = type(self)(base, self.basis, rows)
        other._image = image
        return other

    def matvec(self, v: Vector) -> Vector:
        """(I - Q Q') A v, or A (I - Q Q') v"""
        return self._project(self.base.matvec(v)) if self.rows else self.base.matvec(self._project(v))

    def rmatvec(self, u: Vector) -> Vector:
        """A' (I - Q Q') u, or (I - Q Q') A'u"""
        return self.base.rmatvec(self._project(u)) if self.rows else self._project(self.base.rmatvec(u))

    def normal(self, v: Vector, target: Vector | None = None) -> Vector:
        """The base's product, in one pass where that is, less what the projection takes off"""
        if self.rows:  # the target is projected already
            out = self.base.normal(v, target)
            out -= self.image @ (self.image.T @ v)
            return out
        return self._project(self.base.normal(self._project(v), target))

    def gradient(self, v: Vector, target: Vector) -> Vector:
        """In two passes: what is projected out of A v may be far larger than what is left"""
        return self.rmatvec(target - self.matvec(v))

    def precise_gradient(self, v: Vector, target: Vector) -> Vector | None:
        """Not of a projected matrix, whose projection is rounded"""
        return None

    def gram(self, go_on: GoOn | None = None) -> Vector:
        """The base's Gram matrix less its share in Q"""
        if self.rows:
            gram = self.base.gram(go_on)
            gram -= self.image @ self.image.T
            return _nowhere_negative(gram)
        # P G P with G = A'A: G Q = A'(A Q).
        gram = self.base.full_gram(go_on)
        mixed = self.base.rmatvec(self.image)
        half = self.basis @ (0.5 * (self.image.T @ self.image))
        lost = (mixed - half) @ self.basis.T
        gram -= lost
        gram -= lost.T
        return _nowhere_negative(gram)

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        """Yield (lo, hi, rows [lo, hi) as dense float64)"""
        for lo, hi, block in self.base.blocks():
            if self.rows:
                yield lo, hi, block - self.basis[lo:hi] @ self.image.T
            else:
                yield lo, hi, block - (block @ self.basis) @ self.basis.T

    @property
    def sq_norms(self) -> Vector:
        """Squared norms of the columns: (c,)"""
        if self._sq_norms is None:
            image = self.image
            if self.rows:
                lost = np.einsum("ij,ij->i", image, image)
            else:
                mixed = 2 * self.base.rmatvec(image) - self.basis @ (image.T @ image)
                lost = np.einsum("ij,ij->i", mixed, self.basis)
            self._sq_norms = np.maximum(self.base.sq_norms - lost, 0.0)
        return self._sq_norms

    @property
    def sq_read_norms(self) -> Vector:
        """Squared norms of the columns before the projection, and more where `standard_form` knows more; (c,)"""
        return super().sq_read_norms if self.rows else self.base.sq_norms

    @property
    def frobenius(self) -> float:
        """Of the base: that is what rounding errors are relative to"""
        return self.base.frobenius

    def with_rows_as_lines(self, along: bool) -> Design:
        """The same matrix whose rows (`along`) or columns are lines, copied where they are not"""
        return self._of(self.base.with_rows_as_lines(along), self.rows, self._image)

    def with_columns_scaled(self, sq_scale: Vector) -> Design:
        """The same matrix, its columns multiplied by the root of `sq_scale` (c,)"""
        assert self.rows
        return self._of(self.base.with_columns_scaled(sq_scale), True, self.image * np.sqrt(sq_scale)[:, None])

    def with_columns(self, chosen: np.ndarray) -> Design:
        """Not for a projected matrix"""
        raise NotImplementedError


class Recentred(Projected):
    """A less what the rounding of its means has left in it: (I - q q') A, q the roots of the weights, normalised

    Where a mean is 1e12 standard deviations from zero, its last digit is 1e-4 of one. Products cost no more for it than two more
    with a vector.
    """

    def __init__(self, base: Design, basis: Vector, rows: bool) -> None:
        super().__init__(base, basis, rows)
        self.projected_out = None  # centring has taken this direction away before
        if self.origin is not None:
            self.origin = replace(self.origin, mean_error=SUM_ERROR * np.sqrt(base.shape[0] * self.origin.sq_read))

    @classmethod
    def of(cls, base: Design) -> Recentred:
        """Of a design with an intercept"""
        lines, n = base.lines, base.shape[0]
        root = lines.line_scale if base.along else lines.cross_scale
        root = np.ones(n) if root is None else root
        return cls(base, (root / np.sqrt(root @ root))[:, None], True)

    def gradient(self, v: Vector, target: Vector) -> Vector:
        """In one pass: what is projected out of A v is small"""
        return -self.normal(v, target)

    def precise_gradient(self, v: Vector, target: Vector) -> Vector | None:
        """Of the base, which takes off what is taken off here"""
        return self.base.precise_gradient(v, target)

    @property
    def sq_norms(self) -> Vector:
        """Squared norms of the columns: (c,); those of data as they were given are about the true mean"""
        return self.base.sq_norms if self.rows else super().sq_norms


def _nowhere_negative(gram: Vector) -> Vector:
    """A Gram matrix whose diagonal rounding has not left below zero"""
    diagonal = np.einsum("ii->i", gram)
    np.maximum(diagonal, 0.0, out=diagonal)
    return gram


class Transformed(Design):
    """A T for `base` A (m, c) and T (c, r), or T'A for T (m, r) where not `columns`"""

    plain = False

    def __init__(self, base: Design, factor: Vector, columns: bool) -> None:
        super().__init__(base.lines, base.along, base.extra_bytes + factor.nbytes)
        self.base, self.factor, self.columns = base, np.ascontiguousarray(factor), columns
        m, c = base.shape
        self.shape = (m, factor.shape[1]) if columns else (factor.shape[1], c)
        if columns and base.origin is not None:
            self.origin = base.origin.combined(self.factor)

    @property
    def T(self) -> Design:
        return Transformed(self.base.T, self.factor, not self.columns)

    def matvec(self, v: Vector) -> Vector:
        """A T v, or T'A v"""
        return self.base.matvec(self.factor @ v) if self.columns else self.factor.T @ self.base.matvec(v)

    def rmatvec(self, u: Vector) -> Vector:
        """T'A'u, or A'T u"""
        return self.factor.T @ self.base.rmatvec(u) if self.columns else self.base.rmatvec(self.factor @ u)

    def normal(self, v: Vector, target: Vector | None = None) -> Vector:
        """In one pass over the data where `columns`"""
        if self.columns:
            return self.factor.T @ self.base.normal(self.factor @ v, target)
        fit = self.matvec(v)
        return self.rmatvec(fit if target is None else fit - target)

    def gradient(self, v: Vector, target: Vector) -> Vector:
        """Of the base where `columns`"""
        return self.factor.T @ self.base.gradient(self.factor @ v, target) if self.columns else -self.normal(v, target)

    def precise_gradient(self, v: Vector, target: Vector) -> Vector | None:
        """Not of a product of matrices, which is rounded"""
        return None

    def gram(self, go_on: GoOn | None = None) -> Vector:
        """T'A'A T, or A'T T'A"""
        if self.columns:
            return np.asfortranarray(self.factor.T @ self.base.full_gram(go_on) @ self.factor)
        rows = self.base.rmatvec(self.factor)
        return np.asfortranarray(rows @ rows.T)

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        """Yield (lo, hi, rows [lo, hi) as dense float64)"""
        if self.columns:
            for lo, hi, block in self.base.blocks():
                yield lo, hi, block @ self.factor
        else:
            yield 0, self.shape[0], self.base.rmatvec(self.factor).T

    @property
    def sq_norms(self) -> Vector:
        """Squared norms of the columns: (c,)"""
        if self._sq_norms is None:
            self._sq_norms = np.zeros(self.shape[1])
            for _, _, block in self.blocks():
                self._sq_norms += np.einsum("ij,ij->j", block, block)
        return self._sq_norms

    def with_rows_as_lines(self, along: bool) -> Design:
        """The same matrix whose rows (`along`) or columns are lines, copied where they are not"""
        return Transformed(self.base.with_rows_as_lines(along), self.factor, self.columns)

    def with_columns_scaled(self, sq_scale: Vector) -> Design:
        """The same matrix, its columns multiplied by the root of `sq_scale` (c,)"""
        assert self.columns
        return Transformed(self.base, self.factor * np.sqrt(sq_scale), True)


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
            design = self.problem.design
            assert isinstance(design, Projected)
            w[self.free] = self.solve_free @ (self.fit - design.image.T @ u)
        return w

    def doubt(self, u: Vector, penalty: Vector) -> Vector | float:
        """What the unpenalised may add to the H-norm error of an answer u, (p, k), at penalties (k,): (k,)

        Rounding of what they are solved with is relative to the terms that cancel in it. What they span is known up to an angle,
        whose share of what is left to fit, 2 P(w) = ||y - A w||^2 + alpha ||u||^2, they may miss.
        """
        if not len(self.free):
            return 0.0
        design, u = self.problem.design, np.ascontiguousarray(u)
        assert isinstance(design, Projected)
        solve, image = np.abs(self.solve_free), np.abs(design.image.T)
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
        rotated = replace(problem, design=Transformed(problem.design, vectors, True), penalty_weights=values)
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
    centred = problem.design.lines.cross_shift is not None
    most = min(int(np.count_nonzero(sizes)), int(columns.any(axis=1).sum()) - centred)
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
    return StandardForm(plain, scale, free, solve_free, fit, sizes=sizes, tilt=tilt)


def _columns(design: Design, chosen: np.ndarray) -> Vector:
    """Some columns, (n, q)"""
    n, p = design.shape
    columns = np.empty((n, len(chosen)))
    for lo in range(0, len(chosen), COLUMNS_AT_ONCE):
        some = chosen[lo : lo + COLUMNS_AT_ONCE]
        unit = np.zeros((p, len(some)))
        unit[some, np.arange(len(some))] = 1.0
        columns[:, lo : lo + len(some)] = design.matvec(unit)
    return columns


def _exactly_dependent(design: Design, chosen: np.ndarray, columns: Vector) -> bool:
    """Whether columns that float64 finds dependent are: sums of them by simple numbers, such as those of dummies, leave nothing

    Without such a proof the direction that they do not quite share may fit anything.
    """
    if isinstance(design, Transformed):
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
        wanted = 0.0 if design.lines.cross_shift is None else sums[:, :1]  # centring takes a constant away
        if (sums != wanted).any():
            return False
    return True


def _with_true_means(problem: Problem, surely: bool = False) -> Problem:
    """Take off what the rounding of means has left in the design where it matters, or `surely` where there is any

    Unpenalised columns are projected out anyway, and no penalty would bound what such an error does to them.
    """
    design = problem.design
    error = design.mean_error
    if error is None or isinstance(design, Transformed):  # what that transforms has been seen to
        return problem
    sq_norms = np.maximum(design.sq_norms, NEGLIGIBLE * design.sq_norms.max())
    share = np.divide(error**2, sq_norms, out=np.zeros_like(error), where=sq_norms > 0).sum()
    return replace(problem, design=Recentred.of(design)) if surely or share > MEAN_SHARE else problem
