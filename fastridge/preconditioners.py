"""Preconditioners for conjugate gradients on M x = b: the diagonal, or a Cholesky factor of an approximation of M."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.linalg.lapack import spotrf, spotrs

from fastridge.lines import Array, Vector, rough_gram
from fastridge.parallel import blas_for, single_threaded_blas
from fastridge.problem import Problem

SKETCH_ROWS = 8
"""Buckets of a sketch per column: CG then takes 10 to 12 steps to 1e-6; 4 takes half as many again, 16 costs twice the Gram."""


class Preconditioner(Protocol):
    """An approximation of M^-1

    Attributes
    ----------
    smallest : (k,) float64
        Lower bound of the spectrum of the preconditioned matrix; 0 where there is none.
    """

    smallest: Vector

    def apply(self, residual: Vector) -> Vector:
        """Approximate M^-1 residual, (c, k), in a new array"""

    def keep(self, targets: np.ndarray) -> Preconditioner:
        """The same for these targets alone"""


class Jacobi:
    """Division by the diagonal of M; alpha min_j 1 / M_jj is a lower bound of the spectrum"""

    def __init__(self, inverse: Vector, penalty: Vector) -> None:
        self.inverse, self.penalty = inverse, penalty
        self.smallest: Vector = penalty * inverse.min(axis=0)

    @classmethod
    def of(cls, problem: Problem) -> Jacobi:
        """From the squared norms of the columns of B"""
        penalty = problem.penalty if np.ptp(problem.penalty) else problem.penalty[:1]
        diagonal = problem.side.sq_norms[:, None] + penalty
        return cls(np.divide(1.0, diagonal, out=np.ones_like(diagonal), where=diagonal > 0), problem.penalty)

    def apply(self, residual: Vector) -> Vector:
        """Divide by the diagonal"""
        out: Vector = residual * self.inverse
        return out

    def keep(self, targets: np.ndarray) -> Jacobi:
        """The same for these targets alone"""
        inverse = self.inverse if self.inverse.shape[1] == 1 else self.inverse[:, targets]
        return Jacobi(inverse, self.penalty[targets])


class Factor:
    """Cholesky factor, in float32, of an approximation of D M D with D the inverse square roots of the diagonal of M

    Nothing is known about the smallest eigenvalue that is left, so it gives no bound; the gradient does.
    """

    def __init__(self, factor: Array, scale: Vector, n_targets: int) -> None:
        self.factor, self.scale = factor, scale
        self.smallest: Vector = np.zeros(n_targets)

    @classmethod
    def of_gram(cls, problem: Problem) -> Factor:
        """Factor B'B itself, formed in float32"""
        scale = _equilibration(problem)
        side = problem.side
        return cls._of(side.lines.rough_gram(not side.along, scale), scale, problem)

    @classmethod
    def of_sketch(cls, problem: Problem, rng: np.random.Generator) -> Factor:
        """Factor the Gram matrix of a sketch of B: each row added, with a random sign, to one of 8 c buckets

        Unlike sampled rows, mixed ones do not miss the few heavy ones.

        References
        ----------
        Clarkson & Woodruff (2013), DOI 10.1145/2488608.2488620 (the sketch); Rokhlin & Tygert (2008),
        DOI 10.1073/pnas.0804869105, and Avron, Maymounkov & Toledo (2010), DOI 10.1137/090767911 (as a preconditioner).
        """
        scale = _equilibration(problem)
        side = problem.side
        sketch = side.lines.sketch(not side.along, SKETCH_ROWS * side.shape[1], rng)
        sketch *= scale.astype(np.float32)
        return cls._of(rough_gram(sketch, side.lines.n_threads), scale, problem)

    @classmethod
    def _of(cls, gram: Array, scale: Vector, problem: Problem) -> Factor:
        diagonal = np.einsum("ii->i", gram)
        diagonal += (problem.penalty[0] * scale**2).astype(np.float32)
        with blas_for(len(gram)):
            factor, info = spotrf(gram, lower=1, clean=0, overwrite_a=1)
        if info or not np.isfinite(np.einsum("ii->i", factor)).all():
            raise np.linalg.LinAlgError("the approximation of the normal matrix is not positive definite in float32")
        return cls(factor, scale, len(problem.penalty))

    def apply(self, residual: Vector) -> Vector:
        """Solve with the factor, scaled so that float32 neither overflows nor underflows"""
        scaled = residual * self.scale[:, None]
        size = float(np.abs(scaled).max(initial=0.0)) or 1.0
        with single_threaded_blas():  # bound by memory: threads would only wait for one another
            solved = spotrs(self.factor, np.asfortranarray(scaled / size, dtype=np.float32), lower=1, overwrite_b=1)[0]
        out = np.empty(residual.shape)
        np.multiply(solved, size * self.scale[:, None], out=out)
        return out

    def keep(self, targets: np.ndarray) -> Factor:
        """The same for these targets alone"""
        return Factor(self.factor, self.scale, len(targets))


def _equilibration(problem: Problem) -> Vector:
    """Inverse square roots of the diagonal of M"""
    diagonal = problem.side.sq_norms + problem.penalty[0]
    scale: Vector = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 1.0)
    return scale
