"""One decomposition of the small side that serves all penalties and all targets, as accurate as the smallest penalty needs.

With B = A, or A' of a wide problem,

    (B'B + alpha I)^-1 = Z diag(1 / (1 + (alpha - alpha_0) tau)) Z'        Z'(B'B + alpha_0 I) Z = I, Z'Z = diag(tau)

or with orthogonal Z and 1 / (s + alpha). Three ways lead there, each for problems that the one before has too few digits for:
eigenvalues s of B'B, whose errors are relative to the largest; eigenvalues tau by way of a Cholesky factor at alpha_0, which the
scales of columns do not hurt; and singular values of a triangle from a QR factorisation, whose errors grow with the root of the
condition number only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, svd
from scipy.linalg.lapack import dgeqrf, dormqr

from fastridge.factor import ScaledFactor
from fastridge.operators.base import Vector
from fastridge.parallel import blas_for
from fastridge.problem import Problem

EPS = float(np.finfo(np.float64).eps)
ACCURATE, TELLING = 1e-9, 1e-2
"""Relative error of a decomposition, at worst, from which on a better one is taken; and of a large one, where a better one costs
minutes, while errors as they are, far below the worst, tell one penalty from another."""
DECADES = 1e6
"""Ratio of the penalties that one Cholesky factor serves: eigenvalues are accurate relative to the largest."""
LEAST = 1e-20
"""Of the largest eigenvalue: what smaller penalties count as. They leave no other answer than this one in float64."""
NOTHING = 1e-26
"""Squared share of a row in directions without data that is rounding; where the penalty is so small that it shows."""

LARGE = 2048
"""Unknowns from which on the Gram matrix is not kept, and the decomposition is one that needs two matrices in place of four."""


@dataclass(frozen=True)
class Pencil:
    """What (B'B + alpha I)^-1 is at several penalties

    Attributes
    ----------
    chosen : (a,) int
        Which of the penalties asked for.
    weights : (r, a) float64
        1 / (1 + (alpha - alpha_0) tau), or 1 / (s + alpha).
    basis : (c, r) float64
        Z.
    image : (r, k) float64
        Z'b with b = A'y, or y of a wide problem.
    penalties : (a,) float64
        alpha, or what counts as it: see `LEAST`.
    sizes : (r,) float64
        The diagonal of Z'Z: tau, or ones.
    log_det : float
        log det(B'B + alpha_0 I), or 0: det(B'B + alpha I) is that of it over the product of the weights.
    """

    chosen: np.ndarray
    weights: Vector
    basis: Vector
    image: Vector
    penalties: Vector
    sizes: Vector
    log_det: float = 0.0

    @property
    def shares(self) -> Vector:
        """What the penalty takes of every direction, alpha / (s + alpha): (r, a)"""
        return np.asarray(self.sizes[:, None] * (self.penalties * self.weights))


def decompose(problem: Problem, penalties: Vector, *, precise: bool = False, strict: bool = False) -> Iterator[Pencil]:
    """Yield decompositions that together serve all `penalties`, (a,), each > 0 and in the units of the problem

    As a rule that is one. `precise` takes the last of the three ways at once. `strict`: the inverse is wanted in all directions,
    those without data included. Of a wide problem directions that centring and projections have emptied are left out.
    """
    null = problem.design.left_null if problem.wide else None
    reflect = None if null is None else _Reflections(null)
    left = np.argsort(penalties, kind="stable")
    rhs = problem.rhs if reflect is None else reflect.rows(problem.rhs)
    if not precise:
        gram = _gram(problem, reflect)
        large = len(gram) > LARGE
        with blas_for(len(gram)):
            s, v = eigh(gram, lower=True, overwrite_a=large, check_finite=False, driver="evr" if large else "evd")
        s = np.maximum(s, 0.0)
        least = LEAST * float(s.max(initial=0.0))
        fine = rounding_error(s, penalties[left], strict or problem.wide) <= (TELLING if large else ACCURATE)
        chosen, left = left[fine], left[~fine]
        if large:
            del gram
        if len(chosen):
            image, v, own = v.T @ rhs, _lifted(v, reflect), np.maximum(penalties[chosen], least)
            yield Pencil(chosen, 1.0 / (s[:, None] + own), v, image, own, np.ones(len(s)))
        del v
        if not len(left):
            return
        if large:
            gram = _gram(problem, reflect)
        while len(left):
            first = max(float(penalties[left[0]]), least)
            inverse = _by_cholesky(gram, first, max(problem.design.shape))
            if inverse is None:
                break
            within = penalties[left] <= DECADES * first
            chosen, left = left[within], left[~within]
            with blas_for(len(inverse)):
                tau, q = eigh(inverse @ inverse.T, lower=True, overwrite_a=True, check_finite=False, driver="evd")
                basis = inverse.T @ q
            tau, own = np.maximum(tau, 0.0), np.maximum(penalties[chosen], first)
            weights = 1.0 / (1.0 + tau[:, None] * (own - first))
            log_det = -2.0 * float(np.log(inverse.diagonal()).sum())
            yield Pencil(chosen, weights, _lifted(basis, reflect), basis.T @ rhs, own, tau, log_det)
        del gram
    if len(left):
        yield _by_triangle(problem, penalties, left, reflect, rhs)


def _gram(problem: Problem, reflect: _Reflections | None) -> Vector:
    """B'B, or Q'B'B Q without what is empty: lower triangle, F order"""
    return problem.side.gram() if reflect is None else reflect.restrict(problem.side.full_gram())


def rounding_error(s: Vector, penalties: Vector, strict: bool = False) -> Vector:
    """What rounding of B'B does to leverages and fits at the penalties, or where `strict` to the inverse

    b'H^-1 E H^-1 b and A H^-1 E w are E times sqrt(s) / (s + alpha) twice at most: a direction without data does no harm. (a,)
    """
    largest = float(s.max(initial=0.0))
    doubt, penalties = EPS * np.sqrt(len(s)) * largest, np.maximum(penalties, LEAST * largest)
    if strict:
        return np.asarray(doubt / (s.min(initial=np.inf) + penalties))
    share = np.sqrt(s + doubt)[:, None] / (s[:, None] + penalties)
    return np.asarray(doubt * share.max(axis=0, initial=0.0) ** 2)


def tells(c: int, condition: float) -> bool:
    """Whether rounding of a matrix of size c leaves its inverse the digits that are asked for"""
    return bool(EPS * np.sqrt(c) * condition <= (TELLING if c > LARGE else ACCURATE))


def _by_cholesky(gram: Vector, penalty: float, longest: int) -> Vector | None:
    """L^-1, lower, with L L' = B'B + penalty I; None where that matrix is too near to a singular one"""
    factor = ScaledFactor(np.array(gram, order="F"), penalty, longest)
    if not factor.rcond * ACCURATE > EPS * np.sqrt(len(gram)):
        return None
    return factor.root_of_inverse()


def _by_triangle(problem: Problem, penalties: Vector, chosen: np.ndarray, reflect: _Reflections | None, rhs: Vector) -> Pencil:
    """From the singular values of R, R'R = B'B"""
    c = problem.side.shape[1]
    triangle = problem.side.triangle(None if problem.wide else problem.target)
    triangle, target = triangle[:, :c], triangle[:, c:]
    if reflect is not None:
        triangle = reflect.columns(triangle)
    with blas_for(c):
        u, sizes, vt = svd(triangle, full_matrices=True, check_finite=False)
    s = np.zeros(len(vt))
    s[: len(sizes)] = sizes**2
    basis = np.ascontiguousarray(vt.T)
    held = np.maximum(penalties[chosen], LEAST * float(s.max(initial=0.0)))
    if problem.wide:
        _clear_directions_without_data(basis, s <= held.min(initial=np.inf))
        image = basis.T @ rhs
    else:  # by bounded factors: A'y itself has lost digits beside the smallest singular values
        image = np.zeros((len(vt), target.shape[1]))
        image[: len(sizes)] = sizes[:, None] * (u.T @ target)[: len(sizes)]
    held = np.where(held > 0, held, 1.0)
    return Pencil(chosen, 1.0 / (s[:, None] + held), _lifted(basis, reflect), image, held, np.ones(len(s)))


def _clear_directions_without_data(basis: Vector, empty: np.ndarray) -> None:
    """Set what is rounding alone to zero in directions whose eigenvalues are nothing beside a penalty, which would magnify it"""
    rounding = (basis[:, empty] ** 2).sum(axis=1) < NOTHING
    basis[np.ix_(rounding, empty)] = 0.0


def _lifted(basis: Vector, reflect: _Reflections | None) -> Vector:
    return basis if reflect is None else reflect.lift(basis)


class _Reflections:
    """An orthogonal Q, (c, c), whose first q columns span given orthonormal ones: what is left is their complement"""

    def __init__(self, null: Vector) -> None:
        self.n_null = null.shape[1]
        self._factor, self._tau, _, _ = dgeqrf(np.asfortranarray(null))

    def _apply(self, side: str, trans: str, matrix: Vector) -> Vector:
        """Q or Q' from the left or the right, in the place of `matrix`, F order"""
        size = matrix.shape[1] if side == "L" else matrix.shape[0]
        out, _, _ = dormqr(side, trans, self._factor, self._tau, matrix, max(1, 64 * size), overwrite_c=1)
        return np.asarray(out)

    def rows(self, matrix: Vector) -> Vector:
        """Q'M without the first rows"""
        return self._apply("L", "T", np.array(matrix, order="F"))[self.n_null :]

    def columns(self, matrix: Vector) -> Vector:
        """M Q without the first columns"""
        return self._apply("R", "N", np.array(matrix, order="F"))[:, self.n_null :]

    def restrict(self, gram: Vector) -> Vector:
        """Q'M Q of the complement alone, F order; `gram`, M in F order, is overwritten"""
        both = self._apply("R", "N", self._apply("L", "T", gram))
        return np.array(both[self.n_null :, self.n_null :], order="F")

    def lift(self, basis: Vector) -> Vector:
        """Q [0; Z]"""
        lifted = np.zeros((self.n_null + len(basis), basis.shape[1]), order="F")
        lifted[self.n_null :] = basis
        return self._apply("L", "N", lifted)
