"""How sure a choice is: standard errors and paired differences against the rows themselves, rules, and what is said."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import make_weights, make_X, make_y
from sklearn.base import clone

from fastridge import RidgeClassifierCV, RidgeCV, rows, scan
from fastridge.selection import choice as choices
from fastridge.selection import decomposition, loo
from fastridge.selection.choice import Choice, Found
from fastridge.selection.spread import Spread

ALPHAS = np.geomspace(1e-2, 1e4, 9)
edges = pytest.mark.filterwarnings("ignore:the (best alpha|alpha chosen) is")


def by_rows(q, used=None):
    """Standard errors of the mean scores and of the differences from the best of scores of rows, (n, a)"""
    n, m = len(q), len(q) if used is None else used.sum()
    counted = q if used is None else q[used]
    best = q.mean(axis=0).argmax()
    scale = np.sqrt(m) / n
    return counted.std(axis=0, ddof=1) * scale, (counted - counted[:, [best]]).std(axis=0, ddof=1) * scale


def judge(choice, q, used=None):
    """`q`, (n, a)"""
    errors, of_differences = by_rows(q, used)
    np.testing.assert_allclose(choice.standard_errors, errors, rtol=1e-7)
    scores = q.mean(axis=0)
    np.testing.assert_allclose(choice.scores, scores, rtol=1e-9)
    np.testing.assert_array_equal(choice.indistinguishable, scores.max() - scores <= 2 * of_differences)
    assert choice.best == scores.argmax()


@edges
@pytest.mark.parametrize("pieces", ["whole", "small pieces"])
@pytest.mark.parametrize("weighted", [None, "weights", "zeros"])
@pytest.mark.parametrize("n_targets", [0, 3])
@pytest.mark.parametrize("shape", [(300, 8), (12, 30), (25, 24)])
def test_leave_one_out(shape, n_targets, weighted, pieces, request):
    if pieces == "small pieces":
        request.getfixturevalue("small_pieces")
    X = make_X(*shape, seed=1)
    y = make_y(X, 2, n_targets)
    y += 5 * np.random.default_rng(3).standard_normal(y.shape) * y.std(axis=0)
    weights = None if weighted is None else make_weights(shape[0], 4, zeros=weighted == "zeros")
    used = None if weights is None else weights > 0
    model = RidgeCV(ALPHAS, store_cv_results=True).fit(X, y, weights)
    q = -model.cv_results_.reshape(shape[0], -1, len(ALPHAS))
    judge(model.choice_, q.mean(axis=1), used)
    if n_targets:
        each = RidgeCV(ALPHAS, alpha_per_target=True).fit(X, y, weights).choice_
        for j in range(n_targets):
            own = Choice(
                ALPHAS,
                *(part[:, j] for part in (each.scores, each.standard_errors, each.indistinguishable)),
                int(each.best[j]),
                0,
                "best",
                0.0,
                "",
                "",
            )
            judge(own, q[:, j], used)


@edges
def test_penalties_in_any_order_from_several_decompositions(monkeypatch):
    """And with rows that nothing else predicts"""
    rng = np.random.default_rng(5)
    X = np.hstack([rng.standard_normal((60, 3)) + 1, np.eye(60)[:, [2, 5]]])
    y = X[:, 0] + rng.standard_normal(60)
    alphas = np.array([1e-2, 1e3, 1e-10, 1.0, 1e-12, 30.0])
    calls = []
    monkeypatch.setattr(loo, "decompose", lambda *a, **o: calls.append(1) or decomposition.decompose(*a, **o))
    monkeypatch.setattr(decomposition, "rounding_error", lambda s, penalties, strict: np.where(penalties < 0.5, 1.0, 0.0))
    model = RidgeCV(alphas, store_cv_results=True).fit(X, y)
    assert len(calls) == 2  # of all rows, and of the others
    judge(model.choice_, -model.cv_results_)
    each = RidgeCV(alphas, alpha_per_target=True).fit(X, np.column_stack([y, -2 * y])).choice_
    np.testing.assert_allclose(each.standard_errors, model.choice_.standard_errors[:, None] * [1, 4], rtol=1e-9)
    np.testing.assert_array_equal(each.indistinguishable, model.choice_.indistinguishable[:, None].repeat(2, axis=1))


@edges
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("weighted", [False, True])
def test_scans(weighted, store, each, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", 4000)
    X = make_X(300, 7, seed=6)
    y = make_y(X, 7, 2)
    weights = make_weights(300, 8, zeros=True) if weighted else None
    options = {"alpha_per_target": each, "tol": 1e-9}
    found = RidgeCV(ALPHAS, **options).fit(scan(store(X), target=y, weight=weights)).choice_
    wanted = RidgeCV(ALPHAS, **options).fit(X, y, weights).choice_
    np.testing.assert_allclose(found.standard_errors, wanted.standard_errors, rtol=1e-7)
    np.testing.assert_array_equal(found.indistinguishable, wanted.indistinguishable)


@edges
@pytest.mark.parametrize("scoring", [None, "neg_median_absolute_error"])
def test_folds(scoring):
    X = make_X(120, 6, seed=9)
    y = make_y(X, 10) + 30 * np.random.default_rng(11).standard_normal(120)
    splits = [(np.setdiff1d(np.arange(120), test), test) for test in np.split(np.arange(120), 6)]
    found = RidgeCV(ALPHAS, cv=splits, scoring=scoring).fit(X, y).choice_
    each = np.array([RidgeCV(ALPHAS, cv=[split], scoring=scoring).fit(X, y).scores_ for split in splits])
    judge(found, each)
    assert found.method == "6 folds"
    one = RidgeCV(ALPHAS, cv=splits[:1]).fit(X, y).choice_
    assert one.standard_errors is None
    assert "by 1 fold (" in str(one)
    by_scan = RidgeCV(ALPHAS, cv=3).fit(scan(X, target=y)).choice_
    wanted = RidgeCV(ALPHAS, cv=[(np.flatnonzero(np.arange(120) % 3 != i), np.arange(i, 120, 3)) for i in range(3)]).fit(X, y)
    np.testing.assert_allclose(by_scan.standard_errors, wanted.choice_.standard_errors, rtol=1e-7)


def test_differences_keep_their_digits():
    """Scores that differ in their seventh digit, always to the same side, are told apart"""
    rng = np.random.default_rng(12)
    q = 1e3 * rng.standard_normal((500, 1)) ** 2 + np.array([0.0, 0.0, 1e-4]) * (1 + 0.1 * rng.standard_normal((500, 1)))
    spread = Spread.of(q)
    np.testing.assert_allclose(spread.of_differences(np.array([2]))[:, 0], by_rows(q)[1], rtol=1e-5)
    found = Found(np.arange(1.0, 4.0), q.mean(axis=0), spread)
    np.testing.assert_array_equal(found.indistinguishable, [False, False, True])


@edges
def test_one_standard_error():
    rng = np.random.default_rng(13)
    X = rng.standard_normal((80, 10))
    y = X @ rng.standard_normal(10) + 6 * rng.standard_normal(80)
    alphas = np.geomspace(1e-2, 1e4, 30)[rng.permutation(30)]
    for options in ({}, {"cv": 5}):
        best = RidgeCV(alphas, **options).fit(X, y).choice_
        model = RidgeCV(alphas, rule="one_standard_error", **options).fit(X, y)
        choice = model.choice_
        within = choice.scores >= choice.scores.max() - choice.standard_errors[choice.best]
        assert model.alpha_ == alphas[within].max() == choice.alphas[choice.chosen] > alphas[best.best]
        assert choice.best == best.best
        assert model.best_score_ == model.scores_[choice.chosen] < model.scores_.max()
        np.testing.assert_allclose(model.coef_, RidgeCV([model.alpha_], **options).fit(X, y).coef_, rtol=1e-5)
        assert model.report_.converged
    targets = np.column_stack([y, X[:, 0] + 0.1 * rng.standard_normal(80)])
    each = RidgeCV(alphas, rule="one_standard_error", alpha_per_target=True).fit(X, targets)
    for j in range(2):
        assert each.alpha_[j] == RidgeCV(alphas, rule="one_standard_error").fit(X, targets[:, j]).alpha_
    labels = (y > 0).astype(int)
    classes = RidgeClassifierCV(alphas, rule="one_standard_error").fit(X, labels)
    assert classes.alpha_ > RidgeClassifierCV(alphas).fit(X, labels).alpha_


@pytest.mark.parametrize("cv", [None, 4])
def test_the_edge_of_one_standard_error(cv):
    """The largest alpha is within one standard error, and the best is smaller"""
    rng = np.random.default_rng(24)
    X = rng.standard_normal((80, 10))
    y = X @ rng.standard_normal(10) + 2 * rng.standard_normal(80)
    reached = RidgeCV(np.geomspace(1e-2, 1e5, 40), rule="one_standard_error", cv=cv).fit(X, y).alpha_
    alphas = np.geomspace(reached / 1e4, reached / 1.5, 20)
    RidgeCV(alphas, cv=cv).fit(X, y)  # warnings are errors
    with pytest.warns(UserWarning, match="the alpha chosen is the largest, .* a larger one may be within one standard error too"):
        RidgeCV(alphas, rule="one_standard_error", cv=cv).fit(X, y)
    model = RidgeCV("auto", rule="one_standard_error", cv=cv).fit(X, y)
    assert reached / 3 < model.alpha_ < reached * 3


def test_a_rule_without_standard_errors():
    X = make_X(30, 4, seed=14)
    y = make_y(X, 15)
    with pytest.raises(ValueError, match="rule='one_standard_error' needs standard errors, and with scoring='r2' and cv=None"):
        RidgeCV(rule="one_standard_error", scoring="r2").fit(X, y)
    with pytest.raises(ValueError, match="there is one sample or fold alone"):
        RidgeCV(rule="one_standard_error", cv=[(np.arange(20), np.arange(20, 30))]).fit(X, y)
    with pytest.raises(ValueError, match="rule"):
        RidgeCV(rule="two").fit(X, y)


@edges
def test_more_targets_than_are_compared(monkeypatch):
    monkeypatch.setattr("fastridge.penalty_search.MOST_TARGETS", 2)
    X = make_X(30, 4, seed=16)
    two, three = (RidgeCV(ALPHAS, alpha_per_target=True).fit(X, make_y(X, 17, k)).choice_ for k in (2, 3))
    assert two.standard_errors is not None
    assert three.standard_errors is three.indistinguishable is None
    assert "no standard error" in str(three)


def told(alphas=(0.1, 1.0, 10.0), scores=(-3.0, -2.0, -4.0), errors=(0.5, 0.25, 0.5), alike=(True, True, False), **changed):
    given = {"best": 1, "chosen": 1, "rule": "best", "error_bound": 3e-12, "method": "leave-one-out"}
    given |= {"score_name": "negative mean squared error"} | changed
    parts = (None if part is None else np.array(part) for part in (alphas, scores, errors, alike))
    return str(Choice(*parts, **given))


PROVEN = " The coefficients are within 3e-12 of the exact ones (H-norm, proven)."


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (
            {},
            "alpha = 1 is the best of 3 by leave-one-out (mean squared error 2.00 ± 0.25). 1 other, 0.1, cannot be told "
            "apart from it (within two standard errors)." + PROVEN,
        ),
        (
            {"alike": [True, True, True], "scores": [-3100.0, -3002.0, -3200.0], "errors": [1.0, 130.0, 1.0]},
            "alpha = 1 is the best of 3 by leave-one-out (mean squared error 3002 ± 130). 2 others, from 0.1 to 10, cannot "
            "be told apart from it (within two standard errors)." + PROVEN,
        ),
        (
            {"alike": [False, True, False], "error_bound": np.inf},
            "alpha = 1 is the best of 3 by leave-one-out (mean squared error 2.00 ± 0.25). All others are worse than it by more "
            "than two standard errors. No bound of the error of the coefficients is known.",
        ),
        (
            {"rule": "one_standard_error", "chosen": 2, "method": "5 folds", "score_name": "r2", "scores": [0.4, 0.5, 0.45]},
            "alpha = 10 is the largest of 3 whose score by 5 folds is within one standard error of the best, that of 1 "
            "(r2 0.45 ± 0.50). 1 other, 0.1, cannot be told apart from 1 (within two standard errors)." + PROVEN,
        ),
        (
            {"errors": None, "alike": None, "method": "BIC", "score_name": "negative BIC", "scores": [-12.0, -10.25, -13.0]},
            "alpha = 1 is the best of 3 by BIC (BIC 10.25). These scores have no standard error, which leaves open how sure the "
            "choice is." + PROVEN,
        ),
        (
            {"alphas": [0.5], "scores": [-1.0], "errors": [0.0], "alike": [True], "best": 0, "chosen": 0},
            "alpha = 0.5 is the only one tried, scored by leave-one-out (mean squared error 1 ± 0)." + PROVEN,
        ),
        (
            {
                "scores": [[-1.0, -2.0]] * 3,
                "errors": [[1.0, 1.0]] * 3,
                "alike": [[True, True], [True, False], [True, False]],
                "best": np.array([0, 2]),
                "chosen": np.array([0, 2]),
            },
            "2 targets have alphas from 0.1 to 10, each the best of 3 by leave-one-out (negative mean squared error). 0 to 2 "
            "others cannot be told apart from the best of a target (within two standard errors)." + PROVEN,
        ),
    ],
)
def test_what_is_said(options, wanted):
    assert told(**options) == wanted


@edges
def test_a_choice_is_pickled_and_parameters_are_cloned():
    X = make_X(30, 4, seed=18)
    model = RidgeCV(ALPHAS, rule="one_standard_error").fit(X, make_y(X, 19))
    again = pickle.loads(pickle.dumps(model))
    assert str(again.choice_) == str(model.choice_)
    assert repr(model.choice_) == str(model.choice_)
    assert clone(RidgeCV(scoring="gcv", rule="best")).get_params()["rule"] == "best"
    with pytest.raises(AttributeError):
        model.choice_.rule = "best"


@edges
def test_the_bound_is_that_of_the_report():
    X = make_X(50, 4, seed=20)
    model = RidgeCV(ALPHAS).fit(X, make_y(X, 21, 2))
    assert model.choice_.error_bound == model.report_.error_bound
    assert choices.ALIKE == 2.0


@edges
def test_targets_of_very_different_size():
    """One on the scale of 1e200: sums of squares of both together are not had"""
    X = make_X(30, 4, seed=22)
    y = make_y(X, 23, 2) * [1.0, 1e140]
    assert RidgeCV(ALPHAS).fit(X, y).choice_.standard_errors is None
    single = RidgeCV(ALPHAS).fit(X, y[:, 1]).choice_
    unit = RidgeCV(ALPHAS).fit(X, y[:, 1] / 1e140).choice_
    np.testing.assert_allclose(single.standard_errors, unit.standard_errors * 1e280, rtol=1e-9)
