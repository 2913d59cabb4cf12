"""From checked arrays to the problem that solvers take, and back to the user's coefficients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastridge import units
from fastridge.operators.base import Array, Matrix, Vector
from fastridge.operators.design import SQ_HIGH, SQ_LOW, centred_design
from fastridge.operators.row_blocks import Facts, RowBlocks
from fastridge.parallel import resolve_threads
from fastridge.problem import Bounds, Problem
from fastridge.standard_form import StandardForm, standard_form
from fastridge.units import Units


def make_problem(
    X: Matrix,
    y: Vector,
    penalty: Vector,
    weights: Vector | None,
    fit_intercept: bool,
    n_threads: int | None,
    bounds: Bounds | None = None,
    penalty_weights: Vector | None = None,
) -> Problem:
    """Centre and weight the data, without copying X but where its squares leave float64

    Where any numbers are so large or small that squares would overflow or underflow, those of the problem are theirs times powers
    of two (`Problem.units`); the penalties of a path must then be taken into its units, and coefficients back.

    Raises
    ------
    ValueError
        If X has entries that are not finite; if several targets within bounds, or a penalty that may leave something unpenalised,
        are too far from one another or from the data in size.
    """
    target = y.reshape(len(y), -1)
    weights, omega = units.of_weights(weights)
    sigma = units.of_targets(target, weights, together=bounds is not None)
    if sigma is not None:
        target = np.ldexp(target, -sigma)
    y_mean = np.zeros((2, target.shape[1]))
    if fit_intercept:  # of what is left after a first mean too: y may lie far away from zero
        first = _mean(target, weights)
        rest = _mean(target - first, weights)
        y_mean[0] = first + rest
        y_mean[1] = rest - (y_mean[0] - first)
    target = target - y_mean[0]
    if fit_intercept:
        used = True if weights is None else (weights > 0)[:, None]
        y_mean[1] *= np.any(target, axis=0, where=used)  # the mean of a constant is that constant
        target -= y_mean[1]
    if weights is not None:
        target *= np.sqrt(weights)[:, None]
    wanted = target[:, 0] if target.shape[1] == 1 and X.shape[0] >= X.shape[1] else None
    centred = centred_design(X, weights, fit_intercept, resolve_threads(n_threads), wanted)
    problem = Problem(centred.design, target, penalty, centred.mean, y_mean, bounds, penalty_weights=penalty_weights)
    problem = _in_units(problem, sigma, omega, centred.power)
    if centred.image is None:
        return problem
    moved = 0 if problem.units is None else int(problem.units.target[0]) - (0 if sigma is None else int(sigma[0]))
    return problem.with_rhs(np.ldexp(centred.image[:, None], -moved) if moved else centred.image[:, None])


def problem_of_rows(operator: RowBlocks, facts: Facts, penalty: Vector, penalty_weights: Vector | None) -> Problem:
    """The problem of rows that live elsewhere, of which the first pass told `facts`

    Raises
    ------
    ValueError
        If their squares leave float64.
    """
    for name, sq in (("X", facts.sq_norms), ("y", facts.sq_target)):
        if sq.any() and not SQ_LOW < sq.max() < SQ_HIGH:
            raise ValueError(f"the squares of {name} leave float64: rescale it")
    return Problem(operator, operator.target, penalty, facts.x_mean, facts.y_mean, penalty_weights=penalty_weights, dual=False)


def _mean(y: Vector, weights: Vector | None) -> Vector:
    """Of the targets (n, k), weighted: (k,)"""
    if weights is None:
        return np.asarray(np.add.reduce(y, axis=0) / len(y))
    return np.asarray(np.add.reduce(weights[:, None] * y, axis=0) / weights.sum())


def _in_units(problem: Problem, sigma: np.ndarray | None, omega: int, rho: int) -> Problem:
    """The problem with its penalties, penalty weights and bounds in the units of its data, which the powers of two say"""
    alpha, k, sq_norms = problem.penalty, len(problem.penalty), problem.design.sq_norms
    plain = sigma is None and omega == rho == 0 and problem.penalty_weights is None and problem.bounds is None
    if plain and alpha.max() <= 2.0**units.OUTWEIGHED * sq_norms.max():
        return problem
    d, delta, largest = units.of_penalty_weights(problem.penalty_weights, sq_norms)
    none = np.zeros(k, dtype=np.intp)
    free = None if d is None or d.ndim == 2 or d.all() else d == 0
    own = Units(none if sigma is None else sigma, rho, 2 * rho + delta - omega, largest + units.OUTWEIGHED, free)
    if problem.bounds is not None:
        problem, own = _bounds_in_units(problem, own, largest)
    excess = own.excess(alpha)
    if not (own.target.any() or own.penalty or own.coefficient or excess.any()):
        return problem
    if excess.any() and d is not None and d.ndim == 2 and np.linalg.matrix_rank(d) < len(d):
        raise ValueError(
            "alpha times penalty_weights outweighs the data by 1e90, and leaves combinations of features unpenalised; lower alpha"
        )
    return replace(problem, penalty=own.own_penalty(alpha), penalty_weights=d, units=own)


def _bounds_in_units(problem: Problem, own: Units, largest: int) -> tuple[Problem, Units]:
    """The problem with its bounds in its units, and those, in which what they make coefficients differ from zero has a square"""
    assert problem.bounds is not None
    powers = own.powers(problem.penalty)
    if np.ptp(powers, axis=1).any():
        raise ValueError(
            "with bounds, targets cannot be fitted together where an alpha outweighs the data by 1e90; fit each alone"
        )
    lower, upper = problem.bounds.lower, problem.bounds.upper
    nearest = np.frexp(problem.bounds.clip(np.zeros(len(lower))))
    sizes = np.where(nearest[0] != 0, nearest[1] - powers[:, 0], -units.SQ_COLUMN)
    penalty = np.frexp(problem.penalty.max())[1] + own.penalty - own.excess(problem.penalty).max()
    more = max(0, int(sizes.max()) + max(largest, int(penalty)) // 2 - units.SQ_TARGET // 2)
    if more:
        own = replace(own, target=own.target + more)
        powers = powers + more
        with np.errstate(under="ignore"):
            problem = replace(problem, target=np.ldexp(problem.target, -more), y_mean=np.ldexp(problem.y_mean, -more))
    if powers.any():
        with np.errstate(over="ignore", under="ignore"):
            bounds = Bounds(np.ldexp(lower, -powers[:, 0]), np.ldexp(upper, -powers[:, 0]))
        problem = replace(problem, bounds=bounds)
    return problem, own


def plain_form(problem: Problem) -> StandardForm:
    """The problem as solvers take it: penalty weights taken away, but for bounds, whose solver takes them

    There an infinite weight becomes bounds of zero, which must have been allowed.
    """
    d = problem.penalty_weights
    if problem.bounds is None or d is None:
        return standard_form(problem)
    assert d.ndim == 1
    fixed = np.isinf(d)
    box = Bounds(np.where(fixed, 0.0, problem.bounds.lower), np.where(fixed, 0.0, problem.bounds.upper))
    return StandardForm.of(replace(problem, bounds=box, penalty_weights=np.where(fixed, 1.0, d)))


def rounded_coefficients(problem: Problem, own: Vector, alpha: Vector, bounds: Bounds | None, dtype: Any) -> Array:
    """Coefficients of a problem, (p, k), in the user's units, within the user's bounds and rounded to `dtype`

    Raises
    ------
    OverflowError
        If `dtype` does not hold them.
    """
    exact = problem.user_coefficients(own, alpha)
    if bounds is not None:
        return bounds.rounded(np.clip(exact, bounds.lower[:, None], bounds.upper[:, None]), dtype)
    with np.errstate(over="ignore", under="ignore"):
        w = exact.astype(dtype)
    if not np.isfinite(w).all() and np.isfinite(exact).all():
        raise OverflowError(f"the coefficients overflow {np.dtype(dtype)}; convert X to float64, or rescale y")
    return w
