"""RidgeClassifier: ridge regression on classes coded -1 and +1; and what it shares with the one that chooses its penalty."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from fastridge import validation
from fastridge.estimators import RidgeBase, Scored, sums_suffice, unchanged_on_failure
from fastridge.operators.base import Array, Vector
from fastridge.rows import RowSource, labels_of


class ClassesCoded(Scored, ClassifierMixin, RidgeBase):  # type: ignore[misc]
    """What classifiers share: the coding of classes, and predictions from X W' + b"""

    classes_: Array
    class_weight: Any

    def decision_function(self, X: Any) -> Array:
        """Return X W' + b: (n_samples,), positive for the second of two classes, else (n_samples, n_classes or n_labels)

        Parameters
        ----------
        X : (n_samples, n_features) array, data frame or sparse matrix

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If `fit` has not run.
        ValueError
            If X has another number of features, or is not finite.
        """
        scores = self._linear(X)
        return scores.ravel() if scores.ndim == 1 or scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> Any:
        """Return the label of highest score, (n_samples,); with several labels per sample, zeros and ones (n_samples, n_labels)

        Parameters
        ----------
        X : (n_samples, n_features) array, data frame or sparse matrix

        Returns
        -------
        array, or a sparse matrix where the labels that were fitted to came as one

        Raises
        ------
        sklearn.exceptions.NotFittedError, ValueError
            As `decision_function` does.
        """
        check_is_fitted(self)
        return self._binarizer.inverse_transform(self.decision_function(X))

    def _targets(self, y: Any, sample_weight: Any, n_samples: int) -> tuple[Vector, Vector | None]:
        """Return the labels coded -1 and +1, (n, 1 or k), and the weights of samples times those of their classes

        The coding and `classes_` are kept on the way.
        """
        validation.check_class_weight(self.class_weight)
        weights = validation.check_sample_weight(sample_weight, n_samples)
        check_classification_targets(y)
        binarizer = LabelBinarizer(neg_label=-1, pos_label=1).fit(y)
        if not binarizer.y_type_.startswith("multilabel"):
            y = column_or_1d(y, warn=True)
            if len(binarizer.classes_) == 1:
                raise ValueError(f"y must hold at least two classes, got one class: {binarizer.classes_[0]!r}")
        elif isinstance(self.class_weight, dict):
            raise ValueError('class_weight must be None or "balanced" where samples have several labels, got a dict')
        if self.class_weight:
            by_class = compute_sample_weight(self.class_weight, y)
            weights = validation.check_sample_weight(by_class if weights is None else by_class * weights, n_samples)
        self._binarizer, self.classes_ = binarizer, binarizer.classes_
        return validation.check_y(binarizer.transform(y), n_samples), weights

    def _source(self, source: RowSource) -> RowSource:
        coding = self._coding(source)
        return source.recoded(coding.n_targets, coding)

    def _coding(self, source: RowSource) -> Coding:
        """How the labels of a source are coded, which reads them; the coding of predictions and `classes_` are kept on the way"""
        validation.check_class_weight(self.class_weight)
        source.need_target()
        if not (source.repeatable and source.one_target):
            raise ValueError(
                f"the classes must be known before {source!r} is read, and be one column: "
                "use partial_fit(..., classes=) where it can be read once"
            )
        counts = source.labels()
        numbers = np.array(sorted(counts))
        labels = labels_of(numbers, source.names)
        if len(labels) < 2:
            got = f"one class: {labels[0].item()!r}" if len(labels) else "no rows"
            raise ValueError(f"the targets must hold at least two classes, got {got}")
        if labels.dtype.kind == "f":
            raise ValueError(f"the targets hold {labels[labels != np.rint(labels)][0].item()!r}: classes must be whole numbers")
        factors: Vector | None = None
        if self.class_weight == "balanced":
            factors = sum(counts.values()) / len(labels) / np.array([counts[number] for number in numbers.tolist()])
        elif self.class_weight is not None:
            factors = compute_class_weight(self.class_weight, classes=labels, y=labels)
        self._binarizer = LabelBinarizer(neg_label=-1, pos_label=1).fit(labels)
        self.classes_ = self._binarizer.classes_
        return Coding(numbers, self._binarizer.transform(labels).astype(np.float64), factors, source.names)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(frozen=True)
class Coding:
    """From labels, given as numbers, and weights of samples to targets -1 and +1 and weights of samples times those of classes

    Attributes
    ----------
    numbers : (c,) float64
        That stand for the labels, sorted.
    targets : (c, 1 or c) float64
        Of each of them.
    factors : (c,) float64 or None
        Weights of their classes.
    names : dict or None
        Their words, for messages.
    """

    numbers: Vector
    targets: Vector
    factors: Vector | None
    names: dict[Any, int] | None

    @property
    def n_targets(self) -> int:
        """Columns of the targets"""
        return int(self.targets.shape[1])

    def __call__(self, y: Vector, weights: Vector | None) -> tuple[Vector, Vector | None]:
        """Targets and weights of labels (m, 1)

        Raises
        ------
        RuntimeError
            If there is one that was not there when the labels were read.
        """
        own = np.searchsorted(self.numbers, y[:, 0]).clip(max=len(self.numbers) - 1)
        if len(new := y[self.numbers[own] != y[:, 0], 0]):
            label = labels_of(new[:1], self.names)[0].item()
            raise RuntimeError(f"{label!r} was no label before: a source must yield the same rows every time")
        if self.factors is not None:
            weights = self.factors[own] if weights is None else self.factors[own] * weights
        return self.targets[own], weights


class RidgeClassifier(ClassesCoded):
    """Classifier by ridge regression with a certified answer: a drop-in for ``sklearn.linear_model.RidgeClassifier``

    minimise over W, b    sum_i s_i ||t_i - W x_i - b||^2 + alpha ||W||^2

    with t_i = 1 in the place of the class of sample i and -1 in the others (two classes: one number, +1 for the second). One
    solve serves all classes: X is read once for all of them.

    Parameters
    ----------
    alpha, fit_intercept, copy_X, max_iter, tol, solver, positive, bounds, penalty_weights
        As in `Ridge`; alpha may have one value for each row of coef_.
    random_state, warm_start, n_threads, time_limit, verbose, checkpoint
        As in `Ridge`.
    class_weight : dict, "balanced" or None, default None
        Weights >= 0 of the classes, by label (1 where a label is left out), which multiply sample_weight. "balanced":
        n_samples / (n_classes * number of samples in the class). With several labels per sample "balanced" or None.

    Attributes
    ----------
    coef_ : (1, n_features), (n_classes, n_features) or (n_labels, n_features)
        One row where there are two classes. float32 where X is float32 (computed in float64), else float64.
    intercept_ : (1,), (n_classes,) or (n_labels,) float64, or 0.0 without an intercept
    classes_ : (n_classes,) array
        The labels, sorted; with several labels per sample, the numbers of the columns of y.
    n_iter_, solver_, report_, n_features_in_, feature_names_in_
        As in `Ridge`; report_ is about the class that was solved least accurately.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If tol was not reached: the message says what was.

    References
    ----------
    Hoerl & Kennard (1970), DOI 10.1080/00401706.1970.10488634, for the regression; Rifkin & Klautau (2004), "In defense of
    one-vs-all classification", Journal of Machine Learning Research 5, for its use on classes.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from fastridge import RidgeClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> model = RidgeClassifier(alpha=0.1).fit(X, y)
    >>> model.predict(X[:3])
    array([0, 0, 0])
    >>> model.score(X, y) > 0.98
    True
    >>> model.report_.error < 1e-6
    True
    """

    def __init__(
        self,
        alpha: validation.Penalties = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-6,
        class_weight: Any = None,
        solver: validation.SolverName = "auto",
        positive: bool = False,
        bounds: tuple[Any, Any] | None = None,
        penalty_weights: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        n_threads: int | None = None,
        time_limit: float | None = None,
        verbose: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            alpha,
            fit_intercept=fit_intercept,
            copy_X=copy_X,
            max_iter=max_iter,
            tol=tol,
            solver=solver,
            positive=positive,
            bounds=bounds,
            penalty_weights=penalty_weights,
            random_state=random_state,
            warm_start=warm_start,
            n_threads=n_threads,
            time_limit=time_limit,
            verbose=verbose,
            checkpoint=checkpoint,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to data

        Parameters
        ----------
        X : (n_samples, n_features) array, data frame or sparse matrix
            C or F order, CSR and CSC of float32 or float64 are used without a copy. Or rows that need not fit in memory, as
            `fastridge.scan` gives them, with labels that are text, truth values or whole numbers. Classes are found by reading
            the target alone; in text files, svmlight files and blocks of functions by one more pass.
        y : (n_samples,) labels, or (n_samples, n_labels) of zeros and ones, which may be sparse
            At least two classes; or for every sample any number of labels. None where X is a scan, which has it.
        sample_weight : float, (n_samples,) or None
            >= 0.

        Returns
        -------
        RidgeClassifier
            self

        Raises
        ------
        ValueError, TypeError
            If an argument or parameter is not what it should be; nothing fitted before is lost.
        numpy.linalg.LinAlgError
            If solver="cholesky" meets a matrix that is not positive definite.
        """
        solution = self._solve(X, y, sample_weight)
        return self._keep(solution.coef, solution)

    @available_if(sums_suffice)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Fit to these rows and those of all calls before; see `Ridge.partial_fit` for what is kept and what it costs

        Parameters
        ----------
        X, sample_weight
            As in `fit`.
        y : (n_samples,) labels
        classes : (n_classes,) array or None
            All labels that will come, at least two; needed in the first call unless `fit` has met them, and the same or None in
            later ones.

        Returns
        -------
        RidgeClassifier
            self

        Raises
        ------
        ValueError, TypeError
            As `Ridge.partial_fit` does; if y has labels that are not in `classes`, or several a sample; if class_weight is
            "balanced", for which all labels would have to be known.
        """
        if self.class_weight == "balanced":
            raise ValueError('class_weight="balanced" needs all labels at once; give the weights of the classes as a dict')
        validation.check_class_weight(self.class_weight)
        if isinstance(self.class_weight, str):
            raise ValueError('class_weight="balanced" needs all labels at once; give the weights of the classes as a dict')
        with unchanged_on_failure(self):
            self._meet(classes)
            solution = self._add(X, y, sample_weight, self._targets_of_known)
        return self._keep(solution.coef, solution)

    def _meet(self, classes: Any) -> None:
        """Set `classes_` from the first call of `partial_fit`, and refuse others later"""
        if self._moments is not None:
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(f"classes must be those of the first call, {self.classes_!r}, got {classes!r}")
            return
        if classes is None:
            classes = getattr(self, "classes_", None)
        if classes is None:
            raise ValueError("the first call of partial_fit needs classes: all labels that will come")
        classes = np.unique(classes)
        if len(classes) < 2:
            raise ValueError(f"classes must hold at least two labels, got {classes!r}")
        self._binarizer = LabelBinarizer(neg_label=-1, pos_label=1).fit(classes)
        self.classes_ = self._binarizer.classes_

    def _targets_of_known(self, y: Any, sample_weight: Any, n_samples: int) -> tuple[Vector, Vector | None]:
        """As `_targets`, of labels that are all among `classes_`"""
        weights = validation.check_sample_weight(sample_weight, n_samples)
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y holds labels that are not in classes: {unknown[:5]!r}")
        if self.class_weight:
            by_class = np.array([self.class_weight.get(label, 1.0) for label in y.tolist()])
            weights = validation.check_sample_weight(by_class if weights is None else by_class * weights, n_samples)
        return validation.check_y(self._binarizer.transform(y), n_samples), weights
