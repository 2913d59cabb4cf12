"""Ridge as a scikit-learn estimator: its checks, a drop-in for its Ridge, frames, what is reported and warned, known data."""

import dataclasses
import inspect
import pickle
import re
from itertools import product

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
import sklearn.linear_model
from helpers import STORAGES, make_weights, make_X, make_y
from scipy.linalg import LinAlgWarning
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from truth import Exact

import fastridge
from fastridge import FitReport, Ridge, RidgeClassifier, Status
from fastridge.estimators import RidgeBase

SOLVERS = ("cholesky", "svd", "cg", "cd", "auto")

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@parametrize_with_checks(
    # Some checks compare two fits to 1e-7.
    [Ridge(), Ridge(solver="cholesky"), Ridge(solver="svd"), Ridge(solver="cg", tol=1e-9), Ridge(solver="cd", tol=1e-9)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("X_dtype", "y_dtype", "n_targets"),
    [
        *product(["float64", "float32", "int32"], ["float64", "float32", "int64"], [0, 3]),
        ("float64", "float64", 1),
        ("float32", "float64", 1),
    ],
)
@pytest.mark.parametrize("storage", ["C", "csr_array"])
def test_shapes_and_dtypes_are_those_of_scikit_learn(storage, X_dtype, y_dtype, n_targets, intercept):
    X = STORAGES[storage](make_X(40, 6, seed=71).astype(X_dtype))
    y = make_y(make_X(40, 6, seed=71), 72, n_targets).astype(y_dtype)
    ours = Ridge(fit_intercept=intercept).fit(X, y)
    theirs = sklearn.linear_model.Ridge(fit_intercept=intercept, tol=1e-12).fit(X, y)
    for name in ("coef_", "intercept_"):
        got, wanted = getattr(ours, name), getattr(theirs, name)
        assert np.shape(got) == np.shape(wanted)
        # An intercept rounded to float32 would cost sqrt(n) times as much as a coefficient.
        assert np.asarray(got).dtype == (np.float64 if name == "intercept_" else np.asarray(wanted).dtype)
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
    got, wanted = ours.predict(X), theirs.predict(X)
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)
    assert ours.n_features_in_ == theirs.n_features_in_ == 6


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [0.3, np.array([0.1, 1.0, 10.0])], ids=["scalar", "per target"])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_matrix"])
def test_numbers_are_those_of_scikit_learn(storage, alpha, weighted):
    X = make_X(60, 7, seed=73)
    Y = make_y(X, 74, n_targets=3)
    weights = make_weights(60, 75, zeros=True) if weighted else None
    ours = Ridge(alpha, tol=1e-12).fit(STORAGES[storage](X), Y, weights)
    theirs = sklearn.linear_model.Ridge(alpha, solver="cholesky").fit(X, Y, weights)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-8)
    np.testing.assert_allclose(ours.score(X, Y, weights), theirs.score(X, Y, weights), rtol=1e-10)
    np.testing.assert_allclose(ours.predict(STORAGES[storage](X)), theirs.predict(X), rtol=1e-8, atol=1e-8)


def test_float32_is_computed_in_float64():
    X = make_X(60, 7, seed=76, dtype=np.float32)
    y = make_y(X, 77)
    model = Ridge(1e-3, tol=1e-9).fit(X, y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_array_equal(model.coef_, fastridge.ridge(X, y, 1e-3, tol=1e-9).coef.astype(np.float32))
    assert Exact(X, y, 1e-3).error(model.coef_) < 1e-6  # rounded once, at the end


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "bool"])
def test_other_numbers_give_float64(dtype):
    X = np.random.default_rng(78).integers(0, 2, (30, 4)).astype(dtype)
    model = Ridge().fit(X, np.arange(30))
    assert model.coef_.dtype == np.float64
    assert Exact(X, np.arange(30), 1.0).error(model.coef_) < 1e-6


def test_parameters_are_those_of_scikit_learn_and_n_threads():
    ours, theirs = Ridge().get_params(), sklearn.linear_model.Ridge().get_params()
    new = {"bounds", "checkpoint", "penalty_weights", "n_threads", "time_limit", "verbose", "warm_start"}
    assert set(ours) - set(theirs) == new
    assert not set(theirs) - set(ours)
    for name in ("alpha", "fit_intercept", "copy_X", "max_iter", "solver", "positive", "random_state"):
        assert ours[name] == theirs[name]


@pytest.mark.parametrize("make", [Ridge, RidgeClassifier])
@pytest.mark.parametrize(
    ("unknown", "said"),
    [
        ("alphas", r"ridge_path\(X, y, alphas\)"),
        ("cv", "RidgeCV and RidgeClassifierCV choose alpha"),
        ("normalize", "StandardScaler"),
        ("lambda_", "called alpha here"),
        ("l1_ratio", "no L1 penalty here; scikit-learn's ElasticNet"),
        ("n_jobs", "called n_threads here"),
        ("C", "alpha_from_C"),
        ("sample_weight", "fit takes sample_weight"),
        ("fit_intercpt", r"did you mean fit_intercept\?"),
        ("penalty_weight", r"did you mean penalty_weights\?"),
        ("zzz", "it has alpha, fit_intercept, .*, verbose"),
    ],
)
def test_an_unknown_parameter_names_the_class_and_what_was_meant(make, unknown, said):
    with pytest.raises(TypeError, match=f"^{make.__name__} has no parameter '{unknown}': .*{said}"):
        make(**{unknown: 1})


def test_class_weight_names_the_classifier():
    with pytest.raises(TypeError, match="Ridge has no parameter 'class_weight': RidgeClassifier has it"):
        Ridge(class_weight="balanced")
    with pytest.raises(TypeError, match=r"^Ridge: too many positional arguments; all parameters but the first are given by name"):
        Ridge(1.0, True)


def test_the_signature_is_that_of_the_parameters():
    assert list(inspect.signature(Ridge).parameters) == list(inspect.signature(RidgeBase.__init__).parameters)[1:]
    assert sorted(inspect.signature(RidgeClassifier).parameters) == sorted(RidgeClassifier().get_params())


class Wider(Ridge):
    """A class of a user, with a parameter of its own"""

    def __init__(self, alpha=1.0, *, width=3):
        super().__init__(alpha)
        self.width = width


def test_a_subclass_has_parameters_of_its_own():
    assert clone(Wider(2.0, width=5)).get_params() == {"alpha": 2.0, "width": 5}
    assert pickle.loads(pickle.dumps(Wider(width=7))).width == 7
    with pytest.raises(TypeError, match="Wider has no parameter 'solver': it has alpha, width"):
        Wider(solver="cg")


def test_clone_and_pickle():
    X = make_X(30, 4, seed=79)
    model = Ridge(0.5, solver="cg", tol=1e-8).fit(X, make_y(X, 80))
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        copied.predict(X)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.report_.status is Status.CONVERGED
    assert repr(model) == "Ridge(alpha=0.5, solver='cg', tol=1e-08)"


def test_pipeline_grid_search_and_cross_validation():
    X, y = load_diabetes(return_X_y=True)
    alphas = [0.01, 1.0, 100.0]
    searches = [
        GridSearchCV(make_pipeline(StandardScaler(), model), {"ridge__alpha": alphas}, cv=3).fit(X, y)
        for model in (Ridge(tol=1e-9), sklearn.linear_model.Ridge())
    ]
    ours, theirs = searches
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-7)
    np.testing.assert_allclose(
        cross_val_score(Ridge(0.1, tol=1e-9), X, y), cross_val_score(sklearn.linear_model.Ridge(0.1), X, y), rtol=1e-7
    )


def test_sample_weight_is_routed():
    X = make_X(60, 4, seed=81)
    y, weights = make_y(X, 82), make_weights(60, 83)
    with sklearn.config_context(enable_metadata_routing=True):
        model = Ridge().set_fit_request(sample_weight=True)
        pipeline = make_pipeline(model).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(pipeline[-1].coef_, Ridge().fit(X, y, weights).coef_)
    assert not np.allclose(pipeline[-1].coef_, Ridge().fit(X, y).coef_)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_data_frames(make, dtype):
    X = (10 * make_X(40, 3, seed=84)).astype(dtype)
    y = make_y(X, 85)
    names = ["one", "two", "three"]
    frame = make({name: X[:, j] for j, name in enumerate(names)})
    model = Ridge().fit(frame, y)
    assert list(model.feature_names_in_) == names
    assert model.coef_.dtype == sklearn.linear_model.Ridge().fit(frame, y).coef_.dtype
    plain = Ridge().fit(X, y)
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(frame), plain.predict(X), rtol=1e-5)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["two", "one", "three"]])
    np.testing.assert_allclose(fastridge.ridge(frame, y).coef, plain.coef_, rtol=1e-6)


@pytest.mark.parametrize("wrap", [pd.Series, pl.Series, list, lambda y: pd.DataFrame({"a": y}), lambda y: pl.DataFrame({"a": y})])
def test_targets_from_frames(wrap):
    X = make_X(40, 3, seed=86)
    y = make_y(X, 87)
    np.testing.assert_array_equal(np.ravel(Ridge().fit(X, wrap(y)).coef_), Ridge().fit(X, y).coef_)
    np.testing.assert_array_equal(np.ravel(fastridge.ridge(X, wrap(y)).coef), Ridge().fit(X, y).coef_)


def freeze(X):
    for array in (X.data, X.indices, X.indptr) if sp.issparse(X) and X.format != "coo" else (X,):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return X


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_input_may_be_read_only_and_is_never_changed(solver, storage):
    dense = make_X(50, 6, seed=88)
    Y, weights = make_y(dense, 89, n_targets=2), make_weights(50, 90)
    X = STORAGES[storage](dense)
    freeze(X), freeze(Y), freeze(weights)
    for copy_X in (True, False):
        model = Ridge(solver=solver, copy_X=copy_X).fit(X, Y, weights)
        model.predict(X)
    after = X.toarray() if sp.issparse(X) else np.asarray(X)
    np.testing.assert_array_equal(after, dense)
    np.testing.assert_array_equal(Y, make_y(dense, 89, n_targets=2))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_memory_mapped_input(solver, order, tmp_path):
    X = make_X(200, 5, seed=91, dtype=np.float32)
    mapped = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=X.shape, order=order)
    mapped[:] = X
    mapped.flush()
    mapped = np.memmap(tmp_path / "X", dtype=np.float32, mode="r", shape=X.shape, order=order)
    y = make_y(X, 92)
    model = Ridge(solver=solver).fit(mapped, y)
    assert Exact(X, y, 1.0).error(model.coef_) < 2e-6
    assert type(model.coef_) is np.ndarray


@pytest.mark.parametrize("solver", ["cg", "cd"])
def test_a_warning_says_which_error_was_reached(solver):
    X = make_X(60, 20, seed=93)
    y = make_y(X, 94)
    model = Ridge(1e-3, solver=solver, max_iter=1)
    with pytest.warns(ConvergenceWarning) as caught:
        model.fit(X, y)
    assert len(caught) == 1
    message, report = str(caught[0].message), model.report_
    assert caught[0].filename == __file__
    assert message.startswith(f"{solver} reached an H-norm error of {report.error:.1e}")
    assert "tol=1e-06" in message
    assert "raise max_iter" in message
    assert report.status is Status.MAX_ITER
    assert not report.converged
    assert model.solver_ == report.solver == solver
    error = Exact(X, y, 1e-3).error(model.coef_)
    assert report.error > 1e-6
    assert error <= report.error_bound
    assert error <= 3 * report.error


def test_the_function_reports_and_does_not_warn():
    X = make_X(60, 20, seed=93)
    solution = fastridge.ridge(X, make_y(X, 94), 1e-3, solver="cg", max_iter=1)
    assert solution.report.status is Status.MAX_ITER


@pytest.mark.parametrize("shape", [(60, 8), (8, 60)])
@pytest.mark.parametrize("solver", SOLVERS[:4])
def test_the_solver_asked_for_runs(solver, shape):
    X = make_X(*shape, seed=95)
    model = Ridge(solver=solver).fit(X, make_y(X, 96))
    assert model.solver_ == model.report_.solver == solver
    assert fastridge.explain(X, solver=solver).solver == solver


@pytest.mark.parametrize("solver", ["cholesky", "svd"])
def test_a_solver_that_needs_more_memory_than_there_is_names_another(solver):
    X = sp.eye_array(10**6, format="csr")
    with pytest.raises(ValueError, match=rf'solver="{solver}" needs about .* GB .* use solver="cg"'):
        Ridge(solver=solver).fit(X, np.ones(10**6))


@pytest.mark.parametrize("solver", SOLVERS)
def test_report(solver):
    X = make_X(80, 8, seed=97)
    Y = make_y(X, 98, n_targets=2)
    model = Ridge(0.1, solver=solver).fit(X, Y)
    report = model.report_
    assert isinstance(report, FitReport)
    assert report.converged
    assert 0 <= report.error <= report.error_bound
    assert report.error <= 1e-6
    assert report.reason
    assert report.n_iter.shape == (2,)
    assert report.seconds > 0
    assert report.extra_bytes > 0
    H = np.cov(X, rowvar=False, ddof=0) * 80 + 0.1 * np.eye(8)
    H /= np.sqrt(np.outer(np.diag(H), np.diag(H)))
    if report.solver in ("cg", "cd"):
        np.testing.assert_array_equal(model.n_iter_, report.n_iter)
        assert np.isnan(report.rcond)
        assert report.history
        assert report.history[-1] <= 1e-6
    else:
        np.testing.assert_array_equal(model.n_iter_, report.n_iter + 1)  # solves, and refinements among them
        assert (model.n_iter_ >= 1).all()
        assert report.history == ()
        assert 0.1 < report.rcond * np.linalg.cond(H, 2 if report.solver == "svd" else 1) < 10
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.error = 0.0


def test_cholesky_gives_way_with_a_warning_where_columns_depend_on_one_another():
    X = make_X(30, 4, seed=101)
    X, y = np.column_stack([X, X[:, 0]]), make_y(X, 102)
    with pytest.warns(LinAlgWarning, match="svd gave the answer of minimum norm"):
        model = Ridge(0.0, solver="cholesky").fit(X, y)
    assert model.solver_ == "svd"
    np.testing.assert_allclose(model.coef_[0], model.coef_[4], rtol=1e-8)


def test_cg_counts_every_step():
    X = make_X(200, 40, seed=99)
    solution = fastridge.ridge(X, make_y(X, 100), 1e-2, solver="cg", tol=1e-9)
    assert len(solution.report.history) == solution.report.n_iter[0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_verbose_prints_to_standard_error(solver, capfd):
    X = make_X(60, 8, seed=101)
    Ridge(solver=solver, verbose=True).fit(X, make_y(X, 102))
    out, err = capfd.readouterr()
    assert out == ""
    assert "60 samples x 8 features" in err
    assert re.search(r"^\w+, step \d+: error \S+, bound \S+, \S+ s$", err, re.MULTILINE)
    Ridge(solver=solver).fit(X, make_y(X, 102))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("storage", ["C", "csr_array"])
def test_explain_is_what_a_fit_does(storage):
    X = STORAGES[storage](make_X(300, 12, seed=103))
    plan = fastridge.explain(X, alpha=2.0)
    model = Ridge(2.0).fit(X, np.arange(300.0))
    assert plan.solver == model.solver_
    assert model.report_.reason.startswith(plan.reason)
    text = str(plan)
    assert "300 samples x 12 features" in text
    assert all(solver in text for solver in SOLVERS[:4])
    assert all(option.seconds > 0 and option.extra_bytes > 0 for option in plan.options)
    assert repr(plan) == f"<Plan\n{text}>"


def test_a_report_is_read_as_sentences():
    X, y = make_X(300, 12, seed=103), np.arange(300.0)
    report = Ridge(solver="cholesky").fit(X, y).report_
    first, second, third = str(report).splitlines()
    assert first.startswith(f"converged: the error of the coefficients is proven to be at most {report.error_bound:.1e} ")
    assert second.startswith("solver cholesky, 0 refinements, ")
    assert third == "why this solver: asked for."
    assert repr(report) == f"<FitReport {report}>"
    solution = fastridge.ridge(make_X(300, 12, seed=104), y, solver="cg", max_iter=2)
    assert str(solution.report).startswith("max_iter: the error of the coefficients is about ")
    assert f"proven to be at most {solution.report.error_bound:.1e}" in str(solution.report)
    assert "solver cg, 2 steps, " in str(solution.report)
    assert repr(solution) == f"<Solution with coef of shape (12,), {solution.report}>"
    assert "no bound of the error is known" in str(fastridge.ridge(X, y, 0.0).report)


def test_diabetes():
    X, y = load_diabetes(return_X_y=True)
    for alpha in (1e-4, 1.0):
        exact = Exact(X, y, alpha)
        model = Ridge(alpha).fit(X, y)
        assert exact.error(model.coef_) <= 1e-6
        np.testing.assert_allclose(model.intercept_, exact.intercept[0])
        np.testing.assert_allclose(model.score(X, y), exact.r2(X, y), rtol=1e-9)


# Longley (1967), from NIST's Statistical Reference Datasets: y and six predictors of 16 years, and coefficients certified to
# 15 digits, the intercept first. The predictors are nearly collinear.
LONGLEY = np.array(
    [
        [60323, 83.0, 234289, 2356, 1590, 107608, 1947],
        [61122, 88.5, 259426, 2325, 1456, 108632, 1948],
        [60171, 88.2, 258054, 3682, 1616, 109773, 1949],
        [61187, 89.5, 284599, 3351, 1650, 110929, 1950],
        [63221, 96.2, 328975, 2099, 3099, 112075, 1951],
        [63639, 98.1, 346999, 1932, 3594, 113270, 1952],
        [64989, 99.0, 365385, 1870, 3547, 115094, 1953],
        [63761, 100.0, 363112, 3578, 3350, 116219, 1954],
        [66019, 101.2, 397469, 2904, 3048, 117388, 1955],
        [67857, 104.6, 419180, 2822, 2857, 118734, 1956],
        [68169, 108.4, 442769, 2936, 2798, 120445, 1957],
        [66513, 110.8, 444546, 4681, 2637, 121950, 1958],
        [68655, 112.6, 482704, 3813, 2552, 123366, 1959],
        [69564, 114.2, 502601, 3931, 2514, 125368, 1960],
        [69331, 115.7, 518173, 4806, 2572, 127852, 1961],
        [70551, 116.9, 554894, 4007, 2827, 130081, 1962],
    ]
)
CERTIFIED = (
    -3482258.63459582,
    15.0618722713733,
    -0.358191792925910e-01,
    -2.02022980381683,
    -1.03322686717359,
    -0.511041056535807e-01,
    1829.15146461355,
)


@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("solver", ["svd", "auto"])
def test_longley(solver, storage):
    model = Ridge(0.0, solver=solver).fit(STORAGES[storage](LONGLEY[:, 1:]), LONGLEY[:, 0])
    assert model.solver_ == "svd"
    assert model.report_.status is Status.UNCERTIFIED
    np.testing.assert_allclose(model.coef_, CERTIFIED[1:], rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, CERTIFIED[0], rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_longley_with_a_penalty(solver):
    X, y = LONGLEY[:, 1:], LONGLEY[:, 0]
    solution = fastridge.ridge(X, y, 1e-3, solver=solver)
    assert solution.report.converged
    assert Exact(X, y, 1e-3).error(solution.coef) <= 1e-6


class Told:
    """A callback of scikit-learn that keeps what it was told"""

    def __init__(self):
        self.said = []

    def setup(self, estimator, context):
        self.said.append("setup")

    def on_fit_task_begin(self, estimator, context, **told):
        self.said.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, **told):
        self.said.append(f"end {context.task_name}")

    def teardown(self, estimator, context):
        self.said.append("teardown")


@pytest.mark.parametrize("kind", [Ridge, RidgeClassifier])
@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_callbacks_of_scikit_learn_are_told_of_every_step(kind, solver):
    pytest.importorskip("sklearn.callback")
    X, told = make_X(200, 30, seed=120), Told()
    y = np.where(X[:, 0] > X[:, 0].mean(), 1.0, -1.0)
    model = kind(solver=solver).set_callbacks(told).fit(X, y)
    n_steps = told.said.count(f"begin {solver}")
    assert n_steps >= model.n_iter_[0] > 0
    assert told.said == ["setup", "begin fit", *[f"begin {solver}", f"end {solver}"] * n_steps, "end fit", "teardown"]
    np.testing.assert_array_equal(model.coef_, kind(solver=solver).fit(X, y).coef_)
    told.said.clear()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[1:])
    assert told.said == ["setup", "begin fit", "teardown"]
