"""Scores of penalties on rows that are read block by block, against those of the whole array."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import make_weights, make_X, make_y
from sklearn.model_selection import GridSearchCV

from fastridge import Moments, Ridge, RidgeClassifierCV, RidgeCV, ridge_path, rows, scan
from fastridge.request import Method, Request, RowsRequest
from fastridge.selection import streams
from fastridge.selection.loo import LeaveOneOut
from fastridge.selection.streams import leave_one_out

pytestmark = pytest.mark.filterwarnings("ignore:the best alpha is")

ALPHAS = np.array([1e-3, 1.0, 1e2])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", 4000)


@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_targets", [0, 2])
def test_leave_one_out(n_targets, weighted, intercept, store):
    X = make_X(300, 7, seed=1)
    y = make_y(X, 2, n_targets)
    weights = make_weights(300, 3, zeros=True) if weighted else None
    none = {"positive": False, "bounds": None, "penalty_weights": None, "fit_intercept": intercept, "alpha": 1.0}
    request = RowsRequest.of_source(scan(store(X), target=y, weight=weights), Method(), **none)
    problem = request.problem(2)
    sums, _, answer = leave_one_out(problem, ALPHAS, intercept)
    whole = LeaveOneOut(Request.checked(X, y, weights, Method(), **none), ALPHAS, 2)
    np.testing.assert_allclose(sums, whole.errors().sq_sums, rtol=1e-9)
    for a in range(3):
        chosen = np.full(max(1, n_targets), a)
        np.testing.assert_allclose(answer(chosen), whole.coefficients(chosen)[0], rtol=1e-7, atol=1e-10)


def test_a_row_that_nothing_else_predicts():
    X = np.zeros((50, 2))
    X[:, 0], X[33, 1] = np.arange(50), 1
    none = {"positive": False, "bounds": None, "penalty_weights": None, "fit_intercept": True, "alpha": 1.0}
    problem = RowsRequest.of_source(scan(X, target=np.arange(50.0) ** 2), Method(), **none).problem(1)
    with pytest.raises(ValueError, match="row 33 is predicted by itself alone"):
        leave_one_out(problem, np.array([1e-12]), True)


@pytest.mark.parametrize("n_targets", [0, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_folds(weighted, n_targets):
    X = make_X(301, 6, seed=4)
    y = make_y(X, 5, n_targets)
    weights = make_weights(301, 6) if weighted else None
    folds = [totals.sums for totals in scan(X, target=y, weight=weights).folds(4, 2)]
    assert sum(fold.count for fold in folds) == 301
    for i, fold in enumerate(folds):
        expected = Moments().update(X[i::4], y[i::4], None if weights is None else weights[i::4])._sums
        np.testing.assert_allclose(
            np.tril(fold.gram), np.tril(expected.gram), rtol=1e-12, atol=1e-12 * np.abs(expected.gram).max()
        )
        np.testing.assert_allclose(fold.cross, expected.cross, rtol=1e-11, atol=1e-11)


def test_more_folds_than_rows():
    with pytest.raises(ValueError, match="3 rows, fewer than the 5 folds"):
        RidgeCV(cv=5).fit(scan(np.ones((3, 1)), target=np.arange(3.0)))


@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("n_targets", [0, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"alphas": "auto"}, {"alphas": 12}, {"alphas": [0.1, 30.0], "alpha_per_target": True}], ids=str
)
def test_the_penalty_chosen_by_leave_one_out(options, weighted, n_targets, store):
    X = make_X(400, 8, seed=7)
    y = make_y(X, 8, n_targets) * 3
    weights = make_weights(400, 9) if weighted else None
    found = RidgeCV(tol=1e-9, **options).fit(scan(store(X), target=y, weight=weights))
    expected = RidgeCV(tol=1e-9, **options).fit(X, y, weights)
    np.testing.assert_allclose(found.alphas_, expected.alphas_, rtol=1e-6)
    np.testing.assert_allclose(found.alpha_, expected.alpha_, rtol=1e-6)
    np.testing.assert_allclose(found.best_score_, expected.best_score_, rtol=1e-7)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-5, atol=1e-9)
    assert found.coef_.shape == expected.coef_.shape
    assert found.report_.converged
    assert found.report_.error_bound <= 1e-9


@pytest.mark.parametrize("scoring", [None, "r2", "neg_mean_squared_error", "neg_root_mean_squared_error"])
@pytest.mark.parametrize("n_targets", [0, 2])
def test_the_penalty_chosen_by_folds(n_targets, scoring):
    X = make_X(400, 8, seed=10)
    y = make_y(X, 11, n_targets)
    alphas = [1e-3, 1.0, 30.0, 1e4]
    found = RidgeCV(alphas, cv=4, scoring=scoring).fit(scan(X, target=y))
    splits = [(np.flatnonzero(np.arange(400) % 4 != i), np.arange(i, 400, 4)) for i in range(4)]
    search = GridSearchCV(Ridge(tol=1e-9), {"alpha": alphas}, cv=splits, scoring=scoring or "r2").fit(X, y)
    assert found.alpha_ == search.best_params_["alpha"]
    np.testing.assert_allclose(found.scores_, search.cv_results_["mean_test_score"], rtol=1e-8)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_classes(class_weight, n_classes):
    X = make_X(300, 6, seed=12)
    y = make_y(X, 13)
    labels = np.digitize(y, np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1]))
    alphas = [1e-2, 1.0, 100.0]
    found = RidgeClassifierCV(alphas, class_weight=class_weight, tol=1e-9).fit(scan(X, target=labels))
    expected = RidgeClassifierCV(alphas, class_weight=class_weight, tol=1e-9).fit(X, labels)
    assert found.alpha_ == expected.alpha_
    np.testing.assert_allclose(found.best_score_, expected.best_score_, rtol=1e-8)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))


def every(n, k):
    """Folds of every k-th of n rows"""
    return [(np.flatnonzero(np.arange(n) % k != i), np.arange(i, n, k)) for i in range(k)]


@pytest.mark.filterwarnings("ignore:the alpha chosen is the largest")
@pytest.mark.parametrize("options", [{}, {"alphas": "auto"}, {"rule": "one_standard_error"}, {"scoring": "accuracy"}], ids=str)
@pytest.mark.parametrize("class_weight", [None, "balanced", {"a": 0.0, "b": 2.0, "c": 1.0, "d": 3.0}], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
def test_the_penalty_of_classes_chosen_by_folds(store, n_classes, weighted, class_weight, options):
    X = make_X(401, 6, seed=17)
    y = make_y(X, 18) + 3 * make_y(X, 19)
    labels = np.array(["b", "d", "a", "c"])[np.digitize(y, np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1]))]
    labels[:300:3] = "b"  # more of these
    weights = make_weights(401, 20, zeros=True) if weighted else None
    if n_classes == 2 and isinstance(class_weight, dict):
        class_weight = {"b": 0.2}
    options = {"alphas": [1e-2, 1.0, 100.0, 1e4], "class_weight": class_weight, "tol": 1e-9} | options
    found = RidgeClassifierCV(cv=4, **options).fit(scan(store(X), target=labels, weight=weights))
    expected = RidgeClassifierCV(cv=every(401, 4), **options).fit(X, labels, weights)
    np.testing.assert_allclose(found.alphas_, expected.alphas_, rtol=1e-6)
    np.testing.assert_allclose(found.scores_, expected.scores_, rtol=0, atol=401 * np.finfo(float).eps)
    np.testing.assert_allclose(found.alpha_, expected.alpha_, rtol=1e-6)
    assert found.choice_.method == expected.choice_.method == "4 folds"
    np.testing.assert_array_equal(found.choice_.indistinguishable, expected.choice_.indistinguishable)
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-5, atol=1e-9)
    assert found.report_.converged


def test_folds_of_classes_that_cannot_be_scored(monkeypatch):
    X, labels = make_X(60, 3, seed=21), np.arange(60) % 7 % 2
    with pytest.raises(ValueError, match="fold 2 of 5 has no row with a weight"):
        RidgeClassifierCV([1.0], cv=5).fit(scan(X, target=labels, weight=(np.arange(60) % 5 != 2) * 1.0))

    def blocks():
        yield X, labels

    monkeypatch.setattr(streams, "known_memory", lambda: 2 * 8 * 5 * 90 * 3)
    source = scan(blocks)
    with pytest.raises(MemoryError, match="5 folds are scored with the coefficients of 90 penalties, 3 features and 1 numbers"):
        RidgeClassifierCV("auto", cv=5).fit(source)
    RidgeClassifierCV([1.0, 2.0], cv=5).fit(source)


def test_a_gram_matrix_that_does_not_fit_is_said_before_a_row_is_read():
    def blocks():
        yield sp.csr_array((2, 10**7)), np.ones(2)
        raise AssertionError("read on")

    with pytest.raises(MemoryError, match="Gram"):
        RidgeCV([1.0]).fit(scan(blocks))


@pytest.mark.parametrize("model", [RidgeCV(), RidgeCV(cv=2), RidgeClassifierCV(cv=2)], ids=str)
def test_rows_that_can_be_read_once_are_refused_before_they_are(model):
    blocks = iter([(np.ones((3, 2)), np.arange(3.0))] * 2)
    with pytest.raises(ValueError, match="can be read once, and to choose a penalty takes two passes"):
        model.fit(scan(blocks))
    assert len(list(blocks)) == 1  # the scan has looked at the first


def test_how_often_rows_are_read():
    X = make_X(400, 8, seed=14)
    y, passes = make_y(X, 15), []

    def blocks():
        passes.append(0)
        for lo in range(0, 400, 100):
            yield X[lo : lo + 100], y[lo : lo + 100]

    RidgeCV([0.1, 1.0, 10.0]).fit(scan(blocks))
    assert len(passes) - 1 <= 3  # sums, leave-one-out, and the proof; one more sees the first block
    passes.clear()
    RidgeCV("auto", cv=3).fit(scan(blocks))
    assert len(passes) - 1 <= 2  # however often the grid goes on: sums of folds, and the proof
    passes.clear()
    RidgeCV("auto", cv=3, fit_intercept=False).fit(scan(blocks))
    assert len(passes) - 1 <= 4  # norms and the Gram matrix about zero as well
    passes.clear()
    labels = y > np.median(y)

    def classes():
        return ((X, labels[at : at + 100]) for at, (X, _) in zip(range(0, 400, 100), blocks(), strict=True))

    RidgeClassifierCV([0.1, 1.0, 10.0], cv=3).fit(scan(classes))
    assert len(passes) - 1 <= 4  # labels, sums of folds, those that are right, and the proof


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store_cv_results": True}, "keeps a number for every row"),
        ({"scoring": "neg_mean_absolute_error"}, "scoring must be None"),
        ({"cv": 3, "scoring": "neg_mean_absolute_error"}, "R2 or"),
        ({"cv": [([0], [1])]}, "a number of folds for a source of rows"),
    ],
)
def test_what_is_not_chosen_by(options, message):
    source = scan(make_X(50, 3, seed=16), target=np.arange(50.0))
    with pytest.raises(ValueError, match=message):
        RidgeCV([1.0], **options).fit(source)
    with pytest.raises(ValueError, match="live with the rows"):
        RidgeCV([1.0]).fit(source, np.arange(50.0))
    with pytest.raises(ValueError, match=r"those of classifiers by accuracy, got scoring='f1'"):
        RidgeClassifierCV([1.0], cv=3, scoring="f1").fit(source)


@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"penalty_weights": np.arange(1.0, 7.0)}, {"solver": "cg"}])
@pytest.mark.parametrize("alphas", [[1.0, 10.0, 1e3], 12])
@pytest.mark.parametrize("k", [1, 2])
def test_a_path_of_rows_is_that_of_arrays(k, alphas, options):
    rng = np.random.default_rng(k)
    X, y = rng.standard_normal((300, 6)) + 2, rng.standard_normal((300, k))
    y = y[:, 0] if k == 1 else y

    def blocks():
        for lo in range(0, 300, 70):
            yield X[lo : lo + 70], y[lo : lo + 70]

    path, wanted = ridge_path(scan(blocks), alphas=alphas, **options), ridge_path(X, y, alphas, **options)
    assert path.converged
    np.testing.assert_allclose(path.alphas, wanted.alphas, rtol=1e-9)
    assert path.coefs.shape == wanted.coefs.shape
    bound = max(report.error_bound for report in (*path.reports, *wanted.reports))
    size = np.sqrt(np.square(y).sum())  # ||w*||_H is at most that, and ||w - w*||_H at least ||w - w*|| sqrt(alpha)
    assert np.abs(path.coefs - wanted.coefs).max() <= 2 * (bound + 1e-12) * size / np.sqrt(wanted.alphas.min())


def test_a_path_takes_rows_that_can_be_read_again_and_have_their_targets():
    X, y = np.ones((20, 2)), np.arange(20.0)
    with pytest.raises(ValueError, match=r"can be read once: .* Moments"):
        ridge_path(scan(iter([(X, y)])), alphas=[1.0])
    with pytest.raises(ValueError, match="live with the rows"):
        ridge_path(scan(lambda: iter([(X, y)])), y, [1.0])
