"""Rows that live elsewhere: every tall solver that needs no columns solves with them, certificate included."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import make_weights, make_X, make_y
from row_blocks import Rows, blocks_problem
from test_operator import close

from fastridge import ridge
from fastridge.planning import planner
from fastridge.solution import Settings
from fastridge.solvers import bounded, descent, galerkin, shifted

SHAPE, CUTS = (90, 12), (20, 21, 60)
MAKE = (np.asarray, sp.csr_array, sp.csc_array, np.asfortranarray)


def case(penalty, shape=SHAPE):
    X = make_X(*shape, seed=701)
    X[X < 0.3] = 0
    Y, weights = make_y(X, 702, n_targets=len(penalty)), make_weights(shape[0], 703)
    cuts = [cut * shape[0] // SHAPE[0] for cut in CUTS]
    return X, Y, weights, blocks_problem(X, Y, np.asarray(penalty, dtype=float), weights, cuts, MAKE)


def error(X, weights, alpha, w, wanted):
    """In the H-norm, relative"""
    A = np.sqrt(weights)[:, None] * (X - np.average(X, axis=0, weights=weights))
    return np.hypot(np.linalg.norm(A @ (w - wanted)), np.sqrt(alpha) * np.linalg.norm(w - wanted)) / np.hypot(
        np.linalg.norm(A @ wanted), np.sqrt(alpha) * np.linalg.norm(wanted)
    )


def test_the_operator_is_what_it_says():
    X, _, weights, problem = case([1.0, 1.0])
    design = problem.design
    A = np.sqrt(weights)[:, None] * (X - np.average(X, axis=0, weights=weights))
    v, t = np.random.default_rng(1).standard_normal((12, 2)), np.concatenate(problem.target.blocks)
    close(np.concatenate(design.matvec(v).blocks), A @ v)
    close(design.rmatvec(problem.target), A.T @ t)
    close(design.normal(v, problem.target), A.T @ (A @ v - t))
    close(design.sq_image(v), ((A @ v) ** 2).sum(axis=0))
    triangle, both = design.triangle(problem.target), np.hstack([A, t])
    close(triangle.T @ triangle, both.T @ both)


@pytest.mark.parametrize("penalty", [[0.5], [1e-6, 1e-6], [0.1, 10.0, 3.0]])
@pytest.mark.parametrize("solver", ["auto", "cholesky", "svd", "cg", "cd"])
def test_every_solver_gives_the_same_answer_and_proves_it(solver, penalty):
    X, Y, weights, problem = case(penalty)
    answer, _, _ = planner.run(problem, planner.plan(problem, solver), Settings(1e-9, None))
    whole = ridge(X, Y, penalty, sample_weight=weights, solver=solver, tol=1e-9)
    assert answer.error_bound.max() <= 1e-9
    for j, alpha in enumerate(penalty):
        allowed = answer.error_bound[j] + whole.report.error_bound
        assert error(X, weights, alpha, answer.w[:, j], np.atleast_2d(whole.coef)[j]) <= 1.01 * allowed


@pytest.mark.parametrize("solve", [shifted.solve, galerkin.solve])
def test_paths(solve):
    X, Y, weights, problem = case([1e-3])
    alphas = np.array([10.0, 0.1, 1e-3])
    answer = solve(problem, alphas, Settings(1e-8, None))
    for j, alpha in enumerate(alphas):
        whole = ridge(X, Y[:, 0], alpha, sample_weight=weights, tol=1e-10)
        assert answer.error_bound[j] <= 1e-8
        assert error(X, weights, alpha, answer.w[:, j], whole.coef) <= 1.01 * (answer.error_bound[j] + 1e-10)


def test_more_features_than_samples_are_solved_for_the_features():
    X, Y, weights, problem = case([0.5], (12, 90))
    assert not problem.wide
    answer, _, _ = planner.run(problem, planner.plan(problem, "auto"), Settings(1e-9, None))
    wanted = ridge(X, Y[:, 0], 0.5, sample_weight=weights, tol=1e-10).coef
    assert error(X, weights, 0.5, answer.w[:, 0], wanted) <= 1.01 * (answer.error_bound[0] + 1e-10)
    with pytest.raises(NotImplementedError, match="RowBlocks cannot be transposed"):
        _ = problem.design.T


def test_cg_takes_one_pass_a_step_and_no_vector_of_the_rows(monkeypatch):
    _, _, _, problem = case([0.5])
    monkeypatch.setattr(Rows, "__getitem__", None)
    _ = problem.design.sq_norms, problem.rhs, problem.sq_target
    before = problem.design.n_passes
    answer, _, _ = planner.run(problem, planner.plan(problem, "cg"), Settings(1e-6, None))
    monkeypatch.setattr(type(problem.design), "matvec", None)
    checks = 2  # at the end, and of the leg that proves it where the first does not
    assert answer.n_iter[0] < problem.design.n_passes - before <= answer.n_iter[0] + checks


def test_what_needs_columns_refuses(monkeypatch):
    _, _, _, problem = case([0.5])
    with pytest.raises(NotImplementedError, match="RowBlocks has no columns to sweep"):
        problem.design.columns()
    monkeypatch.setattr(descent, "MAX_GRAM", 0)
    assert descent.by_gram(problem)
    assert bounded.by_gram(problem)
