"""The orthogonal route: QR by blocks of rows, then the singular values of the triangle. Never squares the condition number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr, solve_triangular, svd

from fastridge.operators.base import GoOn, Vector
from fastridge.problem import Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

MAX_REFINEMENTS = 3
EPS = float(np.finfo(np.float64).eps)
BACKWARD_ERROR = 10 * EPS
"""Relative error, times the square root of the longer side: of every column of the triangle relative to its norm, and of the
decomposition relative to the Frobenius norm."""
ROUNDING_ALONE = 16 * EPS
"""What is left of a column after means and projections is rounding where its norm is below this share of what it was."""
UNKNOWN = 0.5
"""Relative error of the decomposition from which on it says nothing of the answer."""
EVEN = 4
"""Power of two by which the sizes of columns may differ where one decomposition serves all penalties."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective through singular values of K = [B; sqrt(alpha) I] C: B is A, or A' of a wide problem

    B is reduced to a triangle block of rows by block of rows, so that no copy of it is made. The errors of QR are relative to
    every column by itself, so C, powers of two, brings the columns to one size: their singular values then say what float64
    can know of the answer. Where the columns of B are of one size as they are, one decomposition serves all penalties.

    Guaranteed with alpha > 0: `error_bound`. With alpha = 0 singular values below max(n, p) eps times the largest count as zero,
    the answer is the least squares solution of minimum norm in the units of the data, and there is no bound on its error.

    References
    ----------
    Bjorck (1996), Numerical Methods for Least Squares Problems, ch. 2, DOI 10.1137/1.9781611971484;
    Demmel, Grigori, Hoemmen & Langou (2012), DOI 10.1137/080731992 (QR by blocks);
    Paige (1973), DOI 10.1137/0710046 (w = A'z from R alone, wide case);
    van der Sluis (1969), DOI 10.1007/BF02165096 (columns of one size).
    """
    c, k = problem.rhs.shape
    # Of [A y], or of A' alone for a wide problem.
    go_on = settings.monitor.go_on
    triangle = problem.side.triangle(None if problem.wide else problem.target, go_on)
    if not go_on():
        return Answer.zero(problem)
    factors = _factors(problem, triangle[:, :c], go_on)
    if not go_on():
        return Answer.zero(problem)
    theta, smallest = np.empty((2, k))
    for factor in factors:
        theta[factor.targets], smallest[factor.targets] = factor.theta, factor.smallest

    def step_of(residual: Vector) -> tuple[Vector, Vector]:
        """M^-1 residual, and its squared error"""
        step, within = np.empty((c, k)), residual
        for factor in factors:
            if problem.wide and factor.silent.size:
                within = within.copy() if within is residual else within
                within[:, factor.targets] -= factor.silent @ (factor.silent.T @ residual[:, factor.targets])
            step[:, factor.targets] = factor.apply_inverse(within[:, factor.targets])
        return step, problem.sq_error(within, step)

    if problem.wide:
        x = step_of(problem.target)[0]
    else:  # the QR of [A y] has Q'y
        x = np.empty((c, k))
        for factor in factors:
            x[:, factor.targets] = factor.solve(triangle[:, c + factor.targets])
    n_iter, previous = 0, np.inf
    while True:
        check = problem.check(x, smallest)
        step, sq_error = step_of(check.residual)
        error = relative(sq_error, check.sq_size)
        worst = float(error.max())
        # ||K v|| >= (1 - theta) ||K_hat v|| for the K_hat that was decomposed.
        sq_bound = problem.sq_error_bound(check.residual, sq_error, 1 - (1 - np.minimum(theta, 1.0)) ** 2)
        stop = not settings.monitor.after_step(worst, float(relative_bound(sq_bound, check).max()))
        if stop or worst <= settings.tol or n_iter == MAX_REFINEMENTS or not worst < previous / 2:
            break
        x, n_iter, previous = x + step, n_iter + 1, worst
    if not (stop or problem.wide) and problem.penalty.max() == 0 and _polish(problem, x, step_of):
        check = problem.check(x, smallest)
        error = relative(step_of(check.residual)[1], check.sq_size)
    # Where that does not know H, the error that it sees is no estimate.
    positive = problem.penalty > 0
    error = np.where(positive & (theta > UNKNOWN), relative(sq_bound, check.sq_size), error)
    bound = relative_bound(sq_bound, check)
    return Answer(
        check.w,
        np.full(k, n_iter),
        error,
        bound,
        check.sq_size,
        stalled=bool((np.where(positive, bound, error) > settings.tol).any()),
        rcond=min(factor.rcond for factor in factors),
        workspace_bytes=triangle.nbytes + sum(factor.nbytes for factor in factors),
    )


def _polish(problem: Problem, x: Vector, step_of: Callable[[Vector], tuple[Vector, Vector]]) -> bool:
    """Refine least squares answers in place by gradients with twice the digits; return whether those are to be had

    Rounding of A'(y - A x) costs them the square of the condition number. What is left is about one.
    """
    previous = np.inf
    while True:
        gradient = problem.design.precise_gradient(x, problem.target)
        if gradient is None:
            return False
        step, sq_error = step_of(gradient)
        worst = float(np.sqrt(sq_error.max()))
        if not worst < previous / 2:
            return True
        x += step
        previous = worst


@dataclass(frozen=True)
class _Factor:
    """What some targets, (k,), have of the decomposition  [R; sqrt(alpha) I] C = U S V'  at their penalties

    Attributes
    ----------
    basis : (c, r)
        C V.
    rotation : (rows of R, r)
        The upper part of U; of R C alone where the penalties share it.
    gains, inverse : (r, k)
        Of a target in the basis of U, and of a gradient in that of V: S^-1 and S^-2.
    theta : (k,)
        Relative error of ||K v||, at most.
    smallest : (k,)
        Lower bound of the spectrum of M scaled to a diagonal of ones; 0 where there is none.
    rcond : float
        Of K'K.
    silent, undone : (c, q)
        An orthonormal basis of the unknowns that R C does not determine, and the same computed to be right in units of C: the
        answer is to have nothing there. Empty where alpha > 0.
    """

    targets: np.ndarray
    basis: Vector
    rotation: Vector
    gains: Vector
    inverse: Vector
    theta: Vector
    smallest: Vector
    rcond: float
    silent: Vector
    undone: Vector

    def solve(self, rotated: Vector) -> Vector:
        """The answer for Q'y, (rows of R, k)"""
        return self._least(self.basis @ (self.gains * (self.rotation.T @ rotated)))

    def apply_inverse(self, v: Vector) -> Vector:
        """M^-1 v: (c, k) -> (c, k)"""
        return self._least(self.basis @ (self.inverse * (self.basis.T @ v)))

    def _least(self, x: Vector) -> Vector:
        """Of all unknowns that do the same, those of minimum norm

        Where C spans many orders of magnitude, each pass takes away 16 of them.
        """
        while self.silent.size:
            shorter = x - self.undone @ (self.silent.T @ x)
            with np.errstate(over="ignore"):
                if not (np.linalg.norm(shorter, axis=0) < 0.5 * np.linalg.norm(x, axis=0)).any():
                    return shorter
            x = shorter
        return x

    @property
    def nbytes(self) -> int:
        """Held while it is made"""
        return 2 * self.basis.nbytes + self.rotation.nbytes + 2 * self.silent.nbytes


def _factors(problem: Problem, R: Vector, go_on: GoOn) -> list[_Factor]:
    """A decomposition for every penalty, or one for all"""
    penalty, longest = problem.penalty, max(problem.design.shape)
    read = np.sqrt(problem.side.sq_read_norms)
    norms = np.sqrt(np.einsum("ij,ij->j", R, R))
    powers = np.frexp(norms[norms > 0])[1]
    if penalty.min() > 0 and (not len(powers) or np.ptp(powers) <= EVEN):
        scale = 2.0 ** -float(powers.max(initial=0))
        return [_shared(R, scale, penalty, longest, float(np.linalg.norm(read * scale)))]
    penalties, group = np.unique(penalty, return_inverse=True)
    factors = []
    for i, alpha in enumerate(penalties):
        if not go_on():
            break
        sizes = np.hypot(norms, np.sqrt(alpha))
        scale = np.ldexp(1.0, np.where(sizes > 0, -np.frexp(sizes)[1], 0))
        K = R * scale
        if alpha == 0 and not problem.wide:
            K[:, norms <= ROUNDING_ALONE * np.sqrt(problem.design.sq_raw_norms)] = 0.0
        if alpha > 0:
            K = np.concatenate([K, np.diag(np.sqrt(alpha) * scale)])
        size = float(np.linalg.norm(np.hypot(read, np.sqrt(alpha)) * scale))
        factors.append(_own(K, len(R), scale, np.flatnonzero(group == i), float(alpha), longest, size))
    return factors


def _shared(R: Vector, scale: float, penalty: Vector, longest: int, size: float) -> _Factor:
    """One decomposition, of R times `scale`, for all penalties > 0; `size` is what its rounding is relative to"""
    u, s, vt = svd(R * scale, full_matrices=False, check_finite=False, lapack_driver="gesdd")
    doubt = BACKWARD_ERROR * np.sqrt(longest) * max(size, float(np.linalg.norm(s)))
    lift = scale**2 * penalty
    least, largest = s.min() ** 2 + lift, s.max() ** 2 + lift
    s = np.where(s > doubt, s, 0.0)[:, None]
    spectrum = s**2 + lift
    inverse = np.divide(1.0, spectrum, out=np.zeros_like(spectrum), where=spectrum > doubt**2)
    nothing, every, theta = np.empty((len(vt), 0)), np.arange(len(penalty)), doubt / np.sqrt(least)
    # The columns of K are no longer than the root of 1 + lift.
    smallest = (1 - np.minimum(theta, 1.0)) ** 2 * least / (1 + lift)
    rcond = float((least / largest).min())
    return _Factor(every, scale * vt.T, u, s * inverse, inverse, theta, smallest, rcond, nothing, nothing)


def _own(K: Vector, n_rows: int, scale: Vector, targets: np.ndarray, alpha: float, longest: int, size: float) -> _Factor:
    """The decomposition of K = [R; sqrt(alpha) I] C, of which R has `n_rows`, for the targets with this penalty"""
    u, s, vt = svd(K, full_matrices=False, check_finite=False, lapack_driver="gesdd")
    doubt = BACKWARD_ERROR * np.sqrt(longest) * max(size, float(np.linalg.norm(s)))
    known = s > (doubt if alpha > 0 else longest * EPS * s.max())
    theta = np.full(len(targets), doubt / s.min() if known.all() else np.inf)
    smallest = ((1 - np.minimum(theta, 1.0)) * s.min()) ** 2  # the columns of K are no longer than one
    rcond = float((s.min() / s.max()) ** 2) if s.max() > 0 else 0.0
    inverse = np.repeat(1.0 / s[known, None], len(targets), axis=1)
    basis = scale[:, None] * vt[known].T
    silent = _silent(vt[~known].T, scale)
    return _Factor(targets, basis, u[:n_rows, known], inverse, inverse**2, theta, smallest, rcond, *silent)


def _silent(null: Vector, scale: Vector) -> tuple[Vector, Vector]:
    """An orthonormal basis of C null, null (c, q), and C null R^-1, which is the same"""
    if not null.size:
        return null, null
    # Rows of very different size: the largest first, and columns pivoted (Powell & Reid 1969).
    order = np.argsort(-scale, kind="stable")
    rotated, R, pivots = qr((scale[:, None] * null)[order], mode="economic", pivoting=True, check_finite=False)
    silent = np.empty_like(rotated)
    silent[order] = rotated
    return silent, scale[:, None] * solve_triangular(R, null[:, pivots].T, trans="T", check_finite=False).T
