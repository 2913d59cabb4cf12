"""Sums over rows that are added to and taken from one another: weights, means, the Gram matrix and cross products about the mean.

Every block of rows is summed about its own mean, and blocks are joined by the difference of their means,

    G = G_a + G_b + W_a W_b / (W_a + W_b) d d'        d = mean_b - mean_a

where all sums and means are kept as pairs of numbers, high and low, so that adding up does not round: means far away from zero,
the number of the blocks and their order cost no digits. What stays is the rounding within blocks, of which `Sums` keeps account.

References
----------
Chan, Golub & LeVeque (1983), DOI 10.1080/00031305.1983.10483115 (blocks about their own means, joined);
Schubert & Gertz (2018), DOI 10.1145/3221269.3223036 (covariances, weights, removal);
Knuth (1997), The Art of Computer Programming 2, section 4.2.2, theorem B (what the rounding of a sum takes is a number).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from scipy.linalg.blas import dsymm, dsyr

from fastridge._kernels import moments, vectors
from fastridge.operators.base import Array, Matrix, Vector
from fastridge.operators.design import centred_design
from fastridge.parallel import blas_for, single_threaded_blas

DOUBT = 10 * np.finfo(np.float64).eps
"""Relative error of a sum over one block of m rows is at most this times sqrt(m), relative to the sum of sizes."""
SPLIT = 2.0**27 + 1.0
"""Times a number, what leaves the higher half of its digits."""
UNDERFLOW = float(np.finfo(np.float64).tiny)
"""A product of two numbers loses less than this by underflow."""

REMOVED = 1e-9
"""Share of the weight that must have been taken away before its rounding is told from none."""

MEMORY_SHARE = 0.5
"""Share of the machine's memory that Gram matrices may take: those of sums, and that of the block which is added."""


class Sums:
    """What is known of rows [x y] with weights w: p features and k targets, together q = p + k columns

    Attributes
    ----------
    shape : (p, k)
    gram : (p, p) float64, F order
        sum of w (x - mean)(x - mean)': high parts in the lower triangle, low parts, transposed, in the upper one. Of one block
        alone the upper triangle means nothing.
    low_diagonal : (p,) float64; None of one block alone
    rest : (2, m) float64
        High and low parts of all other sums, one after the other.

    Notes
    -----
    Rounding errors are those of the blocks: in block b at most e_b = DOUBT sqrt(rows) times what is summed in absolute value.
    Taking rows away adds errors as adding rows does, and leaves less that they are relative to. So the account is

        E_j = 2 sum_b e_b sum_{rows of b} w (z_j - mean_j)^2

    over all blocks that ever were added or taken away, about the mean that is left now: |error of G_ij| <= sqrt(E_i E_j). (Those
    of a block about its own mean are f_i f_j with f_j^2 = e_b Q_bj, those of its sums f_j f_1 with f_1^2 = e_b W_b; about another
    mean f_j becomes f_j + |mean_j - mean_bj| f_1, whose square is at most twice the sum of the squares.)
    """

    def __init__(self, p: int, k: int, of_one_block: bool = False) -> None:
        self.shape = p, k
        self.gram: Vector = np.zeros((0 if of_one_block else p,) * 2, order="F")
        self.low_diagonal: Vector | None = None if of_one_block else np.zeros(p)
        sizes = {"count": 1, "weight": 1, "mean": p + k, "cross": p * k, "sq_y": k}
        sizes |= {"weight_seen": 1, "doubt": 1, "doubt_mean": p + k, "doubt_sq": p + k}
        ends = np.cumsum(list(sizes.values())).tolist()
        self._places = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        self.rest: Vector = np.zeros((2, ends[-1]))

    def high(self, name: str) -> Vector:
        """A view of the high parts of one of the other sums"""
        return self.rest[0, self._places[name]]

    def pair(self, name: str) -> Vector:
        """A view of both parts of one of the other sums, (2, size)"""
        return self.rest[:, self._places[name]]

    @property
    def count(self) -> int:
        """Rows"""
        return int(self.high("count")[0])

    @property
    def weight(self) -> float:
        """Sum of the weights"""
        return float(self.high("weight")[0])

    @property
    def mean(self) -> Vector:
        """Of every column: (q,)"""
        return self.high("mean")

    @property
    def cross(self) -> Vector:
        """Sum of w (x - mean)(y - mean)': (p, k)"""
        return self.high("cross").reshape(self.shape)

    @property
    def sq_columns(self) -> Vector:
        """Sum of w (z - mean)^2 of every column: (q,)"""
        return np.concatenate([self.gram.diagonal(), self.high("sq_y")])

    def doubt(self, centre: Vector | None = None) -> Vector:
        """E, (q,): how far the sum of squares of a column about the mean, or about `centre` (q,), may be off"""
        weight, mean, sq = (self.high(name) for name in ("doubt", "doubt_mean", "doubt_sq"))
        doubt: Vector = 2 * (sq + weight * ((self.mean if centre is None else centre) - mean) ** 2)
        return doubt

    def digits_lost(self) -> float:
        """Decimal digits that removal (or sums of sparse columns about zero) has cost the worst of the columns that vary"""
        if not self.weight:
            return 0.0
        usual = 2 * self.high("doubt") / self.high("weight_seen")
        sq, doubt = self.sq_columns, self.doubt()
        known = sq > doubt
        ratios = doubt[known] / (usual * sq[known])
        return max(0.0, float(np.log10(ratios.max(initial=1.0))))

    @property
    def removed(self) -> bool:
        """Whether rows were taken away, here or in what was added"""
        return float(self.high("weight_seen")[0]) - self.weight > REMOVED * self.weight

    @property
    def arrays(self) -> dict[str, Array]:
        """What `restored` takes"""
        assert self.low_diagonal is not None
        return {"gram": self.gram, "low_diagonal": self.low_diagonal, "rest": self.rest}

    @classmethod
    def restored(cls, p: int, k: int, gram: Vector, low_diagonal: Vector, rest: Vector) -> Sums:
        """The sums that have these arrays, which are checked

        Raises
        ------
        ValueError
            If they are not what they should be.
        """
        new = cls(p, k, of_one_block=True)
        for name, array, shape in (("gram", gram, (p, p)), ("low_diagonal", low_diagonal, (p,)), ("rest", rest, new.rest.shape)):
            if array.shape != shape or array.dtype.kind != "f" or array.dtype.itemsize != 8 or not np.isfinite(array).all():
                raise ValueError(f"{name} must be {shape} finite float64 numbers")
        new.gram = np.require(gram, np.float64, ["F", "W"])
        new.low_diagonal, new.rest = (np.require(array, np.float64, ["C", "W"]) for array in (low_diagonal, rest))
        return new

    def copy(self) -> Sums:
        """The same, in arrays of its own"""
        new = Sums(*self.shape, of_one_block=True)
        new.gram, new.rest = self.gram.copy(order="F"), self.rest.copy()
        new.low_diagonal = None if self.low_diagonal is None else self.low_diagonal.copy()
        return new

    def _offset(self, w: Vector) -> Vector:
        """Mean of y less mean of x'w, (p, k), in two parts (2, k)"""
        p, mean = self.shape[0], self.pair("mean")
        shift = np.empty((2, w.shape[1]))
        vectors.accurate_sums(np.ascontiguousarray(mean[0, :p]), w, shift)
        shift[1] += mean[1, :p] @ w
        return _sum(mean[:, p:], -shift)

    def intercept(self, w: Vector) -> Vector:
        """Of coefficients (p, k): mean of y less mean of x'w, which may cancel, with all digits; (k,)"""
        return np.asarray(self._offset(np.ascontiguousarray(w))[0])

    def sq_residual(self, w: Vector, intercept: Vector) -> tuple[Vector, Vector]:
        """Sum of w (y - x'w - b)^2 for coefficients (p, k) and b (k,), and how far it may be off; (k,) each"""
        p = self.shape[0]
        shift = self._offset(w)
        off = (shift[0] - intercept) + shift[1]
        with blas_for(p):
            fit = dsymm(1.0, self.gram, w, lower=1)
        sq = self.high("sq_y") + np.einsum("jl,jl->l", w, fit - 2 * self.cross) + self.weight * off**2
        doubt = self.doubt()
        doubt[:p] += DOUBT * np.sqrt(p) * np.maximum(self.gram.diagonal(), 0.0)  # the product with G rounds as well
        root = np.sqrt(doubt)
        spread = root[:p] @ np.abs(w) + root[p:]
        # Sums, and so means, are off by the roots of E and of that of a column of ones.
        off_doubt = spread * np.sqrt(2 * self.high("doubt")) / self.weight + DOUBT * np.abs(off)
        sq_doubt = spread**2 + self.weight * off_doubt * (2 * np.abs(off) + off_doubt)
        return np.maximum(sq, 0.0), sq_doubt

    def add(self, other: Sums, sign: int = 1) -> None:
        """Add the rows of `other`, or with -1 take them away; in place, and all of it or nothing

        Raises
        ------
        ValueError
            If sums would overflow.
        """
        p, k = self.shape
        # In pairs, since heavy rows that leave take most of the weight and of the distance with them.
        change = sign * other.pair("weight")
        shares = _ratio(change, _sum(self.pair("weight"), change)) if self.weight else np.array([[1.0], [0.0]])
        share = float(shares[0, 0])
        weight = self.weight * share
        deltas = _sum(other.pair("mean"), -self.pair("mean"))
        delta = deltas[0]
        more = Sums(p, k, of_one_block=True)
        more.rest[...] = other.rest
        for name in ("count", "weight", "cross", "sq_y"):
            more.pair(name)[...] *= sign
        if self.weight:
            with np.errstate(over="ignore", invalid="ignore"):  # said below
                shift, rounded = two_product(delta, shares[0])
            more.pair("mean")[...] = shift, rounded + (delta * shares[1] + deltas[1] * share)
        more.pair("cross")[1] += weight * np.multiply.outer(delta[:p], delta[p:]).ravel()
        more.pair("sq_y")[1] += weight * delta[p:] ** 2
        # The account of errors grows by either.
        seen, new = float(self.high("doubt")[0]), float(other.high("doubt")[0])
        part = new / (seen + new) if new else 0.0
        moved = other.high("doubt_mean") - self.high("doubt_mean")
        more.high("doubt_mean")[...] = part * moved
        more.high("doubt_sq")[...] += seen * part * moved**2
        with np.errstate(over="ignore", invalid="ignore"):
            total = self.rest[0] + more.rest.sum(axis=0)
            diagonal = self.gram.diagonal() + sign * other.gram.diagonal() + weight * delta[:p] ** 2
        if not (np.isfinite(total).all() and np.isfinite(diagonal).all()):
            raise ValueError("the sums overflow float64: rescale the data")
        assert self.low_diagonal is not None
        moments.merge(
            self.gram,
            self.low_diagonal,
            other.gram,
            other.low_diagonal,
            sign,
            weight,
            np.ascontiguousarray(delta[:p]),
            self.rest,
            more.rest,
        )


def sum_block(X: Matrix, y: Vector, weights: Vector | None, n_threads: int) -> Sums:
    """Return the sums of one block of rows

    Parameters
    ----------
    X : (n, p) array with contiguous rows or columns, or csr_array or csc_array without repeated entries; float32 or float64
    y : (n, k) float64
    weights : (n,) float64 or None
        All zero: rows are counted, and that is all.

    Raises
    ------
    ValueError
        If X has entries that are not finite, or so large that their squares overflow.
    """
    (n, p), k = X.shape, y.shape[1]
    total = float(n) if weights is None else float(weights.sum())
    sums = Sums(p, k, of_one_block=True)
    sums.high("count")[0] = n
    if not total:
        sums.gram = np.zeros((p, p), order="F")
        return sums
    with np.errstate(invalid="ignore"):  # NaN is named by what raises
        centred = centred_design(X, weights, True, n_threads)
    design, power = centred.design, centred.power
    y_centre = centre_of(y, weights)
    root = np.ones((n, 1)) if weights is None else np.sqrt(weights)[:, None]
    target = (y - y_centre) * root
    gram = design.gram()
    # Centres are rounded means. What the rounding has left comes off the products, and is part of the mean.
    x_left, y_left = design.rmatvec(root)[:, 0], np.einsum("i,il->l", root[:, 0], target)
    with single_threaded_blas():  # threads would only wait for one another
        dsyr(-1.0 / total, x_left, lower=1, a=gram, overwrite_a=1)
    x_mean = centred.mean if design.traits.sparse else np.stack([centred.mean[0], x_left / total])
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        cross = design.rmatvec(target) - np.multiply.outer(x_left, y_left / total)
        sq_y = np.einsum("il,il->l", target, target) - y_left * (y_left / total)
        sq_read = design.sq_read_norms
        if power:  # of data whose squares leave float64
            gram, sq_read = np.ldexp(gram, -2 * power, out=gram), np.ldexp(sq_read, -2 * power)
            x_mean, cross = np.ldexp(x_mean, -power), np.ldexp(cross, -power)
    for name, sq in (("X", sq_read), ("y", sq_y)):
        if not np.isfinite(sq).all():
            raise ValueError(f"{name} is too large: the squares of column {int(np.argmin(np.isfinite(sq)))} overflow; rescale it")
    sums.gram = gram
    sums.high("weight")[0] = sums.high("weight_seen")[0] = total
    sums.pair("mean")[...] = np.concatenate([x_mean, np.stack([y_centre, y_left / total])], axis=1)
    sums.high("cross")[...], sums.high("sq_y")[...] = cross.ravel(), sq_y
    error = DOUBT * np.sqrt(n)
    underflow = n * UNDERFLOW * np.concatenate([np.ones(p), target.any(axis=0)])
    sums.high("doubt")[0] = error * total
    sums.high("doubt_mean")[...] = sums.mean
    sums.high("doubt_sq")[...] = error * np.concatenate([sq_read, sq_y]) + underflow
    return sums


def centre_of(y: Vector, weights: Vector | None) -> Vector:
    """Rounded means of the columns of y; the value itself of a column that is constant where there is weight"""
    used = y if weights is None else y[weights > 0]
    return np.where((used == used[0]).all(axis=0), used[0], np.average(y, axis=0, weights=weights))


def _sum(a: Vector, b: Vector) -> Vector:
    """Of pairs (2, ...) as a pair, to some 30 digits"""
    high, low = two_sum(a[0], b[0])
    return np.stack(two_sum(high, low + (a[1] + b[1])))


def two_sum(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """The rounded sum, and exactly what the rounding took (Knuth)"""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _ratio(a: Vector, b: Vector) -> Vector:
    """Of pairs (2, ...) as a pair"""
    high = a[0] / b[0]
    product, rounded = two_product(high, b[0])
    return np.stack([high, (a[0] - product - rounded + a[1] - high * b[1]) / b[0]])


def two_product(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """The rounded product, and exactly what the rounding took (Dekker 1971), of numbers below 1e300 that do not underflow"""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Vector) -> tuple[Vector, Vector]:
    """Numbers of 26 bits at most whose sum is a"""
    scaled = a * SPLIT
    high = scaled - (scaled - a)
    return high, a - high


def check_memory(p: int, n_matrices: int = 2) -> None:
    """Raise MemoryError if `n_matrices` Gram matrices of p features (two where a block is added to sums) take too much memory"""
    memory, needed = known_memory(), n_matrices * 8 * p**2
    if memory is not None and needed > MEMORY_SHARE * memory:
        raise MemoryError(
            f"sums over {p:,} features take {n_matrices} Gram matrices while rows are added, {needed / 1e9:.1f} GB, which is "
            f"more than {MEMORY_SHARE:.0%} of this machine's {memory / 1e9:.1f} GB: choose features, or fit Ridge on the data"
        )


def known_memory() -> int | None:
    """Bytes of memory, or of the control group's limit where that is less; None where the system does not say"""
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text()))
    return min(found, default=None)
