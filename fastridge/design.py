"""The design operator: products with the weighted, centred data matrix, whatever stores it, without a copy of it.

    A = R (X - 1 mu')        R: square roots of the sample weights, mu: weighted column means (0 without an intercept)

`Design` says which way round the lines of an array are read, so that `Design.T`, the small side of a wide problem, costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from fastridge.dense_lines import DenseLines
from fastridge.lines import Lines, Matrix, Vector
from fastridge.sparse_lines import SparseLines

CANCELLATION = 1e-6
"""A sum of squares about the mean this much smaller than about the first centre has lost digits: it is summed again."""
MIRROR_BLOCK = 256
"""Columns of a Gram matrix that are copied across its diagonal at once."""
SHIFT_RATIO = 8.0
"""A sparse column without a zero is shifted where |mean| exceeds this many standard deviations: scalars would lose digits."""


class Design:
    """A matrix (m, c) read from `Lines`: its rows are the lines (`along`), or its columns are

    Attributes
    ----------
    shape : (m, c)
    lines : Lines
    along : bool
    extra_bytes : int
        Copies of the data that this operator holds.
    """

    plain = True
    """Whether the matrix is what the lines say, and nothing besides"""

    def __init__(self, lines: Lines, along: bool, extra_bytes: int = 0) -> None:
        self.lines, self.along, self.extra_bytes = lines, along, extra_bytes
        self.shape = lines.shape if along else lines.shape[::-1]
        self._sq_norms: Vector | None = None

    @property
    def T(self) -> Design:
        """The transposed matrix: the same lines read the other way"""
        return Design(self.lines, not self.along, self.extra_bytes)

    def matvec(self, v: Vector) -> Vector:
        """A v: (c, k) -> (m, k)"""
        return self.lines.dot(v) if self.along else self.lines.add(v)

    def rmatvec(self, u: Vector) -> Vector:
        """A'u: (m, k) -> (c, k)"""
        return self.lines.add(u) if self.along else self.lines.dot(u)

    def normal(self, v: Vector, target: Vector | None = None) -> Vector:
        """A'(A v - target): (c, k) -> (c, k), target (m, k) or None for zero; reads A once where its storage allows"""
        return self.lines.normal_along(v, target) if self.along else self.lines.normal_across(v, target)

    def gram(self) -> Vector:
        """A'A: (c, c), the lower triangle of an F-ordered array"""
        return self.lines.gram_along() if self.along else self.lines.gram_across()

    def full_gram(self) -> Vector:
        """A'A with both triangles: (c, c)"""
        gram = self.gram()
        for lo in range(0, len(gram), MIRROR_BLOCK):
            hi = lo + MIRROR_BLOCK
            corner = gram[lo:hi, lo:hi]
            corner[...] = np.tril(corner) + np.tril(corner, -1).T
            gram[lo:hi, hi:] = gram[hi:, lo:hi].T
        return gram

    def with_columns_scaled(self, sq_scale: Vector) -> Design:
        """The same matrix, without a copy, its columns multiplied by the root of `sq_scale` (c,); a column times 0 is left out

        Not for one whose columns are scaled already.
        """
        lines = self.lines
        shifts = lines.line_shift, lines.cross_shift
        assert (lines.cross_scale if self.along else lines.line_scale) is None
        scales = (lines.sq_line_scale, sq_scale) if self.along else (sq_scale, lines.sq_cross_scale)
        scaled = Design(lines.with_terms(*shifts, *scales), self.along, self.extra_bytes)
        scaled._sq_norms = self.sq_norms * sq_scale
        return scaled

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        """Yield (lo, hi, rows [lo, hi) of A as dense float64); a block is overwritten by the next one"""
        return self.lines.blocks(across=not self.along)

    @property
    def sq_norms(self) -> Vector:
        """Squared norms of the columns: (c,)"""
        if self._sq_norms is None:
            self._sq_norms = self.lines.sq_norms_along() if self.along else self.lines.sq_norms_across()
        return self._sq_norms

    @property
    def frobenius(self) -> float:
        """Frobenius norm of A"""
        return float(np.sqrt(self.sq_norms.sum()))

    @property
    def streams(self) -> bool:
        """Whether `normal` reads the data once"""
        return self.along or isinstance(self.lines, DenseLines)

    def with_rows_as_lines(self, along: bool) -> Design:
        """The same matrix whose rows (`along`) or columns are lines, copied where they are not"""
        if self.along == along:
            return self
        if isinstance(self.lines, SparseLines):
            lines: Lines = self.lines.transposed_copy()
            size = lines.nbytes
        else:
            assert isinstance(self.lines, DenseLines)
            M = np.ascontiguousarray(self.lines.M.T)
            lines = DenseLines(M, self.lines.n_threads).with_terms(*self.lines.terms_of_transposed())
            size = M.nbytes
        design = Design(lines, along, self.extra_bytes + size)
        design._sq_norms = self._sq_norms
        return design


def centred_design(X: Matrix, weights: Vector | None, fit_intercept: bool, n_threads: int) -> tuple[Design, Vector]:
    """Return the operator A of `X` and the column means mu, (p,), zero without an intercept

    Parameters
    ----------
    X : (n, p) array with contiguous rows or columns, or csr_array or csc_array without repeated entries; float32 or float64
    weights : (n,) float64 or None
        Sample weights, not all zero.

    Raises
    ------
    ValueError
        If X has entries that are not finite, or so large that their squares overflow.
    """
    n, p = X.shape
    along, lines = _lines_of(X, n_threads)
    total_weight = float(n) if weights is None else float(weights.sum())

    def column_sums(centre: Vector) -> tuple[Vector, Vector]:
        """Weighted mean of x - centre and sum of (x - centre)^2, zeros that are not stored included"""
        total, sq_total, stored = lines.sums(not along, weights, centre)
        if sp.issparse(X):
            total = total - (total_weight - stored) * centre
            sq_total = sq_total + (total_weight - stored) * centre**2
        return total / total_weight, sq_total

    # Sums about a row of the data rather than about zero keep their digits where the mean is far away from zero.
    centre = np.zeros(p) if sp.issparse(X) or not fit_intercept else np.array(X[n // 2], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        offset, sq_norms = column_sums(centre)
    if not np.isfinite(sq_norms).all():
        raise ValueError(_not_finite(X, sq_norms))
    mean = np.zeros(p)
    if fit_intercept:
        mean = centre + offset
        sq_centred = sq_norms - total_weight * offset**2
        if (sq_centred < CANCELLATION * sq_norms).any():
            offset, sq_norms = column_sums(mean)
            mean += offset
            sq_centred = sq_norms - total_weight * offset**2
        sq_norms = np.maximum(sq_centred, 0.0)
    shift: Vector | None = mean
    extra_bytes = 0
    if fit_intercept and sp.issparse(X):
        far = mean**2 * total_weight > SHIFT_RATIO**2 * sq_norms
        if far.any():
            far &= lines.sums(not along, None, mean)[2] == n
        if far.any():
            data = _shifted_data(X, np.where(far, mean, 0.0))
            lines = SparseLines(data, X.indices, X.indptr, lines.shape[1], n_threads)
            extra_bytes, shift = data.nbytes, np.where(far, 0.0, mean)
    shift = shift if fit_intercept else None
    ones = None if shift is None or along else np.ones(n)
    terms = (None, shift, weights, None) if along else (shift, ones, None, weights)
    design = Design(lines.with_terms(*terms), along, extra_bytes)
    design._sq_norms = sq_norms
    return design, mean


def _lines_of(X: Matrix, n_threads: int) -> tuple[bool, Lines]:
    """Return (whether the rows are the lines, the lines)"""
    if sp.issparse(X):
        return X.format == "csr", SparseLines(X.data, X.indices, X.indptr, X.shape[X.format == "csr"], n_threads)
    along = X.strides[1] == X.itemsize or (X.shape[1] == 1 and X.strides[0] != X.itemsize)
    return along, DenseLines(X if along else X.T, n_threads)


def _shifted_data(X: Matrix, shift: Vector) -> Vector:
    """The stored entries less their column's shift, in float64: exact where the shift is near them"""
    per_entry = shift[X.indices] if X.format == "csr" else np.repeat(shift, np.diff(X.indptr))
    data: Vector = np.subtract(X.data, per_entry, dtype=np.float64)
    return data


def _not_finite(X: Matrix, sq_norms: Vector) -> str:
    j = int(np.flatnonzero(~np.isfinite(sq_norms))[0])
    column = X[:, [j]].toarray() if sp.issparse(X) else X[:, j]
    if np.isfinite(column).all():
        return f"X is too large: the squares of column {j} overflow float64; rescale it"
    return f"X contains NaN or infinity, first in column {j}: impute or drop those rows before fitting"
