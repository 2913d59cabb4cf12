"""What a search over penalties has found, and how sure that is, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastridge.operators.base import Array, Vector
from fastridge.selection.spread import Spread

FLAT = 1e-6
"""Relative difference of scores up to which going past an edge is not worth it."""
ALIKE = 2.0
"""Standard errors of a difference up to which two penalties are not told apart."""
BEST, ONE_STANDARD_ERROR = RULES = ("best", "one_standard_error")


@dataclass(frozen=True)
class Found:
    """Scores of penalties, and what else a search knows

    Attributes
    ----------
    alphas : (a,) float64
    scores : (a,) or (a, k) float64
        Larger is better.
    spread : Spread or None
        Of the scores, where they are means over rows or folds.
    start : callable or None
        From the penalty of each target, (k,) int, to where the fit there may begin, (c, k).
    results : (n, a, k) or None
        Squared errors or predictions, where they were asked for.
    doubt : float
        Largest H-norm error of the fits to training sets, as far as it is more than was asked for; else 0.
    size : float or None
        What differences of scores are relative to; None: the best score.
    n_folds, n_probes : int
        0 where there are none.
    note : str
        What else there is to warn of.
    """

    alphas: Vector
    scores: Vector
    spread: Spread | None = None
    start: Callable[[Array], Vector] | None = None
    results: Array | None = None
    doubt: float = 0.0
    size: float | None = None
    n_folds: int = 0
    n_probes: int = 0
    note: str = ""

    @property
    def best(self) -> Any:
        """The first of the best, for all targets, an int, or for each, (k,) int"""
        return self._known.argmax(axis=0)

    @property
    def _known(self) -> Vector:
        """Scores without nan"""
        return np.where(np.isnan(self.scores), -np.inf, self.scores)

    def edges(self, rule: str) -> tuple[bool, bool]:
        """Whether what the rule takes is the smallest alpha, or the largest, and scores are not level there; of any target

        The best is at an edge where its score is more than that beside, whichever of equal ones it is.
        """
        order = np.argsort(self.alphas, kind="stable")
        if len(order) < 2 or self.alphas[order[0]] == self.alphas[order[-1]]:
            return False, False
        scores = self._known.reshape(len(order), -1)[order]
        best = scores.max(axis=0)
        size = np.abs(best) if self.size is None else self.size
        with np.errstate(invalid="ignore"):
            low, high = (
                ((scores[edge] == best) & (best - scores[beside] > FLAT * size)).any() for edge, beside in ((0, 1), (-1, -2))
            )
            if rule != BEST:
                at_largest = self.alphas[self.chosen(rule)] == self.alphas[order[-1]]
                high = (at_largest & (np.abs(scores[-1] - scores[-2]) > FLAT * size)).any()
        return bool(low) and self.alphas[order[0]] > 0, bool(high)

    @property
    def standard_errors(self) -> Vector | None:
        """Of the scores, and shaped like them"""
        return None if self.spread is None else self.spread.standard_errors().reshape(self.scores.shape)

    @property
    def indistinguishable(self) -> Array | None:
        """Whether scores are as good as the best, as far as the data tell; shaped like them"""
        if self.spread is None:
            return None
        alike = ALIKE * self.spread.of_differences(np.atleast_1d(self.best)).reshape(self.scores.shape)
        with np.errstate(invalid="ignore"):
            return np.asarray(self._known.max(axis=0) - self._known <= alike)

    def chosen(self, rule: str) -> Any:
        """The penalty that the rule takes, for all targets, an int, or for each, (k,) int

        Raises
        ------
        ValueError
            If the rule needs standard errors and there are none.
        """
        if rule == BEST:
            return self.best
        errors = self.standard_errors
        if errors is None:
            raise ValueError(
                f'rule="{rule}" needs standard errors, and these scores have none: there is one sample or fold alone, or '
                "targets are too many or differ too much in size"
            )
        least = self._known.max(axis=0) - np.take_along_axis(errors, np.asarray(self.best)[None], axis=0)[0]
        alphas = self.alphas.reshape(-1, *[1] * (self.scores.ndim - 1))
        return np.where(self._known >= least, alphas, -1.0).argmax(axis=0)


@dataclass(frozen=True, repr=False, eq=False)
class Choice:
    """A penalty that was chosen, and how sure the choice is; printed, it says so in words

    Attributes
    ----------
    alphas : (n_alphas,) float64
        The penalties tried.
    scores : (n_alphas,) or (n_alphas, n_targets) float64
        Their scores, larger being better; those of every target where each has a penalty of its own.
    standard_errors : float64 array like `scores`, or None
        Of leave-one-out: the standard deviation of the scores of the rows over the root of their number; of folds: that of the
        scores of the folds; of degrees of freedom from probes: what those scatter. None where there is nothing of that kind.
    indistinguishable : bool array like `scores`, or None
        Which penalties cannot be told apart from the best: their scores are less by at most two standard errors of the paired
        difference, which is that of the means of differences row by row, or fold by fold.
    best : int or (n_targets,) int
        Index of the best score, the first of equal ones.
    chosen : int or (n_targets,) int
        Index of the penalty that the rule takes.
    rule : {"best", "one_standard_error"}
    error_bound : float
        Proven bound of the H-norm error of the coefficients at the penalty chosen, relative to their size, that of the worst
        target; inf where there is none.
    method : str
        Where scores come from, such as "leave-one-out" or "5 folds".
    score_name : str
        Such as "negative mean squared error" or "r2".

    Notes
    -----
    Standard errors are the customary ones, which take the scores of rows or folds for independent. The models that were scored
    share most of their rows, so that these errors tend to be too small (Bengio & Grandvalet 2004, Journal of Machine Learning
    Research 5, 1089-1105). That the penalty was chosen by the scores is in none of them.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastridge import RidgeCV
    >>> choice = RidgeCV(alphas=[1e-3, 1e-2, 1e-1, 1.0]).fit(*load_diabetes(return_X_y=True)).choice_
    >>> float(choice.alphas[choice.best])
    0.01
    >>> choice.indistinguishable
    array([ True,  True,  True, False])
    """

    alphas: Vector
    scores: Vector
    standard_errors: Vector | None
    indistinguishable: Array | None
    best: Any
    chosen: Any
    rule: str
    error_bound: float
    method: str
    score_name: str

    def __repr__(self) -> str:
        words = self._of_all() if np.ndim(self.best) == 0 else self._of_targets()
        proven = np.isfinite(self.error_bound)
        words.append(
            f"The coefficients are within {self.error_bound:.1g} of the exact ones (H-norm, proven)."
            if proven
            else "No bound of the error of the coefficients is known."
        )
        return " ".join(words)

    def _of_all(self) -> list[str]:
        alpha, top, n = self.alphas[self.chosen], self.alphas[self.best], len(self.alphas)
        shown = f"{self._shown_name} {self._shown(self.scores[self.chosen])}"
        if self.standard_errors is not None:
            shown += f" ± {_two_digits(self.standard_errors[self.chosen])}"
        if n == 1:
            words = [f"alpha = {alpha:.3g} is the only one tried, scored by {self.method} ({shown})."]
        elif self.rule == BEST:
            words = [f"alpha = {alpha:.3g} is the best of {n} by {self.method} ({shown})."]
        else:
            words = [
                f"alpha = {alpha:.3g} is the largest of {n} whose score by {self.method} is within one standard error of the "
                f"best, that of {top:.3g} ({shown})."
            ]
        if self.indistinguishable is None:
            return [*words, "These scores have no standard error, which leaves open how sure the choice is."]
        others = np.delete(self.alphas, self.best)[np.delete(self.indistinguishable, self.best)]
        it = "it" if self.chosen == self.best else f"{top:.3g}"
        if n == 1:
            return words
        if not len(others):
            return [*words, f"All others are worse than {it} by more than two standard errors."]
        reach = f", from {others.min():.3g} to {others.max():.3g}," if len(others) > 1 else f", {others[0]:.3g},"
        noun = "other" if len(others) == 1 else "others"
        return [*words, f"{len(others)} {noun}{reach} cannot be told apart from {it} (within two standard errors)."]

    def _of_targets(self) -> list[str]:
        alphas = self.alphas[self.chosen]
        which = "best" if self.rule == BEST else "largest within one standard error of the best"
        words = [
            f"{len(alphas)} targets have alphas from {alphas.min():.3g} to {alphas.max():.3g}, each the {which} of "
            f"{len(self.alphas)} by {self.method} ({self.score_name})."
        ]
        if self.indistinguishable is None:
            return [*words, "These scores have no standard error, which leaves open how sure the choice is."]
        others = self.indistinguishable.sum(axis=0) - 1
        return [
            *words,
            f"{others.min()} to {others.max()} others cannot be told apart from the best of a target (within two standard "
            "errors).",
        ]

    @property
    def _shown_name(self) -> str:
        return self.score_name.removeprefix("negative ")

    def _shown(self, score: float) -> str:
        value = -score if self.score_name.startswith("negative ") else score
        error = np.nan if self.standard_errors is None else float(self.standard_errors[self.chosen])
        return _as_precise(value, error) if 0 < error < np.inf else f"{value:.4g}"


def _two_digits(error: float) -> str:
    return _as_precise(error, error) if 0 < error < np.inf else f"{error:g}"


def _as_precise(value: float, error: float) -> str:
    """A number with as many digits as two of its standard error tell"""
    if not 1e-6 < error < 1e9:
        return f"{value:.{max(2, 2 + int(np.log10(max(abs(value) / error, 1.0))))}g}"
    return f"{value:.{max(0, 1 - int(np.floor(np.log10(error))))}f}"
