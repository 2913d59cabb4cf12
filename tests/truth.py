"""How far an answer is from the exact minimiser, in as many digits as that takes; nothing here uses fastridge.

With g the negative gradient at the returned w, w* - w = H^-1 g, so ||w - w*||_H^2 = g'H^-1 g. g is computed in pairs of floats.
For H^-1 a factor in float64 does while the condition number allows: an error of 1 % in the error does no harm. Where it does not
allow it, small problems are solved in decimals, and of large ones nothing is said.
"""

from __future__ import annotations

import decimal
from dataclasses import dataclass
from decimal import Decimal
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
        s_exponent, x_exponent = _exponent(data.s.max()), _exponent(np.abs(data.X).max(axis=0))
        self.y_exponent = _exponent(np.abs(data.Y).max(axis=0))
        self.s, X, self.Y = np.ldexp(data.s, -s_exponent), np.ldexp(data.X, -x_exponent), Pair(np.ldexp(data.Y, -self.y_exponent))
        self.s_sum, p = Pair(self.s).sum(), X.shape[1]
        x_size, self.y_size = (self.s @ np.abs(x) / self.s_sum.hi for x in (X, self.Y.hi))
        mean, self.y_mean, constant = Pair(np.zeros(p)), Pair(np.zeros(self.Y.hi.shape[1])), np.zeros(p, dtype=bool)
        if data.fit_intercept:
            constant = (X[0] == X).all(axis=0)
            for rows in _blocks(X):
                mean = mean + (Pair(X[rows]) * self.s[rows, None]).sum()
            mean = mean / self.s_sum
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
        # Least squares by the seminormal equations, corrected; the value is wrong by the square of the error of u.
        v = v / self.root.hi
        u, rest = np.zeros(len(self.factor)), v
        for _ in range(REFINEMENTS):
            slope = self.A.T @ rest - u * self.scale**2
            u += solve_triangular(self.factor, solve_triangular(self.factor, slope, trans=1))
            rest = v - self.A @ u
        value = np.hypot(np.linalg.norm(rest), np.linalg.norm(u * self.scale))
        return float(np.ldexp(value, exponent)) if value >= LARGEST_CANCELLATION * np.linalg.norm(v) else np.nan

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
        with decimal.localcontext(prec=self.digits, Emin=-(10**9), Emax=10**9):
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
        with decimal.localcontext(prec=self.digits, Emin=-(10**9), Emax=10**9):
            w, y = _decimals(coef), self.Y[:, target]
            g = ((y - self.A @ w) * self.s) @ self.A - self.d * w
            off = abs(self.y_mean[target] - self.mean @ w - Decimal(intercept))
            off = off if off**2 * self.s_sum > self.zeros[target] else Decimal(0)
            rounding = Decimal(B_ROUNDING) * (self.y_size[target] + self.x_size @ np.abs(w))
            squares = (self.sq_norm(g), self.sq_norm((y * self.s) @ self.A))
            error, size = (sq.sqrt() if sq > self.zeros[target] else Decimal(0) for sq in squares)
            return _relative(error, off, rounding, self.s_sum.sqrt(), size)


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
