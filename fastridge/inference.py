"""How sure a ridge regression is: degrees of freedom, noise, leverages, standard errors, intervals, predictive spread.

Ridge estimates are biased: their mean over repeated noise is (I - alpha H^-1) w, not the true w. Standard errors and intervals
are about that mean. They say how much an estimate would move if the noise were drawn again, and nothing about the bias, which
needs the true w to be known; `Inference.shrinkage` says how strong it is. The spread of predictions is read as Bayesians do:
there the bias is what the prior says of w.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import t as student

from fastridge import validation
from fastridge.functional import ridge, solve
from fastridge.operators.base import Vector
from fastridge.planning.costs import check_small_side
from fastridge.request import Method, Request
from fastridge.selection.probes import signs
from fastridge.solution import FitReport
from fastridge.solvers.eigen import Spectrum

COVARIANCES = ("model", "HC0", "HC1", "HC2", "HC3")
MAX_EXACT = 2000
"""Unknowns up to which `effective_df` decomposes by itself; beyond, probes cost less."""
N_PROBES = 32
PROBE_TOL = 1e-4
"""Of the solves for probes, whose own scatter is far more."""
ROWS_AT_ONCE = 64
"""Of new samples whose spread is computed together, where every one takes a product with the data."""
MATRICES = 5
"""As large as the smaller side, that a decomposition takes."""


class Inference:
    """A ridge regression with its degrees of freedom, noise, standard errors, intervals and predictive spread

    The model is y_i = x_i'w + b + e_i with independent e_i of mean zero and variance sigma^2 / s_i. Everything comes from one
    eigendecomposition of the small side, min(n_samples, n_features) wide, and is computed when it is asked for.

    Parameters
    ----------
    X : (n_samples, n_features) array or sparse matrix
    y : (n_samples,) or (n_samples, n_targets)
    alpha : float, default 1.0
        Penalty, >= 0; 0 where no column depends on others. It is taken as given: that it was chosen by these data is in none of
        the figures.
    sample_weight : float, (n_samples,) or None
        s, >= 0: inverse variances up to a factor. Samples of weight zero do not count.
    fit_intercept : bool, default True
    tol : float, default 1e-6
        Of the coefficients, as in `ridge`.
    n_threads : int or None
        None: what the process may use.

    Attributes
    ----------
    coef : (n_features,) or (n_targets, n_features) float64
    intercept : float or (n_targets,) float64
    report : FitReport
        Of the coefficients. What rests on the decomposition has no bound; its errors are of the order of the unit roundoff times
        the condition number of H.
    effective_df : float
        Trace of the hat matrix, that of the intercept included.
    residual_df : float
        n - tr(2 S - S S') for the hat matrix S.
    sigma2 : float or (n_targets,) float64
        Weighted sum of squared residuals over `residual_df`. Unbiased but for what the bias of the fit adds.
    leverages : (n_samples,) float64
        The diagonal of the hat matrix.
    shrinkage : (n_features,) float64
        The diagonal of I - alpha H^-1: the mean of an estimate holds that share of its own true coefficient, 1 without a penalty,
        0 where the penalty leaves nothing of it.

    Raises
    ------
    ValueError, TypeError
        If an argument is not what it should be; if alpha = 0 and columns depend on one another, or there are fewer samples than
        features; if no degree of freedom is left for the noise.
    MemoryError
        If matrices of the smaller side do not fit.

    References
    ----------
    Hoerl & Kennard (1970), DOI 10.1080/00401706.1970.10488634 (bias, variance); Hastie & Tibshirani (1990),
    "Generalized Additive Models", section 3.5 (degrees of freedom); Cule, Vineis & De Iorio (2011),
    DOI 10.1186/1471-2105-12-372 (standard errors of ridge estimates); MacKinnon & White (1985),
    DOI 10.1016/0304-4076(85)90158-7 (HC0 to HC3).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from fastridge.inference import Inference
    >>> X, y = load_diabetes(return_X_y=True)
    >>> found = Inference(X, y, alpha=0.1)
    >>> round(found.effective_df, 2)
    8.64
    >>> np.round(found.confidence_intervals(0.95)[2])  # of the body mass index
    array([378., 601.])
    >>> mean, std = found.predict(X[:2], return_std=True)
    >>> bool((std > 50).all())
    True
    """

    coef: Vector
    intercept: float | Vector
    report: FitReport

    def __init__(
        self,
        X: Any,
        y: Any,
        alpha: float = 1.0,
        *,
        sample_weight: Any = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        n_threads: int | None = None,
    ) -> None:
        method = Method.checked("auto", tol, None, n_threads, fit_intercept=fit_intercept)
        none = {"positive": False, "bounds": None, "penalty_weights": None}
        request = Request.checked(X, y, sample_weight, method, alpha=alpha, fit_intercept=fit_intercept, **none)
        if np.ndim(alpha):
            raise ValueError("inference takes one alpha for all targets; fit targets with others by themselves")
        check_small_side(request.X.shape, MATRICES, "effective_df estimates the degrees of freedom in little memory")
        self._alpha, self._fit_intercept = float(alpha), fit_intercept
        weights = request.weights
        self._weight = float(len(request.y) if weights is None else weights.sum())
        self._n = len(request.y) if weights is None else int(np.count_nonzero(weights))
        self._shares = np.full(len(request.y), 1 / self._weight) if weights is None else weights / self._weight
        self._problem = problem = request.problem(n_threads)
        if problem.units is not None:
            raise ValueError("the squares of X, y or alpha leave float64: rescale them (standard deviations near 1)")
        self._one_target = request.y.ndim == 1
        spectrum = Spectrum(problem, problem.side.gram())
        self._s, self._v = spectrum.s, spectrum.v
        if self._alpha == 0 and (problem.wide or self._s.min() <= spectrum.doubt):
            raise ValueError(
                "alpha = 0 and the columns of X depend on one another: their coefficients have no standard errors; "
                "raise alpha, or drop columns"
            )
        solution = solve(request, method)
        self.coef, self.intercept, self.report = solution.coef, solution.intercept, solution.report
        w = np.ascontiguousarray(np.atleast_2d(self.coef).T)
        self._residual = problem.target - problem.design.matvec(w)
        if not self.residual_df > 1e-8 * self._n:
            raise ValueError(
                f"the fit takes {self.effective_df:.1f} degrees of freedom of {self._n} samples: none is left for the noise; "
                "raise alpha"
            )

    @cached_property
    def _inverse(self) -> Vector:
        """Eigenvalues of (M + alpha I)^-1, (c,)"""
        return np.asarray(1.0 / (self._s + self._alpha))

    @property
    def effective_df(self) -> float:
        """Trace of the hat matrix"""
        return float((self._s * self._inverse).sum()) + self._fit_intercept

    @property
    def residual_df(self) -> float:
        """What is left for the noise"""
        left = self._n - len(self._s) + ((self._alpha * self._inverse) ** 2).sum()  # (1 - s/(s + alpha))^2, summed
        return float(left) - self._fit_intercept

    @cached_property
    def sigma2(self) -> float | Vector:
        """Variance of the noise of a sample of weight one"""
        sq: Vector = (self._residual**2).sum(axis=0) / self.residual_df
        return float(sq[0]) if self._one_target else sq

    @cached_property
    def leverages(self) -> Vector:
        """Diagonal of the hat matrix, (n_samples,)"""
        if self._problem.wide:
            h: Vector = self._v**2 @ (self._s * self._inverse)
        else:
            h = np.empty(self._problem.design.shape[0])
            for lo, hi, rows in self._rotated(self._problem.design):
                h[lo:hi] = rows**2 @ self._inverse
        return h + self._shares if self._fit_intercept else h

    @cached_property
    def shrinkage(self) -> Vector:
        """Diagonal of I - alpha H^-1, (n_features,)"""
        return self._sq_of_features(self._s * self._inverse, self._inverse)

    def standard_errors(self, covariance: str = "model") -> Vector:
        """Standard errors of the coefficients, about their mean, which the penalty makes a biased one

        Parameters
        ----------
        covariance : {"model", "HC0", "HC1", "HC2", "HC3"}, default "model"
            "model": sigma^2 H^-1 A'A H^-1. The others are sandwiches that hold where variances differ from sample to sample:
            squared residuals as they are, times n / (n - effective_df), over 1 - leverage, and over its square.

        Returns
        -------
        (n_features,) or (n_targets, n_features) float64

        Raises
        ------
        ValueError
            If `covariance` is none of these.
        """
        _check_covariance(covariance)
        if covariance == "model":
            sq = self._sq_of_features(self._s * self._inverse**2, self._inverse**2)
            out: Vector = np.sqrt(np.multiply.outer(np.atleast_1d(self.sigma2), sq))
        else:
            out = np.sqrt(np.stack([self._sandwich(sq) for sq in self._sq_noise(covariance).T]))
        return out[0] if self._one_target else out

    def intercept_standard_error(self, covariance: str = "model") -> float | Vector:
        """Standard error of the intercept, as those of the coefficients; 0 where none was fitted

        Parameters
        ----------
        covariance : {"model", "HC0", "HC1", "HC2", "HC3"}, default "model"

        Returns
        -------
        float or (n_targets,) float64
        """
        _check_covariance(covariance)
        design, mean = self._problem.design, np.ascontiguousarray(self._problem.x_mean[0][:, None])
        # b = sum_i (share_i / root_i - (A H^-1 mean)_i) root_i y_i
        if self._problem.wide:
            moved = self._v @ (self._inverse[:, None] * (self._v.T @ design.matvec(mean)))
        else:
            moved = design.matvec(np.ascontiguousarray(self._v @ (self._inverse[:, None] * (self._v.T @ mean))))
        sq_effect = (np.sqrt(self._shares / self._weight) - moved[:, 0]) ** 2
        if not self._fit_intercept:
            sq_effect[:] = 0.0
        noise = np.atleast_1d(self.sigma2)[None, :] if covariance == "model" else self._sq_noise(covariance)
        out: Vector = np.sqrt((sq_effect[:, None] * noise).sum(axis=0))
        return float(out[0]) if self._one_target else out

    def confidence_intervals(self, level: float = 0.95, covariance: str = "model") -> Vector:
        """Intervals that hold the mean of each estimate, which is biased towards zero, with about this probability

        From Student's t with `residual_df` degrees of freedom: exact for normal noise at alpha = 0, an approximation else. They
        hold the true coefficients as often only where `shrinkage` is near 1.

        Parameters
        ----------
        level : float, default 0.95
            Between 0 and 1.
        covariance : {"model", "HC0", "HC1", "HC2", "HC3"}, default "model"

        Returns
        -------
        (n_features, 2) or (n_targets, n_features, 2) float64
            Lower and upper ends.

        Raises
        ------
        ValueError
            If `level` is not between 0 and 1, or `covariance` not one of these.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level!r}")
        reach = student.ppf((1 + level) / 2, self.residual_df) * self.standard_errors(covariance)
        return np.stack([self.coef - reach, self.coef + reach], axis=-1)

    def predict(self, X: Any, return_std: bool = False, *, of: str = "observation") -> Vector | tuple[Vector, Vector]:
        """Predict, and say how far off that may be

        The spread is that of the posterior where w has the prior N(0, sigma^2 / alpha I), the intercept a flat one, and sigma^2
        is known to be `sigma2`: sigma^2 (1 / sum_i s_i + x'H^-1 x), x centred, and sigma^2 more for an observation of weight one.
        If no such prior is believed, it is what the penalty says about w, and no more than that.

        Parameters
        ----------
        X : (n, n_features) array or sparse matrix
        return_std : bool, default False
            Whether standard deviations are returned as well.
        of : {"observation", "mean"}, default "observation"
            Of a new y, noise included, or of x'w + b.

        Returns
        -------
        mean : (n,) or (n, n_targets) float64
        std : like mean
            If asked for.

        Raises
        ------
        ValueError, TypeError
            If X or `of` is not what it should be.

        References
        ----------
        Lindley & Smith (1972), DOI 10.1111/j.2517-6161.1972.tb00885.x.
        """
        if of not in ("observation", "mean"):
            raise ValueError(f'of must be "observation" or "mean", got {of!r}')
        X = validation.check_X(X)
        p = self._problem.design.shape[1]
        if X.shape[1] != p:
            raise ValueError(f"X has {X.shape[1]} features, the fit had {p}")
        mean: Vector = np.asarray(X @ self.coef.T + self.intercept)
        if not return_std:
            return mean
        sq = np.empty(X.shape[0])
        for lo in range(0, X.shape[0], ROWS_AT_ONCE):
            rows = X[lo : lo + ROWS_AT_ONCE]
            dense = np.ascontiguousarray(rows.T @ np.eye(rows.shape[0])) - self._problem.x_mean[0][:, None]
            sq[lo : lo + ROWS_AT_ONCE] = self._sq_uncertain(dense)
        sq += (1 / self._weight if self._fit_intercept else 0.0) + (of == "observation")
        std: Vector = np.sqrt(np.multiply.outer(sq, np.atleast_1d(self.sigma2)))
        return mean, std[:, 0] if self._one_target else std

    def __repr__(self) -> str:
        n, p = self._problem.design.shape
        noise = np.array2string(np.sqrt(np.asarray(self.sigma2)), precision=4)
        return (
            f"Inference: {n} samples x {p} features, alpha {self._alpha:g}, {self.effective_df:.1f} effective degrees of "
            f"freedom, noise of standard deviation {noise}"
        )

    def _rotated(self, operator: Any) -> Iterator[tuple[int, int, Vector]]:
        """Blocks of rows of an operator times the eigenvectors"""
        for lo, hi, block in operator.blocks():
            yield lo, hi, block @ self._v

    def _sq_of_features(self, tall: Vector, wide: Vector) -> Vector:
        """sum_l V_jl^2 tall_l, or of a wide problem sum_l (A'V)_jl^2 wide_l; (n_features,)"""
        if not self._problem.wide:
            return np.asarray(self._v**2 @ tall)
        out = np.empty(self._problem.design.shape[1])
        for lo, hi, columns in self._rotated(self._problem.design.T):
            out[lo:hi] = columns**2 @ wide
        return out

    def _sq_noise(self, covariance: str) -> Vector:
        """What stands for the variances of the weighted samples, (n_samples, n_targets)"""
        sq: Vector = self._residual**2
        if covariance == "HC1":
            sq = sq * (self._n / (self._n - self.effective_df))
        if covariance in ("HC2", "HC3"):
            left = 1 - self.leverages[:, None]
            if left.min() <= 1e-12:
                i = int(left.argmin())
                raise ValueError(f"sample {i} has leverage 1, so that its residual tells nothing: use HC0, HC1 or the model's")
            sq = sq / left ** (1 if covariance == "HC2" else 2)
        return sq

    def _sandwich(self, sq_noise: Vector) -> Vector:
        """Diagonal of H^-1 A' diag(sq_noise) A H^-1, (n_features,)"""
        design = self._problem.design
        if self._problem.wide:
            inverse = (self._v * self._inverse) @ self._v.T
            out = np.empty(design.shape[1])
            for lo, hi, columns in design.T.blocks():
                out[lo:hi] = (columns @ inverse) ** 2 @ sq_noise
            return out
        meat = np.zeros((len(self._s), len(self._s)))
        for lo, hi, rows in self._rotated(design):
            meat += rows.T @ (sq_noise[lo:hi, None] * rows)
        core = self._inverse[:, None] * meat * self._inverse
        return np.asarray(np.einsum("jl,jl->j", self._v @ core, self._v))

    def _sq_uncertain(self, x: Vector) -> Vector:
        """x'H^-1 x of every column of x, (n_features, m)"""
        if not self._problem.wide:
            return np.asarray(self._inverse @ (self._v.T @ x) ** 2)
        # H^-1 = (I - A'(A A' + alpha I)^-1 A) / alpha
        rotated = self._v.T @ self._problem.design.matvec(np.ascontiguousarray(x))
        sq: Vector = np.maximum((x**2).sum(axis=0) - self._inverse @ rotated**2, 0.0) / self._alpha
        return sq


@dataclass(frozen=True)
class Estimate:
    """A number, and the standard error of its estimate: 0 where it was computed"""

    value: float
    standard_error: float


def effective_df(
    X: Any,
    alpha: float = 1.0,
    *,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    n_probes: int | None = None,
    random_state: int = 0,
    n_threads: int | None = None,
) -> Estimate:
    """Effective degrees of freedom, the trace of the hat matrix; by random probes where the data are too large to decompose

    Parameters
    ----------
    X : (n_samples, n_features) array or sparse matrix
    alpha : float, default 1.0
        > 0.
    sample_weight : float, (n_samples,) or None
    fit_intercept : bool, default True
        The intercept counts as one.
    n_probes : int or None
        Vectors of random signs, >= 2, fitted as targets in one solve. None: exact where there are at most 2000 samples or
        features, by 32 probes else.
    random_state : int, default 0
        Seed of the signs.
    n_threads : int or None

    Returns
    -------
    Estimate
        value, standard_error.

    Raises
    ------
    ValueError, TypeError
        If an argument is not what it should be.

    References
    ----------
    Girard (1989), DOI 10.1007/BF01395775; Hutchinson (1990), DOI 10.1080/03610919008812866.

    Examples
    --------
    >>> import numpy as np
    >>> from fastridge.inference import effective_df
    >>> X = np.random.default_rng(0).standard_normal((500, 20))
    >>> exact, guess = effective_df(X, 100.0), effective_df(X, 100.0, n_probes=50)
    >>> bool(abs(guess.value - exact.value) < 4 * guess.standard_error)
    True
    """
    X = validation.check_X(X)
    n = X.shape[0]
    weights = validation.check_sample_weight(sample_weight, n)
    if np.ndim(alpha) or not alpha > 0:
        raise ValueError(f"alpha must be one number above 0, got {alpha!r}")
    if n_probes is not None and not (isinstance(n_probes, int) and n_probes >= 2):
        raise ValueError(f"n_probes must be an integer, 2 or more, or None, got {n_probes!r}")
    if n_probes is None and min(X.shape) <= MAX_EXACT:
        method = Method.checked("auto", PROBE_TOL, None, n_threads, fit_intercept=fit_intercept)
        none = {"positive": False, "bounds": None, "penalty_weights": None}
        asked = Request.of_data(X, np.zeros(n), weights, method, alpha=alpha, fit_intercept=fit_intercept, **none)
        problem = asked.problem(n_threads)
        s = Spectrum(problem, problem.side.gram()).s
        return Estimate(float((s / (s + problem.penalty[0])).sum()) + fit_intercept, 0.0)
    targets, readers = signs(np.random.default_rng(random_state), weights, (n, n_probes or N_PROBES))
    solution = ridge(X, targets, alpha, sample_weight=weights, fit_intercept=fit_intercept, tol=PROBE_TOL, n_threads=n_threads)
    traces = (readers * (X @ solution.coef.T + solution.intercept)).sum(axis=0)
    return Estimate(float(traces.mean()), float(traces.std(ddof=1) / np.sqrt(len(traces))))


def _check_covariance(covariance: str) -> None:
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}")
