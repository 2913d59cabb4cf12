"""Ridge regression from the Gram matrix and the cross products alone, at one penalty or many, each answer with its bound.

    H w = c        H = G + alpha D        D: diag(d) or a penalty matrix

No row can be read again, so the residual c - H w is computed from G and c, and how far these may be off is part of the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dsymm, dsyr
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from fastridge.operators.base import Vector
from fastridge.parallel import blas_for
from fastridge.solution import FitReport, report_of
from fastridge.sums import UNDERFLOW, Sums

EPS = np.finfo(np.float64).eps
BACKWARD_ERROR = 10 * EPS
"""Error of factors, inverses and products with H, entry by entry relative to sqrt(H_ii H_jj), over the square root of p."""
MAX_REFINEMENTS = 3
"""A refinement multiplies the error by about eps times the condition number; where three do not do, no more will."""
SPECTRUM_FROM = 15
"""For fewer penalties a Cholesky factor each takes less time than one eigendecomposition."""
COLUMN_BLOCK = 64
"""Columns of a matrix whose absolute values are taken together."""
CHUNK_BYTES, CHUNK_VECTORS = 1 << 27, 6
"""Bytes of the vectors of penalties that are solved together, at most; and vectors that each penalty takes meanwhile."""
TYPICAL = 3e-3
"""Share of the doubt that errors reach: roundings do not all add up, as the doubt has to assume."""


@dataclass(frozen=True)
class NormalEquations:
    """G, c and how far they may be off

    Attributes
    ----------
    gram : (p, p) float64, F order
        G in its lower triangle; the upper one is not read.
    cross : (p, k) float64
        c
    doubt, target_doubt : (p,) and (k,) float64
        Entries of G are off by at most doubt_i doubt_j, those of c by at most doubt_i target_doubt_l.
    penalty_weights : (p,) or (p, p) float64
        d >= 0, finite, or D.
    """

    gram: Vector
    cross: Vector
    doubt: Vector
    target_doubt: Vector
    penalty_weights: Vector

    @classmethod
    def of(cls, sums: Sums, d: Vector, fit_intercept: bool) -> tuple[NormalEquations, np.ndarray]:
        """Return the equations of the features whose coefficients are not 0 for certain, and which these are, (p,) bool

        0 for certain are those with d_j = inf, and those of constant columns where D is diagonal.
        """
        p, _ = sums.shape
        gram, cross = sums.gram, sums.cross
        doubt = np.sqrt(sums.doubt(None if fit_intercept else np.zeros_like(sums.mean)))
        if not fit_intercept:
            x_mean, y_mean = sums.mean[:p], sums.mean[p:]
            gram = dsyr(sums.weight, x_mean, lower=1, a=gram)
            cross = cross + sums.weight * np.multiply.outer(x_mean, y_mean)
        active = np.ones(p, dtype=bool)
        if d.ndim == 1:
            active = np.isfinite(d) & ((gram.diagonal() != 0) | cross.any(axis=1))
        if active.all():
            return cls(gram, cross, doubt[:p], doubt[p:], d), active
        chosen = np.flatnonzero(active)
        gram = np.asfortranarray(gram[np.ix_(chosen, chosen)])
        return cls(gram, cross[chosen], doubt[chosen], doubt[p:], d[chosen]), active

    @property
    def diagonal(self) -> bool:
        """Whether D is"""
        return self.penalty_weights.ndim == 1

    def matrix(self, penalty: float) -> Vector:
        """H, in the lower triangle of a new array"""
        matrix = self.gram.copy(order="F")
        if self.diagonal:
            np.einsum("ii->i", matrix)[...] += penalty * self.penalty_weights
        else:
            matrix += penalty * self.penalty_weights
        return matrix

    def fit(self, w: Vector) -> Vector:
        """G w: (p, m) -> (p, m)"""
        return _symmetric_product(self.gram, w)

    def penalised(self, w: Vector) -> Vector:
        """D w: (p, m) -> (p, m)"""
        d = self.penalty_weights
        out: Vector = d[:, None] * w if self.diagonal else d @ w
        return out


class Inverse:
    """Cholesky factor of H at one penalty, then its inverse, which proves answers at this penalty and, D diagonal, at larger ones

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, DOI 10.1137/1.9780898718027: theorem 10.3 (a factor is that of
    a matrix off by at most gamma sqrt(H_ii H_jj)), section 14.3 (inverses).
    """

    def __init__(self, equations: NormalEquations, penalty: float) -> None:
        """Factor H

        Raises
        ------
        np.linalg.LinAlgError
            If it is not positive definite in float64.
        """
        matrix = equations.matrix(penalty)
        p = len(matrix)
        self.equations, self.doubt = equations, _whole_doubt(equations, matrix)
        self._norm = float(_absolute_product(matrix, np.ones(p)).max())
        with blas_for(p):
            self._lower, info = dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
        if info:
            raise np.linalg.LinAlgError(f"the normal matrix is not positive definite in float64 at alpha={penalty:g}")

    def solve(self, v: Vector, penalty: Vector) -> Vector:
        """H^-1 v, before `invert`: (p, m) -> (p, m)"""
        with blas_for(len(v)):
            out: Vector = dpotrs(self._lower, v, lower=1)[0]
        return out

    def invert(self) -> None:
        """Put H^-1 in the place of the factor, and measure the doubt beside H

        |x'F x| <= theta x'H x, theta = doubt'|H^-1| doubt, for every symmetric F with |F_ij| <= doubt_i doubt_j.
        """
        p = len(self._lower)
        with blas_for(p):
            self._lower, _ = dpotri(self._lower, lower=1, overwrite_c=1)
        self.rcond = 1.0 / (self._norm * float(_absolute_product(self._lower, np.ones(p)).max()))
        theta = float(self.doubt @ _absolute_product(self._lower, self.doubt))
        # The inverse is rounded: that moves theta by theta^2 at most, since the doubt includes the error of the factor.
        self._theta = theta / (1 - theta) if theta < 0.5 else np.inf

    def judge(self, w: Vector, penalty: Vector) -> tuple[Vector, Vector]:
        """Return an estimate and a bound of the errors of w, (p, m), at penalties >= this one, (m,): (m,) each

        The true residual is at most doubt_i (doubt'|w| + target_doubt) away from c - H w; in the norm of the true inverse it is
        at most 1 / sqrt(1 - theta) of what it is in that of ours; and H grows with the penalty.
        """
        check = _Check(self.equations, w, penalty, self.doubt)
        own = _root(_dots(check.residual, _symmetric_product(self._lower, check.residual)), check.residual)
        if self._theta >= 0.5:
            return check.judged(own, np.full_like(own, np.inf), 1.0)
        return check.judged(own, np.sqrt(self._theta) * check.spread + check.rounding, np.sqrt(1 - self._theta))


class Spectrum:
    """G V = H_0 V diag(s) and V'H_0 V = I, H_0 at one penalty alpha_0 > 0; at others V'H V = diag(s + alpha / alpha_0 t)

    t = 1 - s is what the penalty has of H_0, computed by itself because the difference would cancel.

    References
    ----------
    Golub & Van Loan (2013), Matrix Computations, section 8.7.
    """

    def __init__(self, equations: NormalEquations, penalty: float) -> None:
        self.penalty = penalty
        matrix = equations.matrix(penalty)
        with blas_for(len(matrix)):
            s, self.v = eigh(equations.gram, matrix, lower=True, overwrite_b=True, check_finite=False, driver="gvd")
        self.s: Vector = np.maximum(s, 0.0)[:, None]
        self.t: Vector = penalty * np.einsum("ji,j,ji->i", self.v, equations.penalty_weights, self.v)[:, None]

    def solve(self, v: Vector, penalty: Vector) -> Vector:
        """H^-1 v at a penalty for every column: (p, m) -> (p, m)"""
        with blas_for(len(v)):
            rotated = self.v.T @ v
            rotated /= self.s + penalty / self.penalty * self.t
            out: Vector = self.v @ rotated
        return out


class Answers:
    """What is known at m penalties of k targets

    Attributes
    ----------
    coefs : (m, k, p) float64
    n_iter, error, error_bound : (m, k)
        Refinements, and the H-norm error relative to ||w*||_H: an estimate and a bound.
    rcond : (m,)
        Reciprocal condition number of H in the 1-norm; nan where H was not inverted.
    solver : list of str, (m,)
    extra_bytes : int
        Held beside G and the answers.
    """

    def __init__(self, m: int, k: int, p: int) -> None:
        self.coefs = np.zeros((m, k, p))
        self.n_iter = np.zeros((m, k), dtype=np.int64)
        self.error, self.error_bound = np.full((m, k), np.inf), np.full((m, k), np.inf)
        self.rcond, self.solver = np.full(m, np.nan), [""] * m
        self.extra_bytes = 0

    def keep(self, i: int, w: Vector, n_iter: np.ndarray, judged: tuple[Vector, Vector], solver: str) -> None:
        """Take the answers at penalty i: w (p, k), the others (k,)"""
        self.coefs[i], self.n_iter[i], self.solver[i] = w.T, n_iter, solver
        self.error[i], self.error_bound[i] = judged

    def report(self, i: int, penalty: float, tol: float, seconds: float) -> FitReport:
        """Return the report on penalty i"""
        how = "a Cholesky factor" if self.solver[i] == "cholesky" else "an eigendecomposition"
        return report_of(
            self.solver[i],
            f"{how} of the summed Gram matrix",
            tol,
            provable=penalty > 0,
            stalled=True,
            error=self.error[i],
            error_bound=self.error_bound[i],
            n_iter=self.n_iter[i],
            rcond=float(self.rcond[i]),
            seconds=seconds,
            extra_bytes=self.extra_bytes,
        )


def solve(equations: NormalEquations, penalties: Vector, tol: float) -> Answers:
    """Minimise the ridge objective at every penalty >= 0, (m,), for every target

    An answer is refined against G and c until that gains nothing. One inverse, at the smallest penalty, proves the answers at
    larger ones; those that it proves to less than `tol` get a factor and an inverse of their own. Many penalties share one
    eigendecomposition, above the smallest whose answer is proven. Where H is singular in float64, the answer is the one of
    minimum norm.

    Raises
    ------
    np.linalg.LinAlgError
        If an eigendecomposition fails.
    """
    p, k = equations.cross.shape
    answers = Answers(len(penalties), k, p)
    if p == 0:  # nothing to solve for
        answers.error[...] = answers.error_bound[...] = 0.0
        answers.solver = ["cholesky"] * len(penalties)
        return answers
    left = np.argsort(penalties, kind="stable").tolist()
    reference: Inverse | None = None
    held, decomposed = 2, False
    while left:
        i = left.pop(0)
        penalty = np.full(k, penalties[i])
        try:
            factor = Inverse(equations, float(penalties[i]))
        except np.linalg.LinAlgError:
            answers.keep(i, *_least_norm(equations, penalty), "eigh")
            held = max(held, 5)
            continue
        w, n_iter = _refined(equations, factor, equations.cross, penalty)
        judged = None if reference is None else reference.judge(w, penalty)
        if judged is None or judged[1].max() > tol:
            factor.invert()
            judged, answers.rcond[i] = factor.judge(w, penalty), factor.rcond
            reference = factor if equations.diagonal else None
        answers.keep(i, w, n_iter, judged, "cholesky")
        proves = reference is not None and judged[1].max() <= tol
        if reference is not None and proves and not decomposed and len(left) >= SPECTRUM_FROM and penalties[i] > 0:
            spectrum, decomposed, held = Spectrum(equations, float(penalties[i])), True, 6
            left = _by_spectrum(equations, spectrum, reference, penalties, left, tol, answers)
            del spectrum
    answers.extra_bytes = 8 * (held * p * p + CHUNK_VECTORS * p * k)
    return answers


def _by_spectrum(
    equations: NormalEquations,
    spectrum: Spectrum,
    reference: Inverse,
    penalties: Vector,
    rows: list[int],
    tol: float,
    answers: Answers,
) -> list[int]:
    """Solve at the penalties `rows`, many together; return those that the reference does not prove to `tol`"""
    p, k = equations.cross.shape
    size = max(1, CHUNK_BYTES // (8 * p * k * CHUNK_VECTORS))
    left = []
    for lo in range(0, len(rows), size):
        some = rows[lo : lo + size]
        penalty = np.repeat(penalties[some], k)
        w, n_iter = _refined(equations, spectrum, np.tile(equations.cross, len(some)), penalty)
        error, bound = reference.judge(w, penalty)
        for at, i in enumerate(some):
            mine = slice(at * k, (at + 1) * k)
            answers.keep(i, w[:, mine], n_iter[mine], (error[mine], bound[mine]), "eigh")
            if bound[mine].max() > tol:
                left.append(i)
    return left


def _refined(equations: NormalEquations, solver: Inverse | Spectrum, cross: Vector, penalty: Vector) -> tuple[Vector, np.ndarray]:
    """Solve for (p, m) right-hand sides; refine each while that gains a factor of two, and more than rounding"""
    w = solver.solve(cross, penalty)
    n_iter, previous = np.zeros(len(penalty), dtype=np.int64), np.full(len(penalty), np.inf)
    for _ in range(MAX_REFINEMENTS):
        residual = cross - equations.fit(w) - penalty * equations.penalised(w)
        step = solver.solve(residual, penalty)
        sq_step = _dots(residual, step)
        gains = (sq_step < previous / 4) & (sq_step > EPS**2 * _dots(w, cross))
        if not gains.any():
            break
        w = w + step * gains
        n_iter, previous = n_iter + gains, np.where(gains, sq_step, 0.0)
    return w, n_iter


def _least_norm(equations: NormalEquations, penalty: Vector) -> tuple[Vector, np.ndarray, tuple[Vector, Vector]]:
    """Solve at one penalty, (k,) times the same, on the eigenvectors of H whose eigenvalues are more than rounding"""
    matrix = equations.matrix(float(penalty[0]))
    doubt = _whole_doubt(equations, matrix)
    with blas_for(len(matrix)):
        s, v = eigh(matrix, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    kept = s > max(len(s) * EPS * np.abs(s).max(initial=0.0), (doubt**2).max(initial=0.0))
    v, inverse = v[:, kept], 1.0 / s[kept][:, None]
    w = v @ (inverse * (v.T @ equations.cross))
    check = _Check(equations, w, penalty, doubt)
    own = _root((inverse * (v.T @ check.residual) ** 2).sum(axis=0), check.residual)
    return w, np.zeros(len(penalty), dtype=np.int64), check.judged(own, np.full_like(own, np.inf), 1.0)


class _Check:
    """Residual and size of answers w, (p, m), at penalties (m,), and what the doubt, (p,), has to do with them"""

    def __init__(self, equations: NormalEquations, w: Vector, penalty: Vector, doubt: Vector) -> None:
        fit, penalised = equations.fit(w), equations.penalised(w)
        n_repeats = w.shape[1] // equations.cross.shape[1]
        self.residual = np.tile(equations.cross, n_repeats) - fit - penalty * penalised
        reach = doubt @ np.abs(w)
        self.spread = reach + np.tile(equations.target_doubt, n_repeats)
        sq_penalty = penalty * np.maximum(_dots(w, penalised), 0.0)
        sq_size = np.maximum(_dots(w, fit), 0.0) + sq_penalty
        # The true G, and rounding, take at most reach^2 off w'G w each.
        sq_least = np.maximum(sq_size - 2 * reach**2, 0.0)
        self.size = np.sqrt(sq_size)
        # At penalties larger than the one that the doubt is about, alpha d_j w_j is rounded besides.
        self.rounding = BACKWARD_ERROR * self.size
        self.direct = np.full_like(sq_size, np.inf)
        d = equations.penalty_weights
        if equations.diagonal and d.min() > 0 and penalty.min() > 0:
            # H is at least alpha D, whatever G may be.
            sq_least = np.maximum(sq_least, sq_penalty)
            worst = np.abs(self.residual) + doubt[:, None] * self.spread
            sq_worst = ((worst / np.sqrt(d)[:, None]) ** 2).sum(axis=0)
            self.direct = _root(sq_worst, worst) / np.sqrt(penalty) + self.rounding
        self.least = np.sqrt(sq_least)

    def judged(self, own: Vector, doubtful: Vector, shrink: float) -> tuple[Vector, Vector]:
        """Return estimate and bound from the sizes, (m,), of the residual and of the doubt in the norm of H^-1"""
        bound = np.minimum((own + doubtful) / shrink, self.direct)
        error = own + TYPICAL * np.minimum(doubtful, self.direct)
        proven = _relative(bound, self.least)
        return np.minimum(_relative(error, self.size), proven), proven


def _whole_doubt(equations: NormalEquations, matrix: Vector) -> Vector:
    """The doubt with the rounding of factors and products of H, which is given, in it"""
    rounding = BACKWARD_ERROR * np.sqrt(len(matrix)) * np.maximum(matrix.diagonal(), 0.0)
    doubt: Vector = np.sqrt(equations.doubt**2 + rounding)
    return doubt


def _symmetric_product(lower: Vector, v: Vector) -> Vector:
    """M v for the symmetric M of which the lower triangle is given"""
    with blas_for(len(v)):
        out: Vector = dsymm(1.0, lower, v, lower=1)
    return out


def _absolute_product(lower: Vector, v: Vector) -> Vector:
    """|M| v, (p,), for the symmetric M of which the lower triangle is given, entry by entry"""
    out = np.zeros(len(v))
    for lo in range(0, len(v), COLUMN_BLOCK):
        hi = lo + COLUMN_BLOCK
        part = np.abs(np.tril(lower[lo:, lo:hi]))
        out[lo:] += part @ v[lo:hi]
        out[lo:hi] += v[lo:] @ part - part.diagonal() * v[lo:hi]
    return out


def _dots(x: Vector, y: Vector) -> Vector:
    """Return the products of the columns of x and y, (p, m), in pairs: (m,)"""
    dots: Vector = np.einsum("jl,jl->l", x, y)
    return dots


def _root(sq: Vector, terms: Vector) -> Vector:
    """Root of sums (m,) of squares of the columns of `terms`, (p, m), and of what underflow may have taken"""
    root: Vector = np.sqrt(np.maximum(sq, 0.0) + len(terms) * UNDERFLOW * terms.any(axis=0))
    return root


def _relative(error: Vector, size: Vector) -> Vector:
    """Error relative to ||w*||_H, of which w may be short by the error; inf where nothing is left"""
    left = size - error
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, np.where(left > 0, error / left, np.inf))
