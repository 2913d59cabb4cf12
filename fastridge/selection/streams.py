"""Scores of penalties on rows that are read block by block: leave-one-out in a pass after the first, folds in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastridge.moments import Moments
from fastridge.operators.base import Vector
from fastridge.operators.row_blocks import RowBlocks
from fastridge.problem import Problem
from fastridge.request import Method, Request
from fastridge.rows import RowSource
from fastridge.selection.decomposition import Pencil, decompose
from fastridge.selection.folds import Fold, fit_moments, known_well

LEFT = 1e-8
"""Of 1 - h: a row with less has no error that float64 could tell."""


def leave_one_out(problem: Problem, penalties: Vector, fit_intercept: bool) -> tuple[Vector, Callable[[int], Vector]]:
    """Sums of squared leave-one-out errors, (a, k), and a function that gives the answers (p, k) at one of the penalties

    Parameters
    ----------
    problem : Problem
        Its design is a `RowBlocks`; it is decomposed by its Gram matrix, and its rows are read once.
    penalties : (a,) float64
        > 0.
    fit_intercept : bool

    Raises
    ------
    ValueError
        If a row is predicted by itself alone, at one of the penalties.
    """
    rows: Any = problem.design
    k = len(problem.penalty)
    pencils = list(decompose(problem, penalties))
    sums = rows.over_rows(_left_out, pencils, len(penalties), k, rows.weight if fit_intercept else np.inf)

    def answer(chosen: int) -> Vector:
        for pencil in pencils:
            for place in np.flatnonzero(pencil.chosen == chosen):
                return np.ascontiguousarray(pencil.basis @ (pencil.weights[:, [place]] * pencil.image))
        raise IndexError(chosen)

    return sums, answer


def _left_out(rows: RowBlocks, pencils: list[Pencil], n_penalties: int, k: int, weight: float) -> Vector:
    sums = np.zeros((n_penalties, k))
    for lo, block, target, root in rows.rows():
        for pencil in pencils:
            image = block @ pencil.basis
            left = 1.0 - image**2 @ pencil.weights - root**2 / weight
            if (left < LEFT).any():
                i = lo + int(np.flatnonzero((left < LEFT).any(axis=1))[0])
                raise ValueError(
                    f"row {i} is predicted by itself alone at alpha as small as one of these: leave-one-out has no error for it; "
                    "use folds (cv=5), or larger alphas"
                )
            for j in range(k):
                errors = (target[:, [j]] - image @ (pencil.weights * pencil.image[:, [j]])) / left
                sums[pencil.chosen, j] += (errors**2).sum(axis=0)
    return sums


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


def fold_moments(source: RowSource, n_folds: int, n_threads: int | None) -> list[Moments]:
    """Moments of the rows i, i + n_folds, i + 2 n_folds and so on, for every i below `n_folds`, from one pass

    Raises
    ------
    ValueError
        If there are fewer rows than folds.
    """
    folds = [Moments(n_threads=n_threads) for _ in range(n_folds)]
    at = 0
    for block in source.blocks():
        for i, moments in enumerate(folds):
            own = slice((i - at) % n_folds, None, n_folds)
            y = block.y[own, 0] if source.one_target else block.y[own]
            if len(y):
                moments.update(block.X[own], y, None if block.weights is None else block.weights[own])
        at += len(block.y)
    if at < n_folds:
        raise ValueError(f"{source.describe()} has {at} rows, fewer than the {n_folds} folds")
    return folds
