"""`Moments`: all that ridge regression needs of rows that were seen once, in sums that add up, subtract, solve and are saved."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastridge import archive, normal_equations, validation
from fastridge.normal_equations import NormalEquations
from fastridge.operators.base import Vector
from fastridge.parallel import resolve_threads
from fastridge.path import RidgePath
from fastridge.solution import Solution
from fastridge.sums import DOUBT, Sums, check_memory, sum_block

KIND, VERSION = "fastridge.Moments", 1


@dataclass(frozen=True)
class Score:
    """How well given coefficients fit, from sums alone

    Attributes
    ----------
    sq_residual : float or (n_targets,) float64
        sum of w (y - x'coef - intercept)^2
    r2 : float or (n_targets,) float64
        1 less its share of the sum of w (y - mean)^2; of a constant target 1 where it is fitted exactly, else 0.
    doubt : float or (n_targets,) float64
        `sq_residual` is known to within this: it is a difference of sums, and where r2 is near 1 few of their digits are left.
    """

    sq_residual: float | Vector
    r2: float | Vector
    doubt: float | Vector


class Moments:
    """Count, means, Gram matrix and cross products of rows, from which ridge regressions are solved without the rows

    Blocks of rows are added in any order, and sums of other rows are added to and taken from them:

        moments.update(X, y, sample_weight)      a + b      a - b      moments.solve(alphas)      moments.save(path)

    All sums are about the mean and do not depend on how rows were cut, beyond the rounding within blocks: means 1e8 standard
    deviations away from zero, any number of blocks and any order cost no digits. An update takes the time of the block's Gram
    matrix and of one pass over (n_features, n_features) numbers, so blocks should have some thousand rows. It is all or nothing:
    one that fails or is interrupted leaves what was there before.

    Two Gram matrices are held during an update, one afterwards: 3.2 GB each for 20,000 features.

    Parameters
    ----------
    n_threads : int or None
        Of `update`. None: what the process may use. The sums have the same bits for any number.

    Attributes
    ----------
    n_samples : int
        Rows summed, those of weight 0 included.
    sum_weights : float
    n_features, n_targets : int
    feature_names : tuple of str or None
        Of the first block, where it was a data frame whose columns all have names; later ones must agree.
    x_mean : (n_features,) float64
    y_mean, sq_y : float or (n_targets,) float64
        `sq_y` is the sum of w (y - mean)^2.
    gram : (n_features, n_features) float64
        Sum of w (x - mean)(x - mean)': a new array.
    cross : (n_features,) or (n_features, n_targets) float64
        Sum of w (x - mean)(y - mean)'.
    digits_lost : float
        Decimal digits, of some 15, that taking rows away has cost the sum of squares of the worst of the columns that still vary.

    References
    ----------
    Chan, Golub & LeVeque (1983), DOI 10.1080/00031305.1983.10483115; Schubert & Gertz (2018), DOI 10.1145/3221269.3223036.

    Examples
    --------
    >>> import numpy as np, fastridge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 5)) + 1e6
    >>> y = X @ [1.0, 2.0, 0.0, 0.0, -1.0]
    >>> moments = fastridge.Moments()
    >>> for lo in range(0, 1000, 250):
    ...     _ = moments.update(X[lo : lo + 250], y[lo : lo + 250])
    >>> moments
    Moments of 1,000 rows with 5 features and 1 target
    >>> solution = moments.solve(0.1)
    >>> np.round(solution.coef, 2) + 0.0
    array([ 1.,  2.,  0.,  0., -1.])
    >>> solution.report.error_bound <= 1e-6
    True
    >>> held_out = fastridge.Moments().update(X[:250], y[:250])
    >>> training = (moments - held_out).solve([10.0, 0.1])
    >>> bool(held_out.score(training.coefs[1], training.intercepts[1]).r2 > 0.99)
    True
    """

    def __init__(self, *, n_threads: int | None = None) -> None:
        validation.check_options("auto", 0.5, None, n_threads)
        self.n_threads = n_threads
        self.feature_names: tuple[str, ...] | None = None
        self._one_target = True
        self._sums: Sums | None = None

    def update(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add a block of rows

        Parameters
        ----------
        X : (n_samples, n_features) array or sparse matrix
            As in `ridge`; the first block says how many features and targets there are.
        y : (n_samples,) or (n_samples, n_targets)
        sample_weight : float, (n_samples,) or None
            >= 0. Rows of a block in which all are zero are counted, and that is all.

        Returns
        -------
        Moments
            This object.

        Raises
        ------
        ValueError, TypeError
            If an argument is not what it should be, holds NaN or infinity, or has another number of features or targets, or other
            names of features, than the blocks before.
        MemoryError
            If two Gram matrices would take more than half of the memory of this machine; before any work.
        """
        names = _names(X)
        X = validation.check_X(X)
        y = validation.check_y(y, X.shape[0])
        weights = validation.check_block_weights(sample_weight, X.shape[0])
        target = y.reshape(len(y), -1)
        shape, one_target = (X.shape[1], target.shape[1]), y.ndim == 1
        sums = self._sums
        if sums is None:
            check_memory(shape[0])
        else:
            self._check_alike(shape, one_target, names, "the block")
        block = sum_block(X, target, weights, resolve_threads(self.n_threads))
        if sums is not None:
            sums.add(block)
            return self
        sums = Sums(*shape)
        sums.add(block)
        self._one_target, self.feature_names = one_target, names
        self._sums = sums
        return self

    def __add__(self, other: Moments) -> Moments:
        """The sums of the rows of both

        Raises
        ------
        ValueError
            If features or targets disagree.
        """
        if not isinstance(other, Moments):
            return NotImplemented
        if self._sums is None or other._sums is None:
            return other.__copy__() if self._sums is None else self.__copy__()
        self._check_alike(other._sums.shape, other._one_target, other.feature_names, "the other")
        new = self.__copy__()
        assert new._sums is not None
        new._sums.add(other._sums)
        return new

    def __sub__(self, other: Moments) -> Moments:
        """The sums without the rows of the other, which must be among them; `digits_lost` says what that costs

        Raises
        ------
        ValueError
            If features or targets disagree, or the rows of the other cannot be among those of this one.
        """
        if not isinstance(other, Moments):
            return NotImplemented
        if other._sums is None:
            return self.__copy__()
        if self.n_samples < other.n_samples:
            raise ValueError(f"{other.n_samples:,} rows cannot be taken from {self.n_samples:,}")
        assert self._sums is not None
        self._check_alike(other._sums.shape, other._one_target, other.feature_names, "the other")
        left = self.sum_weights - other.sum_weights
        negligible = DOUBT * self._sums.high("weight_seen")[0]
        if self.n_samples == other.n_samples and abs(left) <= negligible:
            return Moments(n_threads=self.n_threads)
        if left <= negligible:
            raise ValueError(
                f"weights of {other.sum_weights:g} cannot be taken from {self.sum_weights:g}: the rows left would weigh {left:g}"
            )
        new = self.__copy__()
        assert new._sums is not None
        new._sums.add(other._sums, -1)
        sq, doubt = new._sums.sq_columns, new._sums.doubt()
        if (sq < -doubt).any():
            j = int(np.argmin(sq + doubt))
            raise ValueError(
                f"the rows to take away are not among those summed: the sum of squares of {self._column(j)} would be {sq[j]:.3g}"
            )
        return new

    def solve(
        self, alphas: Any, *, penalty_weights: Any = None, fit_intercept: bool = True, tol: float = 1e-6
    ) -> Solution | RidgePath:
        """Solve the ridge regression on all rows, at one penalty or at several

        One Cholesky factor a penalty, or one eigendecomposition for many. The residual is computed from the sums, because no row
        can be read again, and what their rounding may do to the answer, entry by entry, is part of `error_bound`. That takes two
        more arrays of the size of the Gram matrix, six for many penalties.

        Parameters
        ----------
        alphas : float or (n_alphas,) array
            Penalties >= 0. 0 is least squares, of minimum norm where several w fit equally well.
        penalty_weights : (n_features,), (n_features, n_features) or None
            As in `ridge`.
        fit_intercept : bool, default True
            Whether there is an intercept; it is not penalised.
        tol : float, default 1e-6
            As in `ridge`: the status is CONVERGED where the error is proven to be at most this.

        Returns
        -------
        Solution or RidgePath
            A Solution for a number, a RidgePath for an array. Nothing is raised or warned where tol is not reached.

        Raises
        ------
        ValueError, TypeError
            If an argument is not what it should be, no row has a weight, or rows were taken away and left a column with fewer
            digits than tol needs at the smallest alpha.

        References
        ----------
        The solver, `normal_equations`, and the account of rounding, `sums`, name theirs.
        """
        begin = time.perf_counter()
        sums = self._weighted()
        validation.check_options("auto", tol, None, None, fit_intercept=fit_intercept)
        one = np.ndim(alphas) == 0
        given = validation.check_alpha(alphas, 1) if one else validation.check_alphas(alphas)
        penalties = np.asarray(given, dtype=np.float64)
        p, k = sums.shape
        d = validation.check_penalty_weights(penalty_weights, p, None)
        equations, active = NormalEquations.of(sums, np.ones(p) if d is None else d, fit_intercept)
        if sums.removed:
            self._check_digits(equations, active, float(penalties.min()), tol)
        answers = normal_equations.solve(equations, penalties, tol)
        coefs = answers.coefs
        if not active.all():
            coefs = np.zeros((len(penalties), k, p))
            coefs[:, :, active] = answers.coefs
        intercepts = np.stack([sums.intercept(at.T) if fit_intercept else np.zeros(k) for at in coefs])
        seconds = time.perf_counter() - begin
        reports = tuple(answers.report(i, float(penalty), tol, seconds) for i, penalty in enumerate(penalties))
        if self._one_target:
            coefs, intercepts = coefs[:, 0], intercepts[:, 0]
        return Solution(coefs[0], intercepts[0], reports[0]) if one else RidgePath(penalties, coefs, intercepts, reports)

    def solve_targets(self, penalty: Vector, **options: Any) -> Solution:
        """Solve at the penalties of the targets, (n_targets,); `options` as `solve` takes them. The report is the worst one's"""
        alphas, each = np.unique(penalty, return_inverse=True)
        path = self.solve(alphas, **options)
        assert isinstance(path, RidgePath)
        report = max(path.reports, key=lambda report: report.error_bound)
        if self._one_target:
            return Solution(path.coefs[0], path.intercepts[0], report)
        own = each, np.arange(len(each))  # of every target at its penalty
        return Solution(path.coefs[own], path.intercepts[own], report)

    def score(self, coef: Any, intercept: Any = 0.0) -> Score:
        """Score given coefficients on all rows, by squared error and R2

        Parameters
        ----------
        coef : (n_features,) or (n_targets, n_features)
        intercept : float or (n_targets,)

        Raises
        ------
        ValueError
            If a shape is wrong, or there are no rows with weight.
        """
        sums = self._weighted()
        p, k = sums.shape
        w = np.asarray(coef, dtype=np.float64)
        b = np.asarray(intercept, dtype=np.float64)
        if w.shape not in ((k, p), (p,) if k == 1 else (k, p)) or b.shape not in ((), (k,)):
            raise ValueError(
                f"coef must be of shape ({k}, {p}), or ({p},) for one target, and intercept a number or of shape ({k},), "
                f"got {w.shape} and {b.shape}"
            )
        w = np.ascontiguousarray(w.reshape(k, p).T)
        sq, doubt = sums.sq_residual(w, b)
        sq_y = sums.high("sq_y")
        r2 = 1.0 - np.divide(sq, sq_y, out=(sq > 0).astype(np.float64), where=sq_y > 0)
        if self._one_target:
            return Score(float(sq[0]), float(r2[0]), float(doubt[0]))
        return Score(sq, r2, doubt)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sums to a file, named exactly so: an npz with a header in JSON, replaced only when all of it is written

        Raises
        ------
        ValueError
            If there are no rows.
        OSError
            If it cannot be written; a file that was there stays.
        """
        sums = self._known()
        header = {
            "kind": KIND,
            "version": VERSION,
            "shape": sums.shape,
            "one_target": self._one_target,
            "feature_names": self.feature_names,
        }
        archive.save(path, header, sums.arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, n_threads: int | None = None) -> Self:
        """Read what `save` wrote; nothing in the file is run

        Raises
        ------
        ValueError
            If the file is truncated, damaged, something else, or of another version.
        OSError
            If it cannot be read.
        """
        header, arrays = archive.load(path, KIND, VERSION)
        new = cls(n_threads=n_threads)
        try:
            p, k = (int(size) for size in header["shape"])
            names = header["feature_names"]
            new._one_target = bool(header["one_target"])
            new.feature_names = None if names is None else tuple(map(str, names))
            new._sums = Sums.restored(p, k, **arrays)
        except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise ValueError(f"{os.fspath(path)!r} is damaged: {error}") from error
        return new

    @classmethod
    def _of(cls, sums: Sums, one_target: bool) -> Self:
        """Of sums, which are these moments' from now on"""
        new = cls()
        new._sums, new._one_target = sums, one_target
        return new

    def __copy__(self) -> Moments:
        """One that shares nothing: `update` changes arrays in place"""
        new = Moments(n_threads=self.n_threads)
        new._one_target, new.feature_names = self._one_target, self.feature_names
        new._sums = None if self._sums is None else self._sums.copy()
        return new

    def __repr__(self) -> str:
        if self._sums is None:
            return "Moments of no rows"
        p, k = self._sums.shape
        lost = f", {self.digits_lost:.1f} digits lost" if self.digits_lost >= 1 else ""
        return f"Moments of {_counted(self.n_samples, 'row')} with {_counted(p, 'feature')} and {_counted(k, 'target')}{lost}"

    @property
    def n_samples(self) -> int:
        """Rows summed"""
        return 0 if self._sums is None else self._sums.count

    @property
    def sum_weights(self) -> float:
        """Of all rows"""
        return 0.0 if self._sums is None else self._sums.weight

    @property
    def n_features(self) -> int:
        """Columns of X"""
        return self._known().shape[0]

    @property
    def n_targets(self) -> int:
        """Columns of y"""
        return self._known().shape[1]

    @property
    def x_mean(self) -> Vector:
        """Weighted means of the features"""
        return self._weighted().mean[: self.n_features].copy()

    @property
    def y_mean(self) -> float | Vector:
        """Weighted mean of each target"""
        return self._of_targets(self._weighted().mean[self.n_features :])

    @property
    def sq_y(self) -> float | Vector:
        """Sum of squares of each target about its mean"""
        return self._of_targets(self._known().high("sq_y"))

    @property
    def gram(self) -> Vector:
        """Gram matrix about the mean: a new array"""
        lower = np.tril(self._known().gram)
        return lower + np.tril(lower, -1).T

    @property
    def cross(self) -> Vector:
        """Cross products about the mean"""
        cross = self._known().cross
        return cross[:, 0].copy() if self._one_target else cross.copy()

    @property
    def digits_lost(self) -> float:
        """Digits that taking rows away has cost"""
        return 0.0 if self._sums is None else self._sums.digits_lost()

    def _of_targets(self, values: Vector) -> float | Vector:
        return float(values[0]) if self._one_target else values.copy()

    def _known(self) -> Sums:
        if self._sums is None:
            raise ValueError("these moments are of no rows yet: call update first")
        return self._sums

    def _weighted(self) -> Sums:
        if not self._known().weight:
            raise ValueError("all rows of these moments have weight 0: they have neither means nor a fit")
        return self._known()

    def _column(self, j: int) -> str:
        p = self.n_features
        if j >= p:
            return "y" if self._one_target else f"target {j - p}"
        return f"feature {j}" if self.feature_names is None else f"feature {self.feature_names[j]!r}"

    def _check_alike(self, shape: tuple[int, int], one_target: bool, names: tuple[str, ...] | None, which: str) -> None:
        sums = self._known()
        for word, mine, theirs in zip(("features", "targets"), sums.shape, shape, strict=True):
            if mine != theirs:
                raise ValueError(f"{which} has {theirs} {word}, these moments have {mine}")
        if one_target != self._one_target:
            have = ("(n_samples, 1)", "(n_samples,)")
            raise ValueError(
                f"{which} has y of shape {have[one_target]}, these moments are of {have[self._one_target]}; reshape it"
            )
        if names is not None and self.feature_names is not None and names != self.feature_names:
            j = next(j for j, pair in enumerate(zip(names, self.feature_names, strict=True)) if pair[0] != pair[1])
            raise ValueError(f"feature {j} of {which} is named {names[j]!r}, that of these moments {self.feature_names[j]!r}")

    def _check_digits(self, equations: NormalEquations, active: np.ndarray, penalty: float, tol: float) -> None:
        """Raise where the doubt of a column alone exceeds what is asked for"""
        d = equations.penalty_weights if equations.diagonal else equations.penalty_weights.diagonal()
        size = np.maximum(equations.gram.diagonal(), 0.0) + penalty * d
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(size > 0, equations.doubt**2 / size, np.inf)
        if left.max(initial=0.0) > tol:
            j = int(np.argmax(left))
            column = self._column(int(np.flatnonzero(active)[j]))
            raise ValueError(
                f"taking rows away has cost {self.digits_lost:.1f} digits: the sum of squares of {column} is known to "
                f"{left[j]:.1e}, and tol={tol:g} at alpha={penalty:g} asks for more; sum the rows that are left anew, or raise "
                "alpha or tol"
            )


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _names(X: Any) -> tuple[str, ...] | None:
    """Names of the columns of a data frame; None where not all of them are text"""
    columns = getattr(X, "columns", None)
    names = () if columns is None else tuple(columns)
    return names if names and all(isinstance(name, str) for name in names) else None
