"""Preconditioners for conjugate gradients on M x = b: the diagonal, with outlying eigenvalues, or a factor of M roughly."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.linalg import cholesky, solve_triangular, svd
from scipy.linalg.lapack import spocon, spotrs

from fastridge._kernels import vectors
from fastridge.factor import factor, norm1
from fastridge.operators.base import Array, GoOn, Vector
from fastridge.parallel import single_threaded_blas
from fastridge.problem import Problem

SEED = 0
"""Of the random numbers: the same data give the same bits."""
MIN_SIZE = 200
"""Unknowns from which on outlying eigenvalues are looked for; fewer take few steps."""
RANK = 32
"""Outlying eigenvalues that are looked for, in a block product that costs as much as about eight single ones of dense data."""
OUTLYING = 4.0
"""Times the mean of the others, from where on an eigenvalue stands out."""
BACKWARD_ERROR32 = 10 * float(np.finfo(np.float32).eps)
"""Of a Gram matrix formed in float32 and its factor, relative to its norm; times the square root of the rows summed."""
LEAST_LEFT = 1e-2
"""Of its mean share of the diagonal, at which what is left of an entry is cut off: it may be rounding."""


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


class Identity:
    """Nothing: the spectrum of M begins at alpha or above"""

    def __init__(self, penalty: Vector) -> None:
        self.smallest = penalty

    @classmethod
    def of(cls, problem: Problem) -> Identity:
        """For the penalties of a problem"""
        return cls(problem.penalty)

    def apply(self, residual: Vector) -> Vector:
        """The residual itself, not a copy"""
        return residual

    def keep(self, targets: np.ndarray) -> Identity:
        """The same for these targets alone"""
        return Identity(self.smallest[targets])


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


class DiagonalPlusLowRank:
    """P = F + a diagonal, F the part of a Nystrom approximation of M with the eigenvalues that stand out

    The diagonal is that of what F leaves of M, or its square root. Columns that share factors have a few such eigenvalues; CG
    meets each of them again and again, by its rounding errors, and the diagonal of M, which they dominate, scales badly what is
    left.

    F is at most M, and with s a lower bound of the spectrum of M, scaled as it is for F, and delta the largest entry of the
    diagonal of P, the spectrum of P^-1 M begins at s / (s + delta) or above.

    References
    ----------
    Frangella, Tropp & Udell (2023), DOI 10.1137/21M1466244 (the approximation, from one block product); Woodbury's formula.
    """

    def __init__(self, inverse: Vector, vectors: Vector, core: Vector, smallest: Vector) -> None:
        self.inverse, self.vectors, self.core, self.smallest = inverse, vectors, core, smallest

    @classmethod
    def of(cls, problem: Problem) -> DiagonalPlusLowRank | None:
        """For a problem whose targets share their penalty; None where nothing stands out of dense data

        Dense data are scaled to a diagonal of ones first, so that F does not depend on the scales of columns. Sparse data are
        taken as they are, and of the diagonal that F leaves its square root: the counts of words that this is for have a few
        large rows, which CG with the diagonal itself learns last.
        """
        sparse, penalty, c = problem.design.traits.sparse, float(problem.penalty[0]), len(problem.rhs)
        diagonal = problem.side.sq_norms + penalty
        scale = np.ones((c, 1)) if sparse else _equilibration(problem)[:, None]
        diagonal = diagonal * scale[:, 0] ** 2
        test = np.random.default_rng(SEED).standard_normal((c, RANK))
        image = scale * problem.normal(scale * test, np.full(RANK, penalty))
        shift = np.finfo(np.float64).eps * float(np.sqrt((image**2).sum()))
        image += shift * test
        with single_threaded_blas():
            inner = test.T @ image
            try:
                root = cholesky((inner + inner.T) / 2, lower=True, check_finite=False)
            except np.linalg.LinAlgError:  # a matrix of hardly any rank
                return None
            vectors, s, _ = svd(solve_triangular(root, image.T, lower=True, check_finite=False).T, full_matrices=False)
        s = np.maximum(s**2 - shift, 0.0)
        others = (diagonal.sum() - s.cumsum()) / (c - np.arange(RANK) - 1)  # their mean, from the trace
        standing_out = s > OUTLYING * np.maximum(others, shift)
        vectors, s = vectors[:, standing_out], s[standing_out]
        if not (len(s) or sparse):
            return None
        left = diagonal - vectors**2 @ s
        share = float(left.mean() / diagonal.mean())
        left = np.maximum(left, np.maximum(LEAST_LEFT * share * diagonal, 1e3 * shift))[:, None]
        if sparse:
            left = np.sqrt(left * left.mean())
        inner = np.diag(1.0 / s) + vectors.T @ (vectors / left)
        least = penalty * float((scale**2).min())
        smallest = least / (least + float(left.max())) if least > 1e3 * shift else 0.0
        return cls(scale**2 / left, scale / left * vectors, np.linalg.inv(inner), np.full(len(problem.penalty), smallest))

    def __str__(self) -> str:
        return f"{self.vectors.shape[1]} directions taken out"

    def apply(self, residual: Vector) -> Vector:
        """P^-1 residual"""
        out = residual * self.inverse
        with single_threaded_blas():  # bound by memory: threads would only wait for one another
            out -= self.vectors @ (self.core @ (self.vectors.T @ residual))
        return out

    def keep(self, targets: np.ndarray) -> DiagonalPlusLowRank:
        """The same for these targets alone"""
        return DiagonalPlusLowRank(self.inverse, self.vectors, self.core, self.smallest[targets])


class Within:
    """Another preconditioner on the directions orthogonal to `null`, (c, q): M has the eigenvalue alpha on those

    In exact arithmetic the residuals of a wide problem are orthogonal to them. Kept so, CG does not meet their eigenvalue, the
    smallest there is.
    """

    def __init__(self, inner: Preconditioner, null: Vector) -> None:
        self.inner, self.null, self.unit = inner, null, np.ascontiguousarray(null[:, 0])
        self.smallest = inner.smallest

    def apply(self, residual: Vector) -> Vector:
        """The other's answer, projected"""
        out = self.inner.apply(residual)
        if self.null.shape[1] == 1:
            vectors.project(out, self.unit, np.empty(out.shape[1]))
        else:
            with single_threaded_blas():
                out -= self.null @ (self.null.T @ out)
        return out

    def keep(self, targets: np.ndarray) -> Within:
        """The same for these targets alone"""
        return Within(self.inner.keep(targets), self.null)


class Factor:
    """Cholesky factor, in float32, of an approximation P of M, scaled to a diagonal of about ones"""

    def __init__(self, factor: Array, scale: Vector, smallest: Vector) -> None:
        self.factor, self.scale, self.smallest = factor, scale, smallest

    @classmethod
    def of_gram(cls, problem: Problem, fold: int = 1, go_on: GoOn | None = None) -> Factor | None:
        """Factor B'B formed in float32; where `fold` > 1, of a B of which `fold` rows at a time are added, with random signs

        Sums of rows with random signs do not miss the few heavy ones, as sampled rows do; adding rows costs one pass. The square
        of a sum of `fold` numbers is at most `fold` times the sum of their squares (Cauchy-Schwarz), so v'P v <= fold v'M v for
        every v, whatever the data: the spectrum of P^-1 M begins at 1 / fold, less what rounding to float32 takes off.

        References
        ----------
        Clarkson & Woodruff (2013), DOI 10.1145/2488608.2488620 (the sketch); Rokhlin & Tygert (2008),
        DOI 10.1073/pnas.0804869105, and Avron, Maymounkov & Toledo (2010), DOI 10.1137/090767911 (as a preconditioner).
        """
        scale, penalty = _equilibration(problem), float(problem.penalty[0])
        side = problem.side
        matrix = side.rough_gram(scale, fold, np.random.default_rng(SEED), go_on)
        if go_on is not None and not go_on():
            return None
        diagonal = np.einsum("ii->i", matrix)
        diagonal += (penalty * scale**2).astype(np.float32)
        norm = norm1(matrix)
        definite = factor(matrix, go_on)
        if go_on is not None and not go_on():
            return None
        if not definite or not np.isfinite(diagonal).all():
            raise np.linalg.LinAlgError("the approximation of the normal matrix is not positive definite in float32")
        # The factor belongs to P + E. The least eigenvalue of M scaled is at least sigma, by the penalty or by that of P + E, so
        # that v'(P + E)v <= fold v'M v + ||E|| v'v <= (fold + ||E|| / sigma) v'M v.
        doubt = BACKWARD_ERROR32 * float(np.sqrt(-(-side.shape[0] // fold))) * norm
        least = float(spocon(matrix, norm, uplo="L")[0]) * norm
        sigma = max((least - doubt) / fold, penalty * float((scale**2).min()))
        smallest = 1.0 / (fold + doubt / sigma) if sigma > 0 else 0.0
        return cls(matrix, scale, np.full(len(problem.penalty), smallest))

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
        return Factor(self.factor, self.scale, self.smallest[targets])


def within_data(chosen: Preconditioner, problem: Problem) -> Preconditioner:
    """`chosen`, kept off the directions of a wide problem that hold no data"""
    null = problem.design.left_null if problem.wide else None
    return chosen if null is None else Within(chosen, null)


def _equilibration(problem: Problem) -> Vector:
    """Inverse square roots of the diagonal of M"""
    diagonal = problem.side.sq_norms + problem.penalty[0]
    scale: Vector = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 1.0)
    return scale
