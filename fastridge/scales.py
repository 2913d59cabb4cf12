"""The penalty on the scales of textbooks and other packages, from and to alpha; `docs/penalties.md` has the table.

alpha is the one of  1/2 sum_i s_i (y_i - x_i'w - b)^2 + 1/2 alpha ||w||^2,  here and in scikit-learn's Ridge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastridge import validation
from fastridge.operators.base import Vector

SPARK_SOLVERS = ("normal", "l-bfgs")


def alpha_from_mean_loss(lambda_: Any, n: float) -> Any:
    """Return n lambda: the alpha of  1/n sum_i s_i (y_i - x_i'w - b)^2 + lambda ||w||^2

    So do textbooks write it; half of it, 1/(2n) ... + lambda/2 ||w||^2, has the same minimiser: scikit-learn's
    ElasticNet(l1_ratio=0) and SGDRegressor.

    Parameters
    ----------
    lambda_ : float or array, >= 0
    n : float, > 0
        What the sum of squares is divided by: the number of samples, or the sum of their weights.

    Returns
    -------
    float or array of the shape of lambda_

    Raises
    ------
    ValueError
        If lambda_ is negative or not finite, or n not positive.

    Examples
    --------
    >>> from fastridge import alpha_from_mean_loss
    >>> float(alpha_from_mean_loss(0.01, n=500))
    5.0
    """
    return _penalty("lambda_", lambda_) * _positive("n", n)


def alpha_to_mean_loss(alpha: Any, n: float) -> Any:
    """Return alpha / n: the inverse of `alpha_from_mean_loss`, with its arguments and errors

    Examples
    --------
    >>> from fastridge import alpha_to_mean_loss
    >>> float(alpha_to_mean_loss(5.0, n=500))
    0.01
    """
    return _penalty("alpha", alpha) / _positive("n", n)


def alpha_from_glmnet(lambda_: Any, y: Any, sample_weight: Any = None) -> Any:
    """Return n lambda / sd(y): the alpha of R's ``glmnet(X, y, family="gaussian", alpha=0, lambda=lambda)``

    glmnet is documented to minimise 1/(2n) sum_i (y_i - x_i'w - b)^2 + lambda/2 ||w||^2. What it solves has y / sd(y) for y, a
    penalty lambda / sd(y), and gives sd(y) times those coefficients. For a lasso penalty, linear in w, that is the documented
    problem; a squared one is left divided by sd(y).

    With ``standardize=TRUE``, glmnet's default, X stands for its columns divided by their standard deviations (1/n, weighted);
    with an intercept that is ``StandardScaler`` before `Ridge`.

    Parameters
    ----------
    lambda_ : float or array, >= 0
    y : (n_samples,)
        The target; not constant. sd(y) is its standard deviation about its (weighted) mean, with 1/n, intercept or not.
    sample_weight : float, (n_samples,) or None
        glmnet's ``weights``; n is then their sum.

    Returns
    -------
    float or array of the shape of lambda_

    Raises
    ------
    ValueError
        If lambda_ is negative or not finite, y is constant, or y or the weights are not what they should be.

    References
    ----------
    Friedman, Hastie & Tibshirani (2010), DOI 10.18637/jss.v033.i01; the glmnet vignette, "Linear Regression: family = gaussian",
    says that y is scaled.

    Examples
    --------
    >>> from fastridge import alpha_from_glmnet
    >>> float(alpha_from_glmnet(0.5, y=[1.0, 5.0, 1.0, 5.0]))
    1.0
    """
    return _penalty("lambda_", lambda_) * _n_over_sd(y, sample_weight)


def alpha_to_glmnet(alpha: Any, y: Any, sample_weight: Any = None) -> Any:
    """Return alpha sd(y) / n: the inverse of `alpha_from_glmnet`, with its arguments and errors

    Examples
    --------
    >>> from fastridge import alpha_to_glmnet
    >>> float(alpha_to_glmnet(1.0, y=[1.0, 5.0, 1.0, 5.0]))
    0.5
    """
    return _penalty("alpha", alpha) / _n_over_sd(y, sample_weight)


def alpha_from_spark(reg_param: Any, y: Any, sample_weight: Any = None, *, solver: str = "normal") -> Any:
    """Return n regParam / sd(y): the alpha of Spark ML's ``LinearRegression(regParam=reg_param, elasticNetParam=0)``

    Spark minimises 1/(2n) sum_i (y_i - x_i'w - b)^2 + regParam / (2 sd(y)) sum_j (d_j w_j)^2; d_j is the standard deviation of
    column j where ``standardization=True``, its default, and 1 otherwise: divide the columns by d_j. y is scaled either way.

    Parameters
    ----------
    reg_param : float or array, >= 0
    y : (n_samples,)
        The label; not constant.
    sample_weight : float, (n_samples,) or None
        The column ``weightCol``; n is then their sum.
    solver : {"normal", "l-bfgs"}, default "normal"
        The one Spark runs: its "auto" takes "normal" up to 4096 features. "normal" divides by the standard deviations with 1/n,
        as glmnet does; "l-bfgs" by the unbiased ones, of y and of columns, with 1/(n - 1): with weights s, 1/(n - sum s^2 / n).

    Returns
    -------
    float or array of the shape of reg_param

    Raises
    ------
    ValueError
        If reg_param is negative or not finite, solver is another, y is constant, or y or the weights are not what they should be.

    References
    ----------
    Spark's "Advanced topics" of spark.ml, "Normal equation solver for weighted least squares"; `WeightedLeastSquares.scala`,
    `LinearRegression.scala` and `Summarizer.scala` of Spark 3.

    Examples
    --------
    >>> from fastridge import alpha_from_spark
    >>> float(alpha_from_spark(0.5, y=[1.0, 5.0, 1.0, 5.0]))
    1.0
    """
    return _penalty("reg_param", reg_param) * _n_over_sd(y, sample_weight, _is_unbiased(solver))


def alpha_to_spark(alpha: Any, y: Any, sample_weight: Any = None, *, solver: str = "normal") -> Any:
    """Return alpha sd(y) / n: the inverse of `alpha_from_spark`, with its arguments and errors

    Examples
    --------
    >>> from fastridge import alpha_to_spark
    >>> float(alpha_to_spark(1.0, y=[1.0, 5.0, 1.0, 5.0]))
    0.5
    """
    return _penalty("alpha", alpha) / _n_over_sd(y, sample_weight, _is_unbiased(solver))


def alpha_from_C(C: Any) -> Any:
    """Return 1 / (2 C): the alpha of LIBLINEAR's L2-loss support vector regression with an epsilon of 0

    1/2 ||w||^2 + C sum_i (y_i - x_i'w)^2, solvers 11 and 12; ``LinearSVR(loss="squared_epsilon_insensitive", epsilon=0)`` of
    scikit-learn. LIBLINEAR penalises its bias, the coefficient of a constant column: append that column and fit without an
    intercept, or switch its bias off and centre the data.

    Parameters
    ----------
    C : float or array, > 0

    Returns
    -------
    float or array of the shape of C

    Raises
    ------
    ValueError
        If C is not positive and finite.

    References
    ----------
    The README of LIBLINEAR, "Formulations"; Ho & Lin (2012), "Large-scale linear support vector regression", Journal of Machine
    Learning Research 13.

    Examples
    --------
    >>> from fastridge import alpha_from_C
    >>> float(alpha_from_C(0.25))
    2.0
    """
    return 0.5 / _positive("C", C)


def alpha_to_C(alpha: Any) -> Any:
    """Return 1 / (2 alpha): the inverse of `alpha_from_C`; alpha must be positive

    Examples
    --------
    >>> from fastridge import alpha_to_C
    >>> float(alpha_to_C(2.0))
    0.25
    """
    return 0.5 / _positive("alpha", alpha)


def _n_over_sd(y: Any, sample_weight: Any, unbiased: bool = False) -> float:
    """Return the sum of the weights over the standard deviation of y; the variance has divisor n, or n - sum s^2 / n"""
    if np.ndim(y) != 1:
        raise ValueError(f"y must be one target, (n_samples,), got {np.ndim(y)} dimension(s); convert one at a time")
    target = validation.check_y(y, len(y))
    weights = validation.check_sample_weight(sample_weight, len(target))
    if weights is None:
        weights = np.ones(len(target))
    if np.ptp(target[weights > 0]) == 0:
        raise ValueError("y is constant: this scale divides by its standard deviation")
    n = float(weights.sum())
    deviation = target - weights @ target / n
    divisor = n - float(weights @ weights) / n if unbiased else n
    return n / float(np.sqrt(weights @ deviation**2 / divisor))


def _is_unbiased(solver: str) -> bool:
    if solver not in SPARK_SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(map(repr, SPARK_SOLVERS))}, got {solver!r}")
    return solver == "l-bfgs"


def _penalty(name: str, value: Any) -> Vector:
    array: Vector = np.asarray(value, dtype=np.float64)
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    return array


def _positive(name: str, value: Any) -> Vector:
    array = _penalty(name, value)
    if (array == 0).any():
        raise ValueError(f"{name} must be positive, got {value!r}")
    return array
