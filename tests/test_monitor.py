"""The monitor: time limits, callbacks, progress, patience; no test looks at a real clock."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import STORAGES, make_weights, make_X, make_y, reference, stacked
from sklearn.exceptions import ConvergenceWarning
from truth import Exact

from fastridge import Progress, Ridge, RidgeClassifier, Status, factor, parallel, ridge, ridge_path, scan
from fastridge.formulation import make_problem
from fastridge.monitor import Monitor
from fastridge.planning import planner
from fastridge.planning.costs import Step
from fastridge.planning.planner import Plan
from fastridge.solution import Settings

SOLVERS = ("auto", "cholesky", "svd", "cg", "cd")
ROOM = 1 + 1e-6
"""For the rounding of a comparison."""


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock takes a second; the first is at 0, so that `time_limit` is the number of looks"""
    ticks = itertools.count()
    monkeypatch.setattr(Monitor, "clock", staticmethod(lambda: float(next(ticks))))


def hard(shape, seed=0):
    """Data on which solvers take some tens of steps"""
    X = make_X(*shape, seed=400 + seed)
    return X, make_y(X, 500 + seed)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("storage", ["C", "csr_array"])
@pytest.mark.parametrize("shape", [(150, 40), (40, 150)], ids=["tall", "wide"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_out_of_time_returns_what_it_has_with_a_bound_that_is_true(solver, shape, storage):
    X, y = hard(shape)
    weights, alpha, tol = make_weights(shape[0], 7), 1e-2, 1e-12
    exact = Exact(X, y, alpha, weights)
    statuses = []
    for limit in (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50, 10_000):
        solution = ridge(STORAGES[storage](X), y, alpha, sample_weight=weights, solver=solver, tol=tol, time_limit=limit)
        report = solution.report
        error = exact.error(solution.coef)[0]
        assert error <= report.error_bound * ROOM + exact.rounding[0]
        assert report.converged == (report.error_bound <= tol)
        assert ("the time limit came first" in report.reason) or report.status is not Status.TIME_LIMIT
        statuses.append((report.status, bool(solution.coef.any())))
    assert statuses[0] == (Status.TIME_LIMIT, False)
    assert statuses[-1][0] is not Status.TIME_LIMIT
    if solver in ("cg", "cd"):
        assert (Status.TIME_LIMIT, True) in statuses


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("alpha", [0.0, [1e-2, 1.0, 10.0]], ids=["least squares", "three penalties"])
@pytest.mark.parametrize("shape", [(150, 40), (40, 150)], ids=["tall", "wide"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_bounds_are_true_for_several_targets_and_without_a_penalty(solver, shape, alpha):
    X = make_X(*shape, seed=431, share=1)
    Y = make_y(X, 432, 3 if np.ndim(alpha) else 1)
    forms = [stacked(X, Y[:, i], penalty) for i, penalty in enumerate(np.ravel(alpha))]
    best = [np.linalg.lstsq(*form)[0] for form in forms]
    for limit in (1, 2, 3, 5, 8, 13, 21, 34):
        solution = ridge(X, Y, alpha, solver=solver, tol=1e-12, time_limit=limit)
        for (K, _), w, coef in zip(forms, best, solution.coef, strict=True):
            off, size = np.linalg.norm(K @ (coef - w)), np.linalg.norm(K @ w)
            assert off <= (solution.report.error_bound * ROOM + 1e-11) * size
        if limit == 1:
            assert solution.report.status is Status.TIME_LIMIT
            assert solution.report.error_bound == 1


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("bounds", [(0, np.inf), (0.05, 0.5)], ids=["zero within", "zero outside"])
@pytest.mark.parametrize("shape", [(120, 40), (30, 120)], ids=["tall", "wide"])
def test_with_bounds_the_answer_stays_within_and_its_bound_is_true(shape, bounds):
    rng = np.random.default_rng(433)
    X = rng.standard_normal(shape)
    y = X @ rng.standard_normal(shape[1]) + rng.standard_normal(shape[0])
    K, t = stacked(X, y, 0.1)
    lower, upper = (np.full(shape[1], float(bound)) for bound in bounds)
    best = reference(K, t, lower, upper)
    size = np.linalg.norm(K @ best)
    statuses = set()
    for limit in (1, 2, 3, 4, 6, 8, 12, 20, 40, 10_000):
        solution = ridge(X, y, 0.1, bounds=bounds, tol=1e-10, time_limit=limit)
        assert ((solution.coef >= lower) & (solution.coef <= upper)).all()
        assert np.linalg.norm(K @ (solution.coef - best)) <= (solution.report.error_bound * ROOM + 1e-9) * size
        assert limit > 1 or bounds[0] or solution.report.error_bound == 1
        statuses.add(solution.report.status)
    assert statuses == {Status.TIME_LIMIT, Status.CONVERGED}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((150, 40), {}),
        ((150, 40), {"solver": "cg"}),
        ((40, 150), {"solver": "cg"}),
        ((150, 40), {"solver": "cholesky"}),
        ((150, 40), {"positive": True}),
        ((150, 40), {"bounds": (0.1, 1)}),
    ],
    ids=["eigen", "tall, Krylov", "wide, Krylov", "one by one", "positive", "zero outside"],
)
def test_points_of_a_path_that_were_not_reached_say_so(shape, options):
    X, y = hard(shape, 2)
    alphas = [10.0, 1.0, 0.0, 1e-2] if options.get("solver") == "cholesky" else [10.0, 1.0, 1e-2]
    met = set()
    for limit in (1, 2, 3, 5, 8, 12, 20, 40, 10_000):
        path = ridge_path(X, y, alphas, tol=1e-9, time_limit=limit, **options)
        for alpha, coef, report in zip(path.alphas, path.coefs, path.reports, strict=True):
            K, t = stacked(X, y, alpha)
            lower, upper = options.get("bounds", (0 if "positive" in options else -np.inf, np.inf))
            assert coef.min() >= lower
            assert coef.max() <= upper
            if np.isfinite(lower):
                best = reference(K, t, np.full(shape[1], lower, dtype=float), np.full(shape[1], upper, dtype=float))
            else:
                best = np.linalg.lstsq(K, t)[0]
            size = np.linalg.norm(K @ best)
            assert np.linalg.norm(K @ (coef - best)) <= (report.error_bound * ROOM + 1e-8) * size
            met.add(report.status)
    assert {Status.TIME_LIMIT, Status.CONVERGED} <= met


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("make", [Ridge, RidgeClassifier])
def test_estimators_warn_and_go_on_from_there(make):
    X, y = hard((150, 40), 3)
    if make is RidgeClassifier:
        y = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    model = make(1e-2, solver="cg", tol=1e-10, time_limit=12, warm_start=True)
    with pytest.warns(ConvergenceWarning, match="raise time_limit"):
        model.fit(X, y)
    assert model.report_.status is Status.TIME_LIMIT
    assert model.coef_.any()
    with pytest.warns(ConvergenceWarning, match="raise time_limit"):
        model.set_params(time_limit=1).fit(X, y)
    assert not model.coef_.any()
    assert model.predict(X).shape == y.shape
    assert model.set_params(time_limit=None).fit(X, y).report_.converged


def test_a_limit_that_does_not_strike_changes_no_bit():
    X, y = hard((150, 40), 4)
    for solver in SOLVERS:
        without = ridge(X, y, solver=solver)
        with_limit = ridge(X, y, solver=solver, time_limit=1e9, callback=lambda progress: None)
        assert with_limit.coef.tobytes() == without.coef.tobytes()
        assert with_limit.report.error_bound == without.report.error_bound


@pytest.mark.parametrize("shape", [(150, 40), (40, 150)], ids=["tall", "wide"])
@pytest.mark.parametrize(("solver", "positive"), [*((solver, False) for solver in SOLVERS), ("auto", True), ("cd", True)])
def test_a_callback_is_told_of_every_step(solver, positive, shape):
    X, y = hard(shape, 5)
    told: list[Progress] = []
    solution = ridge(X, y, 1e-2, solver=solver, tol=1e-9, positive=positive, callback=told.append)
    assert solution.report.converged
    steps, seconds = [progress.step for progress in told], [progress.seconds for progress in told]
    assert steps
    assert (np.diff(steps) > 0).all()
    assert steps[-1] >= solution.report.n_iter[0]
    assert (np.diff(seconds) >= 0).all()
    assert {progress.solver for progress in told} <= {solution.report.solver, "cg"}
    assert told[-1].error <= 1e-9 * ROOM
    assert all(progress.error <= progress.error_bound * ROOM for progress in told if solver == "cg")


def test_what_a_callback_is_told_is_true_of_the_iterate():
    X, y = hard((150, 40), 6)
    exact = Exact(X, y, 1.0)
    told: list[Progress] = []
    ridge(X, y, 1.0, solver="cg", tol=1e-9, callback=told.append)
    assert len(told) > 10
    for n_steps in range(1, 11):
        coef = ridge(X, y, 1.0, solver="cg", tol=1e-9, max_iter=n_steps).coef
        assert exact.error(coef)[0] <= told[n_steps - 1].error_bound * ROOM + exact.rounding[0]


class Stop(Exception):
    pass


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_a_callback_raises_passes_through(solver):
    X, y = hard((150, 40), 7)

    def stop(progress):
        raise Stop

    before = ridge(X, y, solver=solver).coef.tobytes()
    with pytest.raises(Stop):
        ridge(X, y, solver=solver, callback=stop)
    with pytest.raises(Stop):
        ridge_path(X, y, 3, solver=solver, callback=stop)
    assert ridge(X, y, solver=solver).coef.tobytes() == before


@pytest.mark.parametrize("make", [Ridge, RidgeClassifier])
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_exception_within_a_fit_leaves_the_estimator_as_it_was(make, error, monkeypatch):
    X, y = hard((150, 40), 8)
    model = make().fit(X, y > y.mean())
    before = dict(vars(model))

    def stop(self, error_now, error_bound, n_steps=1):
        raise error

    monkeypatch.setattr(Monitor, "after_step", stop)
    with pytest.raises(error):
        model.fit(2 * X[:, :30], y > y.mean() + 1)
    assert all(value is before[name] for name, value in vars(model).items())
    assert vars(model).keys() == before.keys()


ERROR = r"(?:not known yet|\d\.\d\de[+-]\d\d)"
LINE = re.compile(
    rf"(?:(.*): )?(cg|cholesky|svd|cd|eigh), step (\d+): error {ERROR}, bound {ERROR}, \d+\.\d\d s(?:, about \d+ s to come)?"
)


@pytest.mark.usefixtures("clock")
def test_verbose_prints_the_plan_and_a_line_a_step_where_steps_take_long(capsys):
    X, y = hard((150, 40), 9)
    told: list[Progress] = []
    ridge(X, y, 1e-2, solver="cg", tol=1e-9, verbose=True, callback=told.append)
    lines = capsys.readouterr().err.splitlines()
    assert "150 samples x 40 features" in lines[0]
    steps = [int(LINE.fullmatch(line)[3]) for line in lines if ", step " in line]
    assert steps == [progress.step for progress in told]
    assert "to reach: an error that is proven to be at most 1e-09" in lines


def test_verbose_prints_the_first_and_the_last_step_where_steps_take_no_time(capsys, monkeypatch):
    monkeypatch.setattr(Monitor, "clock", staticmethod(lambda: 0.0))
    X, y = hard((150, 40), 9)
    told: list[Progress] = []
    ridge(X, y, 1e-2, solver="cg", tol=1e-9, verbose=True, callback=told.append)
    steps = [int(LINE.fullmatch(line)[3]) for line in capsys.readouterr().err.splitlines() if ", step " in line]
    assert steps == [1, told[-1].step]
    ridge_path(X, y, 3, verbose=True)
    lines = capsys.readouterr().err.splitlines()
    assert "eigendecomposition" in lines[1]
    assert LINE.fullmatch(lines[-2])


@pytest.mark.parametrize("solver", ["cholesky", "svd", "cg", "cd"])
def test_verbose_ends_with_the_report(solver, capsys):
    X, y = hard((150, 40), 9)
    report = ridge(X, y, 1.0, solver=solver, verbose=True).report
    said = capsys.readouterr().err
    assert said.endswith(f"{report}\n")
    assert LINE.fullmatch(said.removesuffix(f"{report}\n").splitlines()[-1])


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"positive": True}, ["alpha 100", "alpha 10", "alpha 1"]),
        ({"solver": "cholesky"}, ["3 alphas from 100 to 1"]),
        ({"solver": "cg"}, ["3 alphas from 100 to 1"]),
        ({}, ["3 alphas from 100 to 1"]),
    ],
)
def test_verbose_says_which_alphas_of_a_path_a_line_is_about(options, named, capsys):
    X, y = hard((150, 40), 9)
    path = ridge_path(X, y, [100.0, 10.0, 1.0], verbose=True, **options)
    lines = capsys.readouterr().err.splitlines()
    assert list(dict.fromkeys(found[1] for line in lines if (found := LINE.fullmatch(line)))) == named
    assert lines[0] == "3 alphas from 100 to 1, to reach: errors proven to be at most 1e-06"
    assert lines[-1] == str(path)
    ridge_path(X, np.column_stack([y, -y]), [100.0, 10.0], positive=True, verbose=True)
    assert "alpha 10, target 1: cd, step " in capsys.readouterr().err


def test_conjugate_gradients_that_give_way_to_others_leave_them_their_iterate(monkeypatch):
    rng = np.random.default_rng(10)
    X, y = rng.standard_normal((1200, 1200)), rng.standard_normal(1200)
    problem = make_problem(X, y, np.array([1e-3]), None, True, 2)
    steps = (Step("cg", max_iter=100), Step("cg", 1, max_iter=60), Step("cholesky"))
    starts, answers = [], []

    def solve(problem, settings, cg=planner.SOLVERS["cg"]):
        starts.append(settings.start)
        answers.append(cg(problem, settings))
        return answers[-1]

    monkeypatch.setitem(planner.SOLVERS, "cg", solve)
    answer, _, reason = planner.run(problem, Plan(steps, "told to", (), X.shape, 2), Settings(1e-6, None))
    assert "would take" in reason
    assert starts[0] is None
    assert starts[1] is answers[0].x
    assert 0 < answers[0].error[0] < 1
    assert answer.error_bound[0] <= 1e-6
    exact = Exact(X, y, 1e-3)
    assert exact.error(answers[0].w.T)[0] <= answers[0].error_bound[0] * ROOM


def test_an_answer_is_not_given_up_for_one_that_was_never_begun(clock):
    """After CG gave way, the time limit strikes within the Gram matrix of the next solver"""
    rng = np.random.default_rng(11)
    X, y = rng.standard_normal((300, 300)), rng.standard_normal(300)
    problem = make_problem(X, y, np.array([1e-3]), None, True, 1)
    steps = (Step("cg", max_iter=20), Step("cholesky"))
    looks: list[Progress] = []
    planner.run(problem, Plan(steps, "", (), X.shape, 1), Settings(1e-6, None, monitor=Monitor(1e6, looks.append)))
    first = next(progress for progress in looks if progress.solver == "cholesky")
    exact = Exact(X, y, 1e-3)
    for seconds in range(3, int(first.seconds)):
        monitor = Monitor(seconds, lambda progress: None)
        answer, ran, _ = planner.run(problem, Plan(steps, "", (), X.shape, 1), Settings(1e-6, None, monitor=monitor))
        assert monitor.timed_out
        assert ran == "cg"
        assert exact.error(answer.w.T)[0] <= answer.error_bound[0] * ROOM
    assert answer.w.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 63, 129, 300])
def test_a_factor_by_tiles_is_the_factor(size, dtype, monkeypatch):
    rng = np.random.default_rng(size)
    A = rng.standard_normal((2 * size, size))
    matrix = np.asfortranarray(A.T @ A + np.eye(size)).astype(dtype, order="F")
    wanted = np.linalg.cholesky(matrix.astype(np.float64))
    upper = np.triu(matrix, 1)
    for name, value in (("PANEL", 16), ("ROWS", 48), ("COLUMNS", 32)):
        monkeypatch.setattr(factor, name, value)
    monkeypatch.setattr(parallel, "SMALL_FACTOR", 20)
    pieces = matrix.copy(order="F")
    assert factor.factor(pieces)
    # Higham (2002), theorem 10.3: L L' is the matrix up to (n + 1) eps of the diagonal; the factor, times its condition number.
    doubt = 8 * (size + 1) * np.finfo(dtype).eps * np.linalg.cond(matrix)
    np.testing.assert_allclose(np.tril(pieces), wanted, rtol=0, atol=doubt * np.abs(wanted).max())
    np.testing.assert_array_equal(np.triu(pieces, 1), upper)
    assert factor.factor(matrix.copy(order="F"), lambda: False) == (size <= 20)  # one call has no parts
    matrix[size // 2, size // 2] = -1
    assert not factor.factor(matrix)


def test_patience_counts_steps_and_stops_at_the_same_one_every_time():
    rng = np.random.default_rng(12)
    X, y = rng.standard_normal((600, 600)), rng.standard_normal(600)
    problem = make_problem(X, y, np.array([1e-3]), None, True, 2)
    plan = Plan((Step("cg", max_iter=60), Step("cholesky")), "told to", (), X.shape, 2)
    told: list[list[Progress]] = []
    for _ in range(2):
        told.append([])
        planner.run(problem, plan, Settings(1e-6, None, monitor=Monitor(callback=told[-1].append)))
    first, second = ([replace(progress, seconds=0.0) for progress in run] for run in told)
    assert first == second


@pytest.mark.parametrize("seconds", [0, -1, -0.5, float("nan"), float("-inf")])
@pytest.mark.parametrize("fit", [ridge, ridge_path, lambda X, y, time_limit: Ridge(time_limit=time_limit).fit(X, y)])
def test_a_time_limit_that_is_none_is_refused(fit, seconds):
    with pytest.raises(ValueError, match=r"^time_limit must be more than 0 seconds, got "):
        fit(np.eye(3), np.ones(3), time_limit=seconds)


@pytest.mark.parametrize("seconds", ["1", True, [1.0]])
def test_a_time_limit_that_is_no_number_is_refused(seconds):
    with pytest.raises(TypeError, match=r"^time_limit must be a number of seconds or None, got "):
        RidgeClassifier(time_limit=seconds).fit(np.eye(3), [0, 1, 1])


@pytest.mark.parametrize("fit", [ridge, ridge_path])
def test_a_callback_that_cannot_be_called_is_refused(fit):
    with pytest.raises(TypeError, match=r"^callback must be a function of one argument or None, got 3"):
        fit(np.eye(3), np.ones(3), callback=3)


@pytest.mark.usefixtures("clock")
def test_the_time_to_come_is_that_of_the_steps_to_come():
    X, y = hard((150, 40), 11)
    told: list[Progress] = []
    n_steps = ridge(X, y, 1e-2, solver="cg", tol=1e-9, callback=told.append).report.n_iter[0]
    left = np.array([progress.seconds_left for progress in told])
    assert np.isnan(left[0])
    assert (left[1:] >= 0).all()
    assert left[-1] == 0
    half = n_steps // 2
    assert 0.2 * half <= left[half] / (told[half].seconds / half) <= 5 * half
    assert not any(progress.n_passes for progress in told)


def test_passes_over_rows_are_counted_and_said(capsys):
    X, y = hard((150, 40), 12)
    told: list[Progress] = []
    calls = []

    def blocks():
        calls.append(0)
        yield X[:100], y[:100]
        yield X[100:], y[100:]

    report = ridge(scan(blocks), alpha=1e-2, solver="cg", tol=1e-9, callback=told.append, verbose=True).report
    assert [progress.n_passes for progress in told[:20]] == list(range(2, 22))
    assert told[-1].n_passes <= len(calls) <= report.n_iter[0] + 3
    assert all(progress.rows_per_second > 0 for progress in told)
    assert re.search(r"cg, step 1: .* s; 2 passes, [\d,]+ rows a second", capsys.readouterr().err)
