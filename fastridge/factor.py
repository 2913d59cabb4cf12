"""Cholesky factors of symmetric matrices scaled to a diagonal of ones, and what is known about the matrix through them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.linalg.lapack import dpocon, dpotrs, dtrtri

from fastridge import parallel
from fastridge._kernels import blas
from fastridge.operators.base import Array, GoOn, Vector

BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Error of a Gram matrix and its factor, relative to the roots of the diagonal, over the square root of the longer side."""
LARGEST_LOSS = 0.5
"""Share of the matrix that rounding may be, from which on the factor tells nothing of it."""
NORM_BLOCK = 64
"""Columns that are scaled, or whose absolute values are summed, together."""
PANEL, ROWS, COLUMNS = 256, 1024, 512
"""Columns of a large factor that are computed together, and tiles of what is left, off which their products are taken: some 10 ms
in one call of BLAS, which no interrupt cuts short."""


class ScaledFactor:
    """D M D = L L' with D the inverse roots of the diagonal of M = A'A + diag(penalty), so that scales of columns do not matter

    The lower triangle of `gram`, A'A, F order, is overwritten; `penalty` is a number or (c,), and `longest` the longer side of A.
    A column of zeros counts as a unit vector. Where M is singular, `added` goes to the diagonal of D M D, and a hundred times as
    much until that does; the upper triangle must then be given as well. `cancelled`: how much larger than the diagonal of M the
    terms were that its entries are differences of.

    Attributes
    ----------
    scale : (c,) float64
        The diagonal of D.
    rcond : float
        Reciprocal condition number of D M D, by LAPACK's estimate, in the 1-norm; 0 where M is singular.
    smallest : float
        Lower bound of the eigenvalues of D M D, as far as that estimate is; 0 where rounding leaves none.
    loss : float
        M is at least 1 - loss times the matrix that the factor really belongs to; inf where rounding leaves nothing.
    complete : bool
        False where `go_on` said no before the factor was there: all else is then of no use.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, ch. 10 and 15, DOI 10.1137/1.9780898718027.
    """

    def __init__(
        self,
        gram: Vector,
        penalty: Vector | float,
        longest: int,
        added: float = 0.0,
        cancelled: float = 1.0,
        go_on: GoOn | None = None,
    ) -> None:
        diagonal = np.einsum("ii->i", gram)
        diagonal += penalty
        self.scale: Vector = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        for lo in range(0, len(gram), NORM_BLOCK):
            block = gram[:, lo : lo + NORM_BLOCK]
            block *= self.scale[lo : lo + NORM_BLOCK]
            block *= self.scale[:, None]
        diagonal[:] = 1.0
        norm, singular = norm1(gram), False
        self._factor, self.complete = gram, True
        self.rcond, self.loss, self.smallest = 0.0, np.inf, 0.0
        while True:
            definite = factor(gram, go_on)
            if go_on is not None and not go_on():
                self.complete = False
                return
            singular |= not definite
            if definite or added == 0:
                break
            # The upper triangle is as it was.
            gram[...] = np.triu(gram, 1) + np.triu(gram, 1).T
            diagonal[:] = 1.0 + added
            added *= 100
        self.rcond = 0.0 if singular else float(dpocon(self._factor, norm, uplo="L")[0])
        loss = BACKWARD_ERROR * cancelled * float(np.sqrt(longest)) / self.rcond if self.rcond > 0 else np.inf
        self.loss = loss if loss < LARGEST_LOSS else np.inf
        self.smallest = (1 - loss) * self.rcond * norm if loss < LARGEST_LOSS else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the factor"""
        return int(self._factor.nbytes)

    def solve(self, v: Vector) -> Vector:
        """M^-1 v for v (c,) or (c, k)"""
        scale = self.scale if v.ndim == 1 else self.scale[:, None]
        with parallel.blas_for(len(v)):
            return np.ascontiguousarray(scale * dpotrs(self._factor, scale * v, lower=1)[0])

    def root_of_inverse(self) -> Vector:
        """E, lower, with E M E' = I and E'E = M^-1"""
        with parallel.blas_for(len(self.scale)):
            inverse, _ = dtrtri(self._factor, lower=1)
        return np.asarray(np.tril(inverse) * self.scale)


def factor(a: Array, go_on: GoOn | None = None) -> bool:
    """Put the Cholesky factor of a symmetric matrix in the place of its lower triangle, F order, in its precision

    Return whether the matrix is positive definite; where it is not, or `go_on` says no, the triangle is left half done. A large
    one is cut into tiles, so that an interrupt waits for a product of tiles at most. Those run on our own pool: BLAS's threads
    wait for one another, spinning, and the bits would depend on their number.

    References
    ----------
    Buttari, Langou, Kurzak & Dongarra (2009), DOI 10.1016/j.parco.2008.10.002 (Cholesky factors by tiles).
    """
    n = len(a)
    if n <= parallel.SMALL_FACTOR:
        with parallel.blas_for(n):
            return blas.factor(a) == 0
    with parallel.single_threaded_blas():
        for lo in range(0, n, PANEL):
            panel = slice(lo, min(n, lo + PANEL))
            if (go_on is not None and not go_on()) or blas.factor(a[panel, panel]):
                return False
            _eliminate(a, panel, go_on)
    return True


def _eliminate(a: Array, panel: slice, go_on: GoOn | None) -> None:
    """Solve for the factor's rows below the panel in its columns, and take their products off what is left"""
    n, below = len(a), slice(panel.stop, len(a))
    n_threads = parallel.resolve_threads(None)
    few = _cut(below, min(ROWS, max(COLUMNS // 8, (n - panel.stop) // 4)))
    tiles = [(rows, columns) for columns in _cut(below, COLUMNS) for rows in (columns, *_cut(slice(columns.stop, n), ROWS))]

    def solve(i: int) -> None:
        blas.solve_right(a[panel, panel], a[few[i], panel])

    def subtract(i: int) -> None:
        rows, columns = tiles[i]
        if go_on is not None and not go_on():
            return
        if rows is columns:
            blas.subtract_gram(a[rows, panel], a[rows, columns])
        else:
            blas.subtract_product(a[rows, panel], a[columns, panel], a[rows, columns])

    parallel.run(solve, len(few), n_threads)
    parallel.run(subtract, len(tiles), n_threads)


def _cut(span: slice, size: int) -> list[slice]:
    """Into parts of about equal length, at most `size`"""
    length = span.stop - span.start
    ends = parallel.cut_evenly(length, max(1, -(-length // size))) if length else []
    return [slice(span.start + lo, span.start + hi) for lo, hi in pairwise(ends)]


def norm1(lower: Array) -> float:
    """1-norm of the symmetric matrix whose lower triangle is given"""
    sums = np.zeros(len(lower))
    for lo in range(0, len(sums), NORM_BLOCK):
        hi = lo + NORM_BLOCK
        part = np.abs(np.tril(lower[lo:, lo:hi]))
        sums[lo:] += part.sum(axis=1)
        sums[lo:hi] += part.sum(axis=0) - part.diagonal()
    return float(sums.max(initial=0.0))
