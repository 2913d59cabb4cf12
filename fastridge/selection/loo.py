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

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fastridge import parallel, units
from fastridge.formulation import plain_form
from fastridge.operators.base import Matrix, Vector, column_dots
from fastridge.planning.costs import check_small_side
from fastridge.problem import Problem
from fastridge.request import Request
from fastridge.selection import criteria
from fastridge.selection.decomposition import Pencil, decompose
from fastridge.selection.factors import Factors
from fastridge.selection.spread import Spread, second_moments

LEFT = 1e-5
"""Of 1 - h: a row with less is predicted from a decomposition of the others."""
FEW = 4
"""Where more than one row in four is such a row, the kernel of all rows is decomposed instead: it is not much larger."""
NEARLY_SQUARE = 1.1
"""Rows by columns up to which that is done at once: leverages are all near 1 there."""
N_MATRICES = 2
"""As large as the small side, that a decomposition of a large one takes."""
ALL = slice(None)
NONE = np.empty(0, dtype=np.intp)
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
    spread : Spread or None
        Of the mean over the rows of their squares, those of the targets added up or each by itself, where that was asked for.
    """

    sq_sums: Vector
    errors: Vector | None
    spread: Spread | None = None


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
        check_small_side(request.X.shape, N_MATRICES, "choose the penalty by folds (cv=5), or by scoring='gcv'")
        self.problem = request.problem(n_threads)
        self.form = plain_form(self.problem)
        self._inner = self.form.problem
        n, p = self._inner.design.shape
        if p < n <= NEARLY_SQUARE * p and not strict:
            self._inner = _dual(self._inner)
        self._own = self.problem.own_penalties(alphas)
        self._factors = None if precise or strict else Factors.of(self._inner, self._own)
        self._pencils = [] if self._factors else list(decompose(self._inner, self._own, precise=precise, strict=strict))
        self._rows = criteria.Rows.of(self._inner, request.weights)
        self._powers = criteria.powers_of_errors(self.problem, request.weights)

    def errors(self, some: slice = ALL, keep: bool = False, n_groups: int = 0) -> LeftOut:
        """At `some` of the penalties; `keep`: the errors themselves too, not their sums alone

        `n_groups`: 1 for the spread of the errors of all targets, their number for that of each, 0 for none.
        """
        problem, asked = self._inner, np.arange(len(self.alphas))[some]
        tally = _Tally(problem, self._pencils, asked, keep, n_groups)
        if self._factors is not None:
            _by_factors(self._factors, tally)
            return self._in_users_units(tally)
        if problem.wide:
            _by_kernel(problem, tally)
            return self._in_users_units(tally)
        _by_rows(problem, tally)
        doubtful = np.unique(np.concatenate([NONE, *(rows for rows, _, _ in tally.doubtful)]))
        if FEW * len(doubtful) > problem.design.shape[0] and _dual(problem).wide:
            dual = _dual(problem)
            pencils = list(decompose(dual, self._own, precise=self.precise))
            tally = _Tally(problem, pencils, asked, keep, n_groups)
            _by_kernel(dual, tally)
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
        (sums, moments), errors = tally.totals(), tally.errors
        sq_sums, spread, powers = np.empty(sums.shape[::-1]), None, self._powers
        sq_sums[tally.order] = sums.T
        used = self._rows.n
        if tally.n_groups and used > 1 and (powers == powers[0]).all():  # else squares of the targets are in different units
            groups = sums if tally.n_groups > 1 else sums.sum(axis=0, keepdims=True)
            size = np.full(tally.n_groups, len(tally.unseen) * len(sums) / tally.n_groups)
            spread = Spread(groups, moments, used, np.ldexp(size, -2 * powers[0]), tally.order)
        if powers.any():
            with np.errstate(over="ignore", under="ignore"):
                sq_sums = np.ldexp(sq_sums, 2 * powers)
                errors = None if errors is None else np.ldexp(errors, powers)
        return LeftOut(sq_sums, errors, spread)

    def scores(self, name: str) -> Vector:
        """Of all penalties by one of `CRITERIA`, (a, k), larger being better; for those decomposed with `strict`

        Raises
        ------
        ValueError
            If the unpenalised fit every row.
        """
        problem, rows = self._inner, self._rows
        rows.check(f"scoring={name!r}")

        def sq_residual(x: Vector, penalty: Vector | float) -> Vector:
            residual = problem.target - problem.design.matvec(x)
            return column_dots(residual, residual)

        return criteria.scores(name, rows, self._pencils, problem.wide, sq_residual, self._powers)

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

    Penalties are in the order of the `pencils` that serve them: `order`, (a,), are their places among `some`.

    Attributes
    ----------
    unseen : (n,) float64
        1 - ||n_i||^2.
    doubtful : list of (rows, penalties, mask)
        Errors that are left at zero: those of rows that nothing else predicts.
    """

    def __init__(self, problem: Problem, pencils: list[Pencil], some: np.ndarray, keep: bool, n_groups: int) -> None:
        n, k = problem.design.shape[0], len(problem.penalty)
        self._n_targets = k
        null = problem.design.left_null
        self.unseen: Vector = np.ones(n) if null is None else 1.0 - np.einsum("iq,iq->i", null, null)
        self.some, self.n_groups = some, n_groups
        self.errors = np.zeros((n, len(some), k)) if keep else None
        self.doubtful: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        asked = [(pencil, np.flatnonzero(np.isin(pencil.chosen, some))) for pencil in pencils]
        self.parts = [_Part(pencil, own) for pencil, own in asked if len(own)]
        self.order = np.concatenate([np.searchsorted(some, part.chosen) for part in self.parts] or [np.arange(len(some))])
        a = len(some)
        self._total = np.zeros((k, a)), np.zeros((n_groups, a, a))
        self._waiting: dict[int, tuple[int, Vector, Vector]] = {}
        self._next, self._turn = 0, deque([None])
        self._apart: dict[int, Vector] = {}
        self._late: list[tuple[int, Vector]] = []

    def add(self, lo: int, m: int, errors_of: Callable[[slice], Vector], apart: np.ndarray = NONE) -> None:
        """Of m rows from `lo` on, by a function of some of the targets, (m, k, a); of rows `apart`, (q,), some will be `put`"""
        a, k = len(self.some), self._n_targets
        step = max(1, AT_ONCE // (m * a))
        for i in apart:
            self._apart[lo + int(i)] = np.zeros((self.n_groups, a))
        sums, moments, whole = np.empty((k, a)), np.zeros((self.n_groups, a, a)), None
        for j in range(0, k, step):
            own = slice(j, min(k, j + step))
            errors = errors_of(own)
            if self.errors is not None:
                self.errors[lo : lo + m, self.order, own] = errors.transpose(0, 2, 1)
            sums[own] = np.einsum("ila,ila->la", errors, errors)
            if self.n_groups == 1:
                part = np.square(errors, out=errors) if k == 1 else np.einsum("ila,ila->ia", errors, errors)[:, None]
                whole = part if whole is None else whole + part
            elif self.n_groups:
                moments[own] = self._moments(own, lo, np.square(errors, out=errors), apart)
        if whole is not None:
            moments[...] = self._moments(slice(1), lo, whole, apart)
        self._waiting[lo] = lo + m, sums, moments
        try:
            self._turn.popleft()
        except IndexError:  # another thread is adding up
            return
        self._add_up()
        self._turn.append(None)

    def _add_up(self) -> None:
        """Add the sums of blocks to the totals in the order of the rows, as far as blocks are there"""
        while self._next in self._waiting:
            self._next, *parts = self._waiting.pop(self._next)
            for total, part in zip(self._total, parts, strict=True):
                total += part

    def _moments(self, groups: slice, lo: int, sq: Vector, apart: np.ndarray) -> Vector:
        for i in apart:
            self._apart[lo + int(i)][groups] = sq[i]
            sq[i] = 0.0
        return second_moments(sq)

    def put(self, rows: np.ndarray, penalty: int, errors: Vector) -> None:
        """Of rows at one penalty that have been left at zero: (q, k)"""
        place = int(np.searchsorted(self.some, penalty))
        if self.errors is not None:
            self.errors[rows, place] = errors
        column, sq = int(np.flatnonzero(self.order == place)[0]), errors**2
        self._late.append((column, sq.sum(axis=0)))
        for row, own in zip(rows, sq, strict=True):
            self._apart[int(row)][:, column] = own if self.n_groups > 1 else own.sum()

    def totals(self) -> tuple[Vector, Vector]:
        """Sums of squares over the rows, (k, a), and of moments, (g, a, a), in an order that does not depend on threads; once"""
        self._add_up()
        assert not self._waiting
        sums, moments = self._total
        for column, late in self._late:
            sums[:, column] += late
        if self._apart:
            moments += second_moments(np.stack([self._apart[row] for row in sorted(self._apart)]))
        return sums, moments


class _Part:
    """What one decomposition tells of those of its penalties that are asked for"""

    def __init__(self, pencil: Pencil, own: np.ndarray) -> None:
        self.basis, self.weights, self.chosen = pencil.basis, pencil.weights[:, own], pencil.chosen[own]
        self.inner = pencil.image[:, :, None] * self.weights[:, None, :]

    def fits(self, image: Vector, targets: slice) -> Vector:
        """Of rows with this image (m, r), for some of the targets: (m, k, a)"""
        inner = self.inner[:, targets]
        r, k, a = inner.shape
        return (image @ inner.reshape(r, k * a)).reshape(len(image), k, a)


def _fits(parts: list[_Part], images: list[Vector], targets: slice) -> Vector:
    """Of rows with these images, at all penalties of the parts: (m, k, a)"""
    fits = [part.fits(image, targets) for part, image in zip(parts, images, strict=True)]
    return fits[0] if len(fits) == 1 else np.concatenate(fits, axis=2)


def _by_rows(problem: Problem, tally: _Tally) -> None:
    """Errors of a tall problem from one pass over blocks of rows"""
    parts, chosen = tally.parts, tally.some[tally.order]
    ends = np.cumsum([part.basis.shape[1] for part in parts])[:-1]

    def block(lo: int, hi: int, image: Vector) -> None:
        images = np.split(image, ends, axis=1)
        leverages = [np.square(own) @ part.weights for own, part in zip(images, parts, strict=True)]
        left = tally.unseen[lo:hi, None] - (leverages[0] if len(parts) == 1 else np.hstack(leverages))
        gone, rows = left < LEFT, NONE
        if gone.any():
            rows = np.flatnonzero(gone.any(axis=1))
            tally.doubtful.append((lo + rows, chosen, gone[rows]))
            left[gone] = np.inf

        def errors_of(targets: slice) -> Vector:
            errors = _fits(parts, images, targets)
            np.subtract(problem.target[lo:hi, targets, None], errors, out=errors)
            errors /= left[:, None, :]
            return errors

        tally.add(lo, hi - lo, errors_of, rows)

    problem.design.product_blocks(parts[0].basis if len(parts) == 1 else np.hstack([part.basis for part in parts]), block)


def _by_kernel(problem: Problem, tally: _Tally) -> None:
    """Errors of a wide problem from the columns of (K + alpha I)^-1 alone"""
    parts = tally.parts
    n, a = len(parts[0].basis), len(tally.some)
    size = max(1, AT_ONCE // max(parts[0].basis.shape[1], a * parts[0].inner.shape[1]))
    cut = parallel.cut_evenly(n, -(-n // size))

    def block(i: int) -> None:
        images = [part.basis[cut[i] : cut[i + 1]] for part in parts]
        diagonal = np.hstack([np.square(own) @ part.weights for own, part in zip(images, parts, strict=True)])
        # Where nothing at all is left, nothing was to be predicted: a row whose weight is all there is.
        left = np.where(diagonal > 0, diagonal, np.inf)[:, None, :]
        tally.add(cut[i], len(left), lambda targets: _fits(parts, images, targets) / left)

    with parallel.single_threaded_blas():
        parallel.run(block, len(cut) - 1, problem.design.traits.n_threads)


def _by_factors(factors: Factors, tally: _Tally) -> None:
    """Errors of a wide problem from a factor at every penalty"""
    errors = np.stack([factors.left_out(int(a)) for a in tally.some], axis=2)
    tally.add(0, len(errors), lambda targets: errors[:, targets])
