"""RidgeCV and RidgeClassifierCV as estimators: scikit-learn's answers, shapes and errors; what they say; what they leave."""

import gc
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X, make_y
from sklearn import config_context, linear_model
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, mean_absolute_error, mean_squared_error
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits
from truth import Exact

import fastridge
from fastridge import Ridge, RidgeClassifierCV, RidgeCV, Status, penalty_search
from fastridge.parallel import LANE_BYTES
from fastridge.selection import loo

ALPHAS = [1e-3, 0.1, 1.0, 10.0, 1e3]
NAMES = ("alpha_", "best_score_", "coef_", "intercept_", "cv_results_", "classes_", "n_features_in_")
SETS_CV = {
    f"check_sample_weight_equivalence_on_{kind}_data": "it sets cv, and criteria judge fits to all rows"
    for kind in ("dense", "sparse")
}
edges = pytest.mark.filterwarnings("ignore:the (best alpha|alpha chosen) is")


@edges
@parametrize_with_checks(
    [
        RidgeCV(),
        RidgeClassifierCV(),
        RidgeCV(cv=3),
        RidgeClassifierCV(cv=2),
        RidgeCV(alphas=7),
        RidgeClassifierCV(alphas="auto"),
        RidgeCV(scoring="gcv"),
        RidgeClassifierCV(scoring="evidence", alphas=5),
        RidgeCV(rule="one_standard_error"),
    ],
    expected_failed_checks=lambda estimator: {} if estimator.scoring is None else SETS_CV,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def alike(ours, theirs, tol=1e-8):
    for name in NAMES:
        assert hasattr(ours, name) == hasattr(theirs, name), name
        if hasattr(theirs, name):
            got, wanted = np.asarray(getattr(ours, name)), np.asarray(getattr(theirs, name))
            assert got.shape == wanted.shape, name
            if wanted.dtype.kind == "f":
                np.testing.assert_allclose(got, wanted, rtol=tol, atol=tol * np.abs(wanted).max(initial=0), err_msg=name)
            else:
                assert (got == wanted).all(), name


OPTIONS = {
    "plain": {},
    "stored": {"store_cv_results": True},
    "per target": {"alpha_per_target": True},
    "r2": {"scoring": "r2", "store_cv_results": True},
    "r2 per target": {"scoring": "r2", "alpha_per_target": True},
    "no intercept": {"fit_intercept": False},
    "svd": {"gcv_mode": "svd"},
    "eigen": {"gcv_mode": "eigen"},
    "folds": {"cv": 4},
    "one alpha": {"alphas": 2.0},
    "a function": {"scoring": make_scorer(mean_absolute_error, greater_is_better=False), "cv": 3},
}


@edges
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_targets", [0, 1, 3])
@pytest.mark.parametrize("shape", [(60, 8), (12, 30)])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_answers_of_scikit_learn(options, shape, n_targets, weighted):
    options = {"alphas": ALPHAS} | OPTIONS[options]
    if options.get("scoring") == "r2" and options.get("alpha_per_target") and n_targets == 0:
        pytest.skip("scikit-learn does not take one target there")
    X = make_X(*shape, seed=1)
    y = make_y(X, 2, n_targets)
    weights = make_weights(shape[0], 3) if weighted else None
    alike(RidgeCV(**options).fit(X, y, weights), linear_model.RidgeCV(**options).fit(X, y, weights))


@edges
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("shape", [(60, 8), (12, 30)])
def test_storages(shape, storage, dtype):
    X = make_X(*shape, seed=4, dtype=dtype)
    y = make_y(X, 5, 2)
    ours = RidgeCV(ALPHAS, store_cv_results=True).fit(STORAGES[storage](X), y)
    theirs = linear_model.RidgeCV(ALPHAS, store_cv_results=True).fit(X.astype(np.float64), y)
    assert ours.coef_.dtype == ours.cv_results_.dtype == dtype
    alike(ours, theirs, 1e-8 if dtype == np.float64 else 1e-5)


@edges
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"store_cv_results": True}, {"class_weight": "balanced"}, {"cv": 3}, {"class_weight": {0: 3.0}}]
)
def test_the_answers_of_scikit_learn_on_classes(options, n_classes):
    rng = np.random.default_rng(6)
    labels = rng.integers(n_classes, size=80)
    X = rng.standard_normal((80, 5)) + (labels == 1)[:, None]
    ours, theirs = (E(ALPHAS, **options).fit(X, labels) for E in (RidgeClassifierCV, linear_model.RidgeClassifierCV))
    alike(ours, theirs)
    assert (ours.predict(X) == theirs.predict(X)).all()
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("scoring", ["accuracy", "balanced_accuracy", "f1_macro"])
def test_leave_one_out_scores_of_labels(scoring, n_classes):
    """Against n refits. (scikit-learn 1.9 scores two classes as one, which are always right.)"""
    from sklearn.metrics import get_scorer

    rng = np.random.default_rng(7)
    names = np.array(["x", "y", "z"])[:n_classes]
    labels = names[rng.integers(n_classes, size=40)]
    X = rng.standard_normal((40, 4)) + 0.7 * (labels == "x")[:, None]
    alphas, scores = [0.01, 10.0, 300.0], []
    for alpha in alphas:
        decided = np.array(
            [fastridge.RidgeClassifier(alpha).fit(np.delete(X, i, 0), np.delete(labels, i)).predict(X[[i]])[0] for i in range(40)]
        )
        codes = -np.ones((40, n_classes))
        codes[np.arange(40), np.searchsorted(names, decided)] = 1.0
        given = penalty_search._GivenScores()
        fitted = fastridge.RidgeClassifier().fit(X, labels)
        given._binarizer, given.classes_ = fitted._binarizer, fitted.classes_
        scores.append(get_scorer(scoring)(given, codes[:, 1] if n_classes == 2 else codes, labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RidgeClassifierCV(alphas, scoring=scoring).fit(X, labels)
    assert model.alpha_ == alphas[int(np.argmax(scores))]
    np.testing.assert_allclose(model.best_score_, max(scores))


def test_several_labels_a_sample():
    rng = np.random.default_rng(8)
    X = rng.standard_normal((70, 5))
    labels = (X[:, :3] + 0.5 * rng.standard_normal((70, 3)) > 0).astype(int)
    for y in (labels, sp.csr_matrix(labels)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = RidgeClassifierCV(ALPHAS).fit(X, y)
            folds = RidgeClassifierCV(ALPHAS, cv=3).fit(X, y)
        theirs = linear_model.RidgeClassifierCV(ALPHAS).fit(X, labels)
        assert model.alpha_ == theirs.alpha_
        np.testing.assert_allclose(model.best_score_, theirs.best_score_, rtol=1e-10)
        predicted = model.predict(X)
        assert ((predicted.toarray() if sp.issparse(predicted) else predicted) == theirs.predict(X)).all()
        assert folds.coef_.shape == (3, 5)


@edges
@pytest.mark.parametrize("shape", [(30, 5), (8, 20)])
def test_rows_without_weight_are_predicted_by_the_model_of_all_others(shape):
    X = make_X(*shape, seed=9)
    y = make_y(X, 10, 2)
    weights = make_weights(shape[0], 11, zeros=True)
    model = RidgeCV([0.5, 5.0], scoring="neg_mean_squared_error", store_cv_results=True).fit(X, y, weights)
    empty = np.flatnonzero(weights == 0)
    assert len(empty)
    for a, alpha in enumerate([0.5, 5.0]):
        exact = Exact(X, y, alpha, weights)
        wanted = X[empty] @ exact.coef.T + exact.intercept
        np.testing.assert_allclose(model.cv_results_[empty, :, a], wanted, rtol=1e-8, atol=1e-8)
    predictions = model.cv_results_[:, :, [0.5, 5.0].index(model.alpha_)]
    np.testing.assert_allclose(model.best_score_, -mean_squared_error(y, predictions, sample_weight=weights))


@edges
def test_scores_do_not_depend_on_how_many_predictions_are_held(monkeypatch):
    X = make_X(300, 20, seed=12)
    y = make_y(X, 13, 2)
    whole = RidgeCV(ALPHAS, scoring="r2", store_cv_results=True).fit(X, y)
    monkeypatch.setattr(penalty_search, "PREDICTION_BYTES", 1)
    parts = RidgeCV(ALPHAS, scoring="r2", store_cv_results=True).fit(X, y)
    np.testing.assert_allclose(parts.cv_results_, whole.cv_results_, rtol=1e-12, atol=1e-12)
    assert parts.alpha_ == whole.alpha_


@pytest.mark.parametrize("cv", [None, 3])
@pytest.mark.parametrize("shape", [(80, 10), (20, 60)])
def test_the_final_fit_is_certified(shape, cv):
    X = make_X(*shape, seed=14)
    y = make_y(X, 15, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RidgeCV(ALPHAS, cv=cv, tol=1e-9).fit(X, y)
    assert model.report_.status is Status.CONVERGED
    assert cv is not None or (model.report_.solver == "cg" and (model.report_.n_iter == 0).all())  # nothing but a proof
    assert Exact(X, y, model.alpha_).error(model.coef_).max() <= model.report_.error_bound + 1e-13 <= 1e-9 + 1e-13
    np.testing.assert_allclose(model.coef_, Ridge(model.alpha_, tol=1e-12).fit(X, y).coef_, rtol=1e-6, atol=1e-8)


def noisy(n=200, p=10, noise=5.0, seed=16):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal(p) + noise * rng.standard_normal(n)


@pytest.mark.parametrize("cv", [None, 4])
def test_an_edge_is_said(cv):
    X, y = noisy()
    inside = RidgeCV(np.geomspace(1e-2, 1e6, 40), cv=cv).fit(X, y)  # warnings are errors
    best = inside.alpha_
    with pytest.warns(UserWarning, match=r"the best alpha is the largest, .*: a larger one"):
        RidgeCV([best / 100, best / 10], cv=cv).fit(X, y)
    with pytest.warns(UserWarning, match=r"the best alpha is the smallest, .*: a smaller one") as said:
        RidgeCV([100 * best, 10 * best], cv=cv).fit(X, y)
    assert said[0].filename == __file__
    RidgeCV(1.0, cv=cv).fit(X, y)
    RidgeCV([1.0, 1.0], cv=cv).fit(X, y)


def test_a_warning_that_is_an_error_leaves_a_fitted_model():
    X, y = noisy()
    model = RidgeCV([1e-3, 1e-2])
    with pytest.raises(UserWarning, match="the best alpha is the largest"):
        model.fit(X, y)
    assert model.alpha_ == 1e-2
    assert model.predict(X).shape == y.shape


def test_progress(capsys):
    X, y = noisy()
    RidgeCV("auto", cv=3, verbose=True).fit(X, y)
    said = capsys.readouterr().err
    assert "30 penalties from" in said
    assert "fold 3 of 3" in said


def test_scores_that_no_longer_change_are_no_edge():
    X, y = noisy(noise=1e-3)
    RidgeCV([1e-12, 1e-9, 1.0]).fit(X, y)


@pytest.mark.parametrize("cv", [None, 4])
def test_a_grid_that_suits_the_data(cv):
    X, y = noisy()
    for scale in (1.0, 1e5):
        model = RidgeCV("auto", cv=cv).fit(X * scale, y)
        assert len(model.alphas_) == 30
        best = np.geomspace(1e-1, 1e5, 200)
        fine = RidgeCV(best * scale**2, cv=cv).fit(X * scale, y)
        assert abs(np.log10(model.alpha_ / fine.alpha_)) < 0.3
        assert model.best_score_ >= fine.best_score_ - 1e-3 * abs(fine.best_score_)
    assert len(RidgeCV(12, cv=cv).fit(X, y).alphas_) == 12
    assert model.scores_[list(model.alphas_).index(model.alpha_)] == model.best_score_ == model.scores_.max()


@pytest.mark.parametrize("edge", [0, -1])
def test_a_grid_goes_on_past_its_edge(edge, monkeypatch):
    X, y = noisy()
    best = RidgeCV(np.geomspace(1e-2, 1e6, 60)).fit(X, y).alpha_
    start = np.geomspace(best * 1e1, best * 1e4, 7) if edge == 0 else np.geomspace(best / 1e4, best / 1e1, 7)
    monkeypatch.setattr(penalty_search, "_grid", lambda *_: start)
    model = RidgeCV("auto").fit(X, y)
    assert len(model.alphas_) == 17
    assert abs(np.log10(model.alpha_ / best)) < 0.6
    monkeypatch.setattr(penalty_search, "EXTENSIONS", 0)
    with pytest.warns(UserWarning, match="the best alpha is the"):
        RidgeCV("auto").fit(X, y)


@edges
def test_an_extended_grid_stores_all():
    X, y = noisy(60, 5, 100.0)
    model = RidgeCV("auto", store_cv_results=True, alpha_per_target=True).fit(X, np.column_stack([y, X[:, 0], X[:, 1] + y]))
    assert model.cv_results_.shape == (60, 3, len(model.alphas_))
    assert len(model.alphas_) > 30
    assert model.alpha_.shape == (3,)
    assert (model.scores_.max(axis=0) == model.best_score_).all()


WRONG = [
    ({"alphas": [1.0, -2.0]}, ValueError, r"alphas\[1\] == -2.0, must be > 0"),
    ({"alphas": [0.0, 1.0]}, ValueError, r"alphas\[0\] == 0.0, must be > 0"),
    ({"alphas": [1.0, -2.0], "cv": 3}, ValueError, r"alphas\[1\] == -2.0, must be >= 0"),
    ({"alphas": [1.0, "2"]}, TypeError, r"alphas\[1\] must be an instance of float, not str"),
    ({"alphas": [1.0, np.inf]}, ValueError, "finite"),
    ({"alphas": [1.0, np.nan]}, ValueError, "finite"),
    ({"alphas": []}, ValueError, "alphas"),
    ({"alphas": "many"}, ValueError, "alphas"),
    ({"alphas": -1.0}, ValueError, "alphas"),
    ({"cv": 3, "store_cv_results": True}, ValueError, "cv!=None and store_cv_results=True are incompatible"),
    ({"cv": 3, "alpha_per_target": True}, ValueError, "cv!=None and alpha_per_target=True are incompatible"),
    ({"scoring": "no score"}, ValueError, "scoring"),
    ({"gcv_mode": "qr"}, ValueError, "gcv_mode"),
    ({"rule": "two standard errors"}, ValueError, "rule"),
    ({"scoring": "gcv", "cv": 3}, ValueError, "takes cv=None, got 3"),
    ({"tol": 2.0}, ValueError, "tol"),
    ({"penalty_weights": [1.0]}, ValueError, "penalty_weights"),
    ({"cv": 1000}, ValueError, "1000"),
    ({"cv": [(np.arange(50), np.arange(0))]}, ValueError, "without rows to train on or to score"),
]


@pytest.mark.parametrize(("options", "error", "said"), WRONG)
def test_mistakes_leave_what_was_fitted(options, error, said):
    X, y = noisy(50, 4)
    model = RidgeCV(np.geomspace(1e-3, 1e5, 30)).fit(X, y)
    before = {name: value for name, value in vars(model).items() if name.endswith("_")}
    model.set_params(**options)
    with pytest.raises(error, match=said):
        model.fit(X[:, :3], y)
    assert {name: value for name, value in vars(model).items() if name.endswith("_")}.keys() == before.keys()
    assert all(getattr(model, name) is value for name, value in before.items())


@edges
@pytest.mark.parametrize("where", [(loo, "_by_rows"), (penalty_search, "solve"), (penalty_search, "fit_folds")])
def test_an_interrupt_leaves_what_was_fitted(where, monkeypatch):
    X, y = noisy(50, 4)
    model = RidgeCV(ALPHAS, cv=3 if where[1] == "fit_folds" else None, store_cv_results=where[1] != "fit_folds").fit(X, y)
    before = dict(vars(model))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:30, :3], y[:30])
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


def test_not_fitted_yet():
    with pytest.raises(NotFittedError):
        RidgeCV().predict([[1.0]])
    with pytest.raises(TypeError, match="RidgeCV has no parameter 'solver'"):
        RidgeCV(solver="svd")
    with pytest.raises(TypeError, match="Ridge has no parameter 'alphas': RidgeCV and RidgeClassifierCV choose"):
        Ridge(alphas=[1.0])
    with pytest.raises(TypeError, match="Ridge has no parameter 'cv': RidgeCV and RidgeClassifierCV choose"):
        Ridge(cv=3)


@edges
def test_results_of_an_earlier_fit_do_not_stay():
    X, y = noisy(50, 4)
    model = RidgeCV(ALPHAS, store_cv_results=True).fit(X, y)
    assert not hasattr(model.set_params(store_cv_results=False).fit(X, y), "cv_results_")


@edges
def test_weights_are_routed_to_the_scorer():
    X, y = noisy(60, 4)
    weights = make_weights(60, 17)
    for routing in (False, True):
        with config_context(enable_metadata_routing=routing):
            scorer = make_scorer(mean_squared_error, greater_is_better=False)
            if routing:
                scorer = scorer.set_score_request(sample_weight=True)
            for options in ({"scoring": scorer}, {"scoring": scorer, "cv": 3}, {"cv": 3}, {}):
                ours, theirs = (E(ALPHAS, **options).fit(X, y, sample_weight=weights) for E in (RidgeCV, linear_model.RidgeCV))
                alike(ours, theirs)


@edges
def test_penalty_weights():
    X, y = noisy(60, 5)
    d = np.array([0.0, 1.0, 4.0, 1.0, np.inf])
    model = RidgeCV(ALPHAS, penalty_weights=d).fit(X, y)
    scores = []
    for alpha in ALPHAS:
        errors = [
            y[i] - Ridge(alpha, penalty_weights=d, tol=1e-12).fit(np.delete(X, i, 0), np.delete(y, i)).predict(X[[i]])[0]
            for i in range(60)
        ]
        scores.append(-np.mean(np.square(errors)))
    assert model.alpha_ == ALPHAS[int(np.argmax(scores))]
    np.testing.assert_allclose(model.best_score_, max(scores), rtol=1e-9)
    np.testing.assert_allclose(
        model.coef_, Ridge(model.alpha_, penalty_weights=d, tol=1e-12).fit(X, y).coef_, rtol=1e-6, atol=1e-9
    )


@edges
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_memory_of_leave_one_out(kind):
    """O(p^2 + block) beside the data: no (n, p) array, no (n, n) array"""
    rng = np.random.default_rng(18)
    n, p = 40_000, 100
    if kind == "dense":
        X = rng.standard_normal((n, p))
        n_bytes = X.nbytes
    else:
        p = 400
        X = sp.csr_array((np.ones(n), rng.integers(p, size=n), np.arange(n + 1)), shape=(n, p))
        n_bytes = X.data.nbytes + X.indices.nbytes
    y = rng.standard_normal(n)
    with threadpool_limits(1):
        model = RidgeCV(np.geomspace(0.1, 1e3, 20)).fit(X, y)  # once before: threads, imports and caches are not the fit's
        gc.collect()
        tracemalloc.start()
        try:
            model.fit(X, y)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    square = 8 * p * p
    allowed = 5 * square + 5 * 8 * n + 2 * LANE_BYTES + (n_bytes if kind == "sparse" else 0.05 * n_bytes)
    assert peak < allowed < 0.5 * 8 * n * p
