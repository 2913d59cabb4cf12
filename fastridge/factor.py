"""Cholesky factors of symmetric matrices scaled to a diagonal of ones, and what is known about the matrix through them."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpocon, dpotrs

from fastridge._kernels import blas
from fastridge.lines import Array, GoOn, Vector
from fastridge.parallel import blas_for

BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Of a Gram matrix and its factor, relative to the roots of the diagonal; times the square root of the longer side."""
LARGEST_LOSS = 0.5
"""Share of the matrix that rounding may be, from which on the factor tells nothing of it."""
NORM_BLOCK = 64
"""Columns that are scaled, or whose absolute values are summed, together."""
PIECE_FLOPS = 2e9
"""Multiplications and additions that one call of BLAS may take, a tenth of a second on a slow core: no interrupt ends a call."""


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
        """Of the factor"""
        return int(self._factor.nbytes)

    def solve(self, v: Vector) -> Vector:
        """M^-1 v for v (c,) or (c, k)"""
        scale = self.scale if v.ndim == 1 else self.scale[:, None]
        with blas_for(len(v)):
            return np.ascontiguousarray(scale * dpotrs(self._factor, scale * v, lower=1)[0])


def factor(matrix: Array, go_on: GoOn | None = None) -> bool:
    """Put the Cholesky factor of a symmetric matrix in the place of its lower triangle, F order, in its precision

    Return whether the matrix is positive definite; where it is not, or `go_on` says no, the triangle is left half done. Matrices
    are cut in halves until no call of BLAS or LAPACK takes more than PIECE_FLOPS.

    References
    ----------
    Gustavson (1997), DOI 10.1147/rd.416.0737 (recursive factorisations).
    """
    with blas_for(len(matrix)):
        return _factor(matrix, go_on)


def _factor(a: Array, go_on: GoOn | None) -> bool:
    n = len(a)
    if n**3 / 3 <= PIECE_FLOPS:
        return (go_on is None or go_on()) and blas.factor(a) == 0
    half = _half(n)
    if not _factor(a[:half, :half], go_on):
        return False
    _solve_right(a[:half, :half], a[half:, :half], go_on)
    _subtract_gram(a[half:, :half], a[half:, half:], go_on)
    return _factor(a[half:, half:], go_on)


def _solve_right(lower: Array, a: Array, go_on: GoOn | None) -> None:
    """A = a inv(lower)', a (m, n) and lower (n, n)"""
    m, n = a.shape
    half = _half(max(m, n))
    if m * n**2 <= PIECE_FLOPS:
        if go_on is None or go_on():
            blas.solve_right(lower, a)
    elif m > n:
        _solve_right(lower, a[:half], go_on)
        _solve_right(lower, a[half:], go_on)
    else:
        _solve_right(lower[:half, :half], a[:, :half], go_on)
        _subtract_product(a[:, :half], lower[half:, :half], a[:, half:], go_on)
        _solve_right(lower[half:, half:], a[:, half:], go_on)


def _subtract_gram(a: Array, c: Array, go_on: GoOn | None) -> None:
    """C -= a a', its lower triangle, a (n, k) and c (n, n)"""
    n, k = a.shape
    half = _half(max(n, k))
    if n**2 * k <= PIECE_FLOPS:
        if go_on is None or go_on():
            blas.subtract_gram(a, c)
    elif k > n:
        _subtract_gram(a[:, :half], c, go_on)
        _subtract_gram(a[:, half:], c, go_on)
    else:
        _subtract_gram(a[:half], c[:half, :half], go_on)
        _subtract_product(a[half:], a[:half], c[half:, :half], go_on)
        _subtract_gram(a[half:], c[half:, half:], go_on)


def _subtract_product(a: Array, b: Array, c: Array, go_on: GoOn | None) -> None:
    """C -= a b', a (m, k), b (n, k), c (m, n)"""
    (m, k), n = a.shape, len(b)
    half = _half(max(m, n, k))
    if 2 * m * n * k <= PIECE_FLOPS:
        if go_on is None or go_on():
            blas.subtract_product(a, b, c)
    elif m >= max(n, k):
        _subtract_product(a[:half], b, c[:half], go_on)
        _subtract_product(a[half:], b, c[half:], go_on)
    elif n >= k:
        _subtract_product(a, b[:half], c[:, :half], go_on)
        _subtract_product(a, b[half:], c[:, half:], go_on)
    else:
        _subtract_product(a[:, :half], b[:, :half], c, go_on)
        _subtract_product(a[:, half:], b[:, half:], c, go_on)


def _half(size: int) -> int:
    """Half of it; of large ones a multiple of what BLAS works on together"""
    return -(-size // 128) * 64 if size > 128 else size // 2


def norm1(lower: Array) -> float:
    """1-norm of the symmetric matrix whose lower triangle is given"""
    sums = np.zeros(len(lower))
    for lo in range(0, len(sums), NORM_BLOCK):
        hi = lo + NORM_BLOCK
        part = np.abs(np.tril(lower[lo:, lo:hi]))
        sums[lo:] += part.sum(axis=1)
        sums[lo:hi] += part.sum(axis=0) - part.diagonal()
    return float(sums.max(initial=0.0))
