"""The penalties that a path takes where the user gives their number alone: from next to no fit to all degrees of freedom."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.linalg.lapack import dpotrf, dpstrf

from fastridge.operators.base import Vector, column_dots
from fastridge.parallel import blas_for
from fastridge.problem import Problem

LARGEST_SHARE = 1e-3
"""Share of ||y||^2 that the fit at the largest penalty chosen here explains, at most."""
LEFT_OUT, LEFT_OUT_BY_PRODUCTS = 1e-3, 1e-2
"""Share of the degrees of freedom that the smallest penalty chosen here still takes away: where the Gram matrix says so, and
where a few products do. With many unknowns answers at small penalties cost much."""
MAX_GRAM = 500
"""Unknowns up to which the smallest penalty comes from the Gram matrix."""
LANCZOS_STEPS = 10
"""Products with the data from which the smallest penalty comes where there are more unknowns."""
QUANTILES = 1000
"""Number of quantiles of the squared norms of the columns that stand for all of them."""
ROUNDING_ROOM = 100 * np.finfo(np.float64).eps
"""Share of the squared norm of a column, or of the norm of a scaled matrix, that may be nothing but rounding; times the square
root of the longer side."""
HALVINGS = 16
"""Halvings of an interval in log alpha, which is then at most a hundredth wide."""
LEAST_DECADES = 3
"""Decades from the largest penalty to the smallest, at the least."""


def useful_penalties(problem: Problem, n_penalties: int) -> tuple[Vector, Vector | None]:
    """Return penalties from the largest down, and the Gram matrix of the small side (lower triangle) where it was formed

    The largest: ||w||_H^2 = y'A H^-1 A'y <= ||A'y||^2 / alpha, a share of ||y||^2. The smallest: every eigenvalue s > 0 of B'B is
    a degree of freedom, of which alpha / (s + alpha) is taken away; in the mean that is a share.
    """
    sq_target = problem.sq_target
    image = problem.image / np.sqrt(np.where(sq_target > 0, sq_target, 1.0))
    sq_norms = problem.side.sq_norms
    # Without a y to explain, the mean eigenvalue; without an X, anything.
    largest = (float(column_dots(image, image).max()) or float(sq_norms.mean()) or 1.0) / LARGEST_SHARE
    gram = problem.side.gram() if len(sq_norms) <= MAX_GRAM else None
    # Of a constant column, rounding of its mean may be left.
    sq_rounding = 0.0 if problem.wide else ROUNDING_ROOM**2 * problem.design.sq_raw_norms
    used = (sq_norms if gram is None else gram.diagonal()) > sq_rounding
    rounding = ROUNDING_ROOM * float(np.sqrt(max(problem.design.shape)))
    if not used.any():
        smallest = 0.0
    elif gram is not None:
        smallest = _least_by_gram(gram, used, rounding)
    else:
        smallest = _least_by_products(problem, used, rounding)
    room, most = 10.0**LEAST_DECADES, float(np.sqrt(np.finfo(np.float64).max))
    largest = min(max(largest, room * smallest, 1 / most), most) if np.isfinite(smallest) else 1.0
    return np.geomspace(largest, smallest if 0 < smallest < largest else largest / room, n_penalties), gram


def _least_by_gram(gram: Vector, used: np.ndarray, rounding: float) -> float:
    """The smallest useful penalty for the columns `used`, (c,) bool, from Cholesky factors

    With pivoting, the squares on the diagonal stand for the eigenvalues: what of a column lies outside the span of the larger
    ones before it. Unlike eigenvalues they keep their digits where columns differ in scale. Rounding begins where B'B + alpha I,
    scaled to make the diagonal of B'B one, has an eigenvalue below `rounding` times its norm.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, sections 10.1 and 10.3, DOI 10.1137/1.9780898718027.
    """
    lower = np.tril(gram[np.ix_(used, used)])
    sq_norms = lower.diagonal()
    outside = np.zeros(len(lower))
    with blas_for(len(lower)):
        factor, pivots, rank, _ = dpstrf(lower, lower=1, tol=0.0)
    outside[pivots[:rank] - 1] = factor.diagonal()[:rank] ** 2
    least = _leaving_out(LEFT_OUT, outside[outside > rounding * sq_norms])
    scaled = lower / np.sqrt(sq_norms)
    scaled /= np.sqrt(sq_norms)[:, None]
    floor = rounding * float(np.linalg.norm(scaled))

    def holds(alpha: float) -> bool:
        shifted = scaled + np.diag(alpha / sq_norms - floor)
        with blas_for(len(shifted)):
            return not dpotrf(shifted, lower=1, clean=0, overwrite_a=1)[1]

    most = floor * float(sq_norms.max())
    if not least < most or holds(least):
        return least
    for _ in range(HALVINGS):
        middle = float(np.sqrt(least) * np.sqrt(most))
        least, most = (least, middle) if holds(middle) else (middle, most)
    return most


def _least_by_products(problem: Problem, used: np.ndarray, rounding: float) -> float:
    """The smallest useful penalty for the columns `used`, by a few Lanczos steps on C, B'B scaled to ones on its diagonal d

    Every product of a Ritz value and a d stands for an eigenvalue of B'B. That is right where columns are alike in scale or
    orthogonal, and near enough in between.

    References
    ----------
    Ubaru, Chen & Saad (2017), DOI 10.1137/16M1104974 (spectral sums from Lanczos steps on random vectors).
    """
    sq_norms = problem.side.sq_norms[:, None]
    inverse = np.sqrt(np.divide(1.0, sq_norms, out=np.zeros_like(sq_norms), where=used[:, None]))
    v = np.where(used[:, None], np.random.default_rng(0).choice([-1.0, 1.0], sq_norms.shape), 0.0)
    v /= np.sqrt(column_dots(v, v))
    last, size = np.zeros_like(v), 0.0
    diagonal, beside = np.empty(0), np.empty(0)
    for _ in range(LANCZOS_STEPS):
        image = inverse * problem.product(inverse * v) - size * last
        along = float(column_dots(image, v)[0])
        image -= along * v
        size = float(np.sqrt(column_dots(image, image)[0]))
        diagonal, beside = np.append(diagonal, along), np.append(beside, size)
        if size <= rounding * np.abs(diagonal).max():
            break
        last, v = v, image / size
    values, vectors = eigh_tridiagonal(diagonal, beside[:-1])
    free = values > rounding * values.max()
    scales = np.quantile(sq_norms[used], np.linspace(0, 1, QUANTILES))
    weights = np.tile(vectors[0, free] ** 2, QUANTILES)
    least = _leaving_out(LEFT_OUT_BY_PRODUCTS, np.outer(scales, values[free]).ravel(), weights)
    return max(least, rounding * float(np.median(scales)))


def _leaving_out(share: float, eigenvalues: Vector, weights: Vector | None = None) -> float:
    """The penalty at which alpha / (s + alpha) is `share` in the mean over s > 0, from below"""
    largest = float(eigenvalues.max())
    s = eigenvalues / largest
    low, high = max(share * float(s.min()), np.finfo(np.float64).tiny), 1.0
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low) * np.sqrt(high))
        if np.average(middle / (s + middle), weights=weights) > share:
            high = middle
        else:
            low = middle
    return low * largest
