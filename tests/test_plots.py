"""The displays: what is in their artists is what was handed to them, axes are reused, and mistakes are named."""

from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.metrics import PredictionErrorDisplay
from sklearn.model_selection import GridSearchCV

import fastridge
from fastridge import Ridge, RidgeClassifierCV, RidgeCV, plots, ridge_path
from fastridge.inference import Inference
from fastridge.plots import CoefficientDisplay, ConvergenceDisplay, PathDisplay, ScoreDisplay

matplotlib.use("agg")


ALPHAS = np.logspace(-6, 6, 13)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def data():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    return X, y


def made(n=80, p=15, k=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    w = rng.standard_normal((p,) if k is None else (p, k))
    return X, X @ w + rng.standard_normal((n,) if k is None else (n, k))


def steps_of(X, y, **options):
    steps = []
    solution = fastridge.ridge(X, y, 0.1, solver="cg", callback=steps.append, **options)
    return steps, solution


def texts(ax):
    return [text.get_text() for text in ax.texts]


def displays():
    X, y = made()
    return [
        PathDisplay.from_path(ridge_path(X, y, 20), alpha=1.0),
        ScoreDisplay([1.0, 10.0], [-2.0, -1.0], standard_errors=[0.1, 0.2], indistinguishable=[True, True], alpha=10.0),
        ConvergenceDisplay.from_progress(steps_of(X, y)[0], tol=1e-6),
        CoefficientDisplay.from_inference(Inference(X, y)),
    ]


@pytest.mark.parametrize("which", range(4), ids=["path", "score", "convergence", "coefficients"])
def test_axes_are_reused_or_made(which):
    display = displays()[which]
    figure, ax = pyplot.subplots()
    assert display.plot(ax) is display
    assert (display.ax_, display.figure_) == (ax, figure)
    display.plot()
    assert display.ax_ is not ax
    assert display.figure_ is display.ax_.figure
    assert ax.get_xlabel()
    assert display.ax_.get_xlabel() == ax.get_xlabel()


@pytest.mark.parametrize("which", range(4), ids=["path", "score", "convergence", "coefficients"])
@pytest.mark.parametrize("size", [(4, 3), (8, 5)])
def test_nothing_leaves_the_picture(which, size):
    figure, ax = pyplot.subplots(figsize=size, layout="constrained")
    displays()[which].plot(ax)
    figure.canvas.draw()
    inner, outer = ax.get_tightbbox(), figure.bbox
    assert min(inner.x0, inner.y0) >= -2
    assert inner.x1 <= outer.x1 + 2
    assert inner.y1 <= outer.y1 + 2


def test_matplotlib_that_is_missing_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(plots, "import_module", missing)
    for display in displays():
        with pytest.raises(ImportError, match=r"fastridge-solvers\[plot\]"):
            display.plot()


class TestPath:
    def test_lines_hold_the_coefficients_the_largest_named(self):
        X, y = made()
        path = ridge_path(X, y, 30)
        names = [f"feature {j}" for j in range(15)]
        display = PathDisplay.from_path(path, feature_names=names, alpha=2.0).plot()
        largest = np.argsort(-np.abs(path.coefs).max(axis=0))
        assert_array_equal(display.named_, largest[:10])
        assert len(display.lines_) == 15
        for line, j in zip(display.lines_, largest, strict=True):
            assert_array_equal(line.get_xdata(), path.alphas[::-1])
            assert_array_equal(line.get_ydata(), path.coefs[::-1, j])
        assert display.ax_.get_xscale() == "log"
        shown = texts(display.ax_)
        assert [names[j] for j in largest[:10]] == shown[:10]
        assert shown[10:] == ["alpha 2"]

    def test_names_keep_apart_and_in_order(self):
        extent = matplotlib.text.Text.get_window_extent  # that of an annotation has its leader in it
        coefs = np.vstack([np.linspace(1.0, 1.001, 10), np.zeros(10)])
        display = PathDisplay([1.0, 100.0], coefs)
        figure, ax = pyplot.subplots(figsize=(4, 3), layout="constrained")
        display.plot(ax)
        figure.canvas.draw()
        boxes = sorted((extent(text) for text in ax.texts), key=lambda box: box.y0)
        assert len(boxes) == 10
        assert all(above.y0 > below.y0 + 0.7 * below.height for below, above in pairwise(boxes))
        heights = {text.get_text(): extent(text).y0 for text in ax.texts}
        assert sorted(heights, key=heights.get) == [f"x{j}" for j in range(10)]

    def test_long_names_keep_both_ends(self):
        display = PathDisplay([1.0, 2.0], np.ones((2, 1)), feature_names=["temperature in the cellar 17"]).plot()
        (name,) = texts(display.ax_)
        assert len(name) <= 14
        assert name.startswith("temper")
        assert name.endswith("17")

    def test_of_an_estimator_it_is_the_path_of_its_problem(self, data):
        X, y = data
        model = RidgeCV(alphas=[1e-3, 0.01, 0.1]).fit(X, y)
        display = PathDisplay.from_estimator(model, X, y, [0.1, 0.01, 1.0])
        assert display.alpha == model.alpha_ == 0.01
        assert display.feature_names == list(X.columns)
        assert_allclose(display.coefs[0], model.coef_, rtol=1e-5)
        positive = Ridge(0.5, positive=True).fit(X, y)
        display = PathDisplay.from_estimator(positive, X, y, [0.5, 5.0])
        assert_allclose(display.coefs[0], positive.coef_, rtol=1e-4, atol=1e-4)
        assert display.alpha == 0.5

    def test_one_of_several_targets(self):
        X, y = made(k=3)
        path = ridge_path(X, y, [1.0, 10.0])
        assert_array_equal(PathDisplay.from_path(path, target=2).coefs, path.coefs[:, 2])
        with pytest.raises(ValueError, match=r"there are 3 targets.*got None"):
            PathDisplay.from_path(path)
        with pytest.raises(ValueError, match="got 3"):
            PathDisplay.from_path(path, target=3)

    @pytest.mark.parametrize(
        ("arguments", "options", "wanted"),
        [
            (([1.0, 2.0], np.ones((3, 2))), {}, r"coefs must be \(2, n_features\)"),
            (([0.0, 2.0], np.ones((2, 2))), {}, "above 0"),
            (([1.0, 2.0], np.ones((2, 2))), {"feature_names": ["one"]}, "1 names, there are 2 features"),
        ],
    )
    def test_mistakes(self, arguments, options, wanted):
        with pytest.raises(ValueError, match=wanted):
            PathDisplay(*arguments, **options)


class TestScore:
    def test_scores_and_standard_errors_are_those_of_the_rows(self, data):
        X, y = data
        model = RidgeCV(alphas=[0.1, 0.01, 0.001], store_cv_results=True).fit(X, y)
        display = ScoreDisplay.from_estimator(model).plot()
        assert_array_equal(display.line_.get_xdata(), [0.001, 0.01, 0.1])
        mean = model.cv_results_.mean(axis=0)[::-1]
        error = model.cv_results_.std(axis=0, ddof=1)[::-1] / np.sqrt(len(y))
        assert_allclose(display.line_.get_ydata(), -mean)
        assert display.line_.get_ydata().max() == pytest.approx(model.best_score_)
        corners = display.band_.get_paths()[0].vertices
        for edge in (-mean - error, -mean + error):
            assert all(np.isclose(corners[:, 1], value).any() for value in edge)
        assert display.alpha == model.alpha_
        alike = model.choice_.indistinguishable[::-1]
        assert_array_equal(display.points_.get_xdata(), model.alphas_[::-1][alike])
        assert_array_equal(display.points_.get_ydata(), model.scores_[::-1][alike])
        assert texts(display.ax_) == [f"alpha {model.alpha_:.3g}"]
        assert display.ax_.get_ylabel() == "negative mean squared error"
        assert "leave-one-out" in display.ax_.get_title()

    def test_targets(self):
        X, y = made(k=2)
        every = RidgeCV(alphas=ALPHAS, store_cv_results=True).fit(X, y)
        assert_allclose(ScoreDisplay.from_estimator(every).scores, -every.cv_results_.mean(axis=(0, 1)))
        each = RidgeCV(alphas=ALPHAS, store_cv_results=True, alpha_per_target=True).fit(X, y)
        display = ScoreDisplay.from_estimator(each, target=1)
        assert_allclose(display.scores, -each.cv_results_[:, 1].mean(axis=0))
        assert_array_equal(display.standard_errors, each.choice_.standard_errors[:, 1])
        assert_array_equal(display.indistinguishable, each.choice_.indistinguishable[:, 1])
        assert display.alpha == each.alpha_[1]
        with pytest.raises(ValueError, match="there are 2 targets"):
            ScoreDisplay.from_estimator(each)

    def test_scores_that_an_estimator_keeps_need_no_rows(self):
        model = RidgeCV(alphas=[1e-6, 1.0, 1e6], cv=5, scoring="r2").fit(*made())
        display = ScoreDisplay.from_estimator(model).plot()
        assert_array_equal(display.line_.get_ydata(), model.scores_)
        assert_array_equal(display.standard_errors, model.choice_.standard_errors)
        assert display.ax_.get_ylabel() == "r2"
        assert display.ax_.get_title().startswith("5 folds")
        predictions = RidgeCV(alphas=[1e-6, 1.0, 1e6], scoring="r2", store_cv_results=True).fit(*made())
        display = ScoreDisplay.from_estimator(predictions)
        assert_array_equal(display.scores, predictions.scores_)
        assert display.standard_errors is None
        assert display.plot().band_ is display.points_ is None

    def test_a_classifier(self):
        X, y = made()
        model = RidgeClassifierCV(alphas=ALPHAS, store_cv_results=True).fit(X, y > 0)
        assert ScoreDisplay.from_estimator(model).scores.max() == pytest.approx(model.best_score_)

    def test_a_search(self, data):
        search = GridSearchCV(Ridge(), {"alpha": [0.01, 0.1, 1.0]}, cv=4, scoring="r2").fit(*data)
        display = ScoreDisplay.from_estimator(search).plot()
        assert_array_equal(display.line_.get_ydata(), search.cv_results_["mean_test_score"])
        folds = np.stack([search.cv_results_[f"split{i}_test_score"] for i in range(4)])
        assert_allclose(display.standard_errors, folds.std(axis=0, ddof=1) / 2)
        assert display.alpha == search.best_params_["alpha"]
        search = GridSearchCV(Ridge(), {"alpha": [0.1], "fit_intercept": [True, False]}, cv=2).fit(*data)
        with pytest.raises(ValueError, match="over alpha alone"):
            ScoreDisplay.from_estimator(search)

    def test_mistakes(self):
        with pytest.raises(NotFittedError):
            ScoreDisplay.from_estimator(RidgeCV())
        with pytest.raises(ValueError, match=r"standard_errors must be \(2,\)"):
            ScoreDisplay([1.0, 2.0], [1.0, 2.0], standard_errors=[1.0])
        with pytest.raises(ValueError, match=r"indistinguishable must be \(2,\)"):
            ScoreDisplay([1.0, 2.0], [1.0, 2.0], indistinguishable=[True])


class TestConvergence:
    def test_lines_hold_what_the_solver_told(self):
        X, y = made(200, 40)
        steps, _ = steps_of(X, y)
        truth = np.linspace(1.0, 0.1, len(steps))
        display = ConvergenceDisplay.from_progress(steps, tol=1e-6, true_errors=truth).plot()
        assert list(display.lines_) == ["bound", "estimate", "true error", "tol"]
        for name, values in (
            ("estimate", [step.error for step in steps]),
            ("bound", [step.error_bound for step in steps]),
            ("true error", truth),
        ):
            assert_array_equal(display.lines_[name].get_ydata(), np.array(values)[np.isfinite(values)])
        assert_array_equal(display.lines_["true error"].get_xdata(), np.arange(1, len(steps) + 1))
        assert list(display.lines_["tol"].get_ydata()) == [1e-6, 1e-6]
        assert display.ax_.get_yscale() == "log"
        assert texts(display.ax_) == ["tol 1e-06"]

    def test_of_an_estimator_it_is_the_history_and_the_last_bound(self):
        model = Ridge(0.1, solver="cg", tol=1e-4).fit(*made(200, 40))
        display = ConvergenceDisplay.from_estimator(model).plot()
        finite = [error for error in model.report_.history if np.isfinite(error)]
        assert_array_equal(display.lines_["estimate"].get_ydata(), finite)
        assert list(display.lines_["bound"].get_ydata()) == [model.report_.error_bound]
        assert list(display.lines_["bound"].get_xdata()) == [len(model.report_.history)]
        assert display.tol == 1e-4

    def test_what_is_not_finite_is_left_out(self):
        display = ConvergenceDisplay([np.inf, 0.5, 0.1], [np.inf, np.inf, np.inf]).plot()
        assert list(display.lines_) == ["estimate"]
        assert_array_equal(display.lines_["estimate"].get_xdata(), [2, 3])

    def test_mistakes(self):
        with pytest.raises(ValueError, match='"cholesky" takes no steps'):
            ConvergenceDisplay.from_estimator(Ridge(solver="cholesky").fit(*made()))
        with pytest.raises(ValueError, match="a step or more"):
            ConvergenceDisplay.from_progress([])
        with pytest.raises(ValueError, match=r"true_errors must be \(2,\)"):
            ConvergenceDisplay([1.0, 0.5], true_errors=[1.0])


class TestCoefficients:
    def test_points_and_intervals(self, data):
        X, y = data
        found = Inference(X, y, alpha=0.1)
        display = CoefficientDisplay.from_inference(found, level=0.9, covariance="HC3", feature_names=X.columns).plot(
            n_features=4
        )
        largest = np.argsort(-np.abs(found.coef))[:4]
        assert_array_equal(display.shown_, largest)
        assert_array_equal(display.points_.get_xdata(), found.coef[largest])
        drawn = [segment[:, 0] for segment in display.intervals_.get_segments()]
        assert_allclose(drawn, found.confidence_intervals(0.9, "HC3")[largest])
        assert [label.get_text() for label in display.ax_.get_yticklabels()] == list(X.columns[largest])
        assert display.ax_.get_title() == "90 % intervals; 6 smaller not shown"
        low, high = display.ax_.get_ylim()
        assert low > high  # the largest is on top

    def test_of_an_estimator_they_are_its_coefficients(self, data):
        X, y = data
        model = Ridge(0.1, fit_intercept=False).fit(X, y)
        display = CoefficientDisplay.from_estimator(model, X, y)
        assert_allclose(display.coef, model.coef_, rtol=1e-5)
        assert display.feature_names == list(X.columns)
        model = RidgeCV(alphas=[1e-3, 0.01, 0.1]).fit(X, y)
        assert_allclose(CoefficientDisplay.from_estimator(model, X, y).coef, model.coef_, rtol=1e-5)

    @pytest.mark.parametrize("option", [{"positive": True}, {"bounds": (-1, 1)}, {"penalty_weights": np.ones(15)}])
    def test_what_has_no_intervals_is_refused(self, option):
        X, y = made()
        with pytest.raises(ValueError, match=f"no confidence intervals with {next(iter(option))}"):
            CoefficientDisplay.from_estimator(Ridge(**option).fit(X, y), X, y)

    def test_targets_and_shapes(self):
        X, y = made(k=2)
        found = Inference(X, y)
        assert_array_equal(CoefficientDisplay.from_inference(found, target=1).coef, found.coef[1])
        with pytest.raises(ValueError, match="there are 2 targets"):
            CoefficientDisplay.from_inference(found)
        with pytest.raises(ValueError, match=r"intervals \(n_features, 2\)"):
            CoefficientDisplay([1.0, 2.0], [[0.0, 1.0]])


def test_scikit_learn_draws_predictions(data):
    model = Ridge(0.1).fit(*data)
    display = PredictionErrorDisplay.from_estimator(model, *data, subsample=None, kind="actual_vs_predicted")
    assert_allclose(display.y_pred, model.predict(data[0]))
