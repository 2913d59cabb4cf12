"""Groups of features with a penalty each, found by gradient on a score of all of them: banded, or group-regularised, ridge.

The search is by L-BFGS in the logarithms of the penalties, between one that leaves nothing of a group and one that takes next to
nothing away. It begins at the best penalty that all groups share, so that what it finds is no worse. Scores have several minima,
so it begins once more at the best of a few other points. Of a tall problem GCV, which costs no pass over the rows, leads to where
the search by leave-one-out errors begins.

References
----------
van de Wiel, Lien, Verlaat, van Wieringen & Wilting (2016), DOI 10.1002/sim.6732 (penalties of groups); Nunez-Elizalde, Huth &
Gallant (2019), DOI 10.1016/j.neuroimage.2019.04.012 (banded ridge); Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022),
DOI 10.1016/j.neuroimage.2022.119728 (gradients of cross-validation errors).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from fastridge import parallel
from fastridge.formulation import plain_form
from fastridge.operators.base import Array, Vector
from fastridge.planning.costs import check_small_side
from fastridge.request import Request
from fastridge.selection.criteria import Rows, powers_of_errors
from fastridge.selection.group_scores import EVIDENCE, GCV, LOO, SWITCHED_OFF, Side, Tall, Wide
from fastridge.selection.loo import NEARLY_SQUARE, LeaveOneOut
from fastridge.solution import Solution

NEAR_OFF = 1e-2
"""Penalty, relative to the sum of squared norms, from which on it is tried whether a group may as well be left out."""
ALIKE = 1e-7
"""Difference of log scores up to which it may."""
FTOL, GTOL, MAX_STEPS = 1e-10, 1e-8, 100
"""When L-BFGS ends: relative decrease of the log score, largest entry of its gradient, steps."""
MANY = 16
"""Groups from which on they are not tried one at a time before the search."""
SMALLER = 1e2
"""By what a penalty is divided when its group is tried."""
MATRICES = 5
"""As large as the smaller side, that are held at a time, without kernels."""


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
    out_of_reach : bool
        Whether a target keeps what groups share because the search has no digits for penalties that small.
    """

    alphas: Vector
    scores: Vector
    smallest: Array
    largest: Array
    n_evaluations: int
    solution: Solution
    out_of_reach: bool

    def note(self, labels: Array) -> str:
        """Say which groups are at an edge of their range; empty if all are within"""
        some = " for some of the targets" if len(self.alphas) > 1 else ""
        parts = [
            f"feature groups {', '.join(map(repr, labels[at_edge].tolist()))}: alpha is the {which} tried{some}, {what}"
            for at_edge, which, what in (
                (self.largest, "largest", "and they count for nothing"),
                (self.smallest, "smallest", "as good as none"),
            )
            if at_edge.any()
        ]
        if self.out_of_reach:
            parts.append(
                "feature groups keep the alpha that they share: large columns that depend on others leave no digits to search "
                "among penalties as small as that; bring columns to one scale"
            )
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
    chosen, scores, solutions, out_of_reach = [], [], [], False
    for j, start in enumerate(starts.tolist()):
        one, targets = request, list(range(len(request.penalty)))
        if request.y.ndim == 2 and len(starts) == len(targets) > 1:
            one, targets = replace(request, y=np.ascontiguousarray(request.y[:, j])), [j]
        found = search.choose(name, start, targets) if n_groups > 1 else GroupChoice.of_one(start, least[j], n_groups)
        weighted, score, begin = _at(one, found.alphas[index], n_threads, name, found.score)
        if not score >= least[j]:
            out_of_reach |= search.out_of_reach(start)
            found, score = GroupChoice.of_one(start, least[j], n_groups, found.n_evaluations), least[j]
            weighted, _, begin = _at(one, found.alphas[index], n_threads, name, score)
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
        out_of_reach,
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
        If the intercept and unpenalised columns fit every row; if the smaller side is too large for the memory.
    """

    def __init__(self, request: Request, index: Array, n_threads: int | None) -> None:
        self.problem = request.problem(n_threads)
        self.index, self.n_groups = index, int(index.max()) + 1
        form = plain_form(self.problem)
        inner, (n, p) = form.problem, form.problem.design.shape
        check_small_side((n, p), MATRICES, "choose features, or one alpha for all")
        if p < n <= NEARLY_SQUARE * p and inner.design.traits.transposes:
            inner = replace(inner, dual=True, relaid=None)
        self.rows = Rows.of(inner, request.weights)
        self.rows.check("feature_groups")
        powers = powers_of_errors(self.problem, request.weights)
        # L-BFGS ends by what is relative to a logarithm: the largest target is to be near one.
        self._power = int(powers.max()) + int(np.frexp(np.sqrt(inner.sq_target.max() / n))[1])
        target = np.ldexp(inner.target, powers - self._power)
        make = Wide if inner.wide else Tall
        self._side: Side = make(inner, self.problem, target, index, self.rows)
        self._wide, self._has_columns = inner.wide, np.bincount(index, inner.design.sq_norms) > 0
        self._low, self._high = self._side.range()

    def _own(self, penalty: float) -> float:
        """The logarithm of a penalty of the user in the units of the problem"""
        return float(np.log(self.problem.own_penalties(np.array([penalty]))[0]))

    def out_of_reach(self, penalty: float) -> bool:
        """Whether the ranges of groups begin above the user's penalty"""
        return bool((self._low > self._own(penalty))[self._has_columns].any())

    def choose(self, name: str, start: float, targets: list[int]) -> GroupChoice:
        """The penalties of the groups, one each for all the `targets` together

        Parameters
        ----------
        name : {LOO, GCV, EVIDENCE}
        start : float
            The user's penalty, for all groups, where the search begins: no answer is worse, but for rounding.
        targets : list of int
        """
        shared = self._own(start)
        low, high = (np.where(self._has_columns, edge, shared) for edge in (self._low, self._high))
        begin = np.clip(shared, low, high)
        live = [j for j in targets if self._side.target[:, j].any()]
        if not live:
            return GroupChoice.of_one(start, -np.inf, self.n_groups)
        descent = _Descent(self._side.of_targets(live), low, high)
        with self._blas():
            theta = self._best(name, descent, begin)
        value = descent.value(name, theta)
        alphas = self.problem.user_penalties(np.exp(theta))
        alphas[theta == shared] = start  # to the bit
        edges = [(theta == edge) & self._has_columns for edge in (low, high)]
        return GroupChoice(alphas, self._score(name, value, len(targets)), edges[0], edges[1], descent.n_evaluations)

    def _best(self, name: str, descent: _Descent, begin: Vector) -> Vector:
        """The log penalties of the best minimum that is found"""

        def value(theta: Vector) -> float:
            return descent.value(name, theta)

        by_gcv = name == LOO and not self._wide
        guide = GCV if by_gcv else name
        found = [descent.to_minimum(guide, theta) for theta in descent.starts(guide, begin)]
        if by_gcv:
            found = [begin, descent.to_minimum(name, min([begin, *found], key=value))]
        return descent.without_the_useless(name, min(found, key=value))

    def _blas(self) -> AbstractContextManager[None]:
        """One thread for BLAS but in large problems: for the few numbers of L-BFGS, many would only wait for one another"""
        small = len(self._side.rhs) <= parallel.SMALL_FACTOR
        return parallel.single_threaded_blas() if small else parallel.threaded_blas()

    def _score(self, name: str, value: float, k: int) -> float:
        """In the user's units, in the mean over k targets, of what `Side.evaluate` gives"""
        rows = self.rows
        if name == EVIDENCE:
            return -value - (rows.n - rows.n_free) * float(np.log(2.0)) * self._power + rows.log_weights / 2
        n = len(self._side.target) if name == LOO else 1  # rows without weight count, as they do where alpha is shared
        with np.errstate(over="ignore", under="ignore"):
            return -float(np.ldexp(np.exp(value) / (n * k), 2 * self._power))


class _Descent:
    """Minima of log scores within a range of log penalties; every point is evaluated once"""

    def __init__(self, side: Side, low: Vector, high: Vector) -> None:
        self.side, self.low, self.high = side, low, high
        self._known: dict[tuple[str, bytes], tuple[float, Vector]] = {}

    @property
    def n_evaluations(self) -> int:
        return len(self._known)

    def both(self, name: str, theta: Vector) -> tuple[float, Vector]:
        """The log score and its gradient; infinite where float64 cannot tell it"""
        key = name, theta.tobytes()
        if key not in self._known:
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
