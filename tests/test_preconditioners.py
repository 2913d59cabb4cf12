"""Approximate factors: close to M^-1, found out where they are not, and never at the cost of the accuracy that is claimed."""

import numpy as np
import pytest
import scipy.sparse as sp

from fastridge import explain, ridge
from fastridge.formulation import make_problem
from fastridge.monitor import Monitor
from fastridge.planning import planner
from fastridge.planning.costs import Step
from fastridge.preconditioners import DiagonalPlusLowRank, Factor, Jacobi
from fastridge.solution import Settings
from fastridge.solvers import cg


def make(n, p, seed, *, kind="plain", dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + rng.standard_normal((n, 1)) * rng.standard_normal(p)
    if kind == "heavy rows":
        X *= rng.standard_t(2.5, size=(n, 1))
    if kind == "scales":
        X *= 10.0 ** rng.uniform(-6, 6, p)
    if kind == "far from zero":
        X += 1e6
    y = X @ (rng.standard_normal(p) / X.std(axis=0)) + rng.standard_normal(n)
    return X.astype(dtype), y


def solve_exactly(X, y, alpha):
    A = np.asarray(X, dtype=np.float64) - np.mean(X, axis=0, dtype=np.float64)
    u, s, vt = np.linalg.svd(A, full_matrices=False)
    return A, vt.T @ (s / (s**2 + alpha) * (u.T @ (y - y.mean())))


def h_norm(A, alpha, d):
    return np.sqrt(((A @ d) ** 2).sum() + alpha * (d**2).sum())


@pytest.mark.parametrize("tol", [1e-4, 1e-9])
@pytest.mark.parametrize("kind", ["plain", "heavy rows", "scales", "far from zero"])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("fold", [1, 5])
def test_conjugate_gradients_with_a_factor(fold, layout, kind, tol):
    X, y = make(1500, 40, 1, kind=kind)
    problem = make_problem(layout(X), y, np.array([2.0]), None, True, 2)
    answer = cg.solve(problem, Settings(tol, 60, fold))
    A, w = solve_exactly(X, y, 2.0)
    error = h_norm(A, 2.0, answer.w[:, 0] - w) / h_norm(A, 2.0, w)
    assert error <= tol
    assert error <= answer.error_bound[0] + 1e-13
    assert answer.n_iter[0] <= (8 if fold == 1 else 40)


@pytest.mark.parametrize("shape", [(3000, 30), (30, 3000)])
def test_sums_of_rows_are_close_to_the_matrix_they_stand_for(shape):
    X, y = make(*shape, 2)
    problem = make_problem(X, y, np.array([1.0]), None, True, 2)
    factor = Factor.of_gram(problem, 10)
    B = X - X.mean(axis=0) if shape[0] > shape[1] else (X - X.mean(axis=0)).T
    M = B.T @ B + np.eye(B.shape[1])
    spectrum = np.linalg.eigvals(factor.apply(M)).real
    assert spectrum.min() > 0.3
    assert spectrum.max() < 3


def test_sums_of_rows_are_the_same_for_any_number_of_threads():
    X, y = make(4000, 300, 3)
    answers = []
    for n_threads in (1, 3):
        problem = make_problem(X, y, np.array([1.0]), None, True, n_threads)
        answers.append(cg.solve(problem, Settings(1e-6, None, 4)).w)
    np.testing.assert_array_equal(*answers)


def test_auto_takes_a_factor_where_it_is_estimated_to_pay():
    X, y = make(60_000, 320, 4, dtype=np.float32)
    plan = explain(X, y)
    assert plan.steps[0].fold
    assert plan.steps[1:] == (Step("cholesky"), Step("svd"))
    assert "float32 factor" in str(plan)
    solution = ridge(X, y)
    A, w = solve_exactly(X, y, 1.0)
    assert h_norm(A, 1.0, solution.coef - w) <= 1e-6 * h_norm(A, 1.0, w)
    assert solution.report.solver == "cg"


def test_a_factor_that_fails_gives_way_to_a_direct_solve():
    X, y = make(500, 20, 5)
    X[:, 10:] = X[:, :10]  # singular in float32 but for a penalty that it does not see
    problem = make_problem(X, y, np.array([1e-9]), None, True, 1)
    plan = planner.Plan((Step("cg", 1, 60), Step("cholesky"), Step("svd")), "a test", (), X.shape, 1)
    answer, _, reason = planner.run(problem, plan, Settings(1e-8, None))
    A, w = solve_exactly(X, y, 1e-9)
    assert h_norm(A, 1e-9, answer.w[:, 0] - w) <= 1e-8 * h_norm(A, 1e-9, w)
    assert "cg (float32 factor)" in reason


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(2000, 300), (300, 2000)])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_shared_factors_are_taken_out(alpha, shape, weighted):
    rng = np.random.default_rng(5)
    X = rng.standard_normal(shape) + 3 * rng.standard_normal((shape[0], 12)) @ rng.standard_normal((12, shape[1]))
    X *= 10.0 ** rng.uniform(-3, 3, shape[1])
    weights = rng.uniform(0.5, 2, shape[0]) if weighted else None
    problem = make_problem(X, rng.standard_normal(shape[0]), np.array([alpha]), weights, True, 2)
    preconditioner = DiagonalPlusLowRank.of(problem)
    c = problem.side.shape[1]
    M = problem.side.full_gram() + alpha * np.eye(c)
    before = np.linalg.eigvals(Jacobi.of(problem).apply(M)).real
    if problem.wide:
        # The direction of the weights' roots, which centring leaves nothing in.
        np.testing.assert_allclose(M @ problem.design.left_null, alpha * problem.design.left_null, atol=1e-12 * M.max())
        assert np.abs(problem.target.T @ problem.design.left_null).max() < 1e-12 * np.abs(problem.target).max() * c
    after = np.sort(np.linalg.eigvals(preconditioner.apply(M)).real)
    assert preconditioner.smallest[0] <= after[0] * (1 + 1e-6)
    first = int(problem.wide)
    assert after[-1] / after[first] < 0.1 * before.max() / np.sort(before)[first]


def test_nothing_is_taken_out_where_nothing_stands_out():
    rng = np.random.default_rng(6)
    problem = make_problem(rng.standard_normal((3000, 250)), rng.standard_normal(3000), np.array([1.0]), None, True, 1)
    assert DiagonalPlusLowRank.of(problem) is None


@pytest.mark.parametrize("rank", [1, 5, 40])
@pytest.mark.parametrize("alpha", [1e-6, 1.0])
@pytest.mark.parametrize("shape", [(900, 260), (260, 900)])
def test_matrices_of_low_rank(shape, alpha, rank):
    rng = np.random.default_rng(7)
    X = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    y = rng.standard_normal(shape[0])
    problem = make_problem(X, y, np.array([alpha]), None, True, 2)
    answer = cg.solve(problem, Settings(1e-6, None))
    A, w = solve_exactly(X, y, alpha)
    error = h_norm(A, alpha, answer.w[:, 0] - w) / h_norm(A, alpha, w)
    # The residual of the wide one is y / alpha nearly, whose rounding no answer is free of: then that is what is said.
    assert error <= max(1e-6, 1.01 * answer.error[0] * answer.stalled)
    assert error <= answer.error_bound[0] + 1e-13


@pytest.mark.parametrize("tol", [1e-4, 1e-9])
@pytest.mark.parametrize("kind", ["plain", "heavy rows", "scales", "far from zero"])
@pytest.mark.parametrize("shape", [(1500, 260), (260, 1500)])
def test_conjugate_gradients_with_factors_taken_out(shape, kind, tol):
    X, y = make(*shape, 8, kind=kind)
    problem = make_problem(X, y, np.array([2.0]), None, True, 2)
    answer = cg.solve(problem, Settings(tol, None))
    A, w = solve_exactly(X, y, 2.0)
    error = h_norm(A, 2.0, answer.w[:, 0] - w) / h_norm(A, 2.0, w)
    assert error <= tol
    assert error <= answer.error_bound[0] + 1e-13


def test_conjugate_gradients_that_are_too_slow_give_way_early(monkeypatch):
    rng = np.random.default_rng(9)
    X = rng.standard_normal((1200, 1200))
    y = rng.standard_normal(1200)
    problem = make_problem(X, y, np.array([1e-3]), None, True, 2)
    slow = planner.Plan((Step("cg", max_iter=100), Step("cholesky")), "told to", (), X.shape, 2)
    steps = []
    answer, ran, reason = planner.run(problem, slow, Settings(1e-6, None, monitor=Monitor(callback=steps.append)))
    assert ran == "cholesky"
    assert answer.error[0] <= 1e-6
    assert 20 <= sum(step.solver == "cg" for step in steps) < 100
    assert "would take" in reason
    # A limit that the user sets is meant so.
    assert planner.run(problem, slow, Settings(1e-6, 60))[0].n_iter[0] <= 60


@pytest.mark.parametrize("max_iter", [1, 2])
@pytest.mark.parametrize("alpha", [1e-2, 1.0])
@pytest.mark.parametrize("shape", [(300, 40), (40, 300)])
def test_an_answer_cut_short_is_the_one_that_is_described(shape, alpha, max_iter):
    rng = np.random.default_rng(10)
    X = rng.standard_normal((shape[0], 8)) @ rng.standard_normal((8, shape[1])) + 2e-3 * rng.standard_normal(shape)
    y = rng.standard_normal(shape[0])
    problem = make_problem(X, y, np.array([alpha]), None, True, 2)
    answer = cg.solve(problem, Settings(1e-12, max_iter, 1))
    A, w = solve_exactly(X, y, alpha)
    error = h_norm(A, alpha, answer.w[:, 0] - w) / h_norm(A, alpha, w)
    assert answer.n_iter[0] <= max_iter
    assert 1e-12 < error <= answer.error_bound[0] * (1 + 1e-6)


def word_counts(n, p, *, decades=0):
    """Counts of words of texts of very different lengths (n, p), rows scaled by up to `decades` powers of ten either way"""
    rng = np.random.default_rng(11)
    share = 1 / np.arange(1, p + 1)
    texts = [rng.choice(p, max(3, int(length)), p=share / share.sum()) for length in rng.lognormal(3.5, 1.2, n)]
    X = np.vstack([np.bincount(text, minlength=p) for text in texts]) * 10.0 ** rng.uniform(-decades, decades, (n, 1))
    return X, rng.standard_normal((n, 3))


@pytest.mark.parametrize("layout", [sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_answers_are_right_when_the_preconditioner_changes_on_the_way(monkeypatch, n_targets, transposed, layout):
    monkeypatch.setattr(cg, "LOOK_SPARSE", (20, 20))
    X, y = word_counts(500, 2000)
    if transposed:
        X = np.ascontiguousarray(X.T)
        y = np.random.default_rng(12).standard_normal((2000, 3))
    y, alpha = y[:, :n_targets], 1e-2
    solution = ridge(layout(X), y, alpha, solver="cg")
    report = solution.report
    assert "taken out" in report.reason
    assert report.converged
    assert (report.n_iter > 20).all()
    assert len(report.history) >= report.n_iter.max()
    for j in range(n_targets):
        A, w = solve_exactly(X, y[:, j], alpha)
        error = h_norm(A, alpha, solution.coef[j] - w) / h_norm(A, alpha, w)
        assert error <= report.error_bound + 1e-9  # of the SVD, whose condition is the root of 1e9


def test_directions_are_taken_out_of_word_counts_and_steps_are_saved(monkeypatch):
    X, y = word_counts(500, 2000)
    report = ridge(sp.csr_array(X), y[:, 0], 1e-2, solver="cg").report
    monkeypatch.setattr(cg, "LOOK_SPARSE", (10**9, 0))
    diagonal = ridge(sp.csr_array(X), y[:, 0], 1e-2, solver="cg").report
    assert report.reason.endswith("taken out")
    assert report.converged
    assert diagonal.converged
    assert report.n_iter[0] < diagonal.n_iter[0]


@pytest.mark.parametrize("n_targets", [1, 3])
def test_conjugate_gradients_return_to_the_diagonal_where_that_was_faster(monkeypatch, n_targets):
    class Bad(Jacobi):
        @classmethod
        def of(cls, problem):
            inverse = 10.0 ** np.random.default_rng(13).uniform(-4, 4, (len(problem.rhs), 1))
            return cls(inverse, problem.penalty)

    monkeypatch.setattr(cg, "DiagonalPlusLowRank", Bad)
    X, y = word_counts(500, 2000)
    report = ridge(sp.csr_array(X), y[:, :n_targets], 1e-2, solver="cg").report
    assert report.reason.endswith("back to the diagonal")
    assert report.converged


def test_a_limit_on_steps_holds_across_preconditioners():
    X, y = word_counts(500, 2000)
    for max_iter in (256, 257, 300):
        report = ridge(sp.csr_array(X), y, 1e-3, solver="cg", max_iter=max_iter).report
        assert not report.converged
        assert report.n_iter.max() <= max_iter
        assert report.error > 1e-6


def test_a_target_that_is_done_is_left_alone_by_what_comes_after():
    X, y = word_counts(500, 2000)
    both = np.column_stack([np.zeros(500), y[:, 0]])
    solution = ridge(sp.csr_array(X), both, 1e-2, solver="cg")
    assert solution.report.n_iter[0] < 256 < solution.report.n_iter[1]
    assert not solution.coef[0].any()
    assert solution.report.converged


@pytest.mark.parametrize("alpha", [1e-3, 1.0])
@pytest.mark.parametrize("shape", [(400, 260), (260, 400)])
def test_low_rank_over_the_root_of_the_diagonal_bounds_the_spectrum(shape, alpha):
    X = word_counts(*shape)[0]
    problem = make_problem(sp.csr_array(X), np.ones(shape[0]) + np.arange(shape[0]), np.array([alpha]), None, True, 2)
    preconditioner = DiagonalPlusLowRank.of(problem)
    M = problem.side.full_gram() + alpha * np.eye(len(problem.rhs))
    spectrum = np.linalg.eigvals(preconditioner.apply(M)).real
    assert 0 < preconditioner.smallest[0] <= spectrum.min() * (1 + 1e-6)
