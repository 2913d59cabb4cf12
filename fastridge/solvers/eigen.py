"""Eigenvalues of the Gram matrix of the small side: any number of penalties from one decomposition."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from fastridge.factor import BACKWARD_ERROR, LARGEST_LOSS
from fastridge.operators.base import Vector
from fastridge.parallel import blas_for
from fastridge.problem import CHUNK_VECTORS, Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

MAX_REFINEMENTS = 5
"""A refinement multiplies the error by about eps times the condition number; where five do not do, no more will."""


class Spectrum:
    """B'B = V diag(s) V'

    Attributes
    ----------
    v : (c, c), s : (c,) >= 0
    doubt : float
        Bound of the error of every eigenvalue: of the decomposition and of the Gram matrix before it.
    nbytes : int
        At the peak of its making.
    """

    def __init__(self, problem: Problem, gram: Vector) -> None:
        """`gram`: B'B, lower triangle; it is overwritten"""
        c = len(gram)
        with blas_for(c):
            s, self.v = eigh(gram, lower=True, overwrite_a=True, check_finite=False, driver="evd")
        self.s: Vector = np.maximum(s, 0.0)
        self.largest = float(self.s.max(initial=0.0))
        side = problem.side
        terms = self.largest if side.sq_read_norms is side.sq_norms else max(self.largest, float(side.sq_read_norms.sum()))
        self.doubt = BACKWARD_ERROR * float(np.sqrt(max(problem.design.shape))) * terms
        self.nbytes = 4 * 8 * c * c

    def solve(self, problem: Problem, settings: Settings) -> Answer:
        """Minimise the ridge objective for every target at its own penalty > 0; `problem` has the data of this spectrum

        x = V (S + alpha)^-1 V'b. The residual is recomputed from the data for all targets in one block product, its size in the
        M^-1 norm, the error, taken through the decomposition, and the answer refined until the bound is at most `tol`.
        Guaranteed: `error_bound`, as far as `doubt` is.
        """
        penalty, k = problem.penalty, len(problem.penalty)
        s = self.s[:, None]
        inverse = 1.0 / (s + penalty)
        # What a residual component costs in the H-norm of w: g'H^-1 g, or r'(A A') M^-1 r for a wide problem; at worst.
        if problem.wide:
            cost = (s + self.doubt) / (s + self.doubt + penalty)
        else:
            cost = 1.0 / (np.maximum(s - self.doubt, 0.0) + penalty)
        # H >= (1 - theta) times the matrix that the decomposition really belongs to.
        theta = self.doubt / (self.s.min(initial=np.inf) + penalty)
        loss = np.where(theta < LARGEST_LOSS, theta, np.inf)
        n_iter, previous = np.zeros(k, dtype=np.int64), np.full(k, np.inf)
        x = self._rotate_back(inverse * self._rotate(problem.rhs))
        while True:
            check = problem.check(x)
            rotated = self._rotate(check.residual)
            with np.errstate(over="ignore"):
                sq_error = (cost * rotated**2).sum(axis=0)
            error = relative(sq_error, check.sq_size)
            bound = relative_bound(problem.sq_error_bound(check.residual, sq_error, loss), check)
            stop = not settings.monitor.after_step(float(error.max()), float(bound.max()))
            refine = (bound > settings.tol) & (error < previous / 2)
            if stop or not refine.any() or n_iter.max() == MAX_REFINEMENTS:
                break
            x += self._rotate_back(inverse * rotated * refine)
            n_iter, previous = n_iter + refine, error
        smallest = float(self.s.min(initial=np.inf) + penalty.min())
        return Answer(
            check.w,
            n_iter,
            np.minimum(error, bound),
            bound,
            check.sq_size,
            stalled=True,
            rcond=smallest / (self.largest + float(penalty.min())),
            workspace_bytes=self.nbytes + 8 * CHUNK_VECTORS * x.size + problem.target_bytes,
            x=x,
        )

    def _rotate(self, v: Vector) -> Vector:
        with blas_for(len(self.s)):
            out: Vector = self.v.T @ v
        return out

    def _rotate_back(self, v: Vector) -> Vector:
        with blas_for(len(self.s)):
            out: Vector = np.ascontiguousarray(self.v @ v)
        return out


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective through B'B = V S V', for any number of penalties > 0

    One decomposition, some 10 c^3 flops, where Cholesky takes c^3 / 3 for every distinct penalty. Targets are solved in chunks,
    so that the memory beside the data and the answer does not grow with their number.

    Raises
    ------
    np.linalg.LinAlgError
        If the decomposition fails, or a penalty is zero.

    References
    ----------
    Golub & Van Loan (2013), Matrix Computations, section 6.1.4 (ridge regression), 8.4; Gu & Eisenstat (1995),
    DOI 10.1137/S0895479892241287 (divide and conquer).
    """
    if problem.penalty.min() <= 0:
        raise np.linalg.LinAlgError("alpha must be positive for an eigendecomposition of the normal matrix")
    gram = problem.side.gram(settings.monitor.go_on)
    if not settings.monitor.go_on():
        return Answer.zero(problem)
    spectrum = Spectrum(problem, gram)
    return Answer.in_parts(problem, settings.monitor, lambda _, part: spectrum.solve(part, settings))
