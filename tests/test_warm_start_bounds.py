"""A warm start within bounds takes fewer rounds, and however bad it is the answer is certified and right."""

import numpy as np
import pytest
from helpers import judge, reference, stacked
from sklearn.base import clone

from fastridge import Ridge, RidgeClassifier
from fastridge.solvers.bounded import gram

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SHAPES = {"tall": (300, 60), "lines": (300, 60), "wide": (40, 200)}
BOUNDS = {"positive": (0.0, np.inf), "box": (-0.1, 0.2)}


@pytest.fixture(params=SHAPES)
def shape(request, monkeypatch):
    if request.param == "lines":
        monkeypatch.setattr(gram, "MAX_GRAM", 0)
    return request.param


def data(shape, n_targets=1):
    n, p = SHAPES[shape]
    rng = np.random.default_rng(220)
    X = rng.standard_normal((n, p)) / np.sqrt(np.arange(1, p + 1)) + 2 * rng.standard_normal((n, 1))
    Y = X @ rng.standard_normal((p, n_targets)) + rng.standard_normal((n, n_targets))
    return X, Y if n_targets > 1 else Y[:, 0]


BEST = {}


def check(model, X, y, d=None, key=None):
    """Judge every target from outside; the references of a `key` are computed once"""
    lower, upper = (np.full(X.shape[1], float(bound)) for bound in model.bounds)
    for target, w in enumerate(np.atleast_2d(model.coef_)):
        K, t = stacked(X, y[:, target] if y.ndim == 2 else y, model.alpha, d=d)
        best = BEST.get((key, target))
        if best is None:
            best = reference(K, t, lower, upper)
        if key is not None:
            BEST[key, target] = best
        judge(type("Fitted", (), {"report": model.report_}), w, K, t, lower, upper, model.tol, best)


def rounds(model, X, y):
    """Of a fit that begins anew"""
    return clone(model).set_params(warm_start=False).fit(X, y).n_iter_.sum()


def fewer(model, X, y):
    """Whether the last fit took fewer rounds than one that begins anew, or the two that a new answer and its proof take"""
    return model.n_iter_.sum() < rounds(model, X, y) or (model.n_iter_ <= 2).all()


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("n_targets", [1, 3])
def test_fewer_rounds_for_a_nearby_alpha_or_y(n_targets, bounds, shape):
    X, y = data(shape, n_targets)
    model = Ridge(0.1, bounds=BOUNDS[bounds], warm_start=True).fit(X, y)
    model.set_params(alpha=0.1003).fit(X, y)
    assert fewer(model, X, y)
    check(model, X, y)
    y = y + 1e-4 * np.random.default_rng(221).standard_normal(y.shape)
    model.fit(X, y)
    assert fewer(model, X, y)
    check(model, X, y)


def test_fewer_rounds_after_some_rows_more_or_less(shape):
    X, y = data(shape)
    model = Ridge(0.1, bounds=(0, np.inf), warm_start=True).fit(X[:-1], y[:-1])
    model.fit(X, y)
    assert fewer(model, X, y)
    check(model, X, y)
    model.fit(X[1:], y[1:])
    assert fewer(model, X[1:], y[1:])


def test_penalty_weights(shape):
    X, y = data(shape)
    d = np.random.default_rng(222).uniform(0.5, 2, X.shape[1])
    model = Ridge(0.1, bounds=(0, np.inf), penalty_weights=d, warm_start=True).fit(X, y)
    model.set_params(alpha=0.1003).fit(X, y)
    assert fewer(model, X, y)
    check(model, X, y, d)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize(
    "kind", ["noise", "huge", "tiny", "nan", "inf", "all nan", "zero", "opposite", "one coordinate", "too long"]
)
def test_a_bad_start_costs_next_to_nothing_and_the_answer_is_right(kind, bounds, shape):
    X, Y = data(shape, 6)  # how many rounds one target takes varies
    model = Ridge(0.1, bounds=BOUNDS[bounds], warm_start=True).fit(X, Y)
    start, size = model.coef_, model.coef_.shape
    rng, first = np.random.default_rng(223), np.arange(size[1]) == 0
    model.coef_ = {
        "noise": rng.standard_normal(size),
        "huge": 1e300 * rng.standard_normal(size),
        "tiny": 1e-300 * rng.standard_normal(size),
        "nan": np.where(first, np.nan, start),
        "inf": np.where(first, np.inf, start),
        "all nan": np.full(size, np.nan),
        "zero": np.zeros(size),
        "opposite": -start,
        "one coordinate": np.where(first, 1.0, np.zeros(size)),
        "too long": np.ones((size[0], size[1] + 1)),
    }[kind]
    model.fit(X, Y)
    check(model, X, Y, key=(X.shape, bounds))
    assert model.n_iter_.sum() <= 1.5 * rounds(model, X, Y) + 5


def test_bounds_that_come_and_go():
    for shape in ("tall", "wide"):
        X, y = data(shape)
        model = Ridge(0.1, warm_start=True).fit(X, y)
        for bounds in ((0, np.inf), (0.1, 0.2), (-np.inf, -0.01), (-0.1, 0.2)):
            model.set_params(bounds=bounds).fit(X, y)
            check(model, X, y)
        free = model.set_params(bounds=None, solver="cg").fit(X, y)
        np.testing.assert_allclose(free.coef_, Ridge(0.1, solver="svd").fit(X, y).coef_, rtol=1e-3, atol=1e-5)


def test_other_shapes_begin_anew():
    wide, y = data("wide")
    tall, t = data("tall")
    model = Ridge(0.1, bounds=(0, np.inf), warm_start=True)
    for X_, y_ in ((wide, y), (tall, t), (tall, np.column_stack([t, -t])), (tall[:, :20], t), (wide, y)):
        check(model.fit(X_, y_), X_, y_)


def test_without_it_nothing_is_reused():
    X, y = data("wide")
    model = Ridge(0.1, positive=True).fit(X, y)
    first = model.n_iter_.max()
    assert model.fit(X, y).n_iter_.max() == first


def test_classifier():
    X, y = data("tall")
    labels = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    model = RidgeClassifier(0.1, positive=True, warm_start=True).fit(X, labels)
    first = model.n_iter_.sum()
    model.set_params(alpha=0.1003).fit(X, labels)
    assert model.n_iter_.sum() < first
    assert (model.coef_ >= 0).all()
