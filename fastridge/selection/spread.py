"""How sure mean scores are, and how sure their differences: from second moments of the scores of rows or folds.

Scores of one row at two penalties go together, so that their difference is far surer than either. With q_a the scores of one row
in the order of the penalties, products of the steps c_1 = q_1, c_a = q_a - q_(a-1) are summed over the rows: the sum of c c'
gives the variance of any difference by the steps between, whose digits have not gone into those of q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastridge.operators.base import Array, Vector

MOST_TARGETS = 32
"""That are compared each by itself: with more, standard errors take half as long as the errors themselves, and there are none."""


def second_moments(scores: Vector) -> Vector:
    """Sums over rows of c c', c the steps of the scores of a row from one penalty to the next: (m, g, a) -> (g, a, a)"""
    steps = np.empty(scores.shape)
    np.subtract(scores.ravel()[1:], scores.ravel()[:-1], out=steps.ravel()[1:])  # all in one loop
    steps[:, :, 0] = scores[:, :, 0]
    groups = range(scores.shape[1])
    return np.array([steps[:, group].T @ steps[:, group] for group in groups]).reshape(-1, *steps.shape[2:] * 2)


@dataclass(frozen=True)
class Spread:
    """Sums over independent rows or folds, from which standard errors of mean scores follow

    Attributes
    ----------
    sums : (g, a) float64
        Of scores, for g groups of targets.
    moments : (g, a, a) float64
        Sums of `second_moments`.
    n_used : int
        Rows that count, 2 or more.
    size : (g,) float64
        What sums are divided by to be mean scores.
    order : (a,) int
        Places, in what is returned, of the penalties.
    """

    sums: Vector
    moments: Vector
    n_used: int
    size: Vector
    order: Array

    @classmethod
    def of(cls, scores: Vector) -> Spread:
        """Of the scores, (m, a) or (m, g, a), of m folds or probes"""
        m, g, a = scores.reshape(len(scores), -1, scores.shape[-1]).shape
        scores = scores.reshape(m, g, a)
        return cls(scores.sum(axis=0), second_moments(scores), m, np.full(g, float(m)), np.arange(a))

    def standard_errors(self) -> Vector:
        """Of the mean scores, (a, g)"""
        return self._of(np.tril(np.ones(self.moments.shape)), self.sums)

    def of_differences(self, others: Array) -> Vector:
        """Standard errors of the differences of the mean scores from those at one penalty of each group, (g,) int: (a, g)"""
        at = np.argsort(self.order)[others]
        below = np.tril(np.ones(self.moments.shape[1:]))
        own = np.take_along_axis(self.sums, at[:, None], axis=1)
        return self._of(below - below[at][:, None, :], self.sums - own)

    def _of(self, combinations: Vector, sums: Vector) -> Vector:
        """Of sums of steps, (g, a, a), whose totals are `sums`, (g, a)"""
        n, out = self.n_used, np.empty(sums.shape[::-1])
        squares = np.einsum("gab,gab->ga", combinations @ self.moments, combinations)
        variance = np.maximum(squares - sums**2 / n, 0.0) * (n / (n - 1))
        out[self.order] = (np.sqrt(variance) / self.size[:, None]).T
        return out
