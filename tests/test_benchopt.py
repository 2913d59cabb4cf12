"""The solver file for benchopt's ridge benchmark: driven as benchopt does, by its base class where that is installed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.sparse as sp

import fastridge

FILE = Path(__file__).parents[1] / "bench" / "benchopt" / "solver.py"
TOLS = [3e38, 1.0, *(1.5**-k for k in range(1, 86, 6)), 1e-15, 0.0]
"""What benchopt hands to `run` one after the other, and 0."""


class Stub:
    """What the base class does: parameters become attributes"""

    def __init__(self, **parameters):
        for name, values in self.parameters.items():
            setattr(self, name, parameters.get(name, values[0]))


@pytest.fixture(params=["stub", "benchopt"])
def solver(request, monkeypatch):
    """The class in the file"""
    if request.param == "stub":
        module = ModuleType("benchopt")
        module.BaseSolver = Stub
        monkeypatch.setitem(sys.modules, "benchopt", module)
    else:
        pytest.importorskip("benchopt")
    spec = importlib.util.spec_from_file_location("a_solver_of_benchopt", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if request.param == "benchopt":
        return lambda **parameters: module.Solver.get_instance(**parameters)
    return module.Solver


def data(shape, sparse):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) * np.logspace(0, 1, shape[1])
    if sparse:
        X = sp.random(*shape, density=0.2, format="csc", random_state=rng)
    return X, np.asarray(X @ rng.standard_normal(shape[1])) + rng.standard_normal(shape[0]) + 3


@pytest.mark.parametrize("shape", [(200, 20), (30, 90)])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("name", ["auto", "cg"])
def test_a_curve_falls_to_the_minimum(solver, shape, sparse, fit_intercept, name):
    X, y = data(shape, sparse)
    lmbd = 0.1
    dense = X.toarray() if sparse else X
    A, b = (dense - dense.mean(axis=0), y - y.mean()) if fit_intercept else (dense, y)

    def objective(beta):
        assert np.isfinite(beta).all()
        assert beta.shape == (shape[1] + fit_intercept,)
        w, c = (beta[:-1], beta[-1]) if fit_intercept else (beta, 0.0)
        return 0.5 * np.sum((y - dense @ w - c) ** 2) + 0.5 * lmbd * w @ w

    H = A.T @ A + lmbd * np.eye(shape[1])
    exact = np.linalg.solve(H, A.T @ b)
    best = objective(np.append(exact, y.mean() - dense.mean(axis=0) @ exact) if fit_intercept else exact)
    one = solver(solver=name)
    one.set_objective(X=X, y=y, lmbd=lmbd, fit_intercept=fit_intercept)
    one.warm_up()
    for tol in TOLS:
        one.run(tol)
        above = objective(one.get_result()["beta"]) - best
        assert above <= 0.5 * min(tol, 1.0) ** 2 * exact @ H @ exact * (1 + 1e-9) + 1e-12 * best


@pytest.mark.parametrize("shape", [(200, 20), (30, 90)])
@pytest.mark.parametrize("name", ["cg", "cd", "cholesky", "svd"])
@pytest.mark.parametrize("max_iter", [1, 7, 500])
def test_steps_beyond_the_exact_answer_spoil_nothing(shape, name, max_iter):
    """Where tol is out of reach the number of steps ends a fit, or rounding does"""
    X, y = data(shape, sparse=False)
    for target in (y, np.zeros_like(y), X[:, 0]):
        solution = fastridge.ridge(X, target, 0.1, solver=name, tol=1e-300, max_iter=max_iter)
        assert np.isfinite(solution.coef).all()
        assert np.isfinite(solution.intercept)
        assert solution.report.error_bound >= 0
        if max_iter == 500:
            assert solution.report.error_bound < 1e-9
