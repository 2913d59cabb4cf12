"""The error of an iterate of conjugate gradients from the steps that led to it and those that followed: an estimate, and a bound.

For H x = b, CG's step lengths give the decrease of the squared error exactly: e_k^2 - e_{k+1}^2 = gamma_k r_k'z_k in the
H-norm. With a lower bound of the spectrum the same coefficients give an upper bound of e_k^2 (Gauss-Radau quadrature), on which
CG stops. An estimate that needs no such bound serves progress and predictions, and nothing that is claimed: it is false where
tiny eigenvalues hold what gains nothing per step.

References
----------
Hestenes & Stiefel (1952), DOI 10.6028/jres.049.044; Meurant, Papez & Tichy (2021), DOI 10.1007/s11075-021-01078-w (the estimate);
Meurant & Tichy (2013), DOI 10.1007/s11075-012-9591-9 (the Gauss-Radau bound).
"""

from __future__ import annotations

import numpy as np

from fastridge.operators.base import Vector

WINDOW = 1e4
"""The ratio of error to decrease is taken over the steps in which the squared error fell by this factor."""
TOGETHER, TOGETHER_SHARE = 2, 8
"""Decreases are summed over two steps, or over an eighth of the steps done: where rounding makes CG meet large eigenvalues again,
some steps gain nothing."""
FIRST_ESTIMATE = 3
"""Steps before the first estimate: with fewer there is no ratio to speak of."""


class EnergyEstimate:
    """Errors of CG iterates from the decreases gamma_k r_k'z_k, for k targets: `sq_bound` is proven, `sq_error` an estimate

    Parameters
    ----------
    sq_residual : (k,) float64
        r'z of the first iterate.
    smallest : (k,) float64
        Lower bounds of the smallest eigenvalue of the preconditioned matrix; 0 where there is none.
    """

    def __init__(self, sq_residual: Vector, smallest: Vector) -> None:
        self.smallest = smallest
        with np.errstate(divide="ignore"):
            self.radau = np.where(smallest > 0, 1.0 / smallest, np.inf)
        self.n_steps = 0
        self._sums = np.empty((16, len(smallest)))
        with np.errstate(over="ignore", invalid="ignore"):
            self.sq_bound = np.where(sq_residual > 0, self.radau * sq_residual, 0.0)
        self.sq_error = self.sq_bound

    def update(self, gamma: Vector, sq_old: Vector, sq_new: Vector) -> None:
        """Take the step of length `gamma` from r'z = `sq_old` to `sq_new`"""
        k = self.n_steps
        if k == len(self._sums):
            self._sums = np.concatenate([self._sums, np.empty_like(self._sums)])
        decrease = gamma * sq_old
        self._sums[k] = 0.0
        self._sums[: k + 1] += decrease
        self.n_steps = k + 1
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rest = self.radau - gamma
            self.radau = np.where(np.isfinite(self.radau), rest / (self.smallest * rest + sq_new / sq_old), 1 / self.smallest)
            self.radau = np.where(self.radau > 0, self.radau, 1 / self.smallest)
            self.sq_bound = np.where(sq_new > 0, self.radau * sq_new, 0.0)
        estimate = self._estimate() if k + 1 >= FIRST_ESTIMATE else self.sq_bound
        self.sq_error = np.where(sq_new > 0, np.minimum(estimate, self.sq_bound), 0.0)

    def _estimate(self) -> Vector:
        """Squared error of the iterate a few steps ago, which that of the latest does not exceed"""
        sums = self._sums[: self.n_steps]
        together = max(TOGETHER, self.n_steps // TOGETHER_SHARE)
        latest = sums[-together]
        past = sums[:-together]
        ahead = past - sums[together:]  # what `together` steps gained, from every earlier iterate on
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(ahead > 0, past / ahead, 1.0)
        # Iterates from the last one whose error was WINDOW times today's on; all where there is none.
        large = past >= WINDOW * latest
        first = np.where(large.any(axis=0), len(large) - 1 - np.argmax(large[::-1], axis=0), 0)
        inside = np.arange(len(ratios))[:, None] >= first
        estimate: Vector = latest * np.where(inside, ratios, 1.0).max(axis=0)
        return estimate

    @property
    def total(self) -> Vector:
        """Lower bound of the squared error of the first iterate; where CG began at zero, of ||x||_H^2 (exact for the latest x)"""
        return self._sums[0] if self.n_steps else np.zeros(len(self.smallest))

    def keep(self, targets: np.ndarray) -> None:
        """Drop all targets but these"""
        self.smallest, self.radau = self.smallest[targets], self.radau[targets]
        self.sq_error, self.sq_bound = self.sq_error[targets], self.sq_bound[targets]
        self._sums = self._sums[:, targets]
