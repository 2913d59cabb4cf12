"""What conjugate gradients say of errors beside their own bound: a measurement, and the drift of their recurrences."""

import numpy as np
import pytest
from truth import fractions

from fastridge.formulation import make_problem
from fastridge.krylov.iteration import conjugate_gradient
from fastridge.krylov.proof import measure, recurrence_drift
from fastridge.monitor import Monitor
from fastridge.preconditioners import Identity

pytestmark = pytest.mark.usefixtures("one_blas_thread")


def tall_problem(alpha, decades):
    """X (90, 30), its column scales over some decades, and the problem without an intercept"""
    rng = np.random.default_rng(131)
    X = rng.standard_normal((90, 30)) * 10.0 ** np.linspace(0, decades, 30)
    y = X @ rng.standard_normal(30) + rng.standard_normal(90)
    return X, y, make_problem(X, y, np.full(1, alpha), None, False, 1)


@pytest.mark.parametrize("max_iter", [1, 2, 4, 8, 200])
def test_a_measurement_is_no_less_than_the_error_nor_much_more(max_iter):
    X, y, problem = tall_problem(0.1, 1)
    H = X.T @ X + 0.1 * np.eye(30)
    best = np.linalg.solve(H, X.T @ y)[:, None]
    off = 1e-3 * np.random.default_rng(132).standard_normal(best.shape)
    error = np.sqrt(np.vdot(off, H @ off) / np.vdot(best, H @ best))
    found = measure(problem, problem.check(best + off), max_iter, Monitor())[0]
    assert error * (1 - 1e-6) <= found
    if max_iter == 200:
        assert found <= 1.2 * error


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("max_iter", [1, 5, 20, 100])
def test_recurrences_are_no_farther_from_the_true_residual_than_is_said(alpha, max_iter):
    """In fractions: b - M x of the iterate that a run from zero ends with, against the residual it has carried along"""
    X, _, problem = tall_problem(alpha, 2)
    b = problem.rhs
    run = conjugate_gradient(
        problem, np.zeros_like(b), b.copy(), Identity.of(problem), None, 1e-30, max_iter, lambda error, bound: True
    )
    A, x, exact_alpha = fractions(X), fractions(run.x[:, 0]), fractions(alpha)
    residual = fractions(b[:, 0]) - A.T @ (A @ x) - exact_alpha * x
    between = (residual - fractions(run.residual[:, 0])).astype(np.float64)
    H = X.T @ X + alpha * np.eye(30)
    drift = np.sqrt(between @ np.linalg.solve(H, between))
    assert 0 < drift <= recurrence_drift(problem, run)[0]
