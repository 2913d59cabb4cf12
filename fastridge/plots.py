"""Pictures of fits, as `Display` objects in scikit-learn's manner: `PathDisplay.from_path(path).plot()`.

A display holds the numbers it draws as attributes; `plot` draws them on axes of one's own, or on new ones, and can be called
again. matplotlib is imported by `plot` alone (``pip install "fastridge-solvers[plot]"``).

Predictions against observations, and residuals, are drawn by ``sklearn.metrics.PredictionErrorDisplay.from_estimator``, which
takes the estimators of this package as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Literal, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastridge.inference import Inference
from fastridge.monitor import Progress
from fastridge.operators.base import Array, Vector
from fastridge.path import RidgePath, ridge_path

MAX_NAMED = 10
"""Lines of a picture that have names of their own."""
MAX_LETTERS = 14
"""Of a feature's name beside its line."""
FONT_POINTS = 9
LINE_POINTS = 1.35 * FONT_POINTS
"""Least distance from one name to the next."""
ALPHA = "alpha (a larger one shrinks more)"
COEFFICIENT = "coefficient (y units per x unit)"
CHOSEN, OTHERS, BOUND, TRUTH = "tab:red", "0.75", "#8fbfe0", "black"


class _Display:
    """What all displays share: axes to draw on, given or new"""

    ax_: Any
    figure_: Any

    def _begin(self, ax: Any) -> Any:
        """The axes to draw on; `ax_` and `figure_` are theirs"""
        try:
            pyplot = import_module("matplotlib.pyplot")
        except ImportError as error:
            raise ImportError('plot needs matplotlib: pip install "fastridge-solvers[plot]"') from error
        self.ax_ = pyplot.subplots(layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        return self.ax_


class PathDisplay(_Display):
    """Coefficients against alpha, on a logarithmic axis

    Parameters
    ----------
    alphas : (n_alphas,) array
        Penalties > 0, in any order.
    coefs : (n_alphas, n_features) array
    feature_names : (n_features,) sequence of str or None
        None: x0, x1, and so on.
    alpha : float or None
        The penalty that was chosen; a vertical line marks it.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, Figure
        After `plot`.
    lines_ : list of matplotlib Line2D
        One for every coefficient that is drawn, the named ones first, in the order of `named_`.
    named_ : (n_named,) int64
        Indices of the features whose lines have names: those that become largest.

    Raises
    ------
    ValueError
        If shapes do not agree, or a penalty is not above 0.

    See Also
    --------
    fastridge.ridge_path : Computes what is drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from fastridge import ridge_path
    >>> from fastridge.plots import PathDisplay
    >>> X = np.random.default_rng(0).standard_normal((100, 3))
    >>> path = ridge_path(X, X @ [1.0, -2.0, 0.5])
    >>> display = PathDisplay.from_path(path, feature_names=["age", "dose", "time"])
    >>> display.coefs.shape
    (100, 3)
    """

    lines_: list[Any]
    named_: Array

    def __init__(self, alphas: Any, coefs: Any, *, feature_names: Any = None, alpha: float | None = None) -> None:
        alphas, coefs = np.asarray(alphas, dtype=np.float64), np.asarray(coefs, dtype=np.float64)
        if coefs.ndim != 2 or alphas.shape != coefs.shape[:1]:
            raise ValueError(f"coefs must be ({alphas.size}, n_features), a row for every alpha, got shape {coefs.shape}")
        order = np.argsort(_positive(alphas), kind="stable")
        self.alphas, self.coefs, self.alpha = alphas[order], coefs[order], alpha
        self.feature_names = _names(feature_names, coefs.shape[1])

    @classmethod
    def from_path(
        cls, path: RidgePath, *, target: int | None = None, feature_names: Any = None, alpha: float | None = None
    ) -> Self:
        """Take the coefficients of a path

        Parameters
        ----------
        path : RidgePath
        target : int or None
            Which of several targets to draw.
        feature_names, alpha
            As above.
        """
        coefs = path.coefs if path.coefs.ndim == 2 else path.coefs[:, _target(target, path.coefs.shape[1])]
        return cls(path.alphas, coefs, feature_names=feature_names, alpha=alpha)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, alphas: Any = 100, *, sample_weight: Any = None) -> Self:
        """Compute the path of a fitted estimator's data, and mark the alpha it has or chose

        Parameters
        ----------
        estimator : Ridge or RidgeCV
            Fitted, with one target. Its `fit_intercept`, `penalty_weights`, `positive` and `bounds` hold for the path.
        X : (n_samples, n_features) array, data frame or sparse matrix
        y : (n_samples,) array
        alphas : int or (n_alphas,) array
            As in `ridge_path`.
        sample_weight : float, (n_samples,) or None
        """
        names = getattr(estimator, "feature_names_in_", None)
        asked = ("fit_intercept", "penalty_weights", "positive", "bounds")
        kept = {name: getattr(estimator, name) for name in asked if hasattr(estimator, name)}
        path = ridge_path(X, y, alphas, sample_weight=sample_weight, **kept)
        alpha = float(getattr(estimator, "alpha_", getattr(estimator, "alpha", np.nan)))
        return cls.from_path(path, feature_names=names, alpha=alpha if alpha > 0 else None)

    def plot(self, ax: Any = None) -> Self:
        """Draw

        Parameters
        ----------
        ax : matplotlib Axes or None
            None: new ones.

        Returns
        -------
        PathDisplay
            self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        ax = self._begin(ax)
        largest = np.argsort(-np.abs(self.coefs).max(axis=0), kind="stable")
        self.named_ = largest[:MAX_NAMED]
        self.lines_ = [
            *ax.plot(self.alphas, self.coefs[:, self.named_], linewidth=1.5, zorder=3),
            *ax.plot(self.alphas, self.coefs[:, largest[MAX_NAMED:]], linewidth=0.7, color=OTHERS, zorder=1),
        ]
        ax.axhline(0.0, color="black", linewidth=0.6, zorder=0)
        ax.set(xscale="log", xlabel=ALPHA)
        ax.set_ylabel(COEFFICIENT, fontsize=FONT_POINTS)
        names = [_shortened(self.feature_names[j]) for j in self.named_]
        colors = [line.get_color() for line in self.lines_[: len(names)]]
        _name_at_the_left(ax, self.alphas, self.coefs[0, self.named_], names, colors)
        if self.alpha is not None:
            _mark_alpha(ax, self.alpha, top=True)
        return self


class ScoreDisplay(_Display):
    """Score against alpha, its standard error as a band; the alpha chosen and those as good as the best marked

    Parameters
    ----------
    alphas : (n_alphas,) array
        Penalties > 0, in any order.
    scores : (n_alphas,) array
        Larger is better, as everywhere in scikit-learn.
    standard_errors : (n_alphas,) array or None
        Of the scores.
    indistinguishable : (n_alphas,) bool array or None
        Which penalties cannot be told apart from the best.
    alpha : float or None
        The penalty that was chosen.
    score_name : str, default "score"
    how : str, default ""
        Where the scores come from, for the title.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, Figure
        After `plot`.
    line_ : matplotlib Line2D
    band_ : matplotlib PolyCollection or None
        One standard error to each side.
    points_ : matplotlib Line2D or None
        The penalties that cannot be told apart from the best.

    Raises
    ------
    ValueError
        If shapes do not agree, or a penalty is not above 0.

    Notes
    -----
    Scores at two penalties come from the same rows, so that their difference is far surer than either of them. The band says how
    well the score itself is known; which penalties are as good as the best is told from differences row by row, or fold by fold:
    see `fastridge.Choice`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastridge import RidgeCV
    >>> from fastridge.plots import ScoreDisplay
    >>> model = RidgeCV(alphas="auto").fit(*load_diabetes(return_X_y=True))
    >>> display = ScoreDisplay.from_estimator(model)
    >>> display.scores.shape == display.standard_errors.shape == model.alphas_.shape
    True
    """

    line_: Any
    band_: Any
    points_: Any

    def __init__(
        self,
        alphas: Any,
        scores: Any,
        *,
        standard_errors: Any = None,
        indistinguishable: Any = None,
        alpha: float | None = None,
        score_name: str = "score",
        how: str = "",
    ) -> None:
        alphas, scores = np.asarray(alphas, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        errors = None if standard_errors is None else np.asarray(standard_errors, dtype=np.float64)
        alike = None if indistinguishable is None else np.asarray(indistinguishable, dtype=bool)
        for name, values in (("scores", scores), ("standard_errors", errors), ("indistinguishable", alike)):
            if values is not None and values.shape != (alphas.size,):
                raise ValueError(f"{name} must be ({alphas.size},), one for every alpha, got shape {values.shape}")
        order = np.argsort(_positive(alphas), kind="stable")
        self.alphas, self.scores, self.alpha = alphas[order], scores[order], alpha
        self.score_name, self.how = score_name, how
        self.standard_errors = None if errors is None else errors[order]
        self.indistinguishable = None if alike is None else alike[order]

    @classmethod
    def from_estimator(cls, estimator: Any, *, target: int | None = None) -> Self:
        """Take the scores of a fitted `RidgeCV` or `RidgeClassifierCV`, or of a search over alpha alone

        Parameters
        ----------
        estimator : RidgeCV, RidgeClassifierCV or sklearn.model_selection.GridSearchCV
            Of ours `choice_` is drawn. The standard errors of a search come from the scores of its folds.
        target : int or None
            Which of several targets to draw, where each has an alpha of its own.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If `target` is needed and not given, if groups of features have an alpha each, or if the search went over something
            else.
        """
        if hasattr(estimator, "best_params_"):
            return cls._from_search(estimator)
        check_is_fitted(estimator)
        if hasattr(estimator, "groups_"):
            raise ValueError("the estimator has an alpha for each group of features; a score against alpha takes one for all")
        choice = estimator.choice_
        parts, chosen = [choice.scores, choice.standard_errors, choice.indistinguishable], choice.chosen
        if choice.scores.ndim == 2:
            t = _target(target, choice.scores.shape[1])
            parts, chosen = [None if part is None else part[:, t] for part in parts], chosen[t]
        return cls(
            choice.alphas,
            parts[0],
            standard_errors=parts[1],
            indistinguishable=parts[2],
            alpha=float(choice.alphas[chosen]),
            score_name=choice.score_name,
            how=choice.method,
        )

    @classmethod
    def _from_search(cls, search: Any) -> Self:
        found = search.cv_results_
        names = [name for name in found if name.startswith("param_")]
        if len(names) != 1 or not names[0].endswith("alpha"):
            raise ValueError(f"the search went over {', '.join(names)}; a score against alpha takes one over alpha alone")
        alphas = np.asarray(found[names[0]], dtype=np.float64)
        name = search.scoring if isinstance(search.scoring, str) else "score"
        return cls(
            alphas,
            found["mean_test_score"],
            standard_errors=found["std_test_score"] / np.sqrt(max(1, search.n_splits_ - 1)),
            alpha=float(alphas[search.best_index_]),
            score_name=name,
            how=f"mean of {search.n_splits_} folds",
        )

    def plot(self, ax: Any = None) -> Self:
        """Draw

        Parameters
        ----------
        ax : matplotlib Axes or None
            None: new ones.

        Returns
        -------
        ScoreDisplay
            self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        ax = self._begin(ax)
        marker = "o" if len(self.alphas) <= 40 else ""
        (self.line_,) = ax.plot(self.alphas, self.scores, marker=marker, markersize=3, color="tab:blue")
        self.band_ = self.points_ = None
        if self.standard_errors is not None:
            low, high = self.scores - self.standard_errors, self.scores + self.standard_errors
            self.band_ = ax.fill_between(self.alphas, low, high, color="tab:blue", alpha=0.15, linewidth=0)
        if self.indistinguishable is not None:
            alike = self.indistinguishable
            (self.points_,) = ax.plot(self.alphas[alike], self.scores[alike], "o", markersize=4, color=CHOSEN, zorder=3)
        ax.set(xscale="log", xlabel=ALPHA, ylabel=self.score_name)
        band = "" if self.band_ is None else "band: one standard error"
        points = "" if self.points_ is None else "red: not told apart from the best"
        ax.set_title("; ".join(filter(None, [self.how, band])) + (f"\n{points}" if points else ""), fontsize=FONT_POINTS)
        if self.alpha is not None:
            _mark_alpha(ax, self.alpha, top=False)
        return self


class ConvergenceDisplay(_Display):
    """Error estimate, proven bound and, where it is known, true error, after every step of a solver or against time

    All are relative H-norm errors, ``||w - w*||_H / ||w*||_H``.

    Parameters
    ----------
    errors : (n_steps,) array
        Estimates after every step; values that are not finite are left out.
    bounds : (n_steps,) array, float or None
        Proven bounds after every step, or that of the answer alone.
    tol : float or None
        What was asked for.
    true_errors : (n_steps,) array or None
    seconds : (n_steps,) array or None
        Since the beginning, after every step.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, Figure
        After `plot`.
    lines_ : dict of str to matplotlib Line2D
        "estimate", "bound", "true error" and "tol", those that are drawn; the name alone, where `plot` was given one.

    Raises
    ------
    ValueError
        If there are no steps, or shapes do not agree.

    Examples
    --------
    >>> import numpy as np
    >>> from fastridge import ridge
    >>> from fastridge.plots import ConvergenceDisplay
    >>> X = np.random.default_rng(0).standard_normal((300, 40))
    >>> steps = []
    >>> solution = ridge(X, X @ np.ones(40), solver="cg", callback=steps.append)
    >>> display = ConvergenceDisplay.from_progress(steps, tol=1e-6)
    >>> len(display.errors) == len(steps)
    True
    """

    lines_: dict[str, Any]

    def __init__(
        self, errors: Any, bounds: Any = None, *, tol: float | None = None, true_errors: Any = None, seconds: Any = None
    ) -> None:
        self.errors = np.asarray(errors, dtype=np.float64)
        n = self.errors.size
        if self.errors.ndim != 1 or not n:
            raise ValueError(
                f"errors must be (n_steps,) with a step or more, got shape {self.errors.shape}; direct solvers take no steps"
            )
        self.bounds: float | Vector | None = None
        if bounds is not None:
            self.bounds = np.asarray(bounds, dtype=np.float64) if np.ndim(bounds) else float(bounds)
        self.true_errors = None if true_errors is None else np.asarray(true_errors, dtype=np.float64)
        self.seconds = None if seconds is None else np.asarray(seconds, dtype=np.float64)
        for name, values in (("bounds", self.bounds), ("true_errors", self.true_errors), ("seconds", self.seconds)):
            if values is not None and np.ndim(values) and np.shape(values) != (n,):
                raise ValueError(f"{name} must be ({n},), one for every step, got shape {np.shape(values)}")
        self.tol = tol

    @classmethod
    def from_estimator(cls, estimator: Any, *, true_errors: Any = None) -> Self:
        """Take the history of a fitted estimator, and the bound of its answer

        Parameters
        ----------
        estimator : Ridge, RidgeClassifier or RidgeCV
            Fitted by an iterative solver ("cg", "cd").
        true_errors : (n_steps,) array or None

        Raises
        ------
        ValueError
            If the solver was a direct one, which takes no steps.
        """
        report = estimator.report_
        if not report.history:
            raise ValueError(f'the solver "{report.solver}" takes no steps: there is no history; fit with solver="cg"')
        return cls(report.history, report.error_bound, tol=estimator.tol, true_errors=true_errors)

    @classmethod
    def from_progress(cls, steps: Iterable[Progress], *, tol: float | None = None, true_errors: Any = None) -> Self:
        """Take what a callback was told, as in ``ridge(X, y, callback=steps.append)``: estimate, bound and time of every step

        Parameters
        ----------
        steps : iterable of Progress
        tol : float or None
        true_errors : (n_steps,) array or None
        """
        steps = list(steps)
        errors, bounds = [step.error for step in steps], [step.error_bound for step in steps]
        return cls(errors, bounds, tol=tol, true_errors=true_errors, seconds=[step.seconds for step in steps])

    def plot(self, ax: Any = None, *, x: Literal["steps", "seconds"] = "steps", name: str | None = None) -> Self:
        """Draw

        Parameters
        ----------
        ax : matplotlib Axes or None
            None: new ones.
        x : {"steps", "seconds"}, default "steps"
            What errors are drawn against.
        name : str or None
            Draw nothing but the bound, as a line of this name: one of several on the same axes.

        Returns
        -------
        ConvergenceDisplay
            self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If there are no seconds, or for a name no bounds.
        """
        if x not in ("steps", "seconds") or (x == "seconds" and self.seconds is None):
            raise ValueError(f'x must be "steps", or "seconds" where the display has them, as those of a callback, got {x!r}')
        bounds = np.asarray(np.nan if self.bounds is None else self.bounds)
        if name is not None and not bounds.ndim:
            raise ValueError("a display with a name draws bounds after every step: take it from_progress")
        ax = self._begin(ax)
        steps = np.arange(1, len(self.errors) + 1) if x == "steps" else np.asarray(self.seconds)
        if name is None:
            self._draw(ax, steps)
        else:
            shown = np.isfinite(bounds) & (bounds > 0)
            self.lines_ = {name: ax.plot(steps[shown], bounds[shown], "o-", markersize=4, label=name)[0]}
        error = "relative error (H-norm)" if name is None else "proven relative error (H-norm)"
        if x == "steps":
            ax.set(yscale="log", xlabel="step of the solver", ylabel=error)
            ax.xaxis.get_major_locator().set_params(integer=True)
        else:
            ax.set(yscale="log", xscale="log", xlabel="seconds", ylabel=error)
        ax.legend(frameon=False, fontsize=FONT_POINTS, loc="upper right")
        return self

    def _draw(self, ax: Any, steps: Array) -> None:
        """Draw whatever there is"""
        drawn: dict[str, tuple[Array, Vector, dict[str, Any]]] = {}
        if self.bounds is not None and np.ndim(self.bounds):
            drawn["bound"] = (steps, np.asarray(self.bounds), {"color": BOUND, "linewidth": 4})
        elif self.bounds is not None:
            drawn["bound"] = (steps[-1:], np.array([self.bounds]), {"color": "tab:blue", "marker": "v", "linestyle": ""})
        drawn["estimate"] = (steps, self.errors, {"color": CHOSEN})
        if self.true_errors is not None:
            drawn["true error"] = (steps, self.true_errors, {"color": TRUTH, "linestyle": "--"})
        self.lines_ = {}
        for name, (at, values, style) in drawn.items():
            shown = np.isfinite(values) & (values > 0)
            if shown.any():
                (self.lines_[name],) = ax.plot(at[shown], values[shown], label=name, **style)
        if self.tol:
            self.lines_["tol"] = ax.axhline(self.tol, color="gray", linestyle=":", linewidth=1)
            place = {"xytext": (2, 2), "textcoords": "offset points", "va": "bottom", "fontsize": FONT_POINTS, "color": "gray"}
            ax.annotate(f"tol {self.tol:g}", (0.0, self.tol), xycoords=ax.get_yaxis_transform(), **place)


class CoefficientDisplay(_Display):
    """Coefficients with their confidence intervals, the largest first

    Parameters
    ----------
    coef : (n_features,) array
    intervals : (n_features, 2) array
        Lower and upper ends.
    level : float, default 0.95
    feature_names : (n_features,) sequence of str or None
        None: x0, x1, and so on.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, Figure
        After `plot`.
    points_ : matplotlib Line2D
    intervals_ : matplotlib LineCollection
    shown_ : (n_shown,) int64
        Indices of the features, from the top down.

    Raises
    ------
    ValueError
        If shapes do not agree.

    Notes
    -----
    Intervals are about the mean of each estimate, which the penalty draws towards zero: see `fastridge.inference.Inference`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastridge.inference import Inference
    >>> from fastridge.plots import CoefficientDisplay
    >>> X, y = load_diabetes(return_X_y=True)
    >>> display = CoefficientDisplay.from_inference(Inference(X, y, alpha=0.1), level=0.9)
    >>> display.intervals.shape
    (10, 2)
    """

    points_: Any
    intervals_: Any
    shown_: Array

    def __init__(self, coef: Any, intervals: Any, *, level: float = 0.95, feature_names: Any = None) -> None:
        self.coef, self.intervals = np.asarray(coef, dtype=np.float64), np.asarray(intervals, dtype=np.float64)
        if self.coef.ndim != 1 or self.intervals.shape != (self.coef.size, 2):
            raise ValueError(
                f"coef must be (n_features,) and intervals (n_features, 2), got {self.coef.shape} and {self.intervals.shape}"
            )
        self.level, self.feature_names = level, _names(feature_names, self.coef.size)

    @classmethod
    def from_inference(
        cls,
        inference: Inference,
        *,
        level: float = 0.95,
        covariance: str = "model",
        target: int | None = None,
        feature_names: Any = None,
    ) -> Self:
        """Take coefficients and intervals

        Parameters
        ----------
        inference : Inference
        level, covariance
            As in `Inference.confidence_intervals`.
        target : int or None
            Which of several targets to draw.
        feature_names : (n_features,) sequence of str or None
        """
        coef, intervals = inference.coef, inference.confidence_intervals(level, covariance)
        if coef.ndim == 2:
            t = _target(target, len(coef))
            coef, intervals = coef[t], intervals[t]
        return cls(coef, intervals, level=level, feature_names=feature_names)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, *, level: float = 0.95, sample_weight: Any = None) -> Self:
        """Compute the intervals of a fitted estimator from the data it was fitted to

        Parameters
        ----------
        estimator : Ridge or RidgeCV
            Fitted, with one target and no penalty weights or bounds, for which there are no intervals.
        X : (n_samples, n_features) array, data frame or sparse matrix
        y : (n_samples,) array
        level : float, default 0.95
        sample_weight : float, (n_samples,) or None

        Raises
        ------
        ValueError
            If the estimator has penalty weights or bounds.
        """
        for name in ("penalty_weights", "bounds", "positive"):
            given = getattr(estimator, name, None)
            if given is not None and given is not False:
                raise ValueError(f"there are no confidence intervals with {name}: fit without")
        alpha = getattr(estimator, "alpha_", None)
        alpha = estimator.alpha if alpha is None else alpha
        found = Inference(X, y, alpha, sample_weight=sample_weight, fit_intercept=estimator.fit_intercept)
        return cls.from_inference(found, level=level, feature_names=getattr(estimator, "feature_names_in_", None))

    def plot(self, ax: Any = None, *, n_features: int = MAX_NAMED) -> Self:
        """Draw

        Parameters
        ----------
        ax : matplotlib Axes or None
            None: new ones.
        n_features : int, default 10
            At most this many are drawn: those with the largest coefficients.

        Returns
        -------
        CoefficientDisplay
            self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        ax = self._begin(ax)
        self.shown_ = np.argsort(-np.abs(self.coef), kind="stable")[:n_features]
        places = np.arange(len(self.shown_))
        low, high = self.intervals[self.shown_].T
        self.intervals_ = ax.hlines(places, low, high, color="tab:blue", linewidth=2)
        (self.points_,) = ax.plot(self.coef[self.shown_], places, "o", color="tab:blue", markersize=5)
        ax.axvline(0.0, color="black", linewidth=0.6, zorder=0)
        ax.set_yticks(places, [_shortened(self.feature_names[j]) for j in self.shown_], fontsize=FONT_POINTS)
        ax.set_ylim(len(places) - 0.4, -0.6)
        left = len(self.coef) - len(places)
        ax.set_title(f"{100 * self.level:g} % intervals" + (f"; {left} smaller not shown" if left else ""), fontsize=FONT_POINTS)
        ax.set_xlabel(COEFFICIENT)
        return self


def _positive(alphas: Vector) -> Vector:
    if alphas.ndim != 1 or not alphas.size or not (alphas > 0).all():
        raise ValueError("alphas must be (n_alphas,), one or more, all above 0: the axis is logarithmic")
    return alphas


def _names(given: Any, n_features: int) -> list[str]:
    if given is None:
        return [f"x{j}" for j in range(n_features)]
    if len(given) != n_features:
        raise ValueError(f"feature_names has {len(given)} names, there are {n_features} features")
    return [str(name) for name in given]


def _target(target: int | None, n_targets: int) -> int:
    if target is None and n_targets == 1:
        return 0
    if target is None or not -n_targets <= target < n_targets:
        raise ValueError(f"there are {n_targets} targets: name one of them, target=0 to target={n_targets - 1}, got {target!r}")
    return target


def _shortened(name: str) -> str:
    """The beginning and the end of a long name: names often differ in their ends alone"""
    half = MAX_LETTERS // 2
    return name if len(name) <= MAX_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def _mark_alpha(ax: Any, alpha: float, top: bool) -> None:
    """A vertical line at the alpha chosen, with its value at the top or the bottom, on the side where there is room"""
    ax.axvline(alpha, color=CHOSEN, linestyle="--", linewidth=1, zorder=2)
    low, high = np.log(ax.get_xlim())
    right = np.log(alpha) < 0.35 * low + 0.65 * high
    ax.annotate(
        f"alpha {alpha:.3g}",
        (alpha, float(top)),
        xycoords=ax.get_xaxis_transform(),
        xytext=(3 if right else -3, -3 if top else 3),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top" if top else "bottom",
        color=CHOSEN,
        fontsize=FONT_POINTS,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
    )


def _name_at_the_left(ax: Any, alphas: Vector, ends: Vector, names: Sequence[str], colors: Sequence[Any]) -> None:
    """Write names left of where lines begin, `ends` (n_names,), far enough from one another, in room made for them"""
    points = 72 / ax.figure.dpi
    box = ax.get_window_extent()
    width, height = box.width * points, box.height * points
    room = min(0.5, (0.6 * FONT_POINTS * max(map(len, names)) + 14) / width)
    span = np.log(alphas[-1] / alphas[0]) or 1.0
    margin = 0.02 * span
    ax.set_xlim(alphas[0] * np.exp(-(span + margin) * room / (1 - room)), alphas[-1] * np.exp(margin))
    low, high = ax.get_ylim()
    wanted = (ends - low) / (high - low) * height
    places = low + _apart(wanted, min(LINE_POINTS, height / len(names)), height) / height * (high - low)
    ax.set_ylim(low, high)
    for end, place, name, color in zip(ends, places, names, colors, strict=True):
        ax.annotate(
            name,
            (alphas[0], end),
            xytext=(alphas[0] * np.exp(-12 / width * span / (1 - room)), place),
            ha="right",
            va="center",
            color=color,
            fontsize=FONT_POINTS,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (1.0, 0.5)},
        )


def _apart(wanted: Vector, least: float, height: float) -> Vector:
    """Heights near those `wanted`, (n,), within 0 and `height` and at least `least` apart, in the same order

    With `least` taken out of the order, what is left must not decrease: the nearest such heights are means of neighbours.
    """
    order = np.argsort(wanted, kind="stable")
    steps = least * np.arange(len(wanted))
    blocks: list[tuple[float, int]] = []
    for value in wanted[order] - steps:
        mean, n = float(value), 1
        while blocks and blocks[-1][0] >= mean:
            before, m = blocks.pop()
            mean, n = (mean * n + before * m) / (n + m), n + m
        blocks.append((mean, n))
    means = np.concatenate([np.full(n, mean) for mean, n in blocks])
    out = np.empty(len(wanted))
    out[order] = np.clip(means, least / 2, max(least / 2, height - steps[-1] - least / 2)) + steps
    return out
