"""Fits in pieces: after any sequence of them the answer is that of one fit to all rows."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import make_weights, make_X, make_y
from sklearn.base import clone

from fastridge import Ridge, RidgeClassifier, moments

STORES = (np.asarray, sp.csr_array, np.asfortranarray, sp.csc_matrix)


def data(n_targets=None, n=240, p=9):
    X = make_X(n, p, seed=901) + 1e5 * (np.arange(p) % 3 == 0)
    y = make_y(X, 902, n_targets=n_targets or 1)
    return X, y if n_targets else y.ravel(), make_weights(n, 903)


def error(X, weights, alpha, w, wanted):
    """The largest of the targets in the H-norm, relative"""
    A = np.sqrt(weights)[:, None] * (X - np.average(X, axis=0, weights=weights))

    def size(v):
        return np.sqrt(((A @ v.T) ** 2).sum(axis=0) + alpha * (v**2).sum(axis=1))

    w, wanted = np.atleast_2d(w), np.atleast_2d(wanted)
    return (size(w - wanted) / size(wanted)).max()


@pytest.mark.parametrize("n_targets", [None, 1, 3])
@pytest.mark.parametrize("cuts", [[240], [1, 2, 100, 240], [80, 160, 240]])
def test_pieces_give_the_answer_of_all_rows(n_targets, cuts):
    X, y, weights = data(n_targets)
    alpha = np.array([0.1, 3.0, 0.1])[:n_targets] if n_targets else 0.1
    model, lo = Ridge(alpha), 0
    for hi, store in zip(cuts, STORES, strict=False):
        assert model.partial_fit(store(X[lo:hi]), y[lo:hi], weights[lo:hi]) is model
        lo = hi
    whole = Ridge(alpha, tol=1e-9).fit(X, y, weights)
    assert model.coef_.shape == whole.coef_.shape
    assert np.shape(model.intercept_) == np.shape(whole.intercept_)
    assert model.report_.converged
    allowed = 1.01 * (model.report_.error_bound + whole.report_.error_bound)
    assert error(X, weights, alpha, model.coef_, whole.coef_) <= allowed
    fit = np.asarray(X @ np.atleast_2d(model.coef_).T + model.intercept_)
    np.testing.assert_allclose(model.predict(X).reshape(fit.shape), fit)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_penalty_weights_and_no_intercept(fit_intercept):
    X, y, _ = data()
    X = X - X.mean(axis=0)
    d = np.where(np.arange(X.shape[1]) == 2, 0.0, 2.0)
    model = Ridge(0.5, fit_intercept=fit_intercept, penalty_weights=d)
    for rows in (slice(100, None), slice(0, 100)):
        model.partial_fit(X[rows], y[rows])
    whole = Ridge(0.5, fit_intercept=fit_intercept, penalty_weights=d, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-5, atol=1e-6 * np.abs(whole.coef_).max())
    np.testing.assert_allclose(model.intercept_, whole.intercept_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("class_weight", [None, {0: 2.0, 1: 0.5}])
def test_a_classifier_in_pieces(n_classes, class_weight):
    X, _, weights = data()
    y = np.sort(np.arange(len(X)) % n_classes)  # most pieces lack most classes
    model = RidgeClassifier(0.2, class_weight=class_weight)
    for lo in range(0, len(X), 50):
        known = np.arange(n_classes) if lo == 0 else None
        model.partial_fit(X[lo : lo + 50], y[lo : lo + 50], classes=known, sample_weight=weights[lo : lo + 50])
    whole = RidgeClassifier(0.2, class_weight=class_weight, tol=1e-9).fit(X, y, weights)
    assert model.coef_.shape == whole.coef_.shape
    np.testing.assert_array_equal(model.classes_, whole.classes_)
    weights = weights * np.array([(class_weight or {}).get(label, 1.0) for label in y.tolist()])
    allowed = 1.01 * (model.report_.error_bound + whole.report_.error_bound)
    assert error(X, weights, 0.2, model.coef_, whole.coef_) <= allowed
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))


def state(model):
    return {name: np.copy(getattr(model, name)) for name in ("coef_", "intercept_", "n_features_in_")}


def unchanged(model, before, X, y):
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(model, name), value)
    again = clone(model).partial_fit(X, y)
    np.testing.assert_array_equal(again.partial_fit(X[:7], y[:7]).coef_, model.partial_fit(X[:7], y[:7]).coef_)


@pytest.mark.parametrize("at", ["update", "solve"])
def test_a_piece_that_fails_is_not_counted(at, monkeypatch):
    X, y, _ = data()
    model = Ridge().partial_fit(X, y)
    before = state(model)
    real = getattr(moments.Moments, at)

    def interrupted(self, *args, **options):
        real(self, *args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(moments.Moments, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(X[:50], y[:50])
    unchanged(model, before, X, y)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((5, 8)), np.ones(5), "8 features"),
        (np.ones((5, 9)), np.ones((5, 2)), "target"),
        (np.full((5, 9), np.nan), np.ones(5), "NaN"),
        (np.ones((5, 9)), np.ones(4), "5.*4|4.*5"),
    ],
)
def test_a_bad_piece_changes_nothing(X, y, message):
    good, target, _ = data()
    model = Ridge().partial_fit(good, target)
    before = state(model)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(X, y)
    unchanged(model, before, good, target)


@pytest.mark.parametrize("options", [{"positive": True}, {"bounds": (0, 1)}, {"solver": "svd"}, {"solver": "cg"}])
def test_what_needs_the_rows_is_refused(options):
    X, y, _ = data()
    model = Ridge(**options)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit") as refused:
        model.partial_fit(X, y)
    assert "partial_fit keeps sums and no rows" in str(refused.value.__cause__)
    assert not hasattr(model, "coef_")


def test_fit_keeps_no_sums_and_forgets_those_of_pieces():
    X, y, _ = data()
    model = Ridge().partial_fit(X, y).fit(X[:, :4], y)
    assert model.n_features_in_ == 4
    with pytest.warns(UserWarning, match="fit kept no sums"):
        model.partial_fit(X[:100], y[:100])
    np.testing.assert_array_equal(model.coef_, Ridge().partial_fit(X[:100], y[:100]).coef_)
    labels = np.where(y > np.median(y), "a", "b")
    classifier = RidgeClassifier().fit(X, labels)
    with pytest.warns(UserWarning, match="fit kept no sums"):
        classifier.partial_fit(X, labels)


def test_labels_of_pieces():
    X, _, _ = data()
    y = np.array(["a", "b"])[np.arange(len(X)) % 2]
    with pytest.raises(ValueError, match="needs classes"):
        RidgeClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="at least two labels"):
        RidgeClassifier().partial_fit(X, y, classes=["a"])
    with pytest.raises(ValueError, match=r"not in classes.*'b'"):
        RidgeClassifier().partial_fit(X, y, classes=["a", "c"])
    with pytest.raises(ValueError, match="balanced"):
        RidgeClassifier(class_weight="balanced").partial_fit(X, y, classes=["a", "b"])
    model = RidgeClassifier().partial_fit(X, y, classes=["b", "a"])
    with pytest.raises(ValueError, match="those of the first call"):
        model.partial_fit(X, y, classes=["a", "b", "c"])
    np.testing.assert_array_equal(model.partial_fit(X, y, classes=["a", "b"]).classes_, ["a", "b"])


def test_too_many_features_are_refused_before_any_work(monkeypatch):
    def none_left(n_features):
        raise MemoryError(f"{n_features} features")

    monkeypatch.setattr(moments, "check_memory", none_left)
    model = Ridge()
    with pytest.raises(MemoryError, match="9 features"):
        model.partial_fit(*data()[:2])
    assert not hasattr(model, "coef_")
    assert not hasattr(model, "n_features_in_")
