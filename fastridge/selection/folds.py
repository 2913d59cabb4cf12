"""Fits of the training sets of folds at all penalties, from one pass over the data where its moments say enough.

The moments of a training set are those of all rows less those of the rows held out. One decomposition a fold serves all penalties
and targets; squared errors and R2 on the rows held out follow from their moments, and no row is read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import eigh

from fastridge import validation
from fastridge.moments import Moments
from fastridge.normal_equations import NormalEquations
from fastridge.operators.base import Array, Vector
from fastridge.parallel import blas_for
from fastridge.path import RidgePath, solve_path
from fastridge.request import Method, Request
from fastridge.selection.decomposition import ACCURATE, rounding_error
from fastridge.solution import Status

MAX_FEATURES = 4096
"""Up to which Gram matrices are decomposed. For more, and where rows are fewer, every training set is a path of its own."""
KEPT_BYTES = 1 << 28
"""Of the Gram matrices of all folds, up to which they are kept for their turn; else those rows are summed again."""
KNOWN = 1e-9
"""Relative doubt of what comes from moments, up to which no row is read for it again."""


@dataclass(frozen=True)
class Fold:
    """The fits of one training set

    Attributes
    ----------
    test : (m,) int
        Rows held out.
    coefs, intercepts : (a, k, p) and (a, k) float64
        In the user's units.
    held_out : Moments or None
        Of the rows held out, with the weights of the request.
    doubt : float
        Largest error of a fit that did not reach the tolerance; 0 where all did.
    """

    test: Array
    coefs: Vector
    intercepts: Vector
    held_out: Moments | None
    doubt: float = 0.0

    def sq_errors(self) -> tuple[Vector, Vector, float] | None:
        """Sums of s (y - prediction)^2 over the rows held out, (a, k), of s (y - mean)^2, (k,), and of s; None where not known"""
        if self.held_out is None or not self.held_out.sum_weights:
            return None
        k = self.intercepts.shape[1]
        scores = [self.held_out.score(*fit) for fit in zip(self.coefs, self.intercepts, strict=True)]
        sq, doubt = (np.array([getattr(s, name) for s in scores]).reshape(-1, k) for name in ("sq_residual", "doubt"))
        sq_y = np.reshape(self.held_out.sq_y, k)
        return (sq, sq_y, self.held_out.sum_weights) if (doubt <= KNOWN * sq).all() else None


def fit_folds(request: Request, alphas: Vector, splits: list[tuple[Array, Array]], method: Method) -> Iterator[Fold]:
    """Yield the fits of all folds, given as (train, test) indices, at the user's penalties, (a,), each >= 0"""
    p = request.X.shape[1]
    if p > MAX_FEATURES or any(len(train) < p for train, _ in splits):
        k = 1 if request.y.ndim == 1 else request.y.shape[1]
        for train, test in splits:
            path = solve_path(_rows_of(request, train), method, alphas)
            coefs, intercepts = path.coefs.reshape(len(alphas), k, p), path.intercepts.reshape(len(alphas), k)
            yield Fold(test, coefs, intercepts, None, doubt_of(path))
        return
    sums = _FoldSums(request, splits, method.n_threads)
    for i, (train, test) in enumerate(splits):
        training, held_out = sums.of(i)
        if held_out is not None and not known_well(training, request, float(alphas.min())):
            training = _moments(request, _run(train), method.n_threads)
        coefs, intercepts, doubt = fit_moments(training, request, alphas, method.tol)
        yield Fold(test, coefs, intercepts, held_out, doubt)


def doubt_of(path: RidgePath) -> float:
    """Largest error of its answers that did not reach the tolerance; without a penalty no error is known"""
    short = [report.error for report in path.reports if report.status not in (Status.CONVERGED, Status.UNCERTIFIED)]
    return max(short, default=0.0)


def _rows_of(request: Request, rows: Array) -> Request:
    """The request of some of the rows, copied"""
    weights = None if request.weights is None else request.weights[rows]
    return replace(request, X=validation.check_X(request.X[rows]), y=request.y[rows], weights=weights)


def _moments(request: Request, rows: Array | slice, n_threads: int | None) -> Moments:
    weights = None if request.weights is None else request.weights[rows]
    return Moments(n_threads=n_threads).update(request.X[rows], request.y[rows], weights)


class _FoldSums:
    """Moments of training sets and of the rows held out"""

    def __init__(self, request: Request, splits: list[tuple[Array, Array]], n_threads: int | None) -> None:
        self._request, self._splits, self._n_threads = request, splits, n_threads
        n, p = request.X.shape
        times = np.zeros(n, dtype=np.intp)
        self._complements = []
        for train, test in splits:
            seen = np.zeros(n, dtype=np.intp)
            np.add.at(seen, train, 1)
            np.add.at(seen, test, 1)
            self._complements.append(bool((seen == 1).all()))
            np.add.at(times, test, 1)
        self._held_out: list[Moments] = []
        self._total: Moments | None = None
        if not all(self._complements) or not (times == 1).all():
            if any(self._complements):
                self._total = _moments(request, slice(None), n_threads)
            return
        keep = 8 * p * p * len(splits) <= KEPT_BYTES
        total = Moments(n_threads=n_threads)
        for _, test in splits:
            part = _moments(request, _run(test), n_threads)
            total = total + part
            if keep:
                self._held_out.append(part)
        self._total = total

    def of(self, i: int) -> tuple[Moments, Moments | None]:
        """Of the training set of fold i, and of the rows held out where they were needed for it"""
        train, test = self._splits[i]
        if self._total is None or not self._complements[i]:
            return _moments(self._request, _run(train), self._n_threads), None
        held_out = self._held_out[i] if self._held_out else _moments(self._request, _run(test), self._n_threads)
        return self._total - held_out, held_out


def _run(rows: Array) -> Array | slice:
    """Rows that follow one another as a slice, which takes no copy"""
    first, last = int(rows[0]), int(rows[-1])
    together = last - first + 1 == len(rows) and bool((np.diff(rows) == 1).all())
    return slice(first, last + 1) if together else rows


def known_well(training: Moments, request: Request, penalty: float) -> bool:
    """Whether taking rows away has left every column its digits: beside its sum of squares, or beside its penalty"""
    if not training.sum_weights:
        return False
    sums, d = training._weighted(), request.penalty_weights
    p = sums.shape[0]
    own = np.ones(p) if d is None else d if d.ndim == 1 else d.diagonal()
    size = np.maximum(sums.gram.diagonal(), 0.0) + penalty * own
    return bool((sums.doubt()[:p] <= KNOWN * size).all())


def fit_moments(training: Moments, request: Request, alphas: Vector, tol: float) -> tuple[Vector, Vector, float]:
    """Coefficients (a, k, p), intercepts (a, k) and doubt: from eigenvalues where they have the digits, else from `Moments.solve`

    Raises
    ------
    ValueError
        If no row has a weight.
    """
    sums = training._weighted()
    p, k = sums.shape
    d = np.ones(p) if request.penalty_weights is None else request.penalty_weights
    equations, active = NormalEquations.of(sums, d, request.fit_intercept)
    if equations.diagonal and equations.penalty_weights.all() and alphas.min() > 0:
        scale = 1.0 / np.sqrt(equations.penalty_weights)
        gram = equations.gram * scale * scale[:, None]
        with blas_for(len(gram)):
            s, v = eigh(gram, lower=True, overwrite_a=True, check_finite=False, driver="evd")
            s = np.maximum(s, 0.0)
            if rounding_error(s, alphas).max(initial=0.0) <= ACCURATE:
                image = v.T @ (scale[:, None] * equations.cross)
                inner = image[:, None, :] / (s[:, None] + alphas)[:, :, None]
                w = scale[:, None] * (v @ inner.reshape(len(s), -1))
                coefs = np.zeros((len(alphas), k, p))
                coefs[:, :, active] = w.reshape(-1, len(alphas), k).transpose(1, 2, 0)
                centred = request.fit_intercept
                intercepts = [sums.intercept(at.T) if centred else np.zeros(k) for at in coefs]
                return coefs, np.array(intercepts), 0.0
    path: Any = training.solve(alphas, penalty_weights=request.penalty_weights, fit_intercept=request.fit_intercept, tol=tol)
    return path.coefs.reshape(len(alphas), k, p), path.intercepts.reshape(len(alphas), k), doubt_of(path)
