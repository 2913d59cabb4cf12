"""Leave-one-out errors of a wide problem from a Cholesky factor of K + alpha I for every penalty, K = A A'.

A factor and its inverse take 2/3 c^3 flops at BLAS's rate, eigenvalues and eigenvectors 10 c^3 at a third of it: some ten
penalties cost less this way. One array is all that it needs: K stands in the upper triangle, the factor in the lower.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpocon, dtrtri

from fastridge.factor import NORM_BLOCK, factor, norm1
from fastridge.operators.base import Vector
from fastridge.parallel import blas_for
from fastridge.planning import costs
from fastridge.problem import Problem
from fastridge.selection.decomposition import tells

MIN_SIZE = 500
"""Rows from which on factors are thought of: for fewer neither way takes long."""
KEPT_BYTES = 1 << 28
"""Of the answers at all penalties, which are kept: up to which factors are thought of."""


class Factors:
    """K + alpha I of a wide problem, factored at one penalty after another

    Parameters
    ----------
    problem : Problem
    penalties : (a,) float64
        > 0, in the units of the problem.
    """

    def __init__(self, problem: Problem, penalties: Vector) -> None:
        self.problem, self.penalties = problem, penalties
        self._gram = problem.side.full_gram()
        self._filled = 0.0
        null = problem.design.left_null
        if null is not None:
            # Where K is zero a multiple of the identity stands in, whose share of the inverse is taken off again.
            self._filled = float(self._gram.diagonal().max(initial=0.0))
            for lo in range(0, len(self._gram), NORM_BLOCK):
                self._gram[:, lo : lo + NORM_BLOCK] += self._filled * (null @ null[lo : lo + NORM_BLOCK].T)
        self._diagonal = self._gram.diagonal().copy()
        self._answers: dict[int, Vector] = {}
        self._factored, self._condition = -1, np.inf

    @classmethod
    def of(cls, problem: Problem, penalties: Vector) -> Factors | None:
        """None where a decomposition costs less, or the smallest penalty needs more digits"""
        c, k = problem.rhs.shape
        unsuited = c < MIN_SIZE or 8 * c * k * len(penalties) > KEPT_BYTES
        if not problem.wide or unsuited or not costs.factors_cost_less(len(penalties)):
            return None
        factors = cls(problem, penalties)
        return factors if tells(c, factors._factor(int(penalties.argmin()))) else None

    def left_out(self, a: int) -> Vector:
        """Errors of all rows at penalty `a`: (c, k)"""
        self._factor(a)
        answers, null = self.answer(a), self.problem.design.left_null
        diagonal = np.empty(len(answers))
        for lo in range(0, len(diagonal), NORM_BLOCK):
            columns = self._gram[lo:, lo : lo + NORM_BLOCK]
            diagonal[lo : lo + NORM_BLOCK] = np.square(np.tril(columns)).sum(axis=0)
        diagonal *= self._scale**2
        if null is not None:
            diagonal -= np.square(null).sum(axis=1) / (self._filled + self.penalties[a])
        # Where nothing at all is left, nothing was to be predicted: a row whose weight is all there is.
        nothing = diagonal <= np.finfo(np.float64).eps * self._scale**2
        return np.asarray(answers / np.where(nothing, np.inf, diagonal)[:, None])

    def answer(self, a: int) -> Vector:
        """(K + alpha I)^-1 y at penalty `a`: (c, k)"""
        if a not in self._answers:
            self._factor(a)
            null, scale = self.problem.design.left_null, self._scale[:, None]
            with blas_for(len(scale)):
                half = dtrmm(1.0, self._gram, scale * self.problem.rhs, lower=1)
                answers = np.ascontiguousarray(scale * dtrmm(1.0, self._gram, half, lower=1, trans_a=1))
            if null is not None:
                answers -= null @ (null.T @ answers)
            self._answers[a] = answers
        return self._answers[a]

    def _factor(self, a: int) -> float:
        """Put the inverse of the factor at penalty `a`, rows and columns of K scaled by `_scale`, into the lower triangle

        Return the condition number of the matrix scaled so; inf where it is not positive definite.
        """
        if self._factored == a:
            return self._condition
        gram = self._gram
        self._scale = scale = 1.0 / np.sqrt(self._diagonal + self.penalties[a])
        for lo in range(0, len(gram), NORM_BLOCK):
            hi = min(len(gram), lo + NORM_BLOCK)
            corner = gram[lo:hi, lo:hi]
            upper = np.triu(corner, 1)
            corner[...] = upper + (upper * scale[lo:hi] * scale[lo:hi, None]).T + np.eye(hi - lo)
            np.multiply(gram[lo:hi, hi:].T, scale[hi:, None], out=gram[hi:, lo:hi])
            gram[hi:, lo:hi] *= scale[lo:hi]
        norm = norm1(gram)
        if not factor(gram):
            return np.inf
        rcond = float(dpocon(gram, norm, uplo="L")[0])
        with blas_for(len(gram)):
            dtrtri(gram, lower=1, overwrite_c=1)
        self._factored, self._condition = a, 1.0 / rcond if rcond > 0 else np.inf
        return self._condition
