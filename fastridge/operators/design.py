"""The design operator: products with the weighted, centred data matrix, whatever stores it, without a copy of it.

    A = R (X - 1 mu')        R: square roots of the sample weights, mu: weighted column means (0 without an intercept)

`Design` says which way round the lines of an array are read, so that `Design.T`, the small side of a wide problem, costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from fastridge._kernels import vectors
from fastridge.operators.base import Array, Columns, GoOn, Matrix, Operator, Traits, Vector
from fastridge.operators.composed import SUM_ERROR, Origin, Recentred
from fastridge.operators.dense import DenseLines
from fastridge.operators.lines import Lines
from fastridge.operators.sparse import SparseLines
from fastridge.parallel import cached_property

CANCELLATION = 1e-6
"""A sum of squares about the mean this much smaller than about the first centre has lost digits: it is summed again."""
SHIFT_RATIO = 8.0
"""A sparse column without a zero is shifted where |mean| exceeds this many standard deviations: scalars would lose digits."""
SQ_LOW, SQ_HIGH = 2.0**-466, 2.0**466
"""About 1e-140 and 1e140: where the largest squared norm of a column lies within, products of four norms neither overflow nor
vanish."""
PRECISE_ENTRIES = 1_000_000
"""Entries of the data times targets up to which a gradient is computed with twice the digits: some 20 ms."""
ROOM = 230
"""Power of two that entries multiplied by one power of two are to stay below: their squares, summed, stay below SQ_HIGH."""


class Design(Columns):
    """A matrix (m, c) read from `Lines`: its rows are the lines (`along`), or its columns are

    Attributes
    ----------
    lines : Lines
    along : bool
    origin : Origin or None
        What rounding has to do with the columns; None where nothing was taken off them, and of a transposed matrix.
    """

    origin: Origin | None = None
    transposed = False
    """Whether this is a matrix A as it was given, or A'"""

    def __init__(self, lines: Lines, along: bool, extra_bytes: int = 0) -> None:
        self.lines, self.along, self.extra_bytes = lines, along, extra_bytes
        self.shape = lines.shape if along else lines.shape[::-1]
        self._sq_norms: Vector | None = None

    @cached_property
    def traits(self) -> Traits:
        lines = self.lines
        return Traits(
            n_bytes=lines.nbytes,
            n_entries=lines.n_entries,
            n_threads=lines.n_threads,
            sparse=lines.sparse,
            passes=1 if self.along or not lines.sparse else 2,
            sweeps=True,
            rough_gram=not lines.sparse,
        )

    @property
    def raw(self) -> Design:
        return Design(self.lines.with_terms(None, None, None, None), self.along)

    @property
    def T(self) -> Design:
        """The same lines read the other way"""
        other = Design(self.lines, not self.along, self.extra_bytes)
        other.transposed = not self.transposed
        return other

    @property
    def sq_row_scale(self) -> Vector | None:  # type: ignore[override]
        return self.lines.sq_line_scale if self.along else self.lines.sq_cross_scale

    @property
    def row_scale(self) -> Vector | None:  # type: ignore[override]
        return self.lines.line_scale if self.along else self.lines.cross_scale

    @property
    def _column_shift(self) -> Vector | None:
        """What is taken off the columns, (c,); None where they are not centred"""
        return self.lines.cross_shift if self.along else self.lines.line_shift

    def matvec(self, v: Vector) -> Vector:
        return self.lines.dot(v) if self.along else self.lines.add(v)

    def rmatvec(self, u: Vector) -> Vector:
        return self.lines.add(u) if self.along else self.lines.dot(u)

    def normal(self, v: Vector, target: Vector | None = None) -> Vector:
        return self.lines.normal_along(v, target) if self.along else self.lines.normal_across(v, target)

    def precise_gradient(self, v: Vector, target: Vector) -> Vector | None:
        """A'(target - A v): (c, k), its products and sums with twice the digits; None where there are too many of them

        What is left is the rounding of the target, of weights' roots and of the residual: errors in the range of A'. Of data as
        they were given, not of their transpose. `target` is centred.
        """
        m, c = self.shape
        if self.transposed or m * c * v.shape[1] > PRECISE_ENTRIES:
            return None
        shift, roots = self._column_shift, self.row_scale
        scale = self.lines.cross_scale if self.along else self.lines.line_scale
        raw = self.raw
        out = np.empty_like(v)
        for j in range(v.shape[1]):
            w = np.ascontiguousarray(v[:, j] if scale is None else v[:, j] * scale)
            fit, total = np.empty(m), np.zeros((2, c))
            centre = _accurate_sums(w, np.zeros((c, 1)) if shift is None else shift[:, None])
            for lo, hi, block in raw.blocks():
                sums = _accurate_sums(w, block.T)
                fit[lo:hi] = (sums[0] - centre[0]) + (sums[1] - centre[1])
            rest = target[:, j] - (fit if roots is None else fit * roots)
            if shift is not None:  # the mean subtracted is rounded, and adds what a residual has no share in
                unit = self._unit
                rest -= unit * (unit @ rest)
            rest = rest if roots is None else rest * roots
            for lo, hi, block in raw.blocks():
                _add_pair(total, _accurate_sums(rest[lo:hi], block))
            if shift is not None:
                _add_pair(total, _accurate_sums(-_accurate_sums(rest, np.ones((m, 1)))[:, 0], np.stack([shift, shift])))
            out[:, j] = (total[0] + total[1]) * (1.0 if scale is None else scale)
        return out

    @property
    def _unit(self) -> Vector:
        """The direction of the rows that centring leaves nothing in, (m,)"""
        roots = self.row_scale
        m = self.shape[0]
        return np.full(m, 1 / np.sqrt(m)) if roots is None else np.asarray(roots / np.sqrt(roots @ roots))

    @property
    def left_null(self) -> Vector | None:
        return None if self.transposed or self.lines.cross_shift is None else self._unit[:, None]

    def recentred(self) -> Operator:
        return self if self.mean_error is None else Recentred.of(self)

    def gram(self, go_on: GoOn | None = None) -> Vector:
        return self.lines.gram_along(go_on) if self.along else self.lines.gram_across(go_on)

    def rough_gram(self, scale: Vector, fold: int, rng: np.random.Generator, go_on: GoOn | None = None) -> Array:
        return self.lines.rough_gram(not self.along, scale, fold, rng, go_on)

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        return self.lines.blocks(across=not self.along)

    def product_blocks(self, v: Vector, work: Callable[[int, int, Vector], None]) -> None:
        self.lines.product_blocks(not self.along, v, work)

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
        scaled.origin = None if self.origin is None else self.origin.scaled(sq_scale)
        return scaled

    def with_one_pass(self) -> Design:
        return self if self.traits.passes == 1 else self.relaid(True)

    def columns(self) -> Design:
        return self.relaid(False)

    def relaid(self, along: bool) -> Design:
        """The same matrix whose rows (`along`) or columns are lines, copied where they are not"""
        if self.along == along:
            return self
        lines, size = self.lines.relaid()
        design = Design(lines, along, self.extra_bytes + size)
        design._sq_norms, design.origin, design.transposed = self._sq_norms, self.origin, self.transposed
        return design

    def sweep(
        self,
        linear: Vector,
        penalty: float,
        z: Vector,
        tau: Vector,
        backward: bool,
        lower: Vector | None = None,
        upper: Vector | None = None,
        penalty_weights: Vector | None = None,
    ) -> float:
        assert not self.along
        return self.lines.sweep(self.sq_norms, linear, penalty, z, tau, backward, lower, upper, penalty_weights)

    def take(self, chosen: Array) -> Design:
        assert not self.along
        lines = self.lines.take(chosen)
        some = Design(lines, False, self.extra_bytes + lines.nbytes)
        some.origin = None if self.origin is None else self.origin.take(chosen)
        return some

    @property
    def sq_norms(self) -> Vector:
        if self._sq_norms is None:
            self._sq_norms = self.lines.sq_norms_along() if self.along else self.lines.sq_norms_across()
        return self._sq_norms

    @property
    def mean_error(self) -> Vector | None:
        return None if self.origin is None else self.origin.mean_error

    @property
    def sq_read_norms(self) -> Vector:
        """Larger than `sq_norms` where scalars centre the columns of a sparse matrix"""
        return self.sq_norms if self.origin is None else self.origin.sq_read

    @property
    def sq_raw_norms(self) -> Vector:
        return self.sq_norms if self.origin is None else self.origin.sq_raw


@dataclass(frozen=True)
class Centred:
    """The operator of some data, and what its making tells

    Attributes
    ----------
    design : Design
        A, (n, p).
    mean : (2, p) float64
        Column means mu in two parts, the float64 that the operator subtracts and what it lacks; zero without an intercept.
    image : (p,) float64 or None
        A'target.
    power : int
        The data are those given times two to this power: a copy, made where squares leave float64.
    """

    design: Design
    mean: Vector
    image: Vector | None
    power: int = 0


def centred_design(
    X: Matrix, weights: Vector | None, fit_intercept: bool, n_threads: int, target: Vector | None = None
) -> Centred:
    """Return the operator A of `X`, of which a copy times a power of two takes the place where squares leave float64

    Parameters
    ----------
    X : (n, p) array with contiguous rows or columns, or csr_array or csc_array without repeated entries; float32 or float64
    weights : (n,) float64 or None
        Sample weights, not all zero.
    target : (n,) float64 or None
        Its product with dense data comes out of the pass that the means take; else it is not computed.

    Raises
    ------
    ValueError
        If X has entries that are not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        centred = _centred(X, weights, fit_intercept, n_threads, target)
        largest = centred.design.sq_norms.max()
    if SQ_LOW < largest < SQ_HIGH:
        return centred
    given, sizes = X, _sizes(X)
    if not np.isfinite(sizes).all():
        j = int(np.flatnonzero(~np.isfinite(sizes))[0])
        raise ValueError(f"X contains NaN or infinity, first in column {j}: impute or drop those rows before fitting")
    if weights is not None and not weights.all():
        X = _with_zero_rows(X, weights == 0)  # zero times a square that overflows is not zero
        sizes = _sizes(X)
    power = _power(sizes)
    X = _times_power(X, power) if power else X
    if X is given:
        return centred
    again = _centred(X, weights, fit_intercept, n_threads, target)
    again.design.extra_bytes += X.data.nbytes
    return replace(again, power=power)


def _centred(X: Matrix, weights: Vector | None, fit_intercept: bool, n_threads: int, target: Vector | None) -> Centred:
    n, p = X.shape
    along, lines = _lines_of(X, n_threads)
    total_weight = float(n) if weights is None else float(weights.sum())
    sparse = bool(sp.issparse(X))

    goal = target if target is None or weights is None else target * np.sqrt(weights)

    def column_sums(centre: Vector) -> tuple[Vector, Vector, Vector | None]:
        """Weighted mean of x - centre and sum of (x - centre)^2, zeros that are not stored included; (x - mean)'goal"""
        if isinstance(lines, DenseLines):
            total, sq_total, product = lines.sums(not along, weights, centre, goal)
            offset = total / total_weight
            if goal is None:
                return offset, sq_total, None
            return offset, sq_total, product - goal.sum() * offset * fit_intercept
        total, sq_total, stored = lines.sums(not along, weights, centre)
        missing = total_weight - stored
        if weights is not None and centre.any():
            missing[full_columns(X)] = 0.0  # two sums of the same weights differ by rounding
        total = total - missing * centre
        sq_total = sq_total + missing * centre**2
        return total / total_weight, sq_total, None

    # Sums about a row of the data rather than about zero keep their digits where the mean is far away from zero.
    centre = np.zeros(p) if sparse or not fit_intercept else np.array(X[n // 2], dtype=np.float64)
    offset, sq_norms, product = column_sums(centre)
    if not fit_intercept:
        design = Design(lines.with_terms(None, None, *((weights, None) if along else (None, weights))), along)
        design._sq_norms = sq_norms
        return Centred(design, np.zeros((2, p)), product)
    sq_centred = sq_norms - total_weight * offset**2
    if (sq_centred < CANCELLATION * sq_norms).any():
        centre = centre + offset
        offset, sq_norms, product = column_sums(centre)
        sq_centred = sq_norms - total_weight * offset**2
    mean = centre + offset
    rounded = mean - centre
    lacking = (centre - (mean - rounded)) + (offset - rounded)
    # What the sums about the centre have lost, those over weights that are missing in a column included.
    doubt = SUM_ERROR * np.sqrt(n * sq_norms / total_weight)
    if sparse and weights is not None:
        doubt += SUM_ERROR * np.abs(centre) * ~full_columns(X)
    sq_norms = np.maximum(sq_centred, 0.0)
    shift, lost, extra_bytes = mean, np.abs(lacking), 0
    far = mean**2 * total_weight > SHIFT_RATIO**2 * sq_norms if sparse else None
    if far is not None and far.any():
        far &= full_columns(X)
        data = _shifted_data(X, np.where(far, mean, 0.0))
        lines = SparseLines(data, X.indices, X.indptr, lines.shape[1], n_threads)
        # What is left of the mean is a scalar now. A constant column leaves nothing.
        total, sq_total, _ = lines.sums(not along, weights, np.zeros(p))
        lacking = np.where(far, total / total_weight, lacking)
        sq_norms = np.where(far, np.maximum(sq_total - total_weight * lacking**2, 0.0), sq_norms)
        doubt = np.where(far, SUM_ERROR * np.sqrt(n * sq_total / total_weight), doubt)
        shift, lost, extra_bytes = np.where(far, lacking, mean), np.where(far, 0.0, lost), data.nbytes
    terms = (None, shift, weights, None) if along else (shift, np.ones(n), None, weights)
    design = Design(lines.with_terms(*terms), along, extra_bytes)
    design._sq_norms = sq_norms
    sq_raw = sq_norms + total_weight * mean**2
    sq_read = sq_norms if far is None else sq_norms + total_weight * shift**2
    design.origin = Origin(np.sqrt(total_weight) * (doubt + lost), sq_read, sq_raw)
    return Centred(design, np.array([mean, lacking]), product)


def design_about(X: Matrix, weights: Vector | None, mean: Vector | None, shifted: Array | None, n_threads: int) -> Design:
    """Return R (X - 1 mean') for a given mean, (p,), or None for zero; without the squared norms of all rows that it is part of

    `shifted`, (p,) bool or None: columns of sparse data, all of whose entries are stored, that are centred in a copy of those.
    """
    along, lines = _lines_of(X, n_threads)
    if mean is None:
        return Design(lines.with_terms(None, None, *((weights, None) if along else (None, weights))), along)
    if shifted is not None:
        data = _shifted_data(X, np.where(shifted, mean, 0.0))
        lines = SparseLines(data, X.indices, X.indptr, lines.shape[1], n_threads)
        mean = np.where(shifted, 0.0, mean)
    terms = (None, mean, weights, None) if along else (mean, np.ones(X.shape[0]), None, weights)
    return Design(lines.with_terms(*terms), along)


def _accurate_sums(b: Vector, x: Vector) -> Vector:
    """B @ x in two parts: (length,) and (length, k) -> (2, k)"""
    out = np.empty((2, x.shape[1]))
    vectors.accurate_sums(np.ascontiguousarray(b), np.ascontiguousarray(x), out)
    return out


def _add_pair(total: Vector, pair: Vector) -> None:
    """Add numbers in two parts, (2, k), to others in place"""
    high = total[0] + pair[0]
    part = high - total[0]
    total[1] += ((total[0] - (high - part)) + (pair[0] - part)) + pair[1]
    total[0] = high


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


def full_columns(X: Matrix) -> np.ndarray:
    """Whether all entries of a column of a sparse matrix are stored, (p,)"""
    counts = np.bincount(X.indices, minlength=X.shape[1]) if X.format == "csr" else np.diff(X.indptr)
    full: np.ndarray = counts == X.shape[0]
    return full


def _sizes(X: Matrix) -> Vector:
    """Largest absolute value in every column, (p,) float64"""
    if not sp.issparse(X):
        return np.asarray(np.maximum(X.max(axis=0), -X.min(axis=0)), dtype=np.float64)
    sizes = np.zeros(X.shape[1])
    columns = X.indices if X.format == "csr" else np.repeat(np.arange(X.shape[1]), np.diff(X.indptr))
    with np.errstate(invalid="ignore"):  # entries that are no numbers
        np.maximum.at(sizes, columns, np.abs(X.data, dtype=np.float64))
    return sizes


def _power(sizes: Vector) -> int:
    """The power of two that brings columns with entries of these sizes to where squares are at home; 0 where they are

    Columns of very different size keep as much of their range as there is.
    """
    powers = np.frexp(sizes[sizes > 0])[1]
    if not len(powers) or -ROOM < powers.max() < ROOM:
        return 0
    return -int(max((powers.max() + powers.min()) // 2, powers.max() - ROOM))


def _times_power(X: Matrix, power: int) -> Matrix:
    """A copy of X times two to the power"""
    return _with_data(X, np.ldexp(X.data, power)) if sp.issparse(X) else np.ldexp(X, power)


def _with_zero_rows(X: Matrix, empty: np.ndarray) -> Matrix:
    """A copy of X, its rows where `empty`, (n,) bool, zero"""
    if not sp.issparse(X):
        return np.where(empty[:, None], X.dtype.type(0), X)
    zero = np.repeat(empty, np.diff(X.indptr)) if X.format == "csr" else empty[X.indices]
    return _with_data(X, np.where(zero, X.dtype.type(0), X.data))


def _with_data(X: Matrix, data: Array) -> Matrix:
    make = sp.csr_array if X.format == "csr" else sp.csc_array
    return make((data, X.indices, X.indptr), shape=X.shape)
