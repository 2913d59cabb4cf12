"""RidgeClassifier: scikit-learn's checks, a drop-in for its classifier, the closed form on coded classes, bad input."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import sklearn.linear_model
from helpers import STORAGES, make_weights, make_X
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks
from truth import Exact

from fastridge import Ridge, RidgeClassifier, Status

SOLVERS = ("cholesky", "svd", "cg", "cd", "auto")
KINDS = ("binary", "multiclass", "multilabel")

pytestmark = pytest.mark.usefixtures("one_blas_thread")


def make_labels(X, kind, seed=0):
    """Labels that X says something about: -3 and 5; three words; or three columns of zeros and ones"""
    rng = np.random.default_rng(seed)
    scores = X @ rng.standard_normal((X.shape[1], 3))
    scores = (scores - scores.mean(axis=0)) / scores.std(axis=0) + rng.standard_normal(scores.shape)
    if kind == "binary":
        return np.where(scores[:, 0] > 0.2, 5, -3)
    if kind == "multiclass":
        return np.array(["ant", "bee", "cow"])[scores.argmax(axis=1)]
    return (scores > [0, 0.5, -0.5]).astype(int)


def coded(y):
    """-1 and +1: one column for two classes, else one for each class or label"""
    if y.ndim == 2:
        return 2 * y - 1
    classes = np.unique(y)
    return np.where(y[:, None] == (classes[1:] if len(classes) == 2 else classes), 1, -1)


X = make_X(70, 8, seed=201)
WEIGHTS = make_weights(70, 202, zeros=True)


@parametrize_with_checks([RidgeClassifier(), RidgeClassifier(solver="cg", tol=1e-9), RidgeClassifier(solver="cd", tol=1e-9)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_matrix"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_same_as_scikit_learn(kind, intercept, storage, dtype):
    y = make_labels(X, kind)
    A = STORAGES[storage](X.astype(dtype))
    tol, rtol = (1e-9, 1e-7) if dtype == "float64" else (1e-6, 1e-4)
    ours = RidgeClassifier(0.3, fit_intercept=intercept, tol=tol).fit(A, y)
    theirs = sklearn.linear_model.RidgeClassifier(0.3, fit_intercept=intercept, solver="svd").fit(X.astype(dtype), y)
    assert ours.coef_.shape == (1 if kind == "binary" else 3, 8)
    assert ours.coef_.dtype == theirs.coef_.dtype == dtype
    np.testing.assert_allclose(ours.coef_, np.atleast_2d(theirs.coef_), rtol=rtol, atol=rtol)
    assert np.shape(ours.intercept_) == np.shape(theirs.intercept_)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    scores, wanted = ours.decision_function(A), theirs.decision_function(X.astype(dtype))
    assert scores.shape == wanted.shape
    assert scores.dtype == wanted.dtype
    np.testing.assert_allclose(scores, wanted, rtol=100 * rtol, atol=100 * rtol)
    labels, wanted = ours.predict(A), theirs.predict(X.astype(dtype))
    assert labels.dtype == wanted.dtype
    np.testing.assert_array_equal(labels, wanted)
    assert ours.score(A, y) == theirs.score(X.astype(dtype), y) > (0.5 if kind != "multilabel" else 0.3)


@pytest.mark.parametrize("sample_weight", [None, WEIGHTS], ids=["no weights", "weights"])
@pytest.mark.parametrize(
    ("kind", "class_weight"),
    [
        *((kind, weight) for kind in KINDS for weight in (None, "balanced")),
        ("binary", {-3: 2.5, 5: 0.1}),
        ("multiclass", {"ant": 0.2, "cow": 4}),
        ("multiclass", {}),
    ],
    ids=str,
)
def test_class_weight_and_sample_weight(kind, class_weight, sample_weight):
    y = make_labels(X, kind)
    options = {"alpha": 0.3, "class_weight": class_weight}
    ours = RidgeClassifier(**options, tol=1e-9).fit(X, y, sample_weight)
    theirs = sklearn.linear_model.RidgeClassifier(**options, solver="cholesky").fit(X, y, sample_weight)
    np.testing.assert_allclose(ours.coef_, np.atleast_2d(theirs.coef_), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-7)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y, sample_weight) == theirs.score(X, y, sample_weight)


@pytest.mark.parametrize("shape", [(70, 8), (12, 30)])
@pytest.mark.parametrize("storage", ["C", "csc_array"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_report_holds(solver, kind, storage, shape):
    dense = make_X(*shape, seed=203)
    y, weights = make_labels(dense, kind), make_weights(len(dense), 204)
    model = RidgeClassifier(0.5, solver=solver, class_weight="balanced").fit(STORAGES[storage](dense), y, weights)
    exact = Exact(dense, coded(y), 0.5, weights * compute_sample_weight("balanced", y))
    errors = exact.error(model.coef_)
    assert model.report_.status is Status.CONVERGED
    assert model.report_.error <= 1e-6
    assert (errors <= model.report_.error_bound + exact.rounding).all()
    assert (errors <= 1e-6 + exact.rounding).all()
    np.testing.assert_allclose(model.intercept_, exact.intercept, rtol=1e-5, atol=1e-6)
    assert solver in ("auto", model.solver_)
    assert model.report_.n_iter.shape == (len(model.coef_),)
    np.testing.assert_array_equal(model.n_iter_, model.report_.n_iter + (model.solver_ not in ("cg", "cd")))
    assert (model.n_iter_ >= 1).all()


def test_one_penalty_for_each_class():
    y, alphas = make_labels(X, "multiclass"), np.array([0.1, 1.0, 10.0])
    model = RidgeClassifier(alphas).fit(X, y)
    assert (Exact(X, coded(y), alphas).error(model.coef_) < 2e-6).all()


def test_it_is_ridge_on_coded_classes():
    y = make_labels(X, "multiclass")
    model, ridge = RidgeClassifier().fit(X, y, WEIGHTS), Ridge().fit(X, coded(y), WEIGHTS)
    np.testing.assert_array_equal(model.coef_, ridge.coef_)
    np.testing.assert_array_equal(model.decision_function(X), ridge.predict(X))


def test_labels_are_what_they_were():
    y = make_labels(X, "multiclass")
    for labels in (y, y.astype(object), pd.Series(y), list(y), pd.Series(y, dtype="category")):
        np.testing.assert_array_equal(RidgeClassifier().fit(X, labels).predict(X), RidgeClassifier().fit(X, y).predict(X))
    binary = make_labels(X, "binary")
    assert set(RidgeClassifier().fit(X, binary > 0).predict(X)) == {True, False}
    assert RidgeClassifier().fit(X, binary.astype(float)).predict(X).dtype == np.float64
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        np.testing.assert_array_equal(
            RidgeClassifier().fit(X, binary[:, None]).predict(X), RidgeClassifier().fit(X, binary).predict(X)
        )


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array, sp.coo_array, sp.lil_array, sp.csc_array])
def test_sparse_labels(make):
    y = make_labels(X, "multilabel")
    dense, sparse = RidgeClassifier().fit(X, y), RidgeClassifier().fit(X, make(y))
    np.testing.assert_array_equal(sparse.coef_, dense.coef_)
    assert sp.issparse(sparse.predict(X))
    np.testing.assert_array_equal(sparse.predict(X).toarray(), dense.predict(X))


def test_a_label_that_all_or_no_samples_have():
    y = make_labels(X, "multilabel")
    y[:, 0], y[:, 2] = 1, 0
    predicted = RidgeClassifier().fit(X, y).predict(X)
    np.testing.assert_array_equal(predicted[:, [0, 2]], y[:, [0, 2]])


def test_parameters_are_those_of_ridge_and_class_weight():
    assert set(RidgeClassifier().get_params()) - set(Ridge().get_params()) == {"class_weight"}
    theirs = sklearn.linear_model.RidgeClassifier().get_params()
    assert set(theirs) - set(RidgeClassifier().get_params()) == set(sklearn.linear_model.Ridge().get_params()) - set(
        Ridge().get_params()
    )
    ours = RidgeClassifier().get_params()
    assert {name: ours[name] for name in Ridge().get_params()} == Ridge().get_params()
    given = {name: object() for name in ours}
    assert RidgeClassifier(**given).get_params(deep=False) == given  # every one is passed on


def test_clone_and_pickle():
    y = make_labels(X, "multiclass")
    model = RidgeClassifier(0.5, solver="cg", class_weight="balanced").fit(X, y)
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    with pytest.raises(NotFittedError):
        clone(model).decision_function(X)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.report_.status is Status.CONVERGED
    assert repr(model) == "RidgeClassifier(alpha=0.5, class_weight='balanced', solver='cg')"


def test_pipeline_grid_search_and_cross_validation():
    A, y = load_breast_cancer(return_X_y=True)
    grid = {"ridgeclassifier__alpha": [0.01, 1.0, 100.0], "ridgeclassifier__class_weight": [None, "balanced"]}
    ours, theirs = (
        GridSearchCV(make_pipeline(StandardScaler(), model), grid, cv=3).fit(A, y)
        for model in (RidgeClassifier(), sklearn.linear_model.RidgeClassifier())
    )
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])
    A, y = load_iris(return_X_y=True)
    np.testing.assert_array_equal(
        cross_val_score(RidgeClassifier(), A, y), cross_val_score(sklearn.linear_model.RidgeClassifier(), A, y)
    )


def test_sample_weight_is_routed():
    y = make_labels(X, "binary")
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(RidgeClassifier().set_fit_request(sample_weight=True)).fit(X, y, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(pipeline[-1].coef_, RidgeClassifier().fit(X, y, WEIGHTS).coef_)


def test_frames():
    y = make_labels(X, "binary")
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    model = RidgeClassifier().fit(frame, y)
    assert list(model.feature_names_in_) == list("abcdefgh")
    assert model.n_features_in_ == 8
    np.testing.assert_array_equal(model.predict(frame), RidgeClassifier().fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("hgfedcba")])


def test_a_warning_names_who_called_fit():
    model = RidgeClassifier(1e-3, solver="cg", max_iter=1)
    with pytest.warns(ConvergenceWarning, match="cg reached an H-norm error") as caught:
        model.fit(X, make_labels(X, "multiclass"))
    assert [warning.filename for warning in caught] == [__file__]
    assert model.report_.status is Status.MAX_ITER


Y = make_labels(X, "multiclass")
MULTILABEL = make_labels(X, "multilabel")
NOT_FINITE = X.copy()
NOT_FINITE[3, 2] = np.nan
BROKEN = sp.coo_array(MULTILABEL)
BROKEN.row[1] = 99
BAD = {
    "one class": (X, ["ant"] * 70, {}, {}, ValueError, "at least two classes, got one class: .*ant"),
    "continuous": (X, np.linspace(0, 1, 70), {}, {}, ValueError, "Unknown label type: continuous"),
    "several outputs": (X, np.arange(140).reshape(70, 2) % 3, {}, {}, ValueError, "Multioutput target data is not supported"),
    "y with nan": (X, np.where(np.arange(70) == 5, np.nan, 1.0), {}, {}, ValueError, "y contains NaN"),
    "short y": (X, Y[:60], {}, {}, ValueError, "inconsistent numbers of samples"),
    "no y": (X, None, {}, {}, ValueError, "requires y to be passed"),
    "X with nan": (NOT_FINITE, Y, {}, {}, ValueError, "X contains NaN"),
    "1-d X": (X[:, 0], Y, {}, {}, ValueError, "Expected 2D array"),
    "weights": (X, Y, {}, {"sample_weight": np.ones(3)}, ValueError, r"sample_weight must be a number or of shape \(70,\)"),
    "negative weights": (X, Y, {}, {"sample_weight": -np.ones(70)}, ValueError, "not negative"),
    "class_weight": (X, Y, {"class_weight": "balance"}, {}, ValueError, 'must be None, "balanced" or a dict'),
    "class_weight list": (X, Y, {"class_weight": [1, 2]}, {}, ValueError, 'must be None, "balanced" or a dict'),
    "class_weight < 0": (
        X,
        Y,
        {"class_weight": {"ant": -1}},
        {},
        ValueError,
        r"class_weight\['ant'\] must be finite and not neg",
    ),
    "class_weight text": (X, Y, {"class_weight": {"ant": "1"}}, {}, TypeError, r"class_weight\['ant'\] must be a number"),
    "unknown class": (X, Y, {"class_weight": {"elk": 1}}, {}, ValueError, "elk|not in class_weight"),
    "dict, labels": (X, MULTILABEL, {"class_weight": {0: 2}}, {}, ValueError, "where samples have several labels, got a dict"),
    "alpha": (X, Y, {"alpha": -1}, {}, ValueError, "alpha must be finite and not negative"),
    "alphas": (X, Y, {"alpha": [1.0, 2.0]}, {}, ValueError, r"alpha must be a number or of shape \(3,\)"),
    "sparse labels": (
        X,
        sp.csr_array(coded(Y)[:, :1]),
        {},
        {},
        TypeError,
        r"y must be dense where samples have one label.*ravel",
    ),
    "sparse, row": (X, BROKEN, {}, {}, ValueError, r"y is not a well-formed coo matrix: its row indices must lie in \[0, 70\)"),
    "masked": (X, np.ma.masked_equal(np.arange(70) % 3, 1), {}, {}, ValueError, "y has 23 masked entries"),
    "huge weight": (
        X,
        Y,
        {"class_weight": {"ant": 10**400}},
        {},
        ValueError,
        r"class_weight\['ant'\] must be finite .* 401 digits",
    ),
    "intercept": (X, Y, {"fit_intercept": None}, {}, TypeError, "fit_intercept must be True or False, got None"),
    "solver": (X, Y, {"solver": "lsqr"}, {}, ValueError, "solver must be one of"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named_and_leaves_an_earlier_fit(bad):
    A, y, parameters, arguments, error, message = BAD[bad]
    model = RidgeClassifier().fit(X[:, :6], make_labels(X, "binary"))
    before = {**vars(model), **parameters}
    with pytest.raises(error, match=message):
        model.set_params(**parameters).fit(A, y, **arguments)
    assert vars(model).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(model).items())


def test_predict_refuses_other_data():
    model = RidgeClassifier().fit(X, Y)
    for predict in (model.predict, model.decision_function):
        with pytest.raises(ValueError, match="X has 5 features"):
            predict(X[:, :5])
        with pytest.raises(ValueError, match="NaN"):
            predict(NOT_FINITE)
