"""RidgeCV and RidgeClassifierCV: the penalty is chosen by leave-one-out, folds or a criterion; the final fit is certified."""

from __future__ import annotations

from typing import Any, Literal, Self

from sklearn.base import MultiOutputMixin, RegressorMixin

from fastridge import validation
from fastridge.classifier import ClassesCoded
from fastridge.estimators import Scored
from fastridge.operators.base import Array
from fastridge.penalty_search import RidgeCVBase
from fastridge.selection.choice import BEST


class RidgeCV(Scored, MultiOutputMixin, RegressorMixin, RidgeCVBase):  # type: ignore[misc]
    """Ridge regression whose penalty is chosen by cross-validation: a drop-in for ``sklearn.linear_model.RidgeCV``

    The score of every penalty is that of exact leave-one-out errors (``cv=None``): predictions of each sample by the model that
    has not seen it, all of them from one decomposition. Or it is the mean over folds, or a criterion of the fit to all samples.
    The fit at the penalty chosen is certified as that of `Ridge` is, and `choice_` says how sure the choice is.

    Parameters
    ----------
    alphas : array-like of float, float, int or "auto", default (0.1, 1.0, 10.0)
        Penalties to choose from, > 0 (with `cv` >= 0), on scikit-learn's scale. An int above 1 says how many (in scikit-learn it
        is the one penalty, as 10.0 is here): they are then spaced evenly in log alpha over the range that suits the data, as
        those of `ridge_path`. "auto": 30 of those, and up to three times ten more past an edge at which the best is.
    fit_intercept : bool, default True
        As in `Ridge`.
    scoring : str, callable or None
        As in scikit-learn. None: the negative mean squared error of the leave-one-out predictions, each weighted by its
        sample weight; with `cv` the mean over the folds of R2. With cv=None also "gcv", "aic", "bic" (negative, since larger
        is better) and "evidence" (the logarithm): see Notes. With several targets their mean.
    cv : int, splitter, iterable of (train, test) or None
        None: leave-one-out. Else as in scikit-learn.
    gcv_mode : {"auto", "svd", "eigen"} or None
        "svd" takes singular values from a QR factorisation at once. All else begins with eigenvalues of the Gram matrix of the
        small side, or a few Cholesky factors, and goes on to that where they have too few digits: the scores are the same. But
        where samples and features are both more than 10,000, "auto" and None take the degrees of freedom in GCV, AIC and BIC
        from probes; "eigen" and "svd" never do.
    store_cv_results : bool, default False
        Keep `cv_results_`; with cv=None only.
    alpha_per_target : bool, default False
        Choose a penalty for every target by itself; with cv=None only.
    rule : {"best", "one_standard_error"}, default "best"
        "one_standard_error": the largest penalty whose score is within one standard error of the best score, the simplest model
        that the data do not tell from the best (Breiman et al. 1984). It takes scoring=None or folds.
    feature_groups : (n_features,) or None
        Labels of groups of features, such as strings or integers, one for each feature. Every group then has a penalty of its own
        (banded ridge): the search goes on from the best of `alphas` by gradient, to a score that is no worse. `alphas` do not
        bound it. It takes cv=None, X in memory and scoring None, "gcv" or "evidence"; penalty weights multiply the penalties.
    tol : float, default 1e-6
        Of the fit at the end, as in `Ridge`.
    penalty_weights : (n_features,), (n_features, n_features) or None
        As in `Ridge`.
    n_threads, verbose
        As in `Ridge`.

    Attributes
    ----------
    alpha_ : float or (n_targets,) float64
        The penalty chosen; of equal scores the first. With `feature_groups` those of the groups, (n_groups,) or (n_targets,
        n_groups).
    choice_ : Choice
        How sure that is: standard errors, the penalties that cannot be told apart from the best, and the bound of the error of
        the coefficients. Printed, it is a few sentences. Not with `feature_groups`.
    best_score_ : float or (n_targets,) float64
        Its score.
    groups_ : (n_groups,) array
        With `feature_groups`, the labels in sorted order: the order of `alpha_`.
    n_evaluations_ : int
        With `feature_groups`, how many times the score and its gradient were computed.
    alphas_ : (n_alphas,) float64
        The penalties tried.
    scores_ : (n_alphas,) or (n_alphas, n_targets) float64
        Their scores, shared by all features; those of every target where each has a penalty of its own.
    cv_results_ : (n_samples, n_alphas) or (n_samples, n_targets, n_alphas)
        Where `store_cv_results`: squared errors, or with `scoring` the predictions.
    coef_, intercept_, n_iter_, solver_, report_, n_features_in_, feature_names_in_
        As in `Ridge`.

    Warns
    -----
    UserWarning
        If the best alpha is the smallest or the largest one tried, by more than rounding: a better one may lie beyond. With
        rule="one_standard_error" if the one chosen is the largest. If a group of features counts for nothing, its penalty being
        the largest that is tried.
    sklearn.exceptions.ConvergenceWarning
        If tol was not reached, at the end or in a training set: the message says what was.

    Notes
    -----
    A sample that nothing else predicts, as the only one of its category, is predicted by what the others leave: penalised
    coefficients of zero. What only such a sample tells of an unpenalised column counts as zero as well.

    With RSS the weighted sum of squared residuals, n the number of samples that have a weight, df the trace of the hat matrix,
    the intercept and unpenalised columns included, the criteria are GCV = n RSS / (n - df)^2, AIC = n log(RSS / n) + 2 df and
    BIC = n log(RSS / n) + log(n) df. The evidence is the density of y where the coefficients are N(0, sigma^2 / alpha) (over
    their penalty weights) and the noise is N(0, sigma^2) (over sample weights), with a flat prior for the q columns, or
    combinations of columns, that are not penalised, and sigma^2 where that density is largest:

        log evidence = -1/2 [(n - q) (log(2 pi Q / (n - q)) + 1) + log det(I + K / alpha) - sum log(sample_weight)]

    Q is the minimum of RSS + alpha sum_j d_j w_j^2, and K the kernel A D^-1 A' of what the unpenalised leave of the others.
    With `feature_groups` the penalties stand in D, and alpha is 1.

    References
    ----------
    Allen (1974), DOI 10.1080/00401706.1974.10489157, and Rifkin & Lippert (2007), MIT-CSAIL-TR-2007-025 (leave-one-out); Golub,
    Heath & Wahba (1979), DOI 10.1080/00401706.1979.10489751 (GCV); Akaike (1974), DOI 10.1109/TAC.1974.1100705; Schwarz (1978),
    DOI 10.1214/aos/1176344136 (BIC); MacKay (1992), DOI 10.1162/neco.1992.4.3.415 (evidence); Patterson & Thompson (1971),
    DOI 10.1093/biomet/58.3.545 (restricted likelihood); Breiman, Friedman, Olshen & Stone (1984), Classification and Regression
    Trees, section 3.4.3, and Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, section 7.10, DOI
    10.1007/978-0-387-84858-7 (one standard error); van de Wiel et al. (2016), DOI 10.1002/sim.6732, Nunez-Elizalde et al. (2019),
    DOI 10.1016/j.neuroimage.2019.04.012, and Dupre la Tour et al. (2022), DOI 10.1016/j.neuroimage.2022.119728 (groups).

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastridge import RidgeCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = RidgeCV(alphas=[1e-3, 1e-2, 1e-1, 1]).fit(X, y)
    >>> model.alpha_, round(model.score(X, y), 4)
    (0.01, 0.5166)
    >>> model.report_.error < 1e-6
    True
    >>> RidgeCV(alphas=[1e-3, 1e-2, 1e-1, 1], rule="one_standard_error").fit(X, y).alpha_
    0.1
    >>> RidgeCV(alphas="auto", scoring="evidence").fit(X, y).choice_.method
    'evidence'

    The ten features are age, sex, body mass index, blood pressure, and six of blood serum:

    >>> kinds = ["person"] * 4 + ["serum"] * 6
    >>> model = RidgeCV(alphas=[1e-3, 1e-2, 1e-1, 1], feature_groups=kinds).fit(X, y)
    >>> model.groups_.tolist(), model.alpha_.round(3).tolist()
    (['person', 'serum'], [0.031, 0.004])
    """

    def __init__(
        self,
        alphas: validation.Penalties | Literal["auto"] = (0.1, 1.0, 10.0),
        *,
        fit_intercept: bool = True,
        scoring: Any = None,
        cv: Any = None,
        gcv_mode: str | None = None,
        store_cv_results: bool = False,
        alpha_per_target: bool = False,
        rule: str = BEST,
        feature_groups: Any = None,
        tol: float = 1e-6,
        penalty_weights: Any = None,
        n_threads: int | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(alphas, fit_intercept, scoring, cv, store_cv_results, rule, tol, penalty_weights, n_threads, verbose)
        self.gcv_mode = gcv_mode
        self.alpha_per_target = alpha_per_target
        self.feature_groups = feature_groups

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **params: Any) -> Self:
        """Choose the penalty and fit

        Parameters
        ----------
        X : (n_samples, n_features) array, data frame or sparse matrix
            As in `Ridge.fit`. A `fastridge.scan`, whose rows need not fit in memory, is scored by squared leave-one-out errors in
            one pass after the first, by criteria without one, or with `cv` a number, by sums over every `cv`-th row, which the
            first pass takes (the accuracy of classifiers takes one more).
        y : (n_samples,) or (n_samples, n_targets)
            None where X is a scan, which has it.
        sample_weight : float, (n_samples,) or None
            >= 0, of the fits, of leave-one-out errors, and of scores over folds by a scorer that takes weights.
        **params
            For the scorer and the splitter, where scikit-learn's metadata routing is enabled.

        Returns
        -------
        RidgeCV
            self

        Raises
        ------
        ValueError, TypeError
            If an argument or parameter is not what it should be, or scores have no standard error where `rule` needs one; nothing
            fitted before is lost.
        """
        solution, found = self._search_and_solve(X, y, sample_weight, params)
        coef = solution.coef
        self._keep(coef.ravel() if coef.size == self.n_features_in_ else coef, solution)
        return self._warn_of_doubts(found)

    def predict(self, X: Any) -> Array:
        """Return X w + b, (n_samples,) or (n_samples, n_targets)

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
        return self._linear(X)


class RidgeClassifierCV(ClassesCoded, RidgeCVBase):
    """Classifier by ridge regression, its penalty chosen: a drop-in for ``sklearn.linear_model.RidgeClassifierCV``

    The targets are coded as those of `RidgeClassifier`, the penalty is chosen as that of `RidgeCV`, one for all classes.

    Parameters
    ----------
    alphas, fit_intercept, cv, store_cv_results, rule, feature_groups, tol, penalty_weights, n_threads, verbose
        As in `RidgeCV`.
    scoring : str, callable or None
        As in scikit-learn, of labels and decision functions. None: the negative mean squared error of the coded targets; with
        `cv` the accuracy. Or one of the criteria of `RidgeCV`, of the coded targets.
    class_weight : dict, "balanced" or None
        As in `RidgeClassifier`.

    Attributes
    ----------
    alpha_, choice_, best_score_, groups_, n_evaluations_, alphas_, scores_, cv_results_
        As in `RidgeCV`.
    coef_, intercept_, classes_, n_iter_, solver_, report_, n_features_in_, feature_names_in_
        As in `RidgeClassifier`; but coef_ is (n_features,) where there are two classes, as in scikit-learn.

    Warns
    -----
    UserWarning, sklearn.exceptions.ConvergenceWarning
        As `RidgeCV` does.

    References
    ----------
    Those of `RidgeCV` and `RidgeClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from fastridge import RidgeClassifierCV
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = RidgeClassifierCV(alphas=[1e-3, 1e-2, 1e-1, 1]).fit(X, y)
    >>> round(model.score(X, y), 3)
    0.963
    """

    def __init__(
        self,
        alphas: validation.Penalties | Literal["auto"] = (0.1, 1.0, 10.0),
        *,
        fit_intercept: bool = True,
        scoring: Any = None,
        cv: Any = None,
        class_weight: Any = None,
        store_cv_results: bool = False,
        rule: str = BEST,
        feature_groups: Any = None,
        tol: float = 1e-6,
        penalty_weights: Any = None,
        n_threads: int | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(alphas, fit_intercept, scoring, cv, store_cv_results, rule, tol, penalty_weights, n_threads, verbose)
        self.class_weight = class_weight
        self.feature_groups = feature_groups

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **params: Any) -> Self:
        """Choose the penalty and fit

        Parameters
        ----------
        X, sample_weight, **params
            As in `RidgeCV.fit`.
        y : (n_samples,) labels, or (n_samples, n_labels) of zeros and ones, which may be sparse

        Returns
        -------
        RidgeClassifierCV
            self

        Raises
        ------
        ValueError, TypeError
            As `RidgeCV.fit` does.
        """
        solution, found = self._search_and_solve(X, y, sample_weight, params)
        coef = solution.coef
        self._keep(coef.ravel() if len(coef) == 1 else coef, solution)
        return self._warn_of_doubts(found)
