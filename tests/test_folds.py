"""Scores over folds against scikit-learn's GridSearchCV over our Ridge, fold by fold and penalty by penalty."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import STORAGES, make_weights, make_X, make_y
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneOut,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from truth import Exact

from fastridge import Moments, Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV
from fastridge.request import Method, Request
from fastridge.selection import folds

pytestmark = pytest.mark.filterwarnings("ignore:the best alpha is")
ALPHAS = np.array([1e-3, 0.1, 1.0, 30.0, 1e3])


def searched(X, y, cv, model=None, weights=None, **options):
    search = GridSearchCV(model or Ridge(tol=1e-12), {"alpha": ALPHAS}, cv=cv, refit=False, **options)
    return search.fit(X, y, **({} if weights is None else {"sample_weight": weights}))


def agree(model, search, tol=1e-10):
    scores = search.cv_results_["mean_test_score"]
    best = int(np.argmax(scores))
    assert model.alpha_ == ALPHAS[best]
    np.testing.assert_allclose(model.best_score_, scores[best], rtol=tol, atol=tol)


SPLITTERS = {
    "5": 5,
    "shuffled": KFold(4, shuffle=True, random_state=0),
    "repeated": RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
    "in time": TimeSeriesSplit(4, gap=1),
    "by chance": ShuffleSplit(5, test_size=0.3, random_state=0),
    "not all rows": ShuffleSplit(5, test_size=0.3, train_size=0.5, random_state=0),
    "pairs": [(np.arange(20, 60), np.arange(20)), (np.arange(30), np.arange(30, 60))],
    "masks": [(np.arange(60) >= 20, np.arange(60) < 20)],
    "test and training overlap": [(np.arange(50), np.arange(40, 60))],
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_targets", [0, 3])
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_any_splitter(splitter, n_targets, weighted):
    X = make_X(60, 8, seed=1)
    y = make_y(X, 2, n_targets)
    weights = make_weights(60, 3, zeros=True) if weighted else None
    cv = SPLITTERS[splitter]
    model = RidgeCV(ALPHAS, cv=cv).fit(X, y, weights)
    agree(model, searched(X, y, cv, weights=weights))
    exact = Exact(X, y, model.alpha_, weights)
    assert exact.error(model.coef_).max() < 1e-6


@pytest.mark.parametrize("shape", [(60, 8), (30, 50), (40, 35)])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("scoring", [None, "neg_mean_squared_error", "neg_root_mean_squared_error", "neg_mean_absolute_error"])
def test_any_storage_and_score(scoring, storage, intercept, shape):
    X = make_X(*shape, seed=4)
    y = make_y(X, 5, 2)
    X = STORAGES[storage](X)
    model = RidgeCV(ALPHAS, cv=4, scoring=scoring, fit_intercept=intercept, tol=1e-10).fit(X, y)
    agree(model, searched(X, y, 4, Ridge(tol=1e-12, fit_intercept=intercept), scoring=scoring), 1e-9)


def largest_error(estimator, X, y):
    """No scorer of scikit-learn's, and one that looks at the model"""
    assert estimator.coef_.shape == (X.shape[1],)
    return -np.abs(estimator.predict(X) - y).max() - 1e-3 * np.abs(estimator.coef_).max() - 1e-4 * estimator.alpha


@pytest.mark.parametrize("scoring", [largest_error, make_scorer(mean_absolute_error, greater_is_better=False)])
def test_functions_score(scoring):
    X = make_X(60, 8, seed=6)
    y = make_y(X, 7)
    agree(RidgeCV(ALPHAS, cv=3, scoring=scoring).fit(X, y), searched(X, y, 3, scoring=scoring))


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("scoring", [None, "accuracy", "balanced_accuracy", "f1_macro"])
def test_classifiers(scoring, class_weight, n_classes):
    rng = np.random.default_rng(n_classes)
    labels = np.array(["a", "b", "c", "d"])[rng.integers(n_classes, size=120)]
    X = rng.standard_normal((120, 6)) + (labels == "a")[:, None]
    model = RidgeClassifierCV(ALPHAS, cv=4, scoring=scoring, class_weight=class_weight).fit(X, labels)
    weights = None
    if class_weight:
        names, counts = np.unique(labels, return_counts=True)
        weights = (120 / (n_classes * counts))[np.searchsorted(names, labels)]
    search = GridSearchCV(RidgeClassifier(tol=1e-12), {"alpha": ALPHAS}, cv=4, scoring=scoring, refit=False)
    if weights is not None:  # scores are not weighted by classes
        splits = StratifiedKFold(4).split(X, labels)
        scores = np.zeros(len(ALPHAS))
        for train, test in splits:
            for a, alpha in enumerate(ALPHAS):
                fitted = RidgeClassifier(alpha).fit(X[train], labels[train], weights[train])
                scores[a] += search._get_scorers()[0](fitted, X[test], labels[test]) / 4
    else:
        scores = search.fit(X, labels).cv_results_["mean_test_score"]
    assert model.alpha_ == ALPHAS[np.argmax(scores)]
    np.testing.assert_allclose(model.best_score_, scores.max(), rtol=1e-10)


def fits(X, y, splits, alphas=ALPHAS, weights=None, **asked):
    options = {"fit_intercept": True, "positive": False, "bounds": None, "penalty_weights": None} | asked
    method = Method(tol=1e-10)
    request = Request.checked(X, y, weights, method, alpha=1.0, **options)
    return list(folds.fit_folds(request, np.asarray(alphas), splits, method))


@pytest.mark.parametrize("way", ["moments", "few penalties", "rows", "not kept"])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_ways_to_fit_a_training_set_are_exact(way, weighted, monkeypatch):
    if way == "rows":
        monkeypatch.setattr(folds, "MAX_FEATURES", 5)
    if way == "not kept":
        monkeypatch.setattr(folds, "KEPT_BYTES", 0)
    if way == "few penalties":
        monkeypatch.setattr(folds, "ACCURATE", 0.0)
    X = make_X(70, 9, seed=8)
    y = make_y(X, 9, 2)
    weights = make_weights(70, 10) if weighted else None
    splits = list(KFold(4, shuffle=True, random_state=1).split(X))
    for fold, (train, test) in zip(fits(X, y, splits, weights=weights), splits, strict=True):
        assert (fold.test == test).all()
        assert (fold.held_out is None) == (way == "rows")
        for a, alpha in enumerate(ALPHAS):
            exact = Exact(X[train], y[train], alpha, None if weights is None else weights[train])
            assert exact.error(fold.coefs[a]).max() < 1e-9
            np.testing.assert_allclose(fold.intercepts[a], exact.intercept, rtol=1e-7, atol=1e-7)


def test_one_pass_over_the_rows(monkeypatch):
    seen = []
    update = Moments.update
    monkeypatch.setattr(Moments, "update", lambda self, X, *rest: seen.append(len(X)) or update(self, X, *rest))
    X = make_X(90, 6, seed=11)
    RidgeCV(ALPHAS, cv=KFold(6, shuffle=True, random_state=0)).fit(X, make_y(X, 12))
    assert sum(seen) == 90


@pytest.mark.parametrize("noise", [1.0, 1e-3, 1e-7, 0.0])
def test_scores_near_one_keep_their_digits(noise):
    """From moments 1 - R2 is a difference that cancels: rows are read instead"""
    rng = np.random.default_rng(13)
    X = rng.standard_normal((200, 5)) + 100
    y = X @ rng.standard_normal(5) + noise * rng.standard_normal(200)
    splits = list(KFold(4).split(X))
    model = RidgeCV([1e-8], cv=splits, scoring="neg_mean_squared_error").fit(X, y)
    wanted = 0.0
    for train, test in splits:
        exact = Exact(X[train], y[train], 1e-8)
        wanted -= np.mean((y[test] - X[test] @ exact.coef[0] - exact.intercept[0]) ** 2) / 4
    np.testing.assert_allclose(model.best_score_, wanted, rtol=1e-6, atol=1e-24)


def test_a_fold_that_has_nearly_all_the_weight():
    """Moments of the others, by subtraction, have few digits left: they are summed anew"""
    X = make_X(60, 5, seed=14)
    y = make_y(X, 15)
    X[:20] = 1e9 * (X[:20] + 1)
    splits = [(np.arange(20, 60), np.arange(20)), (np.arange(20), np.arange(20, 60))]
    fold = fits(X, y, splits)[0]
    for a, alpha in enumerate(ALPHAS):
        assert Exact(X[20:], y[20:], alpha).error(fold.coefs[a]).max() < 1e-7


@pytest.mark.parametrize("alphas", [[0.0, 1.0], np.linspace(0, 1, 20)])
def test_no_penalty(alphas):
    X = make_X(60, 4, seed=16)[:, :2]
    y = make_y(X, 17)
    for fold in fits(X, y, [(np.arange(40), np.arange(40, 60))], alphas):
        w = np.linalg.lstsq(np.column_stack([X[:40], np.ones(40)]), y[:40])[0]
        np.testing.assert_allclose(fold.coefs[0, 0], w[:2], rtol=1e-9)


def test_training_sets_that_miss_the_tolerance_are_said(monkeypatch):
    X = make_X(60, 8, seed=24)
    y = make_y(X, 25)
    monkeypatch.setattr(folds, "MAX_FEATURES", 1)
    solve_path = folds.solve_path

    def cut_short(request, method, alphas):
        return solve_path(request, replace(method, solver="cg", max_iter=2), alphas)

    RidgeCV(ALPHAS, cv=3).fit(X, y)
    monkeypatch.setattr(folds, "solve_path", cut_short)
    with pytest.warns(ConvergenceWarning, match="the fits that are scored reached an H-norm error of .* where tol=1e-06") as said:
        RidgeCV(ALPHAS, cv=3).fit(X, y)
    assert said[0].filename == __file__


def test_penalty_weights():
    X = make_X(50, 4, seed=18)[:, [0, 1, 3]]
    y = make_y(X, 19)
    for d in (np.array([0.0, 1.0, 5.0]), np.array([3.0, 1e-3, np.inf]), np.diag([1.0, 2.0, 3.0])):
        for fold in fits(X, y, list(KFold(3).split(X)), penalty_weights=d):
            others = np.setdiff1d(np.arange(50), fold.test)
            for a, alpha in enumerate(ALPHAS):
                wanted = Ridge(alpha, penalty_weights=d, tol=1e-12).fit(X[others], y[others])
                np.testing.assert_allclose(fold.coefs[a, 0], wanted.coef_, rtol=1e-8, atol=1e-10)


def test_folds_of_one_row_each():
    X = make_X(15, 3, seed=20)
    y = make_y(X, 21)
    model = RidgeCV(ALPHAS, cv=LeaveOneOut(), scoring="neg_mean_squared_error").fit(X, y)
    exact = RidgeCV(ALPHAS).fit(X, y)
    assert model.alpha_ == exact.alpha_
    np.testing.assert_allclose(model.best_score_, exact.best_score_, rtol=1e-9)


def test_groups():
    from sklearn import config_context

    X = make_X(60, 4, seed=22)
    y, groups = make_y(X, 23), np.arange(60) % 7
    splits = list(GroupKFold(4).split(X, y, groups))
    wanted = RidgeCV(ALPHAS, cv=splits).fit(X, y)
    with config_context(enable_metadata_routing=True):
        model = RidgeCV(ALPHAS, cv=GroupKFold(4)).fit(X, y, groups=groups)
    assert (model.alpha_, model.best_score_) == (wanted.alpha_, wanted.best_score_)
