"""Scores of penalties on rows that come block by block

Leave-one-out takes a pass after the first, criteria none or one, folds none, and the accuracy of classifiers on folds one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from fastridge.moments import Moments
from fastridge.operators.base import Array, Vector, column_dots
from fastridge.operators.row_blocks import Block, Facts, PairSum, RowBlocks, Totals
from fastridge.problem import Problem
from fastridge.request import Method, Request, RowsRequest
from fastridge.rows import RowSource, rows_per_block
from fastridge.selection import criteria
from fastridge.selection.decomposition import Pencil, decompose
from fastridge.selection.folds import Fold, fit_moments, known_well
from fastridge.selection.spread import Spread, second_moments
from fastridge.sums import MEMORY_SHARE, known_memory

LEFT = 1e-8
"""Of 1 - h: a row with less has no error that float64 could tell."""
COLUMNS = 256
"""Pairs of a target and a penalty whose errors are had in one product."""
KNOWN = 1e-3
"""Share of y that fits must leave for its size to be told from sums, whose relative error may be a millionth of that."""

Answer: TypeAlias = Callable[[Array], Vector]
"""From the penalty of each target, (k,) int, to the answers there, (p, k)."""


def leave_one_out(
    problem: Problem, penalties: Vector, fit_intercept: bool, n_groups: int = 0
) -> tuple[Vector, Spread | None, Answer]:
    """Sums of squared leave-one-out errors, (a, k), their spread, and a function that gives answers

    Parameters
    ----------
    problem : Problem
        Its design is a `RowBlocks`; it is decomposed by its Gram matrix, and its rows are read once.
    penalties : (a,) float64
        > 0.
    fit_intercept : bool
    n_groups : int
        As in `LeaveOneOut.errors`.

    Raises
    ------
    ValueError
        If a row is predicted by itself alone, at one of the penalties.
    """
    rows: Any = problem.design
    k, a = len(problem.penalty), len(penalties)
    pencils = list(decompose(problem, penalties))
    order = np.concatenate([pencil.chosen for pencil in pencils])
    found = rows.over_rows(_left_out, pencils, a, k, rows.weight if fit_intercept else np.inf, n_groups)
    sums, spread = np.empty((a, k)), None
    by_order, moments = found[: k * a].reshape(k, a), found[k * a :].reshape(n_groups, a, a)
    sums[order] = by_order.T
    if n_groups and rows.n_weighted > 1:
        groups = by_order if n_groups > 1 else by_order.sum(axis=0, keepdims=True)
        size = np.full(n_groups, rows.shape[0] * k / n_groups)
        spread = Spread(groups, moments, rows.n_weighted, size, order)
    return sums, spread, partial(_answers, pencils)


def criterion(name: str, problem: Problem, penalties: Vector, fit_intercept: bool) -> tuple[Vector, Answer]:
    """Scores by one of `CRITERIA`, (a, k), and a function that gives answers, from the Gram matrix of a design as above

    Rows are read once more only where the fits leave so little of y that sums do not tell how little.

    Raises
    ------
    ValueError
        If the intercept fits every row.
    """
    design: Any = problem.design
    known = criteria.Rows(design.n_weighted, int(fit_intercept), design.log_weights)
    known.check(f"scoring={name!r}")
    pencils = list(decompose(problem, penalties, strict=True))

    def sq_residual(x: Vector, penalty: Vector | float) -> Vector:
        sq = problem.sq_target - column_dots(x, problem.rhs) - penalty * column_dots(x, x)
        if (sq > KNOWN * problem.sq_target).all():
            return sq
        return np.asarray(design.over_rows(_sq_residual, x))

    scores = criteria.scores(name, known, pencils, False, sq_residual)
    return scores, partial(_answers, pencils)


def _answers(pencils: list[Pencil], chosen: Array) -> Vector:
    """At the penalty of each target, (k,) int: (p, k)"""
    answers = np.empty((len(pencils[0].basis), len(chosen)))
    for j, a in enumerate(chosen):
        for pencil in pencils:
            for place in np.flatnonzero(pencil.chosen == a):
                answers[:, j] = pencil.basis @ (pencil.weights[:, place] * pencil.image[:, j])
    return answers


def _left_out(rows: RowBlocks, pencils: list[Pencil], n_penalties: int, k: int, weight: float, n_groups: int) -> Vector:
    """Sums of squares, (k, a), and moments, (g, a, a), in the order of the pencils, one after the other"""
    sums, moments = np.zeros((k, n_penalties)), np.zeros((n_groups, n_penalties, n_penalties))
    step = max(1, COLUMNS // n_penalties)
    for lo, block, target, root in rows.rows():
        images = [block @ pencil.basis for pencil in pencils]
        leverages = [image**2 @ pencil.weights for image, pencil in zip(images, pencils, strict=True)]
        left = 1.0 - np.hstack(leverages) - root**2 / weight
        if (left < LEFT).any():
            i = lo + int(np.flatnonzero((left < LEFT).any(axis=1))[0])
            raise ValueError(
                f"row {i} is predicted by itself alone at alpha as small as one of these: leave-one-out has no error for it; "
                "use folds (cv=5), or larger alphas"
            )
        whole = np.zeros(left.shape)
        for first in range(0, k, step):
            some = slice(first, first + step)
            fits = np.concatenate(
                [_fits(image, pencil, some) for image, pencil in zip(images, pencils, strict=True)],
                axis=2,
            )
            sq = ((target[:, some, None] - fits) / left[:, None]) ** 2
            sums[some] += sq.sum(axis=0)
            if n_groups > 1:
                moments[some] += second_moments(sq)
            else:
                whole += sq.sum(axis=1)
        if n_groups == 1:
            moments += second_moments(whole[:, None])
    return np.concatenate([sums.ravel(), moments.ravel()])


def _fits(image: Vector, pencil: Pencil, targets: slice) -> Vector:
    """At every penalty of a pencil, (m, targets, a), from rows in its basis"""
    weights = pencil.weights[:, None] * pencil.image[:, targets, None]
    return np.asarray(image @ weights.reshape(len(weights), -1)).reshape(len(image), *weights.shape[1:])


def _sq_residual(rows: RowBlocks, x: Vector) -> Vector:
    """Sums of squared residuals of answers, (p, k): (k,)"""
    total = PairSum()
    for _, block, target, _ in rows.rows():
        total.add(((target - block @ x) ** 2).sum(axis=0))
    return total.value


def fold_fits(folds: list[Moments], request: Request, alphas: Vector, method: Method) -> Iterator[Fold]:
    """Yield the fits of the training sets that leave out one of the `folds`

    Raises
    ------
    ValueError
        If taking a fold away costs digits that the fits need.
    """
    total = folds[0]
    for moments in folds[1:]:
        total = total + moments
    for held_out in folds:
        training = total - held_out
        if not known_well(training, request, float(alphas.min())):
            raise ValueError("a fold holds nearly all of a column, which has too few digits left without it: use cv=None")
        coefs, intercepts, doubt = fit_moments(training, request, alphas, method.tol)
        yield Fold(np.empty(0, dtype=np.intp), coefs, intercepts, held_out, doubt)


def accuracy(source: RowSource, folds: list[Fold]) -> Vector:
    """Shares of the rows of each fold, (m, a), by weight, that its fits put into the right class, from one pass

    Rows i, i + m, i + 2 m and so on are those of fold i. Their targets are -1 and +1: one number, or one for each class.

    Raises
    ------
    ValueError
        If a fold has no row with a weight.
    """
    a, k, _ = folds[0].coefs.shape
    coefs = [np.ascontiguousarray(fold.coefs.reshape(a * k, -1).T) for fold in folds]
    found = source.summed(_hits, coefs, [fold.intercepts for fold in folds])
    hits, weight = found[:, :-1], found[:, -1:]
    if not weight.all():
        raise ValueError(f"fold {int(np.argmin(weight))} of {len(folds)} has no row with a weight")
    return hits / weight


def _hits(at: int, block: Block, coefs: list[Vector], intercepts: list[Vector]) -> Vector:
    """Weights of the rows of each fold that its fits at each penalty put into the right class, and of all of them, (m, a + 1)"""
    m, (a, k) = len(coefs), intercepts[0].shape
    found, size = np.zeros((m, a + 1)), rows_per_block(8 * a * k)
    for i in range(m):
        own = slice((i - at) % m, None, m)
        X, truth = block.X[own], _classes(block.y[own])
        weights = np.ones(len(truth)) if block.weights is None else block.weights[own]
        found[i, a] = weights.sum()
        for lo in range(0, len(truth), size):
            some = slice(lo, lo + size)
            fits = np.asarray(X[some] @ coefs[i]).reshape(-1, a, k) + intercepts[i]
            found[i, :a] += weights[some] @ (_classes(fits) == truth[some, None])
    return found


def _classes(scores: Vector) -> Array:
    """The class of highest score, the second of two where one number is positive; (..., 1 or k): (...)"""
    return scores[..., 0] > 0 if scores.shape[-1] == 1 else scores.argmax(axis=-1)


def check_fold_memory(n_folds: int, n_penalties: int, p: int, k: int) -> None:
    """Raise MemoryError if the coefficients of all folds and penalties would take too much of this machine's memory"""
    memory, needed = known_memory(), 2 * 8 * n_folds * n_penalties * p * k  # those of folds, and once more for products
    if memory is not None and needed > MEMORY_SHARE * memory:
        raise MemoryError(
            f"{n_folds} folds are scored with the coefficients of {n_penalties} penalties, {p:,} features and {k:,} numbers a "
            f"row at once, {needed / 1e9:.1f} GB, which is more than {MEMORY_SHARE:.0%} of this machine's {memory / 1e9:.1f} GB: "
            "take fewer alphas or folds, or cv=None"
        )


def after_first_pass(request: RowsRequest, n_folds: int, n_threads: int) -> tuple[RowsRequest, list[Moments]]:
    """The request with all that a pass over its rows tells, and moments of the rows i, i + n_folds and so on for every fold i

    The sums of all folds are those of the rows. Without an intercept sums are about zero, and take passes of their own.

    Raises
    ------
    ValueError
        If there are fewer rows than folds.
    """
    source, folds = request.X, []

    def of_folds() -> Facts:
        folds.extend(source.folds(n_folds, n_threads))
        return Totals.of_all(folds).facts()

    if n_folds and request.fit_intercept:
        request = replace(request, known=source.operator_after(of_folds, n_threads))
    else:
        request = request.after_first_pass(n_threads)
    assert request.known is not None
    n_rows = request.known[1].shape[0]
    if n_rows < n_folds:
        raise ValueError(f"{source.describe()} has {n_rows} rows, fewer than the {n_folds} folds")
    if n_folds and not folds:
        folds.extend(source.folds(n_folds, n_threads))
    return request, [Moments._of(totals.sums, source.one_target) for totals in folds]
