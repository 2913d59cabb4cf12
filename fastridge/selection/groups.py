"""Groups of features with a penalty each, found by gradient on a score of all of them: banded, or group-regularised, ridge.

Feature j of group g has the penalty d_j = alpha_g. Of a tall problem everything comes from H = A'A + diag(d), that is from A'A,
which is summed once. Leave-one-out errors e_i = r_i / (1 - h_i) take a pass over the rows besides, with z_i = H^-1 a_i:

    d h_i / d log alpha_g = - sum_{j in g} d_j z_ij^2          d r_i / d log alpha_g = sum_{j in g} d_j z_ij w_j

Of a wide one everything comes from M = I + sum_g K_g / alpha_g, the kernels K_g = A_g A_g' being formed once. C is M^-1 without
the directions N that are never penalised, the intercept and unpenalised columns:

    r = C y        e_i = r_i / C_ii        d C / d log alpha_g = C K_g C / alpha_g

so that the derivative of any score is <K_g, R> / alpha_g with one matrix R for all groups. With n rows that have a weight, of
which N fits q, and Q = ||r||^2 + sum_j d_j w_j^2 = y'C y,

    GCV = n ||r||^2 / (n - df)^2        n - df = n - q - p + sum_j d_j (H^-1)_jj = tr C
    log evidence = -1/2 [(n - q) log(2 pi Q / (n - q)) + log det M + n - q] + 1/2 sum log(weights)

The evidence is the density of y where w_j is N(0, sigma^2 / d_j), what is not penalised has a flat prior, and sigma^2 is what
makes it largest. GCV of a tall problem costs no pass over the rows, and is where the search by leave-one-out errors begins there.

References
----------
Golub, Heath & Wahba (1979), DOI 10.1080/00401706.1979.10489751 (GCV); van de Wiel, Lien, Verlaat, van Wieringen & Wilting (2016),
DOI 10.1002/sim.6732 (penalties of groups); Nunez-Elizalde, Huth & Gallant (2019), DOI 10.1016/j.neuroimage.2019.04.012 (banded
ridge); Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022), DOI 10.1016/j.neuroimage.2022.119728.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from fastridge import parallel, units
from fastridge.factor import ScaledFactor
from fastridge.formulation import plain_form
from fastridge.operators.base import Array, Vector, column_dots
from fastridge.penalty_range import useful_penalties
from fastridge.planning.costs import physical_memory
from fastridge.problem import Problem
from fastridge.request import Request
from fastridge.selection.loo import NEARLY_SQUARE, LeaveOneOut
from fastridge.solution import Solution

LOO, GCV, EVIDENCE = "leave-one-out", "gcv", "evidence"
CRITERIA = GCV, EVIDENCE
"""What `scoring` may be besides None."""
SWITCHED_OFF = 1e4
"""The largest penalty of a group, relative to the sum of the squared norms of its columns: it leaves nothing of them."""
NEAR_OFF = 1e-2
"""The same ratio from which on it is tried whether a group is better left out."""
ALIKE = 1e-6
"""Difference of log scores up to which a group that may as well be left out is left out."""
FTOL, GTOL, MAX_STEPS = 1e-9, 1e-6, 100
"""When L-BFGS ends: relative decrease of the log score, largest entry of its gradient, steps."""
MANY = 16
"""Groups from which on they are not tried one at a time before the search."""
SMALLER = 1e2
"""By what a penalty is divided when its group is tried."""
LARGEST_LOSS = 1e-4
"""Relative error that rounding may make of the factor at the smallest penalties."""
LEFT = 1e-9
"""Of 1 - h, at least: a row with less has no error that a residual could tell."""
KERNELS_SHARE = 0.25
"""Of the memory that kernels may take; more of them are summed anew for every evaluation."""


@dataclass(frozen=True)
class GroupChoice:
    """What a search has found

    Attributes
    ----------
    alphas : (n_groups,) float64
        The user's penalties.
    score : float
        Larger is better: the negative mean of squared errors or GCV over the targets, or the mean of the log evidence.
    smallest, largest : (n_groups,) bool
        Where a penalty is at the edge of its range. With the largest one a group counts for nothing.
    n_evaluations : int
        Of scores and their gradients.
    """

    alphas: Vector
    score: float
    smallest: Array
    largest: Array
    n_evaluations: int

    @classmethod
    def of_one(cls, alpha: float, score: float, n_groups: int, n_evaluations: int = 0) -> GroupChoice:
        """The penalty that all groups share"""
        none = np.zeros(n_groups, dtype=bool)
        return cls(np.full(n_groups, alpha), score, none, none, n_evaluations)


@dataclass(frozen=True)
class Rows:
    """n, q, and the sum of log weights, of rows that have a weight"""

    n: int
    n_free: int
    log_weights: float


@dataclass(frozen=True)
class GroupFit:
    """Penalties of groups of features and the fit there

    Attributes
    ----------
    alphas : (t, n_groups) float64
        The user's penalties: one row for all targets, or one for each.
    scores : (t,) float64
        Larger is better.
    smallest, largest : (n_groups,) bool
        As in `GroupChoice`, of any target.
    n_evaluations : int
        As in `GroupChoice`, of all targets together.
    solution : Solution
    """

    alphas: Vector
    scores: Vector
    smallest: Array
    largest: Array
    n_evaluations: int
    solution: Solution

    def note(self, labels: Array) -> str:
        """Say which groups are at an edge of their range; nothing where none is"""
        some = " for some of the targets" if len(self.alphas) > 1 else ""
        parts = [
            f"feature groups {', '.join(map(repr, labels[at_edge].tolist()))}: alpha is the {which} tried{some}, {what}"
            for at_edge, which, what in (
                (self.largest, "largest", "and they count for nothing"),
                (self.smallest, "smallest", "as good as none"),
            )
            if at_edge.any()
        ]
        return "; ".join(parts)


def fit_groups(
    request: Request,
    index: Array,
    name: str,
    starts: Vector,
    least: Vector,
    n_threads: int | None,
    solve_from: Callable[[Request, Vector | None], Solution],
) -> GroupFit:
    """Penalties of groups, and the solution there

    Parameters
    ----------
    request : Request
        Its own penalties do not matter; its penalty weights, (p,) or None, multiply those of the groups.
    index : (p,) int
        The group of every feature, from 0 on.
    name : {LOO, GCV, EVIDENCE}
        The score. That by leave-one-out errors is computed anew from a decomposition at the end.
    starts : (t,) float64
        The best penalty that groups share: for all targets together, or for each.
    least : (t,) float64
        Its score, which what is returned has at the least.
    n_threads : int or None
    solve_from : callable
        Solves a request, beginning at an answer on its small side or at None.
    """
    search, n_groups = GroupSearch(request, index, n_threads), int(index.max()) + 1
    chosen, scores, solutions = [], [], []
    for j, start in enumerate(starts.tolist()):
        one, targets = request, list(range(len(request.penalty)))
        if request.y.ndim == 2 and len(starts) == len(targets) > 1:
            one, targets = replace(request, y=np.ascontiguousarray(request.y[:, j])), [j]
        found = search.choose(name, start, targets) if n_groups > 1 else GroupChoice.of_one(start, least[j], n_groups)
        weighted, score, begin = _at(one, found.alphas[index], n_threads, name, found.score)
        if not score >= least[j]:
            found = GroupChoice.of_one(start, least[j], n_groups, found.n_evaluations)
            weighted, score, begin = _at(one, found.alphas[index], n_threads, name, found.score)
        chosen.append(found)
        scores.append(score)
        solutions.append(solve_from(weighted, begin))
    return GroupFit(
        np.stack([found.alphas for found in chosen]),
        np.array(scores),
        np.any([found.smallest for found in chosen], axis=0),
        np.any([found.largest for found in chosen], axis=0),
        sum(found.n_evaluations for found in chosen),
        _joined(solutions),
    )


def _at(request: Request, alphas: Vector, n_threads: int | None, name: str, score: float) -> Any:
    """The request with the penalties of features, (p,), in its weights, its score, and where its solution may begin"""
    d = alphas if request.penalty_weights is None else alphas * request.penalty_weights
    weighted = replace(request, penalty=np.ones(1 if request.y.ndim == 1 else request.y.shape[1]), penalty_weights=d)
    if name != LOO:
        return weighted, score, None
    exact = LeaveOneOut(weighted, np.ones(1), n_threads)
    n, k = len(request.y), len(weighted.penalty)
    return weighted, -float(exact.errors().sq_sums.mean()) / n, exact.start(np.zeros(k, dtype=np.intp))


def _joined(solutions: list[Solution]) -> Solution:
    """One solution of targets that were solved one by one"""
    if len(solutions) == 1:
        return solutions[0]
    reports = [solution.report for solution in solutions]
    worst = max(reports, key=lambda report: report.error_bound)
    report = replace(
        worst,
        n_iter=np.concatenate([report.n_iter for report in reports]),
        error=max(report.error for report in reports),
        seconds=sum(report.seconds for report in reports),
        extra_bytes=max(report.extra_bytes for report in reports),
    )
    coef = np.stack([np.ravel(solution.coef) for solution in solutions])
    return Solution(coef, np.array([float(np.ravel(solution.intercept)[0]) for solution in solutions]), report)


class GroupSearch:
    """The penalties of groups for any targets of a request, by any of the scores; what they share is computed once

    Parameters
    ----------
    request : Request
        Its own penalties do not matter; its penalty weights, (p,) or None, multiply those of the groups.
    index : (p,) int
        The group of every feature, from 0 on.
    n_threads : int or None

    Raises
    ------
    ValueError
        If the intercept and unpenalised columns fit every row.
    """

    def __init__(self, request: Request, index: Array, n_threads: int | None) -> None:
        self.problem = request.problem(n_threads)
        self.index, self.n_groups = index, int(index.max()) + 1
        form = plain_form(self.problem)
        inner, (n, p) = form.problem, form.problem.design.shape
        if p < n <= NEARLY_SQUARE * p and inner.design.traits.transposes:
            inner = replace(inner, dual=True, relaid=None)
        null, weights = inner.design.left_null, request.weights
        used = np.ones(n) if weights is None else weights[weights > 0]
        self.rows = Rows(len(used), 0 if null is None else null.shape[1], float(np.log(used).sum()))
        if self.rows.n <= self.rows.n_free:
            raise ValueError(
                f"feature_groups takes more rows than the intercept and unpenalised columns fit by themselves: n_samples = "
                f"{self.rows.n}, of which they fit {self.rows.n_free}"
            )
        sigma = np.zeros(len(inner.penalty), dtype=np.intp) if self.problem.units is None else self.problem.units.target
        powers = sigma + units.of_weights(weights)[1] // 2  # of two, from the problem's errors to the user's
        self._power = int(powers.max())
        target = np.ldexp(inner.target, powers - self._power)
        make = _Wide if inner.wide else _Tall
        self._side: _Side = make(inner, self.problem, target, index, self.rows)
        self._wide, self._has_columns = inner.wide, np.bincount(index, inner.design.sq_norms) > 0
        self._low, self._high = self._side.range()

    def scores(self, name: str, alphas: Vector) -> Vector:
        """Of penalties that all groups share, for every target: (a,) -> (a, k)"""
        own, k = self.problem.own_penalties(alphas), self._side.target.shape[1]
        out = np.empty((len(alphas), k))
        for j in range(k):
            for a, penalty in enumerate(own):
                value = self._side.of_targets([j]).evaluate(name, np.full(self.n_groups, penalty))[0]
                out[a, j] = self._score(name, value)
        return out

    def choose(self, name: str, start: float, targets: list[int]) -> GroupChoice:
        """The penalties of the groups, one each for all the `targets` together

        Parameters
        ----------
        name : {LOO, GCV, EVIDENCE}
        start : float
            The user's penalty, for all groups, where the search begins: no answer is worse, but for rounding.
        targets : list of int
        """
        shared = float(np.log(self.problem.own_penalties(np.array([start]))[0]))
        low, high = (np.where(self._has_columns, edge, shared) for edge in (self._low, self._high))
        begin = np.clip(shared, low, high)
        live = [j for j in targets if self._side.target[:, j].any()]
        if not live:
            return GroupChoice.of_one(start, -np.inf, self.n_groups)
        side = self._side.of_targets(live)
        descent = _Descent(side, low, high)
        by_gcv = name == LOO and not self._wide
        guide = GCV if by_gcv else name
        found = [descent.to_minimum(guide, theta) for theta in descent.starts(guide, begin)]
        if by_gcv:
            theta = min([begin, *found], key=lambda theta: descent.value(name, theta))
            found = [begin, descent.to_minimum(name, theta)]
        theta = descent.without_the_useless(name, min(found, key=lambda theta: descent.value(name, theta)))
        value = descent.value(name, theta)
        share = len(live) / len(targets) if name != EVIDENCE else 1.0
        alphas = self.problem.user_penalties(np.exp(theta))
        alphas[theta == shared] = start  # to the bit
        edges = [(theta == edge) & self._has_columns for edge in (low, high)]
        return GroupChoice(alphas, share * self._score(name, value), edges[0], edges[1], descent.n_evaluations)

    def _score(self, name: str, value: float) -> float:
        """In the user's units, of what `_Side.evaluate` gives"""
        rows = self.rows
        if name == EVIDENCE:
            return -value - (rows.n - rows.n_free) * float(np.log(2.0)) * self._power + rows.log_weights / 2
        n = len(self._side.target) if name == LOO else 1  # rows without weight count as predicted, as they do in loo.py
        with np.errstate(over="ignore", under="ignore"):
            return -float(np.ldexp(np.exp(value) / n, 2 * self._power))


class _Descent:
    """Minima of log scores within a range of log penalties; every point is evaluated once"""

    def __init__(self, side: _Side, low: Vector, high: Vector) -> None:
        self.side, self.low, self.high = side, low, high
        self._known: dict[tuple[str, bytes], tuple[float, Vector]] = {}

    @property
    def n_evaluations(self) -> int:
        return len(self._known)

    def both(self, name: str, theta: Vector) -> tuple[float, Vector]:
        """The log score and its gradient; infinite where float64 cannot tell it"""
        key = name, theta.tobytes()
        if key not in self._known:
            with parallel.blas_for(len(self.side.rhs)):
                value, gradient = self.side.evaluate(name, np.exp(theta))
            self._known[key] = (value, gradient) if np.isfinite(value) else (np.inf, np.zeros(len(theta)))
        return self._known[key]

    def value(self, name: str, theta: Vector) -> float:
        return self.both(name, theta)[0]

    def starts(self, name: str, begin: Vector) -> list[Vector]:
        """Where to begin: at what is shared, and at the best of points where one group is left out, alone, or counts for more"""
        tried = []
        for g in range(len(begin)) if len(begin) < MANY else ():
            if self.low[g] == self.high[g]:
                continue
            one = np.arange(len(begin)) == g
            smaller = np.maximum(begin - np.log(SMALLER), self.low)
            tried += [np.where(one, self.high, begin), np.where(one, begin, self.high), np.where(one, smaller, begin)]
        return [begin, *([min(tried, key=lambda theta: self.value(name, theta))] if tried else [])]

    def to_minimum(self, name: str, start: Vector) -> Vector:
        """A minimum that L-BFGS comes to, or the best point on the way"""
        best = [start]

        def evaluate(theta: Vector) -> tuple[float, Vector]:
            value, gradient = self.both(name, theta)
            if value < self.value(name, best[0]):
                best[0] = np.array(theta)
            return value, gradient

        bounds = list(zip(self.low, self.high, strict=True))
        options = {"ftol": FTOL, "gtol": GTOL, "maxiter": MAX_STEPS}
        minimize(evaluate, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return best[0]

    def without_the_useless(self, name: str, theta: Vector) -> Vector:
        """The same with groups left out that may as well be"""
        near = self.high - np.log(SWITCHED_OFF / NEAR_OFF)
        for g in np.flatnonzero((theta > near) & (theta < self.high)):
            other = np.where(np.arange(len(theta)) == g, self.high, theta)
            if self.value(name, other) <= self.value(name, theta) + ALIKE:
                theta = other
        return theta


class _Side(ABC):
    """Log scores of some targets and their gradients on the small side of a problem

    `evaluate` gives log sum e^2, log GCV summed over the targets, or minus the mean log evidence but for the weights of rows.
    """

    def __init__(self, inner: Problem, problem: Problem, target: Vector, index: Array, rows: Rows) -> None:
        self.inner, self.problem, self.target, self.index, self.rows = inner, problem, target, index, rows
        self.n_groups = int(index.max()) + 1
        self.rhs = target if inner.wide else inner.design.rmatvec(target)

    def range(self) -> tuple[Vector, Vector]:
        """Smallest and largest log penalties of the groups, wide enough to use all of one and to leave it out"""
        norms = self.inner.design.sq_norms
        sums = self._by_group(norms)
        sums[sums == 0] = 1.0  # a group without columns
        means = sums / np.bincount(self.index, norms > 0, self.n_groups).clip(1)
        mean = norms.sum() / max(1, np.count_nonzero(norms)) or 1.0
        least = useful_penalties(self.inner, 2)[0][-1] * np.minimum(1.0, means / mean)
        while not self.factor(least).loss < LARGEST_LOSS:
            least *= 10
        return np.log(least), np.log(np.maximum(SWITCHED_OFF * sums, least))

    def _by_group(self, of_features: Vector) -> Vector:
        """Sums over the features of every group"""
        sums: Vector = np.bincount(self.index, of_features, self.n_groups)
        return sums

    @abstractmethod
    def factor(self, penalties: Vector) -> ScaledFactor:
        """Of H, or of M, at the penalties of the groups"""

    @abstractmethod
    def of_targets(self, chosen: list[int]) -> _Side:
        """The same for some of the targets"""

    @abstractmethod
    def evaluate(self, name: str, penalties: Vector) -> tuple[float, Vector]:
        """The score at the penalties of the groups, (n_groups,), and its derivatives by their logarithms"""


class _Tall(_Side):
    def __init__(self, inner: Problem, problem: Problem, target: Vector, index: Array, rows: Rows) -> None:
        super().__init__(inner, problem, target, index, rows)
        design = inner.design
        self.gram = design.full_gram()
        null = design.left_null
        self.unseen = np.ones(design.shape[0]) if null is None else 1.0 - np.einsum("iq,iq->i", null, null)
        # A fit to count residuals from: of y itself, sums would lose what is small beside y.
        self.near = self.factor(np.exp(self.range()[0])).solve(self.rhs)
        self.slope = design.gradient(self.near, target)
        residual = target - design.matvec(self.near)
        self.sq_near = column_dots(residual, residual)

    def of_targets(self, chosen: list[int]) -> _Tall:
        some = object.__new__(_Tall)
        some.__dict__.update(self.__dict__)
        for name in ("target", "rhs", "near", "slope"):
            setattr(some, name, np.ascontiguousarray(getattr(self, name)[:, chosen]))
        some.sq_near = self.sq_near[chosen]
        return some

    def factor(self, penalties: Vector) -> ScaledFactor:
        return ScaledFactor(np.array(self.gram, order="F"), penalties[self.index], self.inner.design.shape[0])

    def evaluate(self, name: str, penalties: Vector) -> tuple[float, Vector]:
        d, factor = penalties[self.index], self.factor(penalties)
        if not np.isfinite(factor.loss):
            return np.inf, np.zeros(self.n_groups)
        root = factor.root_of_inverse()
        with np.errstate(divide="ignore", invalid="ignore"):
            value, slopes = self._leave_one_out(d, root) if name == LOO else self._criterion(name, d, root)
        return value, self._by_group(d * slopes)

    def _leave_one_out(self, d: Vector, root: Vector) -> tuple[float, Vector]:
        """Log of the sum of squares, and what its derivatives by d are"""
        design, (n, k), target = self.inner.design, self.target.shape, self.target
        inner = root @ self.rhs
        ratios, sq_errors, parts = np.empty((n, k)), np.empty(n), {}

        def block(lo: int, hi: int, image: Vector) -> None:
            left = self.unseen[lo:hi] - np.einsum("ij,ij->i", image, image)
            doubtful = left < LEFT
            left[doubtful] = LEFT
            errors = (target[lo:hi] - image @ inner) / left[:, None]
            sq_errors[lo:hi] = np.einsum("ik,ik->i", errors, errors)
            ratios[lo:hi] = errors / left[:, None]
            weights = np.where(doubtful, 0.0, sq_errors[lo:hi] / left)
            parts[lo] = weights @ np.square(image @ root)

        design.product_blocks(np.ascontiguousarray(root.T), block)
        by_leverage = sum(parts[lo] for lo in sorted(parts))
        by_fit = (root.T @ (root @ design.rmatvec(ratios))) * (root.T @ inner)
        total = float(sq_errors.sum())
        return float(np.log(total)), 2.0 * (by_fit.sum(axis=1) - by_leverage) / total

    def _criterion(self, name: str, d: Vector, root: Vector) -> tuple[float, Vector]:
        n, q, k = self.rows.n, self.rows.n_free, self.target.shape[1]
        inverse = root.T @ root
        w = inverse @ self.rhs
        moved = w - self.near
        sq = self.sq_near - 2 * column_dots(moved, self.slope) + column_dots(moved, np.ascontiguousarray(self.gram @ moved))
        diagonal = inverse.diagonal()
        if name == GCV:
            left = n - q - len(d) + float(d @ diagonal)
            by_left = diagonal - np.square(inverse) @ d
            by_sq = 2 * (w * (inverse @ (d[:, None] * w))).sum(axis=1)
            return float(np.log(n * sq.sum()) - 2 * np.log(left)), by_sq / sq.sum() - 2 * by_left / left
        sq = sq + d @ np.square(w)
        log_det = -2 * np.log(root.diagonal()).sum() - np.log(d).sum()
        value = (n - q) / 2 * (np.log(2 * np.pi * sq / (n - q)) + 1).mean() + log_det / 2
        return float(value), (n - q) / (2 * k) * np.square(w) @ (1 / sq) + (diagonal - 1 / d) / 2


class _Wide(_Side):
    def __init__(self, inner: Problem, problem: Problem, target: Vector, index: Array, rows: Rows) -> None:
        super().__init__(inner, problem, target, index, rows)
        n = len(target)
        self.null = inner.design.left_null
        fits = 8.0 * self.n_groups * n * n <= KERNELS_SHARE * physical_memory()
        self.kernels = self._kernels() if fits else None

    def of_targets(self, chosen: list[int]) -> _Wide:
        some = object.__new__(_Wide)
        some.__dict__.update(self.__dict__)
        some.target = some.rhs = np.ascontiguousarray(self.target[:, chosen])
        return some

    def _kernels(self) -> list[Vector]:
        """K_g of all groups, both triangles"""
        design, n = self.inner.design, len(self.target)
        if design.traits.sparse:
            return [self._kernel(np.where(np.arange(self.n_groups) == g, 1.0, np.inf)) for g in range(self.n_groups)]
        kernels = [np.zeros((n, n)) for _ in range(self.n_groups)]
        for lo, hi, columns in design.T.blocks():
            own = self.index[lo:hi]

            def add(g: int, own: Array = own, columns: Vector = columns) -> None:
                some = columns[own == g]
                if len(some):
                    kernels[g] += some.T @ some

            with parallel.single_threaded_blas():
                parallel.run(add, self.n_groups, design.traits.n_threads)
        return kernels

    def _kernel(self, penalties: Vector) -> Vector:
        """sum_g K_g / penalty_g from the data"""
        own, d = self.problem.penalty_weights, penalties[self.index]
        with np.errstate(invalid="ignore"):
            d = d if own is None else np.where(own == 0, 0.0, d * own)
        return plain_form(replace(self.problem, penalty_weights=d)).problem.design.T.full_gram()

    def factor(self, penalties: Vector) -> ScaledFactor:
        """Of M + c N N', which is as heavy along N as elsewhere, so that taking N off the inverse costs no digits"""
        n = len(self.target)
        if self.kernels is None:
            matrix = np.asfortranarray(self._kernel(penalties))
        else:
            matrix = np.zeros((n, n), order="F")
            for kernel, penalty in zip(self.kernels, penalties, strict=True):
                matrix += kernel / penalty
        if self.null is not None:
            matrix += float(matrix.trace()) / n * (self.null @ self.null.T)
        return ScaledFactor(matrix, 1.0, max(self.inner.design.shape))

    def evaluate(self, name: str, penalties: Vector) -> tuple[float, Vector]:
        factor = self.factor(penalties)
        if not np.isfinite(factor.loss):
            return np.inf, np.zeros(self.n_groups)
        root = factor.root_of_inverse()
        inverse = root.T @ root
        log_det = -2 * float(np.log(root.diagonal()).sum())
        if self.null is not None:
            along = np.einsum("iq,iq->q", self.null, inverse @ self.null)
            inverse -= (self.null * along) @ self.null.T
            log_det += float(np.log(along).sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            value, slope = self._leave_one_out(inverse) if name == LOO else self._criterion(name, inverse, log_det)
        return value, self._products(slope) / penalties

    def _leave_one_out(self, inverse: Vector) -> tuple[float, Vector]:
        """Log of the sum of squares, and R"""
        residual, diagonal = inverse @ self.target, inverse.diagonal()
        # Where nothing at all is left, nothing was to be predicted: a row whose weight is all there is.
        left = np.where(diagonal > 0, diagonal, np.inf)[:, None]
        errors = residual / left
        sq = np.einsum("ik,ik->i", errors, errors)
        total = float(sq.sum())
        half = inverse * np.sqrt(sq / left[:, 0])
        return float(np.log(total)), 2 / total * ((inverse @ (errors / left)) @ residual.T - half @ half.T)

    def _criterion(self, name: str, inverse: Vector, log_det: float) -> tuple[float, Vector]:
        n, q, k = self.rows.n, self.rows.n_free, self.target.shape[1]
        residual = inverse @ self.target
        if name == GCV:
            left = float(inverse.trace()) - (len(self.target) - n)  # rows without weight count in the trace
            sq = float(np.square(residual).sum())
            slope = 2 / sq * ((inverse @ residual) @ residual.T) - 2 / left * (inverse @ inverse)
            return float(np.log(n * sq) - 2 * np.log(left)), slope
        sq_whole = np.einsum("ik,ik->k", self.target, residual)
        value = (n - q) / 2 * (np.log(2 * np.pi * sq_whole / (n - q)) + 1).mean() + log_det / 2
        return float(value), (n - q) / (2 * k) * ((residual / sq_whole) @ residual.T) - inverse / 2

    def _products(self, slope: Vector) -> Vector:
        """<K_g, R> of all groups"""
        if self.kernels is not None:
            return np.array([float(np.vdot(kernel, slope)) for kernel in self.kernels])
        design = self.inner.design
        sums = np.zeros(design.shape[1])
        for lo, hi, rows in design.blocks():
            sums += np.einsum("ij,ji->j", rows, design.rmatvec(np.ascontiguousarray(slope[:, lo:hi])))
        return self._by_group(sums)
