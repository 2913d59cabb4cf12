"""Groups of features with a penalty each: scores against refits and densities, gradients against differences, what is chosen."""

import pickle
import warnings

import numpy as np
import pytest
from helpers import STORAGES, make_weights, make_X, make_y
from scipy.linalg import null_space
from scipy.stats import multivariate_normal
from sklearn.base import clone

import fastridge
from fastridge import Ridge, RidgeClassifierCV, RidgeCV, plots, scan
from fastridge.planning import costs
from fastridge.request import Method, Request
from fastridge.selection import group_scores, groups
from fastridge.selection.group_scores import EVIDENCE, GCV, LOO
from fastridge.selection.groups import GroupSearch

ALPHAS = np.geomspace(1e-3, 1e5, 20)
FLAT = 10 * np.sqrt(groups.FTOL)
"""Relative difference of penalties that a search does not see: near a minimum scores differ by its square. With room."""
SHAPES = [(40, 9), (12, 30), (15, 14)]
SCORES = {LOO: None, GCV: "gcv", EVIDENCE: "evidence"}
at_edges = pytest.mark.filterwarnings("ignore:feature groups")


def search(X, y, index, weights=None, intercept=True, d=None):
    asked = {"fit_intercept": intercept, "positive": False, "bounds": None, "penalty_weights": d}
    return GroupSearch(Request.checked(X, y, weights, Method(), alpha=1.0, **asked), index, 2)


def solved(X, y, d, weights, intercept):
    """Coefficients and intercepts from normal equations; a column of infinite weight has none"""
    s = np.ones(len(X)) if weights is None else weights
    A = np.hstack([X, np.full((len(X), 1), float(intercept))])
    d, kept = np.append(d, 0 if intercept else np.inf), np.append(np.isfinite(d), intercept)
    w = np.zeros((A.shape[1], y.shape[1]))
    A = A[:, kept]
    w[kept] = np.linalg.solve((A.T * s) @ A + np.diag(d[kept]), (A.T * s) @ y)
    return w[:-1], w[-1]


def sq_errors_of_refits(X, y, d, weights, intercept):
    """Sum over the rows and targets of s (y - prediction without the row)^2"""
    total = 0.0
    for i in range(len(X)):
        others = np.arange(len(X)) != i
        w, b = solved(X[others], y[others], d, None if weights is None else weights[others], intercept)
        total += (1.0 if weights is None else weights[i]) * ((y[i] - X[i] @ w - b) ** 2).sum()
    return total


def of_contrasts(X, y, d, weights, intercept):
    """What unpenalised columns leave of the weighted targets, (n - q, k), its covariance for sigma = 1, the sum of log roots"""
    root = np.ones(len(X)) if weights is None else np.sqrt(weights)
    X, y = X[root > 0], y[root > 0]
    root = root[root > 0]
    free = np.hstack([X[:, d == 0], np.ones((len(X), int(intercept)))]) * root[:, None]
    basis = null_space(free.T) if free.size else np.eye(len(X))
    A = (X * root[:, None])[:, d > 0] / np.sqrt(d[d > 0])
    inner = basis.T @ A
    return basis.T @ (y * root[:, None]), np.eye(basis.shape[1]) + inner @ inner.T, np.log(root).sum()


def problem(shape, weighted, kind, n_targets=2, seed=0):
    """X, y, weights, penalty weights and groups; of `kind` "free" a column has no penalty, and another one no share"""
    rng = np.random.default_rng(seed)
    X = make_X(*shape, seed=seed + 1)
    d = None
    if kind == "free":
        d = rng.uniform(0.5, 2, shape[1])
        d[[1, 3]] = 0.0, np.inf
    weights = make_weights(shape[0], seed + 3, zeros=True) if weighted else None
    if weighted:
        weights[:8] = 1.0
    return X, make_y(X, seed + 2, n_targets), weights, d, rng.permutation(np.arange(shape[1]) % 3)


def scores_there(X, y, weights, d, index, alphas, intercept):
    """Sum of squared leave-one-out errors, sum of GCV, mean log evidence, each straight from its definition"""
    d = alphas[index] if d is None else alphas[index] * d
    contrasts, covariance, log_roots = of_contrasts(X, y, d, weights, intercept)
    left = np.linalg.inv(covariance)
    n = len(X) if weights is None else int(np.count_nonzero(weights))
    m = len(contrasts)
    sigma2 = np.einsum("ik,ij,jk->k", contrasts, left, contrasts) / m
    densities = [multivariate_normal(np.zeros(m), s * covariance).logpdf(c) for s, c in zip(sigma2, contrasts.T, strict=True)]
    return {
        LOO: sq_errors_of_refits(X, y, d, weights, intercept),
        GCV: n * np.square(left @ contrasts).sum() / np.trace(left) ** 2,
        EVIDENCE: np.mean(densities) + log_roots,
    }


@pytest.fixture(params=["kernels", "no kernels"])
def with_and_without_kernels(request, monkeypatch):
    if request.param == "no kernels":
        monkeypatch.setattr(group_scores, "KERNELS_SHARE", 0.0)


@pytest.mark.usefixtures("with_and_without_kernels")
@pytest.mark.parametrize("kind", ["plain", "free"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
def test_scores_and_gradients(storage, shape, intercept, weighted, kind):
    X, y, weights, d, index = problem(shape, weighted, kind)
    found = search(STORAGES[storage](X), y, index, weights, intercept, d)
    rng = np.random.default_rng(7)
    for theta in rng.uniform(-1, 4, (2, 3)):
        wanted = scores_there(X, y, weights, d, index, np.exp(theta), intercept)
        for name in SCORES:
            value, gradient = found._side.evaluate(name, np.exp(theta))
            score = found._score(name, value, 1)
            if name == LOO:
                score *= -len(X)
            np.testing.assert_allclose(score, wanted[name] * (-1 if name == GCV else 1), rtol=1e-9)
            steps = 1e-4 * np.eye(3)
            above, below = ([found._side.evaluate(name, np.exp(theta + sign * e))[0] for e in steps] for sign in (1, -1))
            differences = (np.array(above) - np.array(below)) / 2e-4
            np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(300, 12), (20, 60)])
def test_gradients_in_many_blocks_and_float32(shape, small_pieces):
    X, y, weights, _, index = problem(shape, True, "plain")
    X = X.astype(np.float32)
    single, double = (search(data, y, index, weights) for data in (X, X.astype(np.float64)))
    alphas = np.array([0.5, 20.0, 3.0])
    for name in SCORES:
        for got, wanted in zip(single._side.evaluate(name, alphas), double._side.evaluate(name, alphas), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-8)


def planted(n, p, seed, n_groups=3, n_targets=0):
    """Rows to fit and to score, groups "a" of strong effects, "b" of weak ones, and the others of none"""
    rng = np.random.default_rng(seed)
    labels = np.array(list("abcdefgh"))[rng.permutation(np.arange(p) % n_groups)]
    X = rng.standard_normal((n + 2000, p))
    size = np.select([labels == "a", labels == "b"], [1.0, 0.2], 0.0)
    signal = X @ (size[:, None] * rng.standard_normal((p, max(1, n_targets))))
    y = signal + 0.5 * rng.standard_normal(signal.shape) * signal.std(axis=0)
    y = y if n_targets else y[:, 0]
    return labels, X[:n], y[:n], X[n:], y[n:]


@at_edges
@pytest.mark.parametrize("scoring", SCORES.values())
@pytest.mark.parametrize("shape", [(200, 90), (100, 150)])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_planted_is_found(seed, shape, scoring):
    labels, X, y, X_new, y_new = planted(*shape, seed)
    model = RidgeCV("auto", feature_groups=labels, scoring=scoring).fit(X, y)
    shared = RidgeCV("auto").fit(X, y)
    assert model.groups_.tolist() == ["a", "b", "c"]
    assert model.alpha_.shape == (3,)
    assert model.alpha_[0] < model.alpha_[1]
    assert model.alpha_[0] < model.alpha_[2]
    assert model.score(X_new, y_new) > shared.score(X_new, y_new) + 0.03
    assert 1 < model.n_evaluations_ < 200
    assert model.best_score_ > model.scores_.max()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_those_of_the_search_with_one_alpha(shape, weighted):
    X, y, weights, d, index = problem(shape, weighted, "free")
    found = search(X, y, index, weights, True, d)
    for name, scoring in SCORES.items():
        model = RidgeCV([20.0], penalty_weights=d, scoring=scoring).fit(X, y, weights)
        value = found._side.evaluate(name, np.full(3, 20.0))[0]
        np.testing.assert_allclose(found._score(name, value, 1 if name == EVIDENCE else 2), model.best_score_, rtol=1e-9)


def test_what_does_not_fit_in_memory(monkeypatch):
    X, y, _, _, index = problem((40, 9), False, "plain")
    monkeypatch.setattr(costs, "physical_memory", lambda: 2500.0)
    with pytest.raises(MemoryError, match="5 matrices of the smaller side"):
        RidgeCV(ALPHAS, feature_groups=index).fit(X, y)


@at_edges
@pytest.mark.parametrize("scoring", SCORES.values())
@pytest.mark.parametrize("seed", range(20))
def test_never_worse_than_what_is_shared(seed, scoring):
    rng = np.random.default_rng(seed)
    n, p = rng.integers(6, 40, 2)
    X = make_X(n, p, seed)
    y = make_y(X, seed + 1, int(rng.integers(0, 3)))
    labels = rng.integers(rng.integers(1, p + 1), size=p)
    alphas = 10 ** rng.uniform(-6, 8, rng.integers(1, 5))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the best alpha is")
        model = RidgeCV(alphas, feature_groups=labels, scoring=scoring).fit(X, y)
    assert model.best_score_ >= model.scores_.max()
    assert model.report_.error <= 1e-6
    if scoring is None:  # n refits
        d = model.alpha_[np.unique(labels, return_inverse=True)[1]]
        sq = sq_errors_of_refits(X, y.reshape(n, -1), d, None, True)
        np.testing.assert_allclose(-model.best_score_, sq / y.size, rtol=1e-6)


@at_edges
@pytest.mark.parametrize("scoring", SCORES.values())
@pytest.mark.parametrize("shape", [(60, 12), (15, 40)])
def test_no_start_finds_a_better_minimum(shape, scoring):
    """But for what L-BFGS leaves"""
    labels, X, y, _, _ = planted(*shape, 5)
    index = np.unique(labels, return_inverse=True)[1]
    name = next(name for name, given in SCORES.items() if given == scoring)
    found = search(X, y, index)
    chosen = found.choose(name, 1.0, [0])
    rng = np.random.default_rng(0)
    points = np.exp(rng.uniform(found._low, found._high, (300, 3)))
    scores = [found._score(name, found._side.evaluate(name, alphas)[0], 1) for alphas in points]
    assert chosen.score >= max(scores) - 1e-6 * abs(chosen.score)


@at_edges
@pytest.mark.parametrize("shape", [(60, 12), (15, 40)])
def test_the_fit_is_that_of_ridge_with_these_penalty_weights(shape):
    X, y, weights, d, index = problem(shape, True, "free")
    model = RidgeCV(ALPHAS, feature_groups=index, penalty_weights=d, tol=1e-9).fit(X, y, weights)
    with np.errstate(invalid="ignore"):
        combined = np.where(d == 0, 0.0, model.alpha_[index] * d)
    w, b = solved(X, y, combined, weights, True)
    np.testing.assert_allclose(model.coef_, w.T, rtol=1e-6, atol=1e-7 * np.abs(w).max())
    np.testing.assert_allclose(model.intercept_, b, rtol=1e-6)
    ridge = Ridge(1.0, penalty_weights=combined, tol=1e-9).fit(X, y, weights)
    np.testing.assert_allclose(model.coef_, ridge.coef_, rtol=1e-6, atol=1e-7 * np.abs(w).max())
    assert model.report_.converged
    assert model.report_.error_bound <= 1e-9


@at_edges
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(60, 12), (15, 40)])
@pytest.mark.parametrize("storage", ["F", "csr_array", "csc_array"])
def test_storages(storage, shape, dtype):
    X, y, weights, d, index = problem(shape, True, "free")
    X = X.astype(dtype)
    options = {"feature_groups": index, "penalty_weights": d}
    wanted = RidgeCV(ALPHAS, **options).fit(X.astype(np.float64), y, weights)
    model = RidgeCV(ALPHAS, **options).fit(STORAGES[storage](X), y, weights)
    assert model.coef_.dtype == dtype
    assert model.report_.converged
    np.testing.assert_allclose(model.best_score_, wanted.best_score_, rtol=1e-7)
    np.testing.assert_allclose(model.coef_, wanted.coef_, rtol=FLAT, atol=FLAT * np.abs(wanted.coef_).max())


@at_edges
@pytest.mark.parametrize("scoring", SCORES.values())
def test_a_penalty_for_every_target_and_group(scoring):
    labels, X, y, _, _ = planted(100, 30, 1, n_targets=3)
    y[:, 2] = y[:, 0]
    options = {"feature_groups": labels, "scoring": scoring}
    each = RidgeCV(ALPHAS, alpha_per_target=True, **options).fit(X, y)
    assert each.alpha_.shape == (3, 3)
    assert each.best_score_.shape == (3,)
    assert each.coef_.shape == (3, 30)
    assert each.report_.n_iter.shape == (3,)
    assert each.report_.converged
    for j in range(3):
        alone = RidgeCV(ALPHAS, **options).fit(X, y[:, j])
        np.testing.assert_allclose(each.alpha_[j], alone.alpha_, rtol=FLAT)
        np.testing.assert_allclose(each.best_score_[j], alone.best_score_, rtol=1e-7)
        np.testing.assert_allclose(each.coef_[j], alone.coef_, rtol=FLAT, atol=0.1 * FLAT)
        np.testing.assert_allclose(each.predict(X)[:, j], alone.predict(X), rtol=FLAT, atol=FLAT)
    one = RidgeCV(ALPHAS, alpha_per_target=True, **options).fit(X, y[:, :1])
    assert one.alpha_.shape == (1, 3)
    assert RidgeCV(ALPHAS, **options).fit(X, y).alpha_.shape == (3,)


@at_edges
@pytest.mark.parametrize("shape", [(100, 30), (30, 60)])
def test_names_and_order_of_columns_do_not_matter(shape):
    labels, X, y, _, _ = planted(*shape, 2)
    wanted = RidgeCV(ALPHAS, feature_groups=labels).fit(X, y)
    order = np.random.default_rng(0).permutation(shape[1])
    moved = RidgeCV(ALPHAS, feature_groups=list(labels[order])).fit(X[:, order], y)
    np.testing.assert_allclose(moved.alpha_, wanted.alpha_, rtol=FLAT)
    np.testing.assert_allclose(moved.best_score_, wanted.best_score_, rtol=1e-8)
    numbers = RidgeCV(ALPHAS, feature_groups=np.array([{"a": 7, "b": -1, "c": 3}[label] for label in labels])).fit(X, y)
    assert numbers.groups_.tolist() == [-1, 3, 7]
    np.testing.assert_allclose(numbers.alpha_[[2, 0, 1]], wanted.alpha_, rtol=FLAT)


@at_edges
@pytest.mark.parametrize("shape", [(100, 30), (30, 60)])
def test_rows_without_weight_are_as_good_as_dropped(shape):
    labels, X, y, _, _ = planted(*shape, 3)
    weights = make_weights(len(X), 4, zeros=True)
    for scoring in SCORES.values():
        options = {"feature_groups": labels, "scoring": scoring}
        every = RidgeCV(ALPHAS, **options).fit(X, y, weights)
        some = RidgeCV(ALPHAS, **options).fit(X[weights > 0], y[weights > 0], weights[weights > 0])
        np.testing.assert_allclose(every.coef_, some.coef_, rtol=FLAT, atol=0.1 * FLAT)
        share = np.mean(weights > 0) if scoring is None else 1.0
        np.testing.assert_allclose(every.best_score_, some.best_score_ * share, rtol=1e-7)


@at_edges
@pytest.mark.parametrize("shape", [(60, 12), (15, 40)])
@pytest.mark.parametrize("power", [-300, -40, 40, 300])
def test_sizes_beyond_the_squares_of_float64(power, shape):
    labels, X, y, _, _ = planted(*shape, 4)
    scale = 2.0**power
    for scoring in SCORES.values():
        plain = RidgeCV(ALPHAS, feature_groups=labels, scoring=scoring).fit(X, y)
        scaled = RidgeCV(ALPHAS * scale**2, feature_groups=labels, scoring=scoring).fit(X * scale, y)
        np.testing.assert_allclose(scaled.alpha_ / scale**2, plain.alpha_, rtol=FLAT)
        np.testing.assert_allclose(scaled.best_score_, plain.best_score_, rtol=1e-8)
        np.testing.assert_allclose(scaled.coef_ * scale, plain.coef_, rtol=FLAT, atol=0.1 * FLAT)
        scaled = RidgeCV(ALPHAS, feature_groups=labels, scoring=scoring).fit(X, y * scale)
        np.testing.assert_allclose(scaled.alpha_, plain.alpha_, rtol=FLAT)
        if abs(power) < 100:
            moved = plain.best_score_ - len(X) * np.log(scale) + np.log(scale) if scoring == "evidence" else None
            np.testing.assert_allclose(scaled.best_score_, plain.best_score_ * scale**2 if moved is None else moved, rtol=1e-8)


@at_edges
def test_the_same_bits_for_any_number_of_threads():
    for shape in ((3000, 40), (60, 3000)):
        labels, X, y, _, _ = planted(*shape, 6, 2)
        one, two = (RidgeCV(ALPHAS, feature_groups=labels, n_threads=n).fit(X, y) for n in (1, 2))
        assert (one.alpha_ == two.alpha_).all()
        assert (one.coef_ == two.coef_).all()


def test_a_group_that_counts_for_nothing_is_named():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 40))
    y = X[:, :20] @ rng.standard_normal(20) + rng.standard_normal(300)
    residual = y - Ridge(1e-9).fit(X[:, :20], y).predict(X[:, :20])
    X[:, 20:] -= np.outer(residual, residual @ X[:, 20:]) / (residual @ residual)
    model = RidgeCV(ALPHAS, feature_groups=["signal"] * 20 + ["noise"] * 20)
    with pytest.warns(UserWarning, match="feature groups 'noise': alpha is the largest tried, and they count for nothing"):
        model.fit(X, y)
    assert np.abs(model.coef_[20:]).max() < 1e-3 * np.abs(model.coef_[:20]).max()
    np.testing.assert_allclose(model.coef_[:20], RidgeCV(ALPHAS).fit(X[:, :20], y).coef_, atol=0.02)
    with pytest.warns(UserWarning, match="for some of the targets"):
        RidgeCV(ALPHAS, feature_groups=model.feature_groups, alpha_per_target=True).fit(X, np.column_stack([y, 2 * y]))


def test_one_group_is_the_usual_search():
    X = make_X(50, 6, 1)
    y = make_y(X, 2)
    model, usual = RidgeCV(ALPHAS, feature_groups=["x"] * 6).fit(X, y), RidgeCV(ALPHAS).fit(X, y)
    assert model.alpha_.tolist() == [usual.alpha_]
    assert model.groups_.tolist() == ["x"]
    assert model.n_evaluations_ == 0
    np.testing.assert_allclose(model.best_score_, usual.best_score_, rtol=1e-12)
    np.testing.assert_allclose(model.coef_, usual.coef_, rtol=1e-8, atol=1e-12)


@at_edges
def test_groups_and_targets_without_anything_to_fit():
    """Empty columns, a constant one, groups of unpenalised or fixed ones; a target that is constant"""
    rng = np.random.default_rng(1)
    X = np.hstack([rng.standard_normal((50, 6)), np.zeros((50, 2)), np.full((50, 1), 3.0)])
    y = np.column_stack([X[:, 0] + rng.standard_normal(50), np.full(50, 2.0)])
    labels = [0, 0, 1, 1, 2, 3, 4, 4, 4]
    d = np.array([1.0, 1, 1, 1, 0, np.inf, 1, 1, 1])
    for scoring in (None, "gcv"):
        model = RidgeCV([1.0, 30.0], feature_groups=labels, penalty_weights=d, scoring=scoring).fit(X, y)
        assert model.report_.converged
        assert (model.coef_[1] == 0).all()
        assert np.isfinite(model.best_score_)
        assert (model.alpha_[2:] == [1.0, 30.0][model.scores_.argmax()]).all()
    for data in (X, np.zeros((50, 9))):
        flat = RidgeCV([1.0, 30.0], feature_groups=labels, alpha_per_target=True).fit(data, np.zeros((50, 2)))
        assert (flat.coef_ == 0).all()
        assert (flat.alpha_ == 1.0).all()


@at_edges
def test_classes():
    labels, X, y, X_new, y_new = planted(150, 60, 8)
    model = RidgeClassifierCV(ALPHAS, feature_groups=labels).fit(X, y > 0)
    shared = RidgeClassifierCV(ALPHAS).fit(X, y > 0)
    assert model.alpha_.shape == (3,)
    assert model.best_score_ > shared.best_score_
    assert model.score(X_new, y_new > 0) > shared.score(X_new, y_new > 0)
    three = RidgeClassifierCV(ALPHAS, feature_groups=labels).fit(X, np.digitize(y, [-1, 1]))
    assert three.coef_.shape == (3, 60)
    assert three.alpha_.shape == (3,)


@at_edges
def test_what_is_kept(tmp_path):
    labels, X, y, _, _ = planted(60, 12, 9)
    model = RidgeCV(ALPHAS, feature_groups=labels).fit(X, y)
    assert clone(model).feature_groups.tolist() == labels.tolist()
    again = pickle.loads(pickle.dumps(model))
    fastridge.save(model, tmp_path / "model.npz")
    for other in (again, fastridge.load(tmp_path / "model.npz")):
        assert (other.predict(X) == model.predict(X)).all()
        assert (other.alpha_ == model.alpha_).all()
        assert (other.groups_ == model.groups_).all()
    np.testing.assert_array_equal(model.alphas_, ALPHAS)
    np.testing.assert_allclose(model.scores_, RidgeCV(ALPHAS).fit(X, y).scores_)
    assert not hasattr(model, "choice_")
    with pytest.raises(ValueError, match="an alpha for each group"):
        plots.ScoreDisplay.from_estimator(model)
    model.set_params(feature_groups=None).fit(X, y)
    assert not hasattr(model, "groups_")
    assert not hasattr(model, "n_evaluations_")
    assert model.choice_.chosen == model.scores_.argmax()
    assert np.ndim(model.alpha_) == 0


@at_edges
def test_labels_of_any_kind_that_sorts():
    pandas = pytest.importorskip("pandas")
    labels, X, y, _, _ = planted(60, 12, 10)
    wanted = RidgeCV(ALPHAS, feature_groups=labels).fit(X, y)
    for given in (labels.tolist(), tuple(labels), labels.astype(object), pandas.Series(labels), pandas.Categorical(labels)):
        model = RidgeCV(ALPHAS, feature_groups=given).fit(X, y)
        assert model.groups_.tolist() == ["a", "b", "c"]
        assert (model.alpha_ == wanted.alpha_).all()
    flags = RidgeCV(ALPHAS, feature_groups=labels == "a").fit(X, y)
    assert flags.groups_.tolist() == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_groups": [0, 1]}, r"one label for each of the 5 features, got shape \(2,\)"),
        ({"feature_groups": [[0, 1, 0, 1, 1]]}, r"one label for each of the 5 features, got shape \(1, 5\)"),
        ({"feature_groups": [0, 1, np.nan, 1, 0]}, "no label for feature 2"),
        ({"feature_groups": np.array(["a", "b", "a", None, "b"], dtype=object)}, "no label for feature 3"),
        ({"feature_groups": np.array([1, "a", 2, 1, 2], dtype=object)}, "labels of one kind, which sort, got int, str"),
        ({"feature_groups": "abcde"}, "feature_groups"),
        ({"cv": 3}, "cv=None"),
        ({"rule": "one_standard_error"}, "rule='best'"),
        ({"store_cv_results": True}, "store_cv_results=False"),
        ({"scoring": "r2"}, "scoring must be None or one of .'gcv', 'evidence'., got 'r2'"),
        ({"scoring": "bic"}, "scoring must be None or one of .'gcv', 'evidence'., got 'bic'"),
        ({"penalty_weights": np.eye(5)}, "not a matrix"),
    ],
)
def test_bad_input(options, message):
    X = make_X(20, 5, 1)
    model = RidgeCV(ALPHAS).fit(X, make_y(X, 2))
    before = model.coef_
    with pytest.raises(ValueError, match=message):
        model.set_params(**{"feature_groups": [0, 0, 1, 1, 1]} | options).fit(X, make_y(X, 2))
    assert model.coef_ is before


def test_rows_of_a_source_have_one_alpha():
    X = make_X(20, 5, 1)
    with pytest.raises(ValueError, match="takes X in memory"):
        RidgeCV(ALPHAS, feature_groups=[0, 0, 1, 1, 1]).fit(scan(X, target=make_y(X, 2)))


def test_nothing_is_left_for_groups_to_fit():
    X = np.random.default_rng(0).standard_normal((3, 4))
    with pytest.raises(ValueError, match="more rows than the intercept and unpenalised columns fit"):
        RidgeCV([1.0], feature_groups=[0, 0, 1, 1], penalty_weights=[0.0, 0.0, 1.0, 1.0]).fit(X, [1.0, 2.0, 4.0])


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_large_columns_that_depend_on_others(size):
    """Years, ages and their differences, beside dummies: the search goes as far down as digits allow, or says why not"""
    rng = np.random.default_rng(0)
    n = 2000
    year, age = rng.integers(1990, 2020, n), rng.integers(18, 80, n)
    X = np.column_stack([size * np.column_stack([year, age, year - age]), np.eye(30)[rng.integers(0, 30, n)]])
    y = 0.3 * X[:, 3:] @ rng.standard_normal(30) + 0.02 / size * X[:, 1] + rng.standard_normal(n)
    options = {"feature_groups": np.arange(33) % 2}
    shared = RidgeCV(ALPHAS).fit(X, y)
    if size == 100.0:
        model = RidgeCV(ALPHAS, **options).fit(X, y)
        assert model.best_score_ > shared.best_score_
        assert model.alpha_[0] != model.alpha_[1]
        return
    with pytest.warns(UserWarning, match="keep the alpha that they share: large columns"):
        model = RidgeCV(ALPHAS, **options).fit(X, y)
    assert (model.alpha_ == shared.alpha_).all()
