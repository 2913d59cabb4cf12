"""Every solver on every storage, shape and setting: the answer is within tol and within what the solver claims.

The settings are dealt out over the storages and shapes. Each solver sees a quarter of them, in which every pair of values meets.
"""

import random
from functools import cache
from itertools import combinations, cycle, product

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X, make_y
from truth import Exact

from fastridge import Ridge, Status, ridge

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SOLVERS = ("cholesky", "svd", "cg", "cd", "auto")
SHAPES = {"tall": (60, 7), "square": (20, 20), "wide": (12, 40), "n=1": (1, 6), "p=1": (30, 1)}
DTYPES = ("float64", "float32")
INTERCEPTS = (True, False)
WEIGHTS = ("no weights", "weights", "weights with zeros")
ALPHAS = (1e-6, 1.0, 1e6, "per target")
TARGETS = ("1-D", "1 column", "3 columns")
TOLS = (1e-4, 1e-6, 1e-9)
CUTS = ("whole", "small pieces")

PLACES = tuple(product(STORAGES, SHAPES))
SETTINGS = tuple(product(DTYPES, INTERCEPTS, WEIGHTS, ALPHAS, TARGETS, TOLS, CUTS))


def deal():
    """Yield (solver, storage, shape, *settings)"""
    for solver in SOLVERS:
        settings = list(SETTINGS)
        random.Random(solver).shuffle(settings)
        met, quarter, rest = set(), [], []
        # Rows that show a pair of values for the first time come first, so that a quarter of all rows holds every pair.
        for place, setting in zip(cycle(PLACES), settings, strict=False):
            row = (*place, *setting)
            pairs = set(combinations(enumerate(row), 2))
            (rest if pairs <= met else quarter).append(row)
            met |= pairs
        for row in (quarter + rest)[: len(SETTINGS) // 4]:
            yield solver, *row


@cache
def case(shape, dtype, intercept, weights, alpha, targets):
    """Return X (dense), y, sample_weight, alpha as it is passed, and the exact solution"""
    n, p = SHAPES[shape]
    X = make_X(n, p, seed=n + 100 * p, dtype=dtype)
    k = {"1-D": 0, "1 column": 1, "3 columns": 3}[targets]
    y = make_y(X, seed=3, n_targets=k)
    s = None if weights == "no weights" else make_weights(n, seed=5, zeros=weights == "weights with zeros")
    if alpha == "per target":
        alpha = np.array([1e-3, 1.0, 1e3])[: max(1, k)]
    return X, y, s, alpha, Exact(X, y, alpha, s, intercept)


def may_stall(solver, shape, weights, alpha, tol):
    """Whether rounding may honestly keep a solver from tol: sweeps over a singular Gram matrix with next to no penalty"""
    return (solver, shape, weights, alpha, tol) == ("cd", "square", "weights with zeros", 1e-6, 1e-9)


def check(solution, exact, tol, targets, may_stall=False):
    """Judge an answer from outside, and what the report claims about it"""
    report, error, slack = solution.report, exact.error(solution.coef).max(), exact.rounding.max()
    if may_stall and report.status is Status.STALLED:
        assert tol < report.error < 1e-6
    else:
        assert report.status is Status.CONVERGED
        assert report.error <= tol
        assert error <= tol + slack
    assert error <= report.error_bound + slack
    assert error <= 3 * report.error + slack
    k, p = exact.coef.shape
    assert solution.coef.shape == ((p,) if targets == "1-D" else (k, p))
    assert np.shape(solution.intercept) == (() if targets == "1-D" else (k,))
    assert report.n_iter.shape == (k,)
    scale = np.abs(exact.y_mean) + np.abs(np.atleast_2d(solution.coef)) @ np.abs(exact.x_mean)
    assert (np.abs(solution.intercept - exact.best_intercept(solution.coef)) <= 1e-14 * scale).all()


@pytest.mark.parametrize(
    ("solver", "storage", "shape", "dtype", "intercept", "weights", "alpha", "targets", "tol", "cut"), list(deal())
)
def test_grid(solver, storage, shape, dtype, intercept, weights, alpha, targets, tol, cut, request):
    if cut == "small pieces":
        request.getfixturevalue("small_pieces")
    X, y, s, penalty, exact = case(shape, dtype, intercept, weights, alpha, targets)
    solution = ridge(
        STORAGES[storage](X), y, penalty, sample_weight=s, fit_intercept=intercept, solver=solver, tol=tol, n_threads=2
    )
    if solver != "auto":
        assert solution.report.solver == solver
    check(solution, exact, tol, targets, may_stall(solver, shape, weights, alpha, tol))


@pytest.mark.parametrize("intercept", INTERCEPTS)
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array int64"])
@pytest.mark.parametrize(("n", "p"), [(40_000, 40), (40, 40_000), (2500, 300)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_sizes_that_run_in_lanes_and_blocks(solver, n, p, storage, intercept):
    X, y, s, exact = large_case(n, p, intercept)
    solution = ridge(STORAGES[storage](X), y, 2.0, sample_weight=s, fit_intercept=intercept, solver=solver, n_threads=2)
    check(solution, exact, 1e-6, "1-D")


@cache
def large_case(n, p, intercept):
    X = make_X(n, p, seed=17, share=0.3, dtype=np.float32)
    y, s = make_y(X, seed=18), make_weights(n, seed=19)
    return X, y, s, Exact(X, y, 2.0, s, intercept)


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [
        *product(("C", "both apart"), ("int8", "int64", "uint16", "bool", "float16", ">f8", "longdouble")),
        *product(("csr_array", "coo_matrix"), ("int8", "int64", "uint16", "bool")),
    ],
)
@pytest.mark.parametrize("solver", SOLVERS)
def test_other_numbers_become_float64(solver, storage, dtype):
    rng = np.random.default_rng(2)
    X = rng.integers(0, 5, (50, 6)).astype(dtype)
    y = rng.integers(0, 100, 50)
    check(ridge(STORAGES[storage](X), y, 0.5, solver=solver), Exact(X, y, 0.5), 1e-6, "1-D")


def packed(X):
    """A field of a record array: its rows lie an odd number of bytes apart"""
    records = np.zeros(len(X), dtype=[("name", "S3"), ("x", X.dtype, X.shape[1])])
    records["x"] = X
    return records["x"]


def unaligned(X):
    data = np.zeros(X.nbytes + 1, dtype=np.uint8)[1:].view(X.dtype).reshape(X.shape)
    data[:] = X
    return data


def mixed_indices(X):
    matrix = sp.csr_array(X)
    matrix.indptr = matrix.indptr.astype(np.int64)
    return matrix


VIEWS = {
    "packed": packed,
    "unaligned": unaligned,
    "windows": lambda X: np.lib.stride_tricks.sliding_window_view(X[:, 0], 5),
    "one row": lambda X: np.broadcast_to(X[0], X.shape),
    "one column": lambda X: np.broadcast_to(X[:, :1], X.shape),
    "masked": np.ma.array,
    "nested lists": lambda X: X.tolist(),
    "mixed index types": mixed_indices,
    "bsr_array": lambda X: sp.bsr_array(X, blocksize=(2, 2)),
    "lil_array": sp.lil_array,
    "dia_array": sp.dia_array,
    "dok_matrix": sp.dok_matrix,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_unusual_views(solver, view, dtype):
    X = VIEWS[view](make_X(40, 6, seed=31, dtype=dtype))
    dense = X.toarray() if sp.issparse(X) else np.array(X)
    y = np.random.default_rng(32).standard_normal(len(dense))
    exact = Exact(dense, y, 0.5)
    check(ridge(X, y, 0.5, solver=solver), exact, 1e-6, "1-D")
    assert exact.error(Ridge(0.5, solver=solver).fit(X, y).coef_) <= 2e-6


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int16", "bool", ">f8"])
def test_targets_and_weights_in_any_layout(dtype):
    X = make_X(40, 6, seed=33)
    large = np.random.default_rng(34).integers(0, 2, (80, 6)).astype(dtype)
    for Y in (large[::2, ::2], np.asfortranarray(large[:40, :3]), large[40:0:-1, :3]):
        for weights in (large[::2, 5], large[:40, 5].tolist(), large[::-2, 5]):
            exact = Exact(X, Y, 0.5, np.asarray(weights))
            check(ridge(X, Y, 0.5, sample_weight=weights), exact, 1e-6, "3 columns")


def test_the_grid_shows_each_solver_every_pair_of_values():
    values = (STORAGES, SHAPES, DTYPES, INTERCEPTS, WEIGHTS, ALPHAS, TARGETS, TOLS, CUTS)
    for solver in SOLVERS:
        rows = [row[1:] for row in deal() if row[0] == solver]
        assert len(set(rows)) == len(SETTINGS) // 4
        for i, j in combinations(range(len(values)), 2):
            assert {(row[i], row[j]) for row in rows} == set(product(values[i], values[j]))
