"""Coordinate descent without bounds: how many sweeps it makes, and what it says where there is no penalty."""

import numpy as np
import pytest
from helpers import make_weights, make_X, make_y
from truth import Exact

from fastridge import Status, ridge
from fastridge._kernels import descent as kernel
from fastridge.operators.dense import DenseLines
from fastridge.solvers import descent

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@pytest.fixture(params=["gram", "lines"])
def sweeps(request, monkeypatch):
    """Count the sweeps over either"""
    calls = []
    name, module = ("sweep_gram", kernel) if request.param == "gram" else ("sweep", DenseLines)
    if request.param == "lines":
        monkeypatch.setattr(descent, "MAX_GRAM", 0)
    whole = getattr(module, name)

    def counted(*given, **named):
        calls.append(name)
        return whole(*given, **named)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
@pytest.mark.parametrize("max_iter", [1, 2, 3, 4, 7])
def test_max_iter_is_the_number_of_sweeps(max_iter, shape, sweeps):
    X = make_X(*shape, seed=230)
    y = make_y(X, 231)
    report = ridge(X, y, 1e-3, solver="cd", tol=1e-14, max_iter=max_iter).report
    assert len(sweeps) == report.n_iter[0] == max_iter
    assert report.status is Status.MAX_ITER
    assert report.error_bound >= report.error > 1e-14


def test_one_sweep_is_a_step_towards_the_answer(sweeps):
    X = make_X(30, 8, seed=232)
    y = make_y(X, 233)
    exact, errors = Exact(X, y, 1.0), []
    for max_iter in (1, 2, 3, 4, 6, 9):
        errors.append(exact.error(ridge(X, y, 1.0, solver="cd", tol=1e-14, max_iter=max_iter).coef)[0])
    assert errors[0] < 1
    assert (np.diff(errors) < 0).all()


def test_the_error_is_proven_where_the_gap_is_loose():
    rng = np.random.default_rng(234)
    X = rng.standard_normal((60, 12)) * 10 ** rng.uniform(-2, 2, 12)
    y = X @ rng.standard_normal(12) + rng.standard_normal(60)
    solution = ridge(X, y, 1e-9, solver="cd", tol=1e-7)
    assert solution.report.converged
    assert Exact(X, y, 1e-9).error(solution.coef)[0] <= solution.report.error_bound <= 1e-7


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
def test_without_a_penalty_the_answer_is_of_minimum_norm_or_said_not_to_be(intercept, weights, sweeps):
    tall, wide = make_X(60, 7, seed=235)[:, [0, 1, 2, 4, 5, 6]], np.random.default_rng(236).standard_normal((9, 30))
    twins, powers = np.hstack([tall, tall]), np.vander(np.linspace(-9, -3, 82), 11)[:, :10]
    for X in (tall, wide, twins, powers):
        s = make_weights(len(X), 237) if weights else np.ones(len(X))
        y = make_y(X, 238)
        solution = ridge(X, y, 0.0, solver="cd", sample_weight=s, fit_intercept=intercept)
        assert solution.report.status in (Status.UNCERTIFIED, Status.FAILED)
        x_mean, y_mean = (s @ X / s.sum(), s @ y / s.sum()) if intercept else (0.0, 0.0)
        root = np.sqrt(s)
        best = np.linalg.lstsq(root[:, None] * (X - x_mean), root * (y - y_mean), rcond=None)[0]
        if X is wide or (X is tall and descent.MAX_GRAM > 0):
            assert solution.report.error <= 1e-6
        if X is twins or X is powers:
            assert solution.report.error == np.inf
        if solution.report.error < np.inf:
            np.testing.assert_allclose(solution.coef, best, rtol=1e-4, atol=1e-5 * np.abs(best).max())
