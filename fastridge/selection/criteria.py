"""Criteria that score penalties by fits to all rows, for all penalties from the eigenvalues of one decomposition.

With n rows that have a weight, q directions that are never penalised (intercept and unpenalised columns), B'B = V S V' on the
small side of what is left, RSS the weighted sum of squared residuals and Q = RSS + alpha ||w||^2,

    df = q + sum s / (s + alpha)
    GCV = n RSS / (n - df)^2        AIC = n log(RSS / n) + 2 df        BIC = n log(RSS / n) + log(n) df

    log evidence = -1/2 [(n - q) (log(2 pi Q / (n - q)) + 1) + sum log(1 + s / alpha) - sum log(weights)]

The last is the log density of y where w is N(0, sigma^2 / alpha), what is not penalised has a flat prior (so that contrasts
alone count: the restricted likelihood), and sigma^2 is what makes it largest.

Digits. n - df is summed as what is left, sum alpha / (s + alpha). RSS of a wide problem is alpha^2 ||z||^2. That of a tall one is
a sum over the rows at one penalty; its growth from there, a sum of positive terms, follows from the decomposition,

    RSS(alpha) - RSS(beta) = sum (v'A'y)^2 (alpha - beta) / ((s + alpha)(s + beta)) (alpha / (s + alpha) + beta / (s + beta))

References
----------
Golub, Heath & Wahba (1979), DOI 10.1080/00401706.1979.10489751 (GCV); Akaike (1974), DOI 10.1109/TAC.1974.1100705;
Schwarz (1978), DOI 10.1214/aos/1176344136; MacKay (1992), DOI 10.1162/neco.1992.4.3.415 (evidence);
Patterson & Thompson (1971), DOI 10.1093/biomet/58.3.545 (restricted likelihood).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastridge import units
from fastridge.operators.base import Array, Vector
from fastridge.problem import Problem
from fastridge.selection.decomposition import Pencil

CRITERIA = {"gcv": "generalised cross-validation", "aic": "AIC", "bic": "BIC", "evidence": "evidence"}
"""By the names that `scoring` takes."""


@dataclass(frozen=True)
class Rows:
    """What criteria must know of the rows

    Attributes
    ----------
    n : int
        Rows that have a weight.
    n_free : int
        q: directions that are never penalised.
    log_weights : float
        Sum of the logarithms of the weights of those rows.
    """

    n: int
    n_free: int
    log_weights: float = 0.0

    @classmethod
    def of(cls, problem: Problem, weights: Vector | None) -> Rows:
        """Of a problem in its standard form, and the user's weights (n,) or None"""
        null = problem.design.left_null
        used = np.ones(problem.design.shape[0]) if weights is None else weights[weights > 0]
        return cls(len(used), 0 if null is None else null.shape[1], float(np.log(used).sum()))

    def check(self, what: str) -> None:
        """Raise where nothing is left to judge by; `what` is the parameter that asks for it

        Raises
        ------
        ValueError
            If the unpenalised fit every row.
        """
        if self.n <= self.n_free:
            raise ValueError(
                f"{what} takes more rows than the intercept and unpenalised columns fit by themselves: "
                f"n_samples = {self.n}, of which they fit {self.n_free}"
            )


def powers_of_errors(problem: Problem, weights: Vector | None) -> Array:
    """Powers of two, of each target or (1,), that errors in the units of the problem are multiplied by to be the user's"""
    sigma = np.zeros(1, dtype=np.intp) if problem.units is None else problem.units.target
    return np.asarray(sigma + units.of_weights(weights)[1] // 2)


def scores(
    name: str,
    rows: Rows,
    pencils: list[Pencil],
    wide: bool,
    sq_residual: Callable[[Vector, Vector | float], Vector],
    powers: Array | int = 0,
) -> Vector:
    """Scores (a, k) of the penalties of the pencils by the criterion of that name, larger being better

    `sq_residual` gives the weighted sums of squared residuals, (k,), of answers (p, k) of a tall problem at a penalty. The units
    of residuals are two to the `powers`, (k,).
    """
    n, q = rows.n, rows.n_free
    out = np.empty((sum(len(pencil.chosen) for pencil in pencils), pencils[0].image.shape[1]))
    powers = np.broadcast_to(powers, out.shape[1])
    for pencil in pencils:
        left, log_det = _degrees_left(pencil, n - q)
        sq, sq_whole = _of_kernel(pencil) if wide else _of_rows(pencil, sq_residual)
        with np.errstate(divide="ignore", over="ignore", under="ignore"):
            if name == "evidence":
                found = -(n - q) / 2 * (np.log(2 * np.pi * sq_whole / (n - q)) + 1 + 2 * np.log(2.0) * powers)
                found += (rows.log_weights - log_det[:, None]) / 2
            else:
                found = _of_sums(name, n, sq, left, powers)
        out[pencil.chosen] = found
    return out


def scores_by_probes(name: str, n: int, sq: Vector, df: Vector) -> tuple[Vector, Vector]:
    """Scores (a, k) by GCV, AIC or BIC of sums of squared residuals (a, k), and what they would be by each probe, (q, k, a)

    `df` are the degrees of freedom by each of q probes, (q, a). Scores are those of the mean; a probe counts by the derivative.
    """
    left = np.maximum(n - df.mean(axis=0), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = _of_sums(name, n, sq, left, np.zeros(1, dtype=np.intp))
        slope = 2.0 if name == "aic" else np.log(n) if name == "bic" else -2 * scores / left[:, None]
        probes = scores + (df.mean(axis=0) - df)[:, :, None] * slope
    return scores, np.ascontiguousarray(probes.transpose(0, 2, 1))


def _of_sums(name: str, n: int, sq: Vector, left: Vector, powers: Array) -> Vector:
    """Negative GCV, AIC or BIC, (a, k), by sums of squared residuals (a, k) and n - df, (a,)"""
    if name == "gcv":
        return np.asarray(-np.ldexp(n * sq / (left**2)[:, None], 2 * powers))
    fit = -n * (np.log(sq / n) + 2 * np.log(2.0) * powers)
    return np.asarray(fit - (2.0 if name == "aic" else np.log(n)) * (n - left)[:, None])


def _degrees_left(pencil: Pencil, most: int) -> tuple[Vector, Vector]:
    """Return n - df and log det(I + B'B / alpha), (a,) each; `most` is n - q, what the rank is at most"""
    shares = pencil.shares  # the largest are those of directions without data, where there must be some
    rank = min(len(shares), most)
    left = most - rank + np.sort(shares, axis=0)[:rank].sum(axis=0)
    return left, pencil.log_det - np.log(pencil.weights).sum(axis=0) - len(shares) * np.log(pencil.penalties)


def _of_kernel(pencil: Pencil) -> tuple[Vector, Vector]:
    """RSS and Q of a wide problem, (a, k) each: alpha^2 ||z||^2 and alpha y'z"""
    weights = pencil.penalties * pencil.weights
    sq_image = pencil.image**2
    return (pencil.shares * weights).T @ sq_image, weights.T @ sq_image


def _of_rows(pencil: Pencil, sq_residual: Callable[[Vector, Vector | float], Vector]) -> tuple[Vector, Vector]:
    """RSS and Q of a tall problem, (a, k) each, from the residuals at the smallest penalty of the decomposition"""
    first = int(pencil.penalties.argmin())
    penalty, weights, shares = pencil.penalties[first], pencil.weights[:, [first]], pencil.shares
    inner = weights * pencil.image
    sq = sq_residual(np.ascontiguousarray(pencil.basis @ inner), penalty)
    sq_whole = sq + penalty * (pencil.sizes @ inner**2)
    grown = shares * weights * (1.0 - penalty / pencil.penalties)
    sq_image = pencil.image**2
    return sq + (grown * (shares + shares[:, [first]])).T @ sq_image, sq_whole + grown.T @ sq_image
