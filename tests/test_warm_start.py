"""A warm start takes fewer steps, and however bad it is the answer is certified and right."""

from copy import deepcopy

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from truth import Exact

from fastridge import Ridge, RidgeClassifier, scan

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SHAPES = {"tall": (1500, 300), "wide": (250, 900)}


def data(shape, n_targets=1):
    n, p = SHAPES[shape]
    rng = np.random.default_rng(180)
    X = rng.standard_normal((n, p)) / np.sqrt(np.arange(1, p + 1)) + rng.standard_normal(p)
    Y = X @ rng.standard_normal((p, n_targets)) + rng.standard_normal((n, n_targets))
    return X, Y if n_targets > 1 else Y[:, 0]


def check(model, X, y):
    exact = Exact(X, y, model.alpha)
    error, report = exact.error(model.coef_).max(), model.report_
    assert report.converged
    assert error <= 1e-6 + exact.rounding.max()
    assert error <= report.error_bound + exact.rounding.max()
    assert error <= 3 * report.error + exact.rounding.max()


def steps(X, y, alpha, solver):
    return Ridge(alpha, solver=solver).fit(X, y).n_iter_.max()


@pytest.mark.parametrize("solver", ["cg", "cd"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_targets", [1, 3])
def test_fewer_steps_for_a_nearby_alpha_or_y(n_targets, shape, solver):
    X, y = data(shape, n_targets)
    model = Ridge(0.1, solver=solver, warm_start=True).fit(X, y)
    first = model.n_iter_.max()
    model.set_params(alpha=0.1003).fit(X, y)
    assert model.n_iter_.max() < first
    check(model, X, y)
    y = y + 1e-3 * np.random.default_rng(181).standard_normal(y.shape)
    model.fit(X, y)
    assert model.n_iter_.max() < steps(X, y, model.alpha, solver)
    check(model, X, y)


@pytest.mark.parametrize("solver", ["cg", "cd"])
def test_fewer_steps_after_some_rows_more(solver):
    X, y = data("tall")
    model = Ridge(0.1, solver=solver, warm_start=True).fit(X[:1485], y[:1485])
    model.fit(X, y)
    assert model.n_iter_.max() < steps(X, y, 0.1, solver)
    check(model, X, y)


@pytest.mark.parametrize("solver", ["cg", "cd"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["noise", "huge", "tiny", "nan", "inf", "zero", "opposite", "one coordinate"])
def test_a_bad_start_costs_next_to_nothing_and_the_answer_is_right(kind, shape, solver):
    X, y = data(shape)
    model = Ridge(0.1, solver=solver, warm_start=True).fit(X, y)
    start = model.coef_ if shape == "tall" else model._small_side[:, 0]
    rng = np.random.default_rng(182)
    bad = {
        "noise": rng.standard_normal(len(start)),
        "huge": 1e300 * rng.standard_normal(len(start)),
        "tiny": 1e-300 * rng.standard_normal(len(start)),
        "nan": np.where(np.arange(len(start)) == 3, np.nan, start),
        "inf": np.where(np.arange(len(start)) == 3, np.inf, start),
        "zero": np.zeros(len(start)),
        "opposite": -start,
        "one coordinate": np.eye(len(start))[-1],
    }[kind]
    if shape == "tall":
        model.coef_ = bad
    else:
        model._small_side = bad[:, None]
    model.fit(X, y)
    check(model, X, y)
    assert model.n_iter_.max() <= 1.5 * steps(X, y, 0.1, solver) + 10


@pytest.mark.parametrize("solver", ["cg", "cd", "cholesky", "svd", "auto"])
def test_other_shapes_begin_anew(solver):
    X, y = data("wide")
    tall, t = data("tall")
    Y = np.column_stack([t, -t, t**2])
    model = Ridge(0.1, solver=solver, warm_start=True)
    for X_, y_ in ((X, y), (X[:200], y[:200]), (tall, t), (tall, Y), (tall[:, :200], Y), (X, y), (X[:, :250], y), (X, y)):
        check(model.fit(sp.csr_array(X_), y_), X_, y_)


def test_the_same_problem_again():
    for shape in SHAPES:
        X, y = data(shape)
        model = Ridge(0.1, solver="cg", warm_start=True).fit(X, y)
        first = model.n_iter_.max()
        check(model.fit(X, y), X, y)
        assert model.n_iter_.max() < first


def test_without_it_nothing_is_kept_or_reused():
    X, y = data("wide")
    model = Ridge(0.1, solver="cg").fit(X, y)
    first = model.n_iter_.max()
    assert not hasattr(model, "_small_side")
    assert model.fit(X, y).n_iter_.max() == first
    warm = Ridge(0.1, solver="cg", warm_start=True).fit(X, y)
    assert hasattr(warm, "_small_side")
    assert not hasattr(clone(warm), "_small_side")
    warm.set_params(solver="svd").fit(X, y)
    assert not hasattr(warm, "_small_side")


def test_classifier():
    X, y = data("tall")
    labels = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    model = RidgeClassifier(0.1, solver="cg", warm_start=True).fit(X, labels)
    first = model.n_iter_.max()
    model.set_params(alpha=0.1003).fit(X, labels)
    assert model.n_iter_.max() < first
    np.testing.assert_allclose(model.coef_, RidgeClassifier(0.1003, tol=1e-10).fit(X, labels).coef_, rtol=1e-3, atol=1e-6)


class Rows:
    """Blocks of rows, their passes counted, the look at the first block left out"""

    def __init__(self, X, y):
        self.data, self.n_passes = (X, y), -1

    def __call__(self):
        self.n_passes += 1
        X, y = self.data
        for lo in range(0, len(y), 400):
            yield X[lo : lo + 400], y[lo : lo + 400]


@pytest.mark.parametrize("shape", SHAPES)  # of rows that come in blocks the small side is that of the features
@pytest.mark.parametrize("n_targets", [1, 3])
def test_fewer_passes_over_a_scan(n_targets, shape):
    X, y = data(shape, n_targets)
    rows = Rows(X, y)
    model = Ridge(0.1, solver="cg", warm_start=True).fit(scan(rows))
    first, rows.n_passes = rows.n_passes, 0
    model.set_params(alpha=0.1003).fit(scan(rows))
    check(model, X, y)
    assert rows.n_passes - 1 < first
    assert model.n_iter_.max() < Ridge(0.1003, solver="cg").fit(scan(rows)).n_iter_.max()
    y = y + 1e-3 * np.random.default_rng(181).standard_normal(y.shape)
    rows = Rows(X, y)
    check(model.fit(scan(rows)), X, y)
    assert rows.n_passes < first
    check(model.set_params(solver="cholesky").fit(scan(rows)), X, y)


def test_from_memory_to_a_scan_and_back():
    X, y = data("tall")
    model = Ridge(0.1, solver="cg", warm_start=True).fit(X, y)
    first = model.n_iter_.max()
    check(model.fit(scan(X, target=y)), X, y)
    assert model.n_iter_.max() < first
    check(model.fit(X, y), X, y)
    assert model.n_iter_.max() < first


@pytest.mark.parametrize("kind", ["noise", "huge", "nan", "other features", "other targets"])
def test_a_bad_start_over_a_scan_costs_next_to_nothing(kind):
    X, y = data("tall")
    model = Ridge(0.1, solver="cg", warm_start=True).fit(X, y)
    noise = np.random.default_rng(182).standard_normal(X.shape[1])
    bad = {"noise": noise, "huge": 1e300 * noise, "nan": np.where(noise > 2, np.nan, noise), "other features": noise[1:]}
    model.coef_ = bad.get(kind, np.stack([noise, noise]))
    check(model.fit(scan(X, target=y)), X, y)
    assert model.n_iter_.max() <= 1.5 * steps(X, y, 0.1, "cg") + 10


def test_a_classifier_of_a_scan():
    X, y = data("tall")
    words = np.array(["low", "middle", "high"])[np.digitize(y, np.quantile(y, [0.3, 0.6]))]
    model = RidgeClassifier(0.1, solver="cg", warm_start=True).fit(scan(X, target=words))
    first = model.n_iter_.max()
    model.set_params(alpha=0.1003).fit(scan(X, target=words))
    assert model.n_iter_.max() < first
    expected = RidgeClassifier(0.1003, tol=1e-10).fit(X, words)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-3, atol=1e-6)


def test_a_warm_fit_that_was_limited_goes_on(tmp_path):
    X, y = data("tall")
    model = Ridge(0.1, solver="cg", warm_start=True).fit(X, y).set_params(alpha=0.11)
    whole, rest = Rows(X, y), Rows(X, y)
    wanted = deepcopy(model).fit(scan(whole))
    with pytest.warns(ConvergenceWarning):
        deepcopy(model).set_params(max_iter=3, checkpoint=tmp_path / "fit").fit(scan(Rows(X, y)))
    found = model.set_params(checkpoint=tmp_path / "fit").fit(scan(rest))
    np.testing.assert_array_equal(found.coef_, wanted.coef_)
    assert rest.n_passes <= whole.n_passes - 3 + 1  # and a look at the first block
    check(found, X, y)
