"""One decomposition of the small side that serves all penalties and all targets, as accurate as the smallest penalty needs.

With B = A, or A' of a wide problem, and a penalty alpha_0,

    (B'B + alpha I)^-1 = Z diag(1 / (1 + (alpha - alpha_0) tau)) Z'        Z'(B'B + alpha_0 I) Z = I, Z'Z = diag(tau)

Three ways lead there, each for problems that the one before has too few digits for: eigenvalues of B'B, whose errors are relative
to the largest; those of the inverse of a Cholesky factor at alpha_0, which the scales of columns do not hurt; and singular values
of the inverse of a triangle from a QR factorisation, whose errors grow with the root of the condition number only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, qr, svd
from scipy.linalg.lapack import dgeqrf, dormqr, dtrtri

from fastridge.factor import ScaledFactor
from fastridge.operators.base import GoOn, Vector
from fastridge.parallel import blas_for
from fastridge.problem import Problem

EPS = float(np.finfo(np.float64).eps)
ACCURATE = 1e-10
"""Relative error of a decomposition at a penalty from which on a better one is taken."""
DECADES = 1e6
"""Ratio of the penalties that one Cholesky factor or triangle serves: eigenvalues are accurate relative to the largest."""
LEAST = 1e-20
"""Of the largest eigenvalue: what smaller penalties count as. They leave no other answer than this one in float64."""
NOTHING = 1e-26
"""Squared share of a row in directions without data that is rounding; where the penalty is so small that it shows."""


@dataclass(frozen=True)
class Pencil:
    """What (B'B + alpha I)^-1 is at several penalties

    Attributes
    ----------
    chosen : (a,) int
        Which of the penalties asked for.
    weights : (r, a) float64
        1 / (1 + (alpha - alpha_0) tau).
    basis : (c, r) float64
        Z.
    image : (r, k) float64
        Z'b with b = A'y, or y of a wide problem.
    """

    chosen: np.ndarray
    weights: Vector
    basis: Vector
    image: Vector

    def answers(self) -> Vector:
        """X of all penalties and targets on the small side, (c, a, k)"""
        (r, a), k = self.weights.shape, self.image.shape[1]
        inner = (self.weights[:, :, None] * self.image[:, None, :]).reshape(r, a * k)
        with blas_for(r):
            return np.asarray(self.basis @ inner).reshape(-1, a, k)


def decompose(problem: Problem, penalties: Vector, precise: bool = False, go_on: GoOn | None = None) -> Iterator[Pencil]:
    """Yield decompositions that together serve all `penalties`, (a,), each > 0 and in the units of the problem

    As a rule that is one. `precise` takes the last of the three ways at once. Of a wide problem directions that centring and
    projections have emptied are left out.
    """
    null = problem.design.left_null if problem.wide else None
    reflect = None if null is None else _Reflections(null)
    order = np.argsort(penalties, kind="stable")
    longest = max(problem.design.shape)
    gram: Vector | None = None
    if not precise:
        gram = problem.side.gram(go_on)
        if reflect is not None:
            gram = reflect.restrict(gram + np.tril(gram, -1).T)
        with blas_for(len(gram)):
            s, v = eigh(gram, lower=True, check_finite=False, driver="evd")
        s = np.maximum(s, 0.0)
        largest = float(s.max(initial=0.0))
        fine = _error(s, penalties[order], problem.wide) <= ACCURATE
        if fine.any():
            chosen = order[fine]
            image = v.T @ (problem.rhs if reflect is None else reflect.rows(problem.rhs))
            yield Pencil(chosen, 1.0 / (s[:, None] + penalties[chosen]), _lifted(v, reflect), image)
        order = order[~fine]
        del v
    else:
        largest = float(problem.side.sq_norms.sum())
    triangle: Vector | None = None
    while len(order):
        first = max(float(penalties[order[0]]), LEAST * largest)
        within = penalties[order] <= DECADES * first
        chosen, order = order[within], order[~within]
        inverse = None if gram is None else _by_cholesky(gram, first, longest)
        if inverse is not None:
            with blas_for(len(inverse)):
                tau, q = eigh(inverse @ inverse.T, lower=True, overwrite_a=True, check_finite=False, driver="evd")
                basis = inverse.T @ q
            image = basis.T @ (problem.rhs if reflect is None else reflect.rows(problem.rhs))
        else:
            if triangle is None:
                triangle, target = _triangle(problem, reflect, go_on)
            tau, basis = _by_triangle(triangle, first)
            # Bounded factors: A'y itself has lost digits beside the smallest singular values.
            image = (triangle @ basis).T @ target if not problem.wide else basis.T @ target
        if problem.wide and first < ACCURATE * largest:
            _clear_directions_without_data(basis, tau, first)
        more = np.maximum(penalties[chosen], first) - first
        yield Pencil(chosen, 1.0 / (1.0 + np.maximum(tau, 0.0)[:, None] * more), _lifted(basis, reflect), image)


def _error(s: Vector, penalties: Vector, wide: bool) -> Vector:
    """What an error of B'B, of the size of rounding, does to leverages and fits at the penalties: (a,)

    b'H^-1 E H^-1 b and A H^-1 E w are E times sqrt(s) / (s + alpha) twice at most; a direction without data does no harm. Of a
    wide problem (K + alpha I)^-1 itself is what counts.
    """
    doubt = EPS * np.sqrt(len(s)) * float(s.max(initial=0.0))
    if wide:
        return np.asarray(doubt / (s.min(initial=np.inf) + penalties))
    share = np.sqrt(s + doubt)[:, None] / (s[:, None] + penalties)
    return np.asarray(doubt * share.max(axis=0, initial=0.0) ** 2)


def _by_cholesky(gram: Vector, penalty: float, longest: int) -> Vector | None:
    """L^-1, lower, with L L' = B'B + penalty I; None where that matrix is too near to a singular one"""
    factor = ScaledFactor(np.array(gram, order="F"), penalty, longest)
    if not factor.rcond * ACCURATE > EPS * np.sqrt(len(gram)):
        return None
    return factor.root_of_inverse()


def _triangle(problem: Problem, reflect: _Reflections | None, go_on: GoOn | None) -> tuple[Vector, Vector]:
    """R with R'R = B'B, (rows, r), and Q'y of the same factorisation; y itself of a wide problem"""
    c, rhs = problem.side.shape[1], problem.rhs
    if not problem.wide:
        both = problem.side.triangle(problem.target, go_on)
        return both[:, :c], both[:, c:]
    triangle = problem.side.triangle(None, go_on)
    if reflect is None:
        return triangle, rhs
    return reflect.columns(triangle), reflect.rows(rhs)


def _by_triangle(triangle: Vector, penalty: float) -> tuple[Vector, Vector]:
    """Tau and Z from R with R'R = B'B"""
    c = triangle.shape[1]
    stacked = np.concatenate([triangle, np.sqrt(penalty) * np.eye(c)])
    with blas_for(c):
        root = qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0][:c]
        inverse, _ = dtrtri(np.asfortranarray(root), lower=0)
        z, sizes, _ = svd(np.triu(inverse), full_matrices=False, check_finite=False)
    return sizes**2, z * sizes


def _clear_directions_without_data(basis: Vector, tau: Vector, first: float) -> None:
    """Set what is rounding alone to zero where eigenvalues are nothing beside `first`, which would magnify it"""
    empty = np.flatnonzero(tau * first > 0.5)
    rounding = (basis[:, empty] ** 2).sum(axis=1) * first < NOTHING
    basis[np.ix_(rounding, empty)] = 0.0


def _lifted(basis: Vector, reflect: _Reflections | None) -> Vector:
    return basis if reflect is None else reflect.lift(basis)


class _Reflections:
    """An orthogonal Q, (c, c), whose first q columns span given orthonormal ones: what is left is their complement"""

    def __init__(self, null: Vector) -> None:
        self.n_null = null.shape[1]
        self._factor, self._tau, _, _ = dgeqrf(np.asfortranarray(null))

    def _apply(self, side: str, trans: str, matrix: Vector) -> Vector:
        size = matrix.shape[1] if side == "L" else matrix.shape[0]
        out, _, _ = dormqr(side, trans, self._factor, self._tau, np.asfortranarray(matrix), max(1, 64 * size))
        return np.asarray(out)

    def rows(self, matrix: Vector) -> Vector:
        """Q'M without the first rows"""
        return self._apply("L", "T", matrix)[self.n_null :]

    def columns(self, matrix: Vector) -> Vector:
        """M Q without the first columns"""
        return self._apply("R", "N", matrix)[:, self.n_null :]

    def restrict(self, gram: Vector) -> Vector:
        """Q'M Q of the complement alone, F order"""
        return np.asfortranarray(self.columns(self._apply("L", "T", gram))[self.n_null :])

    def lift(self, basis: Vector) -> Vector:
        """Q [0; Z]"""
        return self._apply("L", "N", np.concatenate([np.zeros((self.n_null, basis.shape[1])), basis]))
