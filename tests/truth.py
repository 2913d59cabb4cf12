"""The exact minimiser, and how far an answer is from it, in as many digits as that takes; nothing here uses fastridge.

`Exact` is the minimiser, `InFractions` the same without any rounding, for small problems; `BoundedTruth` is the minimiser within
bounds. `Truth` judges answers without knowing it.

With g the negative gradient at the returned w, w* - w = H^-1 g, so ||w - w*||_H^2 = g'H^-1 g. g is computed in pairs of floats.
For H^-1 a factor in float64 does while the condition number allows: an error of 1 % in the error does no harm, and steps H^-1 g
lead to the minimiser. Where it does not allow it, small problems are solved in decimals, and of large ones nothing is said.
"""

from __future__ import annotations

import decimal
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack, solve_triangular

PAIR_EPS = 2.0**-104
"""Relative error of one operation on pairs, at most."""
TRUSTED = 0.02
"""Relative error of a factor, as an operator, up to which it is trusted."""
FACTOR_EPS = 10 * np.finfo(np.float64).eps
"""That error is at most this times rows, in entries of columns of norm one."""
B_ROUNDING = 8 * np.finfo(np.float64).eps
"""Of the mean of |y| + sum of the mean of |x_j| times |w_j|: some roundings each."""
LARGEST_CANCELLATION = 1e-8
"""Least ratio of a norm to that of the vector it is left of, after cancellation in floats, that is trusted."""
FARTHEST = 1e100
"""Largest entry of scaled data that floats are trusted with: squares do not overflow."""
MAX_REFLECTIONS = 1.2e11
"""Rows times columns squared of a matrix that is factored by reflections: some seconds."""
MAX_DECIMALS = 6e6
"""Products of decimals of 100 digits that are computed for one factor: some seconds."""
BLOCK = 1 << 16
"""Entries of the rows that are worked on together."""
SPLITTER = 2.0**27 + 1
REFINEMENTS = 3
MAX_STEPS = 60
"""Of refinement, each of which takes off a share of TRUSTED or better as a rule."""
SOLVED, SURE = 1e-24, 1e-12
"""Size of the step ahead, relative to the minimiser, at which refinement ends, and of the last one, that it must have come to."""
CANCELLED = 1e-7
"""Relative error of a norm in floats, as a bound, from which on it is computed in pairs."""
LONG = np.longdouble
LONG_EPS = float(np.finfo(LONG).eps)
MAX_CHANGES = 400
"""Changes of the set of free coordinates, on the way to the solution within bounds."""
ROUNDING = 1e-14
"""Relative change of A and y, some 50 eps, that no float64 answer can be blamed for."""


@dataclass(frozen=True)
class Distance:
    """How far an answer is from the minimiser, relative to ||w*||_H; nan where that is not known

    Attributes
    ----------
    coef : float
        ||w - w*||_H; inf where w* is zero and w is not.
    joint : float
        The root of the sum of the squares of that and of sqrt(sum of weights) |b - b*(w)|.
    avoidable : float
        The same, |b - b*(w)| lessened by what the arithmetic of float64 may take of b (`B_ROUNDING`).
    noise : float
        By how much these may be wrong, besides 2 % of themselves.
    """

    coef: float
    joint: float
    avoidable: float
    noise: float

    @property
    def known(self) -> bool:
        return not np.isnan(self.noise)


INFINITE, UNKNOWN = Distance(np.inf, np.inf, np.inf, 0.0), Distance(np.nan, np.nan, np.nan, np.nan)


class Pair:
    """An array of unevaluated sums hi + lo of two floats (Dekker 1971, DOI 10.1007/BF01397083)"""

    __array_ufunc__ = None  # numpy arrays give way to the operators of this class
    __slots__ = ("hi", "lo")

    def __init__(self, hi: Any, lo: Any = 0.0) -> None:
        self.hi, lo = np.asarray(hi, dtype=np.float64), np.asarray(lo, dtype=np.float64)
        self.lo = lo if lo.shape == self.hi.shape else np.broadcast_to(lo, self.hi.shape)

    def __len__(self) -> int:
        return len(self.hi)

    def __getitem__(self, where: Any) -> Pair:
        return Pair(self.hi[where], self.lo[where])

    def __neg__(self) -> Pair:
        return Pair(-self.hi, -self.lo)

    def __add__(self, other: Any) -> Pair:
        other = other if isinstance(other, Pair) else Pair(other)
        hi, lo = _two_sum(self.hi, other.hi)
        return _normal(hi, lo + (self.lo + other.lo))

    def __sub__(self, other: Any) -> Pair:
        return self + -other

    def __mul__(self, other: Any) -> Pair:
        other = other if isinstance(other, Pair) else Pair(other)
        hi, lo = _two_product(self.hi, other.hi)
        return _normal(hi, lo + (self.hi * other.lo + self.lo * other.hi))

    def __truediv__(self, other: Pair) -> Pair:
        quotient = self.hi / other.hi
        return _normal(quotient, (self - other * quotient).hi / other.hi)

    def sqrt(self) -> Pair:
        root = np.sqrt(self.hi)
        rest = self - Pair(root) * root
        return _normal(root, np.divide(rest.hi, 2 * root, out=np.zeros_like(root), where=root > 0))

    def scaled(self, exponent: Any) -> Pair:
        """The array times 2^exponent"""
        return Pair(np.ldexp(self.hi, exponent), np.ldexp(self.lo, exponent))

    @property
    def value(self) -> Any:
        return self.hi + self.lo

    def sum(self, axis: int = 0) -> Pair:
        """Sum along an axis, by halves"""
        hi, lo = np.moveaxis(self.hi, axis, 0), np.moveaxis(self.lo, axis, 0)
        while len(hi) > 1:
            rest = len(hi) // 2
            half = len(hi) - rest
            total = Pair(hi[:rest], lo[:rest]) + Pair(hi[half:], lo[half:])
            hi, lo = np.concatenate([total.hi, hi[rest:half]]), np.concatenate([total.lo, lo[rest:half]])
        return Pair(hi[0], lo[0])


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Any, b: Any) -> tuple[Any, Any]:
    product = a * b
    a_hi, b_hi = SPLITTER * a - (SPLITTER * a - a), SPLITTER * b - (SPLITTER * b - b)
    a_lo, b_lo = a - a_hi, b - b_hi
    return product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


def _normal(hi: Any, lo: Any) -> Pair:
    total = hi + lo
    return Pair(total, lo - (total - hi))


class Truth:
    """The problem that answers are compared with

        minimise over w, b    1/2 sum_i s_i (y_i - x_i'w - b)^2 + 1/2 alpha sum_j d_j w_j^2

    Parameters
    ----------
    X : (n, p) array or sparse matrix, float32 or float64
    Y : (n, k)
    weights : (n,) or None
    fit_intercept : bool
    d : (p,) or None
        Zeros and infinities included.
    """

    def __init__(self, X: Any, Y: Any, weights: Any = None, fit_intercept: bool = True, d: Any = None) -> None:
        X = X.tocsr() if sp.issparse(X) else np.asarray(X)
        s = np.ones(X.shape[0]) if weights is None else np.asarray(weights, dtype=np.float64)
        d = np.ones(X.shape[1]) if d is None else np.asarray(d, dtype=np.float64)
        self.fixed = np.isinf(d)
        X = X[s > 0][:, ~self.fixed]
        X = np.asarray(X.toarray() if sp.issparse(X) else X, dtype=np.float64)
        Y = np.asarray(Y, dtype=np.float64)[s > 0]
        self.data = Data(X, Y, s[s > 0], d[~self.fixed], fit_intercept)
        self._last: tuple[float, list[Any]] = (np.nan, [])

    def distance(self, alpha: float, target: int, coef: Any, intercept: float) -> Distance:
        """Compare an answer, (p,) and a number, with the minimiser at `alpha`"""
        coef = np.asarray(coef, dtype=np.float64)
        if not (np.isfinite(coef).all() and np.isfinite(intercept)) or coef[self.fixed].any():
            return INFINITE
        if self._last[0] != alpha:  # one at a time: factors are large
            self._last = (alpha, [])
        systems = self._last[1]
        for number, kind in enumerate((FloatSystem, DecimalSystem)):
            if number == len(systems):
                systems.append(kind(self.data, alpha))
            with np.errstate(all="ignore"):
                found = systems[number].distance(target, coef[~self.fixed], float(intercept))
            if found.known:
                return found
        return UNKNOWN

    def minimisers(self, alpha: float, targets: Any) -> tuple[Any, list[Any]]:
        """The first system that knows the minimisers of `targets` at `alpha`, and those"""
        for kind in (FloatSystem, DecimalSystem):
            system = kind(self.data, alpha)
            with np.errstate(all="ignore"):
                found = [system.minimiser(target) for target in targets]
            if all(w is not None for w in found):
                return system, found
        raise ValueError("the minimiser is not known: the problem is too large for decimals")


class Exact:
    """The minimiser of the problem that `Truth` states

    Parameters
    ----------
    X : (n, p) array or sparse matrix
    y : (n,) or (n, k)
    alpha : float or (k,)
    sample_weight : (n,) or None
    d : (p,) or None
        Zeros and infinities included. Where columns without a penalty depend on others, one solution.

    Attributes
    ----------
    coef, intercept : (k, p) and (k,) float64
    size : (k,) float64
        ||w*||_H.
    rounding : (k,) float64
        How far a change of A and y by ROUNDING may move the solution, relative in the H-norm. Without `d`.
    x_mean, y_mean : (p,) and (k,) float64
        Zeros without an intercept.
    """

    def __init__(self, X: Any, y: Any, alpha: Any, sample_weight: Any = None, fit_intercept: bool = True, d: Any = None) -> None:
        Y = np.asarray(y, dtype=np.float64)
        self._truth = Truth(X, Y.reshape(len(Y), -1), sample_weight, fit_intercept, d)
        k = self._truth.data.Y.shape[1]
        self.alpha = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (k,))
        self._found: list[Any] = [None] * k
        for value in np.unique(self.alpha):
            targets = np.flatnonzero(self.alpha == value)
            system, found = self._truth.minimisers(value, targets)
            for target, w in zip(targets, found, strict=True):
                self._found[target] = system, w
            system.forget()
        free = ~self._truth.fixed
        self.coef, self.x_mean = np.zeros((k, len(free))), np.zeros(len(free))
        self.x_mean[free], self.y_mean = self._found[0][0].means()
        self.coef[:, free] = [system.coefficients(j, w) for j, (system, w) in enumerate(self._found)]
        self.size = np.array([system.norm_of(j, w) for j, (system, w) in enumerate(self._found)])
        self.intercept = self.best_intercept(self.coef)

    def best_intercept(self, coef: Any) -> Any:
        """The best intercepts for these coefficients, (k,)"""
        return (Pair(self.y_mean) - (Pair(np.atleast_2d(coef)) * self.x_mean).sum(axis=1)).value

    def error(self, coef: Any) -> Any:
        """||coef - w*||_H / ||w*||_H of every target, (k,)"""
        coef = np.atleast_2d(np.asarray(coef, dtype=np.float64))
        if coef[:, self._truth.fixed].any():
            return np.full(len(self.size), np.inf)
        free = coef[:, ~self._truth.fixed]
        off = np.array([system.norm_of(j, w, free[j]) for j, (system, w) in enumerate(self._found)])
        return np.divide(off, self.size, out=np.where(off == 0, 0.0, np.inf), where=self.size > 0)

    def r2(self, X: Any, y: Any) -> float:
        """R2 of the exact model on one target"""
        rest = y - X @ self.coef[0] - self.intercept[0]
        return 1 - rest @ rest / ((y - y.mean()) @ (y - y.mean()))

    @cached_property
    def rounding(self) -> Any:
        data = self._truth.data
        root = np.sqrt(data.s)[:, None]
        A, target = root * (data.X - self.x_mean[~self._truth.fixed]), root * (data.Y - self.y_mean)
        w = self.coef.T[~self._truth.fixed]
        s = np.linalg.svd(A, compute_uv=False)
        smallest = np.sqrt(self.alpha + (s[-1] ** 2 if A.shape[0] >= A.shape[1] else 0))
        residual = np.linalg.norm(target - A @ w, axis=0)
        moved = s[0] * (np.linalg.norm(w, axis=0) + residual / smallest) + np.linalg.norm(target, axis=0)
        return ROUNDING * np.divide(moved, self.size, out=np.zeros_like(moved), where=self.size > 0)


@dataclass(frozen=True)
class Data:
    """X (n, p), Y (n, k), s (n,), d (p,), without what has no weight or may not move"""

    X: Any
    Y: Any
    s: Any
    d: Any
    fit_intercept: bool

    @property
    def wide(self) -> bool:
        """Whether the factor is one of the n-vectors: where there are more columns than rows, and all of them penalised"""
        return self.X.shape[1] > self.X.shape[0] and bool((self.d > 0).all())


class FloatSystem:
    """H = A'A + alpha D, everything scaled by powers of two, and a factor of it in floats

    In a wide problem v'H^-1 v is the least value of ||D^-1/2 v - D^-1/2 A'u||^2 + ||u||^2 over the n-vectors u (alpha in D), and
    the factor is that of [D^-1/2 A'; I].
    """

    def __init__(self, data: Data, alpha: float) -> None:
        self.wide = data.wide
        self.s_exponent = s_exponent = int(_exponent(data.s.max()))
        x_exponent = _exponent(np.abs(data.X).max(axis=0))
        self.y_exponent = _exponent(np.abs(data.Y).max(axis=0))
        self.s, X, self.Y = np.ldexp(data.s, -s_exponent), np.ldexp(data.X, -x_exponent), Pair(np.ldexp(data.Y, -self.y_exponent))
        self.s_sum, p = Pair(self.s).sum(), X.shape[1]
        x_size, self.y_size = (self.s @ np.abs(x) / self.s_sum.hi for x in (X, self.Y.hi))
        self._x_mean = np.zeros(p)
        mean, self.y_mean, constant = Pair(np.zeros(p)), Pair(np.zeros(self.Y.hi.shape[1])), np.zeros(p, dtype=bool)
        if data.fit_intercept:
            constant = (X[0] == X).all(axis=0)
            for rows in _blocks(X):
                mean = mean + (Pair(X[rows]) * self.s[rows, None]).sum()
            mean = mean / self.s_sum
            self._x_mean = np.ldexp(mean.value, x_exponent)
            self.y_mean = (self.Y * self.s[:, None]).sum() / self.s_sum
            self.Y = self.Y - self.y_mean
            self.Y.hi[:, (data.Y[0] == data.Y).all(axis=0)] = 0
        sizes = np.sqrt(sum(self.s[rows] @ ((X[rows] - mean.hi) - mean.lo) ** 2 for rows in _blocks(X)))
        sizes[constant] = 0
        with np.errstate(all="ignore"):
            # The root of the penalty in the columns of X is this times 2^exponent.
            root = (Pair(data.d) * alpha).sqrt() / (Pair(2.0).sqrt() if s_exponent % 2 else Pair(1.0))
            exponent = -x_exponent - s_exponent // 2
            of_penalty, of_data = _exponent(root.hi) + exponent, _exponent(sizes)
            size = np.where((root.hi > 0) & ((sizes == 0) | self.wide | (of_penalty > of_data)), of_penalty, of_data)
            self.root, self.mean, self.X = root.scaled(exponent - size), mean.scaled(-size), np.ldexp(X, -size)
            self.w_exponent = x_exponent + size
            self.x_size = np.ldexp(x_size, -size)
            self.constants = np.where(constant, self.X[0], 0.0)
            self.X[:, constant] = 0  # exactly, whatever the rounding of the mean
            self.mean.hi[constant] = self.mean.lo[constant] = 0
            self.largest = np.ldexp(sizes, -size).max(initial=0.0)
            self.largest_mean = np.abs(self.mean.hi).max(initial=0.0) * np.sqrt(self.s_sum.hi)
            self.factor, self.smallest = self._factor()
        self._sizes: dict[int, float] = {}

    def _factor(self) -> tuple[Any, float]:
        """R, (c, c), and a lower bound of its singular values; None and 0 where none can be trusted"""
        A = ((self.X - self.mean.hi) - self.mean.lo) * np.sqrt(self.s)[:, None]
        root = self.root.hi
        if self.wide:
            A /= root
            self.scale = root = np.ldexp(1.0, -_exponent(np.sqrt(1 + (A**2).sum(axis=1))))
            A = A.T * root
        self.A = A
        rows, c = sum(A.shape), A.shape[1]
        if c == 0 or not np.abs(A).max() < FARTHEST:
            return None, 0.0
        gram = A.T @ A
        gram[np.diag_indices(c)] += root**2
        R, flaw = lapack.dpotrf(gram, clean=1)
        smallest = 0.0 if flaw else _smallest(R)
        if FACTOR_EPS * rows < TRUSTED * smallest**2:
            return R, smallest
        if rows * c**2 > MAX_REFLECTIONS:
            return None, 0.0
        R = np.triu(lapack.dgeqrf(np.vstack([A, np.diag(root)]), lwork=64 * c)[0][:c])
        smallest = _smallest(R)
        return (R, smallest) if FACTOR_EPS * rows < TRUSTED * smallest else (None, 0.0)

    def gradient(self, target: int, w: Pair | None = None) -> tuple[Pair, float]:
        """A'(y - A w) - alpha D w, (p,), without w A'y; and how large an H^-1-norm its rounding may have"""
        total, sums, sq_residual, sq_terms = Pair(np.zeros(self.X.shape[1])), Pair(0.0), 0.0, float(self.s_sum.hi)
        shift = Pair(0.0) if w is None else (self.mean * w).sum()
        for rows in _blocks(self.X):
            X, residual = Pair(self.X[rows]), self.Y[rows, target]
            if w is not None:
                residual = residual - (X * w).sum(axis=1) + shift
                sq_terms += float(self.s[rows] @ (np.abs(self.X[rows]) @ np.abs(w.hi)) ** 2)
            weighted = residual * self.s[rows]
            total, sums = total + (X * weighted[:, None]).sum(), sums + weighted.sum()
            sq_residual += float(weighted.hi @ residual.hi)
        total = total - self.mean * sums
        if w is not None:
            total = total - self.root * self.root * w
        rounding = self.largest * np.sqrt(sq_terms) + (self.largest + self.largest_mean) * np.sqrt(sq_residual)
        return total, 8 * PAIR_EPS * rounding / (0.5 if self.wide else self.smallest)

    def norm(self, v: Any) -> float:
        """The root of v'H^-1 v, for v (p,); nan where too much of it cancels"""
        exponent = _exponent(np.abs(v).max(initial=0.0))
        v = np.ldexp(v, -exponent)
        if not self.wide:
            return float(np.ldexp(np.linalg.norm(solve_triangular(self.factor, v, trans=1)), exponent))
        v = v / self.root.hi
        u, rest = self._least_squares(v)
        value = np.hypot(np.linalg.norm(rest), np.linalg.norm(u * self.scale))
        return float(np.ldexp(value, exponent)) if value >= LARGEST_CANCELLATION * np.linalg.norm(v) else np.nan

    def _least_squares(self, v: Any) -> tuple[Any, Any]:
        """The least squares solution u, scaled, and v - D^-1/2 A'u, by the seminormal equations, corrected

        A value is wrong by the square of the error of u.
        """
        u, rest = np.zeros(len(self.factor)), v
        for _ in range(REFINEMENTS):
            slope = self.A.T @ rest - u * self.scale**2
            u += solve_triangular(self.factor, solve_triangular(self.factor, slope, trans=1))
            rest = v - self.A @ u
        return u, rest

    def minimiser(self, target: int) -> Pair | None:
        """w*, scaled, by refinement; None where that does not come to it"""
        w = Pair(np.zeros(self.X.shape[1]))
        if not w.hi.size:
            return w
        if self.factor is None:
            return None
        last, step = np.inf, np.zeros(0)
        for _ in range(MAX_STEPS):
            g = self.gradient(target, w if step.size else None)[0]
            exponent = _exponent(np.abs(g.hi).max())
            v = np.ldexp(g.hi, -exponent)
            v = v / self.root.hi if self.wide else v
            if not np.abs(v).max() < FARTHEST:
                return None
            if self.wide:
                step = self._least_squares(v)[1] / self.root.hi
            else:
                step = solve_triangular(self.factor, solve_triangular(self.factor, v, trans=1))
            step = np.ldexp(step, exponent)
            w = w + step
            size = float(np.abs(step).max() / np.abs(w.hi).max()) if step.any() else 0.0
            ahead = size * min(1.0, size / last) if last < np.inf else size
            if not ahead > SOLVED or (size > 0.5 * last and size <= SURE):
                break
            last = size
        return w if size <= SURE else None

    def norm_of(self, target: int, w: Pair, coef: Any = None) -> float:
        """||w||_H, or, where coefficients, (p,), are given, ||coef - w||_H, in the units of the data"""
        if coef is not None:
            w = Pair(np.ldexp(coef, self.w_exponent - self.y_exponent[target])) - w
        v, fit, terms = w.value, [], []
        for rows in _blocks(self.X):
            centred = (self.X[rows] - self.mean.hi) - self.mean.lo
            fit.append(np.sqrt(self.s[rows]) * (centred @ v))
            terms.append(np.sqrt(self.s[rows]) * (np.abs(centred) @ np.abs(v)))
        pull = np.linalg.norm(self.root.hi * v)
        value = np.hypot(np.linalg.norm(np.concatenate(fit)), pull)
        if len(v) * np.finfo(np.float64).eps * np.linalg.norm(np.concatenate(terms)) > CANCELLED * value:
            shift, sq = (self.mean * w).sum(), pull**2
            for rows in _blocks(self.X):
                sq += self.s[rows] @ ((Pair(self.X[rows]) * w).sum(axis=1) - shift).value ** 2
            value = np.sqrt(sq)
        return float(np.ldexp(value * 2.0 ** (0.5 * (self.s_exponent % 2)), self.s_exponent // 2 + int(self.y_exponent[target])))

    def means(self) -> tuple[Any, Any]:
        """Of X and Y, in the units of the data, float64; zeros without an intercept"""
        return self._x_mean, np.ldexp(self.y_mean.value, self.y_exponent)

    def coefficients(self, target: int, w: Pair) -> Any:
        """In the units of the data, (p,) float64"""
        return np.ldexp(w.value, self.y_exponent[target] - self.w_exponent)

    def forget(self) -> None:
        """Drop what only solving takes"""
        self.A = self.factor = None

    def distance(self, target: int, coef: Any, intercept: float) -> Distance:
        """Compare an answer, (p,) and a number, with the minimiser"""
        if self.factor is None:
            return UNKNOWN
        w = Pair(np.ldexp(coef, self.w_exponent - self.y_exponent[target]))
        if not np.abs(w.hi).max() < FARTHEST:
            return UNKNOWN
        g, noise = self.gradient(target, w)
        error = self.norm(g.hi)
        if target not in self._sizes:
            rhs, rhs_noise = self.gradient(target)
            size = self.norm(rhs.hi)
            self._sizes[target] = size if size > 100 * rhs_noise else np.nan  # is it zero but for rounding?
        size = self._sizes[target]
        b = np.ldexp(intercept, -self.y_exponent[target])
        off = self.y_mean[target] - (self.mean * w).sum() - (w * self.constants).sum() - Pair(b)
        rounding = self.y_size[target] + self.x_size @ np.abs(w.hi)
        off, rounding = abs(float(off.hi)), B_ROUNDING * float(rounding)
        return _relative(error, off, rounding, float(np.sqrt(self.s_sum.hi)), size, noise)


class DecimalSystem:
    """The same in decimals, of which there are enough for whatever the scales are"""

    def __init__(self, data: Data, alpha: float) -> None:
        self.wide = data.wide
        sizes = np.concatenate([np.abs(data.X).max(axis=0) * np.sqrt(data.s.max()), np.sqrt(alpha) * np.sqrt(data.d)])
        self.digits = 80 + int(3 * (_decades(sizes) + _decades(data.s)))
        n, p = data.X.shape
        c = n if self.wide else p
        self.usable = (n * p * c + c**3 / 3) * self.digits / 100 <= MAX_DECIMALS
        if not self.usable:
            return
        with self._context():
            X, self.Y, self.s = _decimals(data.X), _decimals(data.Y), _decimals(data.s)
            self.d = Decimal(alpha) * _decimals(data.d)
            self.s_sum = sum(self.s)
            self.mean, self.y_mean = np.full(p, Decimal(0)), np.full(self.Y.shape[1], Decimal(0))
            if data.fit_intercept:
                self.mean, self.y_mean = self.s @ X / self.s_sum, self.s @ self.Y / self.s_sum
            self.x_size, self.y_size = (self.s @ np.abs(x) / self.s_sum for x in (X, self.Y))
            self.zeros = self.s @ self.Y**2 * Decimal(10) ** (60 - 2 * self.digits)
            self.A, self.Y = X - self.mean, self.Y - self.y_mean
            self.scaled = self.A / self.d if self.wide else self.A * self.s[:, None]
            H = self.scaled @ self.A.T if self.wide else self.scaled.T @ self.A
            H[np.diag_indices(len(H))] += 1 / self.s if self.wide else self.d
            self.L, self.pivots = self._eliminate(H)

    def _eliminate(self, H: Any) -> tuple[Any, Any]:
        """L below the diagonal and D of H = L D L'; a pivot is zero where nothing but rounding is left"""
        least = Decimal(10) ** (-self.digits * 2 // 3)
        before = H.diagonal().copy()
        for j in range(len(H)):
            if H[j, j] <= before[j] * least:
                H[j:, j], H[j, j] = Decimal(0), Decimal(0)
                continue
            row = H[j + 1 :, j] / H[j, j]
            H[j + 1 :, j + 1 :] -= np.outer(row, H[j + 1 :, j])
            H[j + 1 :, j] = row
        return H, H.diagonal().copy()

    def minimiser(self, target: int) -> Any:
        """w*, (p,) decimals, zero where a column depends on those before; None where that takes too long"""
        if not self.usable:
            return None
        with self._context():
            v = (self.Y[:, target] * self.s) @ self.A
            if not self.wide:
                return self._solve(v)
            return (v - self.A.T @ self._solve(self.scaled @ v)) / self.d

    def _solve(self, v: Any) -> Any:
        """(L D L')^-1 v"""
        z = v.copy()
        for j in range(len(z)):
            z[j + 1 :] -= self.L[j + 1 :, j] * z[j]
        z = np.array([value / pivot if pivot else Decimal(0) for value, pivot in zip(z, self.pivots, strict=True)], dtype=object)
        for j in reversed(range(len(z))):
            z[j] = z[j] - self.L[j + 1 :, j] @ z[j + 1 :] if self.pivots[j] else Decimal(0)
        return z

    def norm_of(self, target: int, w: Any, coef: Any = None) -> float:
        """||w||_H, or, where coefficients, (p,), are given, ||coef - w||_H"""
        with self._context():
            v = w if coef is None else _decimals(coef) - w
            fit = self.A @ v
            return float(((self.s * fit) @ fit + self.d @ v**2).sqrt())

    def means(self) -> tuple[Any, Any]:
        """Of X and Y, float64; zeros without an intercept"""
        return self.mean.astype(np.float64), self.y_mean.astype(np.float64)

    def coefficients(self, target: int, w: Any) -> Any:
        return w.astype(np.float64)

    def forget(self) -> None:
        """Drop what only solving takes"""
        self.L = self.scaled = None

    def _context(self) -> Any:
        return decimal.localcontext(prec=self.digits, Emin=-(10**9), Emax=10**9)

    def sq_norm(self, v: Any) -> Decimal:
        """v'H^-1 v"""
        total = Decimal(0)
        if self.wide:
            total, v = v @ (v / self.d), self.scaled @ v
        z, inner = v.copy(), Decimal(0)
        for j, pivot in enumerate(self.pivots):
            z[j + 1 :] -= self.L[j + 1 :, j] * z[j]
            inner += z[j] ** 2 / pivot if pivot else 0
        return total - inner if self.wide else inner

    def distance(self, target: int, coef: Any, intercept: float) -> Distance:
        """Compare an answer, (p,) and a number, with the minimiser"""
        if not self.usable:
            return UNKNOWN
        with self._context():
            w, y = _decimals(coef), self.Y[:, target]
            g = ((y - self.A @ w) * self.s) @ self.A - self.d * w
            off = abs(self.y_mean[target] - self.mean @ w - Decimal(intercept))
            off = off if off**2 * self.s_sum > self.zeros[target] else Decimal(0)
            rounding = Decimal(B_ROUNDING) * (self.y_size[target] + self.x_size @ np.abs(w))
            squares = (self.sq_norm(g), self.sq_norm((y * self.s) @ self.A))
            error, size = (sq.sqrt() if sq > self.zeros[target] else Decimal(0) for sq in squares)
            return _relative(error, off, rounding, self.s_sum.sqrt(), size)


def fractions(array: Any) -> Any:
    """An array of floats as exact fractions"""
    return np.vectorize(Fraction, otypes=[object])(np.asarray(array, dtype=np.float64))


def solve_fractions(H: Any, b: Any) -> Any:
    """Solve H x = b in fractions; where columns of a semi-definite H depend on those before, theirs are zero"""
    H, b = np.concatenate([H, b[:, None]], axis=1), len(b)
    kept = []
    for i in range(b):
        if H[i, i] == 0:
            continue
        kept.append(i)
        H[i] = H[i] / H[i, i]
        for j in range(b):
            if j != i and H[j, i] != 0:
                H[j] = H[j] - H[j, i] * H[i]
    x = np.full(b, Fraction(0))
    x[kept] = H[kept, b]
    return x


class InFractions:
    """The minimiser of a small problem for the float64 numbers given, of any size, and distances from it, without any rounding"""

    def __init__(self, X: Any, y: Any, alpha: float, weights: Any = None, intercept: bool = True, d: Any = None) -> None:
        X, y = fractions(X), fractions(y)
        n, p = X.shape
        s = fractions(np.ones(n) if weights is None else weights)
        self.x_mean, self.y_mean = np.full(p, Fraction(0)), Fraction(0)
        if intercept:
            self.x_mean, self.y_mean = s @ X / s.sum(), s @ y / s.sum()
        A, t = X - self.x_mean, y - self.y_mean
        self.A, self.s = A, s
        self.pull = Fraction(float(alpha)) * fractions(np.ones(p) if d is None else d)
        if p <= n or (self.pull == 0).any():
            self.w = solve_fractions((s[:, None] * A).T @ A + np.diag(self.pull), A.T @ (s * t))
        else:  # w = (alpha D)^-1 A'S z with (I + A (alpha D)^-1 A'S) z = y, multiplied by S
            scaled = A / self.pull
            used = s > 0
            M = np.diag(s[used]) + (s[:, None] * (scaled @ A.T) * s)[np.ix_(used, used)]
            self.w = scaled[used].T @ (s[used] * solve_fractions(M, (s * t)[used]))
        self.sq_size = self.sq_norm(self.w)

    def sq_norm(self, v: Any) -> Any:
        """The square of ||v||_H"""
        fit = self.A @ v
        return (self.s * fit) @ fit + self.pull @ (v * v)

    def error(self, coef: Any) -> float:
        """||coef - w*||_H / ||w*||_H"""
        return float(self.sq_norm(fractions(coef) - self.w) / self.sq_size) ** 0.5

    def intercept(self, coef: Any) -> Any:
        """The best one for these coefficients"""
        return self.y_mean - self.x_mean @ fractions(coef)


class BoundedTruth:
    """The w of least ||K w - t|| within bounds, in long double, by an active set method on QR factors of K, columns of norm one

    With K and t the data above the root of the penalty that is the ridge problem: its H-norm is ||K w||. The search begins at
    `start`, (p,).

    Attributes
    ----------
    coef : (p,) float64
    unsure : float
        Upper bound of the H-norm error of the minimiser itself, relative to its size: with the negative gradient g and R the
        coordinates that it may move, the root of g_R'(H^-1)_RR g_R, and what rounding hides of g.
    """

    def __init__(self, K: Any, t: Any, lower: Any, upper: Any, start: Any = None) -> None:
        self.K, self.t, lower, upper = (np.array(part, dtype=LONG) for part in (K, t, lower, upper))
        start = np.zeros(self.K.shape[1]) if start is None else start
        size = np.sqrt((self.K**2).sum(axis=0))
        self.scale = np.where(size > 0, size, LONG(1))
        self.K /= self.scale
        self.lower, self.upper = lower * self.scale, upper * self.scale
        self.movable = (lower < upper) & (size > 0)
        w = np.clip(start.astype(LONG), lower, upper)
        self.w = self._descend(np.where(np.isfinite(w), w, LONG(0)) * self.scale)
        self.coef = (self.w / self.scale).astype(np.float64)
        self.size = self._norm(self.w)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.unsure = float(self._unsure() / self.size) if self.size > 0 else 0.0

    def error(self, coef: Any) -> float:
        """||coef - w*||_H / ||w*||_H"""
        off = self._norm(np.asarray(coef).astype(LONG) * self.scale - self.w)
        return float(off / self.size) if self.size > 0 else (0.0 if off == 0 else np.inf)

    def _norm(self, w: Any) -> Any:
        return np.sqrt(((self.K @ w) ** 2).sum())

    def _gradient(self, w: Any) -> tuple[Any, Any]:
        rest = self.t - self.K @ w
        return self.K.T @ rest, 10 * LONG(LONG_EPS) * (np.sqrt((rest**2).sum()) + np.abs(w).sum())

    def _descend(self, w: Any) -> Any:
        free = (w > self.lower) & (w < self.upper) & self.movable
        stuck = np.zeros(len(w), dtype=bool)
        for _ in range(MAX_CHANGES):
            while free.any():  # to the minimiser on the face, bound by bound
                step = np.zeros_like(w)
                step[free] = least_squares(self.K[:, free], self.t - self.K @ w)
                with np.errstate(divide="ignore", invalid="ignore"):
                    room = np.where(step > 0, self.upper - w, self.lower - w) / step
                room = np.where(step == 0, LONG(np.inf), room)
                if room.min() >= 1:
                    w = np.clip(w + step, self.lower, self.upper)
                    break
                hit = room.argmin()
                w = np.clip(w + room[hit] * step, self.lower, self.upper)
                w[hit] = self.upper[hit] if step[hit] > 0 else self.lower[hit]
                stuck[hit] |= room[hit] <= 0
                free[hit] = False
            g, rounding = self._gradient(w)
            wrong = np.where(free | stuck | ~self.movable, 0, np.where(w <= self.lower, g, 0) + np.where(w >= self.upper, -g, 0))
            if wrong.max(initial=0) <= rounding:
                return w
            free[wrong.argmax()] = True
        return w

    def _unsure(self) -> Any:
        g, rounding = self._gradient(self.w)
        at_lower, at_upper = self.w <= self.lower, self.w >= self.upper
        may = self.movable & ~(at_lower & (g < -rounding)) & ~(at_upper & (g > rounding))
        if not may.any():
            return LONG(0)
        g = np.where(may & ~(at_lower & (g < 0)) & ~(at_upper & (g > 0)), g, 0)[self.movable]
        factor, order, rank = pivoted_qr(self.K[:, self.movable].copy(), None)
        z = forward(factor, g[order], rank)
        floor = rounding * np.sqrt(may.sum()) / np.abs(factor[rank - 1, rank - 1]) if rank else LONG(0)
        return np.sqrt((z**2).sum()) + floor


def pivoted_qr(K: Any, t: Any) -> tuple[Any, Any, int]:
    """Overwrite K by R of its QR factors with column pivoting, and t, unless None, by Q't; return R, the order and the rank"""
    m, p = K.shape
    order, rank = np.arange(p), 0
    for k in range(min(m, p)):
        sq = (K[k:, k:] ** 2).sum(axis=0)
        pivot = k + int(sq.argmax())
        if k == 0:
            largest = np.sqrt(sq.max())
        norm = np.sqrt(sq.max())
        if norm <= 4 * p * LONG_EPS * largest:
            break
        K[:, [k, pivot]], order[[k, pivot]] = K[:, [pivot, k]], order[[pivot, k]]
        v = K[k:, k].copy()
        v[0] += np.copysign(norm, v[0])
        v /= np.sqrt((v**2).sum())
        K[k:, k:] -= 2 * v[:, None] * (v @ K[k:, k:])
        if t is not None:
            t[k:] -= 2 * v * (v @ t[k:])
        rank = k + 1
    return K, order, rank


def forward(R: Any, b: Any, rank: int) -> Any:
    """Solve R'z = b for the leading block of R"""
    z = np.zeros(rank, dtype=LONG)
    for i in range(rank):
        z[i] = (b[i] - R[:i, i] @ z[:i]) / R[i, i]
    return z


def least_squares(K: Any, t: Any) -> Any:
    """A w of least ||t - K w||, zero where columns depend on others"""
    t = t.copy()
    R, order, rank = pivoted_qr(K.copy(), t)
    w = np.zeros(K.shape[1], dtype=LONG)
    for i in reversed(range(rank)):
        w[order[i]] = (t[i] - R[i, i + 1 : rank] @ w[order[i + 1 : rank]]) / R[i, i]
    return w


def _relative(error: Any, off: Any, rounding: Any, root: Any, size: Any, noise: float = 0.0) -> Distance:
    """The distance from ||w - w*||_H, |b - b*(w)| and what rounding takes of that, the root of the sum of weights, and ||w*||_H

    Floats or decimals.
    """
    if np.isnan(float(error)) or np.isnan(float(size)):
        return UNKNOWN
    avoidable = max(off - rounding, 0 * off)
    if not size:
        return Distance(*(np.inf if error or part else 0.0 for part in (0, off, avoidable)), 0.0)
    coef = float(error / size)
    joint, without = (float(np.hypot(coef, float(part * root / size))) for part in (off, avoidable))
    return Distance(coef, joint, without, float(noise / float(size)))


def _smallest(R: Any) -> float:
    """A lower bound of the singular values of R: the inverse of the Frobenius norm of its inverse"""
    inverse, flaw = lapack.dtrtri(R)
    size = np.linalg.norm(inverse)
    return 1 / size if not flaw and 0 < size < np.inf else 0.0


def _decades(x: Any) -> float:
    """From the smallest to the largest that is not zero"""
    x = x[x > 0]
    return float(np.ptp(np.log10(x))) if len(x) else 0.0


def _decimals(x: Any) -> Any:
    """An array of floats as exact decimals"""
    x = np.asarray(x, dtype=np.float64)
    out = np.empty(x.shape, dtype=object)
    out.ravel()[:] = [Decimal(value) for value in x.ravel().tolist()]
    return out


def _blocks(X: Any) -> list[slice]:
    step = max(1, BLOCK // max(1, X.shape[1]))
    return [slice(lo, lo + step) for lo in range(0, X.shape[0], step)]


def _exponent(x: Any) -> Any:
    """The e with 2^e > |x| >= 2^(e-1); 0 for zeros"""
    return np.frexp(x)[1]
