"""The orthogonal route: QR by blocks of rows, then the singular values of the triangle. Never squares the condition number."""

from __future__ import annotations

import numpy as np
from scipy.linalg import qr, svd

from fastridge.krylov import relative_bound
from fastridge.lines import Vector
from fastridge.parallel import threaded_blas
from fastridge.problem import Problem, relative
from fastridge.solution import Answer, Settings

MAX_REFINEMENTS = 3
BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Of the triangle, relative to its norm; times the square root of the longer side."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective through the singular values s of A: filter factors s / (s^2 + alpha)

    A (or A', where that is taller) is reduced to a triangle block of rows by block of rows, so that no copy of it is made.
    Singular values below max(n, p) eps times the largest count as zero; with alpha = 0 that gives the least squares solution of
    minimum norm, and no bound on its error.

    References
    ----------
    Bjorck (1996), Numerical Methods for Least Squares Problems, ch. 2, DOI 10.1137/1.9781611971484;
    Demmel, Grigori, Hoemmen & Langou (2012), DOI 10.1137/080731992 (QR by blocks);
    Paige (1973), DOI 10.1137/0710046 (w = A'z from R alone, wide case).
    """
    penalty = problem.penalty
    c, k = problem.rhs.shape
    triangle = _triangle(problem)
    u, s, vt = svd(triangle[:, :c], full_matrices=False, check_finite=False, lapack_driver="gesdd")
    largest = s.max(initial=0.0)
    cutoff = max(problem.design.shape) * np.finfo(np.float64).eps * largest
    s = np.where(s > cutoff, s, 0.0)
    v = np.ascontiguousarray(vt.T)
    with np.errstate(divide="ignore"):
        spectrum = s[:, None] ** 2 + penalty
        inverse = np.where(spectrum > 0, 1.0 / spectrum, 0.0)
    # What a residual component costs in the H-norm of w: g'H^-1 g, or r'(A A') M^-1 r for a wide problem.
    cost = s[:, None] ** 2 * inverse if problem.wide else inverse

    # Wide: z = V (S^2 + alpha)^-1 V'y with A' = Q R and R = U S V'.
    # Tall: w = V S (S^2 + alpha)^-1 U'Q'y, and the QR of [A y] has Q'y.
    x = v @ (inverse * (v.T @ problem.target if problem.wide else s[:, None] * (u.T @ triangle[: u.shape[0], c:])))
    n_iter, previous = 0, np.inf
    while True:
        check = problem.check(x)
        rotated = v.T @ check.residual
        sq_error = (cost * rotated**2).sum(axis=0)
        error = relative(sq_error, check.sq_size)
        worst = float(error.max())
        if worst <= settings.tol or n_iter == MAX_REFINEMENTS or not worst < previous / 2:
            break
        x, n_iter, previous = x + v @ (inverse * rotated), n_iter + 1, worst
    # || [A; sqrt(alpha) I] d || changes by at most ||E|| ||d||, and sqrt(alpha) ||d|| is part of it.
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = BACKWARD_ERROR * np.sqrt(max(problem.design.shape)) * largest / np.sqrt(penalty)
        sq_bound = np.where(theta < 0.5, sq_error / (1 - np.minimum(theta, 0.5)) ** 2, np.inf)
    sq_bound = np.where(penalty > 0, np.minimum(sq_bound, problem.sq_bound(check.residual)), np.inf)
    smallest = s.min(initial=np.inf) ** 2 + penalty.min()
    return Answer(
        check.w,
        np.full(k, n_iter),
        error,
        relative_bound(sq_bound, check),
        check.sq_size,
        stalled=worst > settings.tol,
        rcond=float(smallest / (largest**2 + penalty.min())) if largest or penalty.min() else 0.0,
        workspace_bytes=triangle.nbytes + u.nbytes + 2 * v.nbytes,
    )


def _triangle(problem: Problem) -> Vector:
    """R of the QR factorisation of [A y] (of A' alone for a wide problem), (rows, c + k): what the blocks leave"""
    extra = problem.target if not problem.wide else np.empty((problem.side.shape[0], 0))
    c = problem.side.shape[1]
    triangle = np.empty((0, c + extra.shape[1]))
    for lo, hi, block in problem.side.blocks():
        stacked = np.concatenate([triangle, np.concatenate([block, extra[lo:hi]], axis=1)])
        with threaded_blas():
            triangle = qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0][: c + extra.shape[1]]
    return triangle
