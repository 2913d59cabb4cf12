"""Exact leave-one-out errors of all penalties and targets, from one decomposition and one more pass over blocks of rows.

The error of the model that has not seen row i is e_i = r_i / (1 - h_i): its residual over what its leverage leaves, with

    h_i = ||n_i||^2 + b_i'(B'B + alpha I)^-1 b_i

n_i the row's share in what is never penalised, the intercept and unpenalised columns. Of a wide problem both come without any
difference from (K + alpha I)^-1, K = B B', whose columns are all that is needed: e_i = (K + alpha I)^-1 y / diagonal.

Rows that nothing else predicts have 1 - h_i near zero, where no digits are left. They are a few columns' worth at most, and are
predicted anew from a decomposition of all the others.

References
----------
Allen (1974), DOI 10.1080/00401706.1974.10489157 (PRESS); Cook & Weisberg (1982), Residuals and Influence in Regression, section
2.2 (several rows left out); Rifkin & Lippert (2007), MIT-CSAIL-TR-2007-025 (from a kernel's eigenvalues).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fastridge import parallel, units
from fastridge.formulation import plain_form
from fastridge.operators.base import Matrix, Vector
from fastridge.problem import Problem
from fastridge.request import Request
from fastridge.selection.decomposition import Pencil, decompose
from fastridge.selection.factors import Factors

LEFT = 1e-5
"""Of 1 - h: a row with less is predicted from a decomposition of the others."""
FEW = 4
"""Where more than one row in four is such a row, the kernel of all rows is decomposed instead: it is not much larger."""
NEARLY_SQUARE = 1.1
"""Rows by columns up to which that is done at once: leverages are all near 1 there."""
ALL = slice(None)
AT_ONCE = 1 << 17
"""Errors of a block of rows that are computed together, so that they stay in cache."""


@dataclass(frozen=True)
class LeftOut:
    """Errors of the models that have not seen a row, sqrt(s_i) (y_i - prediction) with s the sample weights

    Attributes
    ----------
    sq_sums : (a, k) float64
        Sums of their squares over the rows.
    errors : (n, a, k) float64 or None
        Themselves, where they were asked for.
    """

    sq_sums: Vector
    errors: Vector | None


class LeaveOneOut:
    """All penalties of a request, decomposed once

    Parameters
    ----------
    request : Request
        Its own penalties do not matter.
    alphas : (a,) float64
        The user's penalties, each > 0.
    n_threads : int or None
    precise, strict : bool
        As in `decompose`.
    """

    def __init__(
        self,
        request: Request,
        alphas: Vector,
        n_threads: int | None,
        precise: bool = False,
        strict: bool = False,
    ) -> None:
        self.request, self.alphas, self.n_threads, self.precise = request, alphas, n_threads, precise
        self.problem = request.problem(n_threads)
        self.form = plain_form(self.problem)
        self._inner = self.form.problem
        n, p = self._inner.design.shape
        if p < n <= NEARLY_SQUARE * p and not strict:
            self._inner = _dual(self._inner)
        self._own = self.problem.own_penalties(alphas)
        self._factors = None if precise or strict else Factors.of(self._inner, self._own)
        self._pencils = [] if self._factors else list(decompose(self._inner, self._own, precise=precise, strict=strict))
        sigma = np.zeros(1, dtype=np.intp) if self.problem.units is None else self.problem.units.target
        self._powers = sigma + units.of_weights(request.weights)[1] // 2  # of two, from the problem's errors to the user's

    def errors(self, some: slice = ALL, keep: bool = False) -> LeftOut:
        """At `some` of the penalties; `keep`: the errors themselves too, not their sums alone"""
        problem = self._inner
        tally = _Tally(problem, np.arange(len(self.alphas))[some], keep)
        if self._factors is not None:
            for a in tally.some:
                tally.add(0, problem.design.shape[0], np.searchsorted(tally.some, [a]), self._factors.left_out(int(a))[:, None])
            return self._in_users_units(tally)
        if problem.wide:
            for pencil in self._pencils:
                _by_kernel(problem, pencil, tally)
            return self._in_users_units(tally)
        for pencil in self._pencils:
            _by_rows(problem, pencil, tally)
        doubtful = np.unique(np.concatenate([np.empty(0, dtype=np.intp), *(rows for rows, _, _ in tally.doubtful)]))
        if FEW * len(doubtful) > problem.design.shape[0] and _dual(problem).wide:
            tally = _Tally(problem, tally.some, keep)
            dual = _dual(problem)
            for pencil in decompose(dual, self._own, precise=self.precise):
                _by_kernel(dual, pencil, tally)
        elif len(doubtful):
            wanted = np.zeros((len(doubtful), len(self.alphas)), dtype=bool)
            for rows, columns, mask in tally.doubtful:
                wanted[np.ix_(np.searchsorted(doubtful, rows), columns)] |= mask
            self._add_by_others(tally, doubtful, wanted)
        return self._in_users_units(tally)

    def answers(self, chosen: Vector) -> Vector:
        """On the small side, at the penalty of each target: chosen (k,) int -> (c, k), in the units of the problem"""
        k = len(chosen)
        answers = np.zeros((self._inner.side.shape[1], k))
        if self._factors is not None:
            for a in np.unique(chosen):
                answers[:, chosen == a] = self._factors.answer(int(a))[:, chosen == a]
        for pencil in self._pencils:
            matches = pencil.chosen[:, None] == chosen
            at, here = matches.argmax(axis=0), np.flatnonzero(matches.any(axis=0))
            if len(here):
                answers[:, here] = pencil.basis @ (pencil.weights[:, at[here]] * pencil.image[:, here])
        return answers

    def coefficients(self, chosen: Vector) -> tuple[Vector, Vector]:
        """The user's coefficients (p, k) and intercepts (k,) at the penalty of each target, (k,) int"""
        return self._users(self.answers(chosen), chosen)

    def _users(self, x: Vector, chosen: Vector) -> tuple[Vector, Vector]:
        problem = self.problem
        u = self._inner.design.rmatvec(x) if self._inner.wide else x
        w = np.ascontiguousarray(problem.user_coefficients(self.form.coefficients(u), self.alphas[chosen]))
        return w, problem.intercept(w) if self.request.fit_intercept else np.zeros(len(chosen))

    def start(self, chosen: Vector) -> Vector:
        """The answers at the penalty of each target, (k,) int, as `functional.solve` takes them for a start"""
        return self.answers(chosen) if self.problem.wide else self.coefficients(chosen)[0]

    def _in_users_units(self, tally: _Tally) -> LeftOut:
        sq_sums, errors = tally.sq_sums(), tally.errors
        if self._powers.any():
            with np.errstate(over="ignore", under="ignore"):
                sq_sums = np.ldexp(sq_sums, 2 * self._powers)
                errors = None if errors is None else np.ldexp(errors, self._powers)
        return LeftOut(sq_sums, errors)

    def _add_by_others(self, tally: _Tally, rows: np.ndarray, wanted: np.ndarray) -> None:
        """Add the errors of `rows`, (q,), at the penalties where `wanted`, (q, n_alphas) bool, from the fits of all other rows

        Residuals f of a set S of rows in the fit of the others have the covariance T = W^-1 + N N' + B_S H^-1 B_S', to which all
        terms add, and the error of one of them, when it alone is left out, is (T^-1 f)_i / (T^-1)_ii.
        """
        request, p, k = self.request, self.request.X.shape[1], len(self.problem.penalty)
        weights = np.ones(len(request.y)) if request.weights is None else request.weights
        others = np.array(weights)
        others[rows] = 0.0
        some = tally.some[wanted[:, tally.some].any(axis=0)]
        rest = LeaveOneOut(replace(request, weights=others), self.alphas[some], self.n_threads, strict=True)
        form = rest.form
        scaled, omega = units.of_weights(others)
        assert scaled is not None
        X, y = request.X[rows], request.y.reshape(len(weights), -1)[rows]
        own, root = np.ldexp(weights[rows], -omega), np.sqrt(weights[rows])
        fixed = np.diag(1.0 / own) + (1.0 / scaled.sum() if request.fit_intercept else 0.0)
        if len(form.free):
            free = np.zeros((p, form.solve_free.shape[1]))
            free[form.free] = form.solve_free
            share = rest._of_rows(X, free if form.vectors is None else form.vectors @ free)
            fixed += share @ share.T
        constant = form.coefficients(np.zeros((p, 1)))
        for pencil in rest._pencils:
            image = rest._of_rows(X, form.coefficients(pencil.basis) - constant)
            for j, a in enumerate(pencil.chosen):
                chosen = np.full(k, a)
                x = rest.answers(chosen)
                # What is lost where this small a penalty magnifies the rounding of directions without data.
                gradient = form.problem.side.gradient(x, form.problem.target) - rest._own[a] * x
                x += pencil.basis @ (pencil.weights[:, [j]] * (pencil.basis.T @ gradient))
                w, b = rest._users(x, chosen)
                covariance = fixed + (image * pencil.weights[:, j]) @ image.T
                size = 1.0 / np.sqrt(covariance.diagonal())
                inverse = cho_solve(cho_factor(covariance * size * size[:, None], lower=True), np.eye(len(rows)))
                solved = size[:, None] * (inverse @ (size[:, None] * (y - (X @ w + b))))
                errors = root[:, None] * solved / (inverse.diagonal() * size**2)[:, None]
                here = wanted[:, some[a]]
                tally.put(rows[here], int(some[a]), np.ldexp(errors[here], -self._powers))

    def _of_rows(self, X: Matrix, w: Vector) -> Vector:
        """(x_i - mean)'w of rows of the user's data, w in the units of the problem"""
        power = 0 if self.problem.units is None else self.problem.units.coefficient
        image: Vector = np.ldexp(X @ w, power) - self.problem.x_mean.sum(axis=0) @ w
        return image


def _dual(problem: Problem) -> Problem:
    """The same problem on the side of its rows, where it can be transposed"""
    return replace(problem, dual=True, relaid=None) if problem.design.traits.transposes else problem


class _Tally:
    """Errors at `some` of the penalties as they come, block after block from any thread, in the units of the problem

    Attributes
    ----------
    unseen : (n,) float64
        1 - ||n_i||^2.
    doubtful : list of (rows, penalties, mask)
        Errors that are left at zero: those of rows that nothing else predicts.
    """

    def __init__(self, problem: Problem, some: np.ndarray, keep: bool) -> None:
        n, k = problem.design.shape[0], len(problem.penalty)
        null = problem.design.left_null
        self.unseen: Vector = np.ones(n) if null is None else 1.0 - np.einsum("iq,iq->i", null, null)
        self.some = some
        self.errors = np.zeros((n, len(some), k)) if keep else None
        self.doubtful: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._sums: dict[tuple[int, int], tuple[np.ndarray, Vector]] = {}
        self._shape = len(some), k

    def columns(self, pencil: Pencil) -> tuple[np.ndarray, np.ndarray]:
        """Which penalties of the pencil are asked for, and their places among `some`"""
        own = np.flatnonzero(np.isin(pencil.chosen, self.some))
        return own, np.searchsorted(self.some, pencil.chosen[own])

    def add(self, lo: int, hi: int, places: np.ndarray, errors: Vector) -> None:
        """Of rows [lo, hi) at penalties: (hi - lo, len(places), k)"""
        if self.errors is not None:
            self.errors[lo:hi, places] = errors
        self._sums[lo, int(places[0])] = places, np.einsum("iak,iak->ak", errors, errors)

    def put(self, rows: np.ndarray, penalty: int, errors: Vector) -> None:
        """Of rows at one penalty that have been left at zero: (q, k)"""
        place = int(np.searchsorted(self.some, penalty))
        if self.errors is not None:
            self.errors[rows, place] = errors
        self._sums[-1, place] = np.array([place]), np.einsum("ik,ik->k", errors, errors)[None]

    def sq_sums(self) -> Vector:
        """Sums of squares over the rows, in an order that does not depend on threads: (a, k)"""
        total = np.zeros(self._shape)
        for key in sorted(self._sums):
            places, sums = self._sums[key]
            total[places] += sums
        return total


def _by_rows(problem: Problem, pencil: Pencil, tally: _Tally) -> None:
    """Errors of a tall problem from one pass over blocks of rows"""
    own, places = tally.columns(pencil)
    if not len(own):
        return
    weights, (r, k), target = pencil.weights[:, own], pencil.image.shape, problem.target
    inner = (weights[:, :, None] * pencil.image[:, None, :]).reshape(r, len(own) * k)

    def block(lo: int, hi: int, image: Vector) -> None:
        step = max(1, AT_ONCE // ((hi - lo) * k))
        left = tally.unseen[lo:hi, None] - np.square(image) @ weights
        gone = left < LEFT
        if gone.any():
            rows = np.flatnonzero(gone.any(axis=1))
            tally.doubtful.append((lo + rows, tally.some[places], gone[rows]))
            left[gone] = np.inf
        for a in range(0, len(own), step):
            b = min(len(own), a + step)
            errors = (image @ inner[:, a * k : b * k]).reshape(hi - lo, b - a, k)
            np.subtract(target[lo:hi, None, :], errors, out=errors)
            errors /= left[:, a:b, None]
            tally.add(lo, hi, places[a:b], errors)

    problem.design.product_blocks(pencil.basis, block)


def _by_kernel(problem: Problem, pencil: Pencil, tally: _Tally) -> None:
    """Errors of a wide problem from the columns of (K + alpha I)^-1 alone"""
    own, places = tally.columns(pencil)
    if not len(own):
        return
    n, (r, k) = len(pencil.basis), pencil.image.shape
    weights = pencil.weights[:, own]
    inner = (weights[:, :, None] * pencil.image[:, None, :]).reshape(r, len(own) * k)
    size = max(1, AT_ONCE // max(r, len(own) * k))
    cut = parallel.cut_evenly(n, -(-n // size))

    def block(i: int) -> None:
        lo, hi = cut[i], cut[i + 1]
        rows = pencil.basis[lo:hi]
        diagonal = np.square(rows) @ weights
        errors = (rows @ inner).reshape(hi - lo, len(own), k)
        # Where nothing at all is left, nothing was to be predicted: a row whose weight is all there is.
        errors /= np.where(diagonal > 0, diagonal, np.inf)[:, :, None]
        tally.add(lo, hi, places, errors)

    with parallel.single_threaded_blas():
        parallel.run(block, len(cut) - 1, problem.design.traits.n_threads)
