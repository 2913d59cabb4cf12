"""Cholesky factors of symmetric matrices scaled to a diagonal of ones, and what is known about the matrix through them."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpocon, dpotrf, dpotrs

from fastridge.operators.base import Array, Vector
from fastridge.parallel import blas_for

BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Of a Gram matrix and its factor, relative to the roots of the diagonal; times the square root of the longer side."""
LARGEST_LOSS = 0.5
"""Share of the matrix that rounding may be, from which on the factor tells nothing of it."""
NORM_BLOCK = 64
"""Columns whose absolute values are summed together."""


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

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, ch. 10 and 15, DOI 10.1137/1.9780898718027.
    """

    def __init__(self, gram: Vector, penalty: Vector | float, longest: int, added: float = 0.0, cancelled: float = 1.0) -> None:
        diagonal = np.einsum("ii->i", gram)
        diagonal += penalty
        self.scale: Vector = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        gram *= self.scale
        gram *= self.scale[:, None]
        diagonal[:] = 1.0
        norm, singular = norm1(gram), False
        while True:
            with blas_for(len(gram)):
                self._factor, info = dpotrf(gram, lower=1, clean=0, overwrite_a=1)
            singular |= info != 0
            if info == 0 or added == 0:
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


def norm1(lower: Array) -> float:
    """1-norm of the symmetric matrix whose lower triangle is given"""
    sums = np.zeros(len(lower))
    for lo in range(0, len(sums), NORM_BLOCK):
        hi = lo + NORM_BLOCK
        part = np.abs(np.tril(lower[lo:, lo:hi]))
        sums[lo:] += part.sum(axis=1)
        sums[lo:hi] += part.sum(axis=0) - part.diagonal()
    return float(sums.max(initial=0.0))
