"""Look for false claims: random ridge problems, solved in every way that there is, judged by `truth.py`.

    python tests/search.py --cases 20000 --seed 0 --max-size 3000 --jobs 1
    python tests/search.py --only 1234

A line is printed for every failure, with the seed that `--only` repeats, and a table at the end. A claim is

- converged: the true H-norm error of the coefficients, as they are returned, is at most tol;
- error_bound: the true error is at most that, always;
- error 0: the coefficients are exact.

The intercept has to be the best one for these, but for what its own float64 arithmetic takes: where the mean of y is far from
zero and the coefficients are small, the last digit of an intercept alone may outweigh them.

A crash, an exception (but LinAlgError where solver="cholesky" was asked for, and the refusal of coefficients that float32 cannot
hold) and a warning (but ConvergenceWarning) are failures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.interpolate import BSpline
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from truth import TRUSTED, Truth

from fastridge import Ridge, RidgeClassifier, ridge, ridge_path

MAX_ENTRIES = 4_000_000
"""Of a matrix; the largest square ones have more."""
MAX_SPARSE_ENTRIES = 16_000_000
"""Of a sparse matrix, zeros included: the truth fills them in, some rows at a time."""
MAX_SWEPT = 200_000
"""Entries of data that coordinate descent is tried on: it may take thousands of sweeps."""
MAX_DECOMPOSED = 3e8
"""Entries times unknowns of data that `svd` is tried on: some seconds."""
LARGEST_POWER = 60
"""Of a number up to 51: its square and those of column scales are float64 numbers."""
ROUNDED = 1 + 1e-9
"""Claims are rounded to floats."""
INTERCEPT = " (intercept)"
"""Of failures that the coefficients alone are not."""


@dataclass(frozen=True)
class Setting:
    """What a case is, without its data

    Attributes
    ----------
    alphas : (number of fits, k)
    traits : tuple of str
        What is unusual about the data.
    options : dict
        Keywords of the fit, besides alpha and sample_weight.
    """

    seed: int
    kind: str
    shape: tuple[int, int]
    storage: str
    way: str
    traits: tuple[str, ...]
    alphas: Any
    options: dict[str, Any]

    def __str__(self) -> str:
        alphas = " ".join(f"{alpha:.0e}" for alpha in np.unique(self.alphas))
        plain = ("penalty_weights", "n_threads")
        options = " ".join(f"{name}={value}" for name, value in self.options.items() if name not in plain and value is not None)
        return f"{self.kind} {self.shape} {self.storage}, {self.way}, alpha {alphas}, {options}; {', '.join(self.traits)}"


@dataclass(frozen=True)
class Case:
    """A problem, and how it is to be solved

    Attributes
    ----------
    X, Y : data, (n, p) and (n, k)
        Y as the truth takes it: of a classifier the labels coded -1 and +1.
    y : what is fitted to, (n,), (n, k) or labels
    truth : function
        Of no argument: what answers are compared with, by `distance(alpha, target, coef, intercept)`. A generator of problems
        within bounds puts those into the options, and here a truth of its own.
    """

    setting: Setting
    X: Any
    Y: Any
    y: Any
    sample_weight: Any
    truth: Callable[[], Any]


@dataclass(frozen=True)
class Verdict:
    """What one report claimed, what is true (nan where that is not known), and what is wrong with that"""

    setting: Setting
    status: str
    solver: str = ""
    error: float = np.nan
    bound: float = np.nan
    coef: float = np.nan
    joint: float = np.nan
    seconds: float = 0.0
    seconds_of_truth: float = 0.0
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        claim = f"{self.status} by {self.solver}, error {self.error:.1e}, bound {self.bound:.1e}" if self.solver else self.status
        truth = "" if np.isnan(self.joint) else f"; truth {self.coef:.1e}, with the intercept {self.joint:.1e}"
        return f"seed {self.setting.seed}: {', '.join(self.failures)}\n    {self.setting}\n    {claim}{truth}"


# Data: every kind takes a generator and about how many unknowns there are to be.


def _shape(rng: Any, c: int) -> tuple[int, int]:
    """(n, p), the smaller of which is c: tall, about square, or wide"""
    longest = max(c, MAX_ENTRIES // c)
    other = int(min(longest, c * 10 ** rng.choice([rng.uniform(0, 0.1), rng.uniform(0, 1.5)]) + rng.integers(3)))
    return (other, c) if rng.random() < 0.65 else (c, other)


def _spectrum(rng: Any, m: int) -> Any:
    some = slice(0, int(rng.integers(1, max(2, m // 4 + 1))))
    values = np.ones(m)
    match rng.choice(["geometric", "clusters", "few huge", "few tiny", "power", "gap", "rank", "any"]):
        case "geometric":
            values = 10.0 ** -np.linspace(0, rng.uniform(1, 14), m)
        case "clusters":
            values = rng.choice(10.0 ** rng.uniform(-8, 3, rng.integers(1, 5)), m)
        case "few huge":
            values[some] = 10.0 ** rng.uniform(2, 10)
        case "few tiny":
            values[some] = 10.0 ** rng.uniform(-12, -2, len(values[some]))
        case "power":
            values = np.arange(1, m + 1) ** -rng.uniform(0.5, 4)
        case "gap":
            values = np.sort(rng.uniform(0.1, 1, m))
            values[some] *= 10.0 ** -rng.uniform(2, 10)
        case "rank":
            values[some] = 0
        case "any":
            values = 10.0 ** rng.uniform(-8, 8, m)
    return values


def spectral(rng: Any, c: int) -> Any:
    """Singular values as they are drawn, vectors from reflections"""
    n, p = _shape(rng, c)
    X = np.zeros((n, p))
    X[np.arange(c), np.arange(c)] = _spectrum(rng, c)
    for _ in range(3):
        u, v = rng.standard_normal(n), rng.standard_normal(p)
        X -= np.outer(u * (2 / (u @ u)), u @ X)
        X -= np.outer(X @ v, v * (2 / (v @ v)))
    return X


def gaussian(rng: Any, c: int) -> Any:
    """Independent or correlated columns"""
    X = rng.standard_normal(_shape(rng, c))
    if rng.random() < 0.5:
        for j in range(1, X.shape[1]):
            X[:, j] = 0.95 * X[:, j - 1] + 0.3 * X[:, j]
    return X


def factors(rng: Any, c: int) -> Any:
    """A few strong factors and faint noise"""
    n, p = _shape(rng, c)
    rank = int(rng.integers(1, 20))
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p)) + 10 ** rng.uniform(-6, 0) * rng.standard_normal(
        (n, p)
    )


def pairs(rng: Any, c: int) -> Any:
    """Some columns nearly equal to others"""
    X = rng.standard_normal(_shape(rng, c))
    n, p = X.shape
    k = int(rng.integers(1, max(2, min(p // 2, 40) + 1)))
    nearly = X[:, :k] + 10 ** rng.uniform(-9, -1) * rng.standard_normal((n, min(k, p)))
    X[:, p - nearly.shape[1] :] = nearly
    return X


def duplicates(rng: Any, c: int) -> Any:
    """Rows and columns that come again, in all digits or in some"""
    n, p = _shape(rng, c)
    X = rng.standard_normal((max(1, n // 2), max(1, p // 2)))[rng.integers(0, max(1, n // 2), n)]
    X = X[:, rng.integers(0, X.shape[1], p)]
    return X * (1 + rng.choice([0, 1e-12, 1e-7]) * rng.standard_normal((n, p)))


def polynomials(rng: Any, c: int) -> Any:
    """Powers of years, of [-1, 1], or the matrix of Hilbert"""
    n, p = _shape(rng, min(c, 30))
    x = np.sort(rng.uniform(-1, 1, n))
    match rng.integers(3):
        case 0:
            return (rng.choice([0.0, 2.0, 50.0]) + x)[:, None] ** np.minimum(np.arange(1, p + 1), LARGEST_POWER)
        case 1:
            years = np.round(1985 + 35 * x)
            return np.column_stack([years ** min(1 + j, 4) + (j > 3) * rng.standard_normal(n) for j in range(p)])
        case _:
            return 1 / (np.arange(n)[:, None] + np.arange(p) + 1.0)


def heavy_tails(rng: Any, c: int) -> Any:
    """Rows of very different sizes"""
    n, p = _shape(rng, c)
    return rng.standard_normal((n, p)) * rng.standard_t(rng.choice([1.0, 1.5, 2.5]), (n, 1))


def sparse_random(rng: Any, c: int) -> Any:
    """Entries anywhere"""
    n, p = _shape(rng, c)
    return sp.random_array((n, p), density=rng.choice([0.01, 0.05, 0.2]), rng=rng, data_sampler=rng.standard_normal, format="csr")


def counts(rng: Any, c: int) -> Any:
    """Words: few that are everywhere, many that are rare; as counts, or weighted as for text"""
    n, p = _shape(rng, c)
    rate = np.minimum(3.0, rng.uniform(0.5, 3) * 10 / np.arange(1, p + 1) ** rng.uniform(0.7, 1.3))
    X = sp.csr_array(rng.poisson(rate * rng.lognormal(0, 1, (n, 1))).astype(float))
    if rng.random() < 0.4:
        X = X.multiply(np.log((1 + n) / (1 + (X > 0).sum(axis=0))) + 1).tocsr()
        size = np.sqrt(X.multiply(X).sum(axis=1))
        X = sp.csr_array(sp.diags_array(1 / np.where(size > 0, size, 1)) @ X)
    return X


def _one_hot(*columns: Any) -> Any:
    """The levels of every column that occur"""
    n = len(columns[0])
    blocks = []
    for column in columns:
        levels, place = np.unique(column, return_inverse=True)
        blocks.append(sp.csr_array((np.ones(n), (np.arange(n), place)), shape=(n, len(levels))))
    return sp.hstack(blocks, format="csr")


def _rows(rng: Any, c: int, most: float = 1.1) -> int:
    """How many rows dummies of about c columns get"""
    return int(min(c * 10 ** rng.uniform(0, most) + 2, MAX_SPARSE_ENTRIES // c))


def _levels(rng: Any, n_levels: int, n: int) -> Any:
    """Levels of n rows, all about as frequent or ever rarer"""
    share = np.arange(1, n_levels + 1) ** -rng.choice([0.0, 1.1, 2.0])
    return rng.choice(n_levels, n, p=share / share.sum())


def interactions(rng: Any, c: int) -> Any:
    """Two factors and what they have together"""
    k = max(1, round(np.sqrt(c + 1) - 1))
    n = _rows(rng, c)
    a, b = _levels(rng, k, n), _levels(rng, k, n)
    return _one_hot(a, b, a * k + b)


def nested(rng: Any, c: int) -> Any:
    """Regions, their districts, their streets"""
    n, ratio = _rows(rng, c), rng.integers(2, 12)
    street = _levels(rng, max(1, int(c / (1 + 1 / ratio + 1 / ratio**2))), n)
    return _one_hot(street // ratio**2, street // ratio, street)


def ratings(rng: Any, c: int) -> Any:
    """Who and what, crossed, few ratings each"""
    n, users = _rows(rng, c), max(1, int(c * rng.uniform(0.3, 0.9)))
    return _one_hot(_levels(rng, users, n), _levels(rng, max(1, c - users), n))


def rare_levels(rng: Any, c: int) -> Any:
    """Dummies of several factors, some levels with a row or two, and a number"""
    n = _rows(rng, c)
    X = _one_hot(*(_levels(rng, max(1, c // 3), n) for _ in range(3)))
    return sp.hstack([X, sp.csr_array(rng.exponential(size=(n, 1)))], format="csr")


def unscaled(rng: Any, c: int) -> Any:
    """One-hot columns beside a year and an income"""
    n = _rows(rng, c)
    numbers = np.column_stack([rng.integers(1950, 2025, n), rng.lognormal(10, 1.5, n)])
    return sp.hstack([_one_hot(_levels(rng, max(1, c - 2), n)), sp.csr_array(numbers.astype(float))], format="csr")


def splines(rng: Any, c: int) -> Any:
    """Cubic B-splines of some variables"""
    n_variables = int(rng.integers(1, 5))
    n_basis = max(4, c // n_variables)
    n = _rows(rng, n_basis * n_variables)
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, n_basis - 2), np.ones(3)])
    parts = [BSpline.design_matrix(rng.beta(*rng.uniform(0.5, 3, 2), n), knots, 3) for _ in range(n_variables)]
    return sp.csr_array(sp.hstack(parts, format="csr"))


KINDS: dict[str, Callable[[Any, int], Any]] = {
    "spectral": spectral,
    "gaussian": gaussian,
    "factors": factors,
    "pairs": pairs,
    "duplicates": duplicates,
    "polynomials": polynomials,
    "heavy tails": heavy_tails,
    "sparse random": sparse_random,
    "counts": counts,
    "interactions": interactions,
    "nested": nested,
    "ratings": ratings,
    "rare levels": rare_levels,
    "unscaled": unscaled,
    "splines": splines,
}
DUMMIES = {"interactions", "nested", "ratings", "rare levels", "splines"}
"""Kinds whose small eigenvalues show at small penalties only, and that take little time."""

STORAGES: dict[str, Callable[[Any], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "csr": sp.csr_array,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
}


# Cases: a kind of data, what is done to it, and how it is solved.


def make_case(seed: int, max_size: int) -> Case:
    """Return the case of a seed, the same everywhere"""
    with np.errstate(all="ignore"):
        return _make_case(seed, max_size)


def _make_case(seed: int, max_size: int) -> Case:
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(KINDS)))
    share = rng.random() ** (1.0 if kind in DUMMIES else 1.5)  # dense data and their truth take longer
    X = KINDS[kind](rng, max(1, round(max_size**share)))
    extreme = rng.random() < 0.4
    traits: list[str] = []
    X, storage = _stored(rng, X, extreme, traits)
    n, p = X.shape
    Y = _targets(rng, X, 3 if rng.random() < 0.15 else 1, extreme, traits)
    sample_weight = _sample_weight(rng, n, extreme, traits)
    penalty_weights = _penalty_weights(rng, p, traits) if extreme and rng.random() < 0.3 else None
    way = str(rng.choice(["ridge", "Ridge", "ridge_path", "warm start", "RidgeClassifier"], p=[0.35, 0.3, 0.15, 0.1, 0.1]))
    y: Any = Y[:, 0] if Y.shape[1] == 1 and rng.random() < 0.9 else Y
    if way == "RidgeClassifier":
        labels = _labels(rng, Y)
        if len(np.unique(labels)) > 1:
            y, Y = labels, _coded(labels)
        else:
            way = "ridge"
    n_fits = int(rng.integers(2, 6)) if way == "ridge_path" else 1
    alphas = np.repeat(_alphas(rng, kind, X, n_fits), Y.shape[1], axis=1)
    if Y.shape[1] > 1 and way != "ridge_path" and rng.random() < 0.3:
        alphas = alphas * 10.0 ** rng.uniform(-3, 3, alphas.shape)
    options = {
        "solver": _solver(rng, X, way),
        "tol": 1e-6 if rng.random() < 0.4 else float(f"{10.0 ** rng.uniform(-12, -3):.0e}"),
        "fit_intercept": bool(rng.random() < 0.7),
        "max_iter": int(10 ** rng.uniform(0, 2)) if rng.random() < 0.1 else None,
        "penalty_weights": penalty_weights,
        "n_threads": 1,
    }
    X = STORAGES[storage](X)
    setting = Setting(seed, kind, (n, p), f"{storage} {X.dtype}", way, tuple(traits), alphas, options)
    truth = partial(Truth, X, Y, sample_weight, options["fit_intercept"], penalty_weights)
    return Case(setting, X, Y, y, sample_weight, truth)


def _stored(rng: Any, X: Any, extreme: bool, traits: list[str]) -> tuple[Any, str]:
    """X with scales, means and zeros put to it, in its precision, and the storage that it is to have"""
    n, p = X.shape
    if extreme and rng.random() < 0.3:
        decades = rng.choice([1, 3, 8, 100])
        traits.append(f"column scales 1e+-{decades}")
        X = _times(X, 10.0 ** rng.uniform(-decades, decades, p))
    if extreme and rng.random() < 0.15:
        traits.append("row scales")
        X = _times(X.T, 10.0 ** rng.uniform(-4, 4, n)).T
    if extreme and not traits and rng.random() < 0.05:
        traits.append("range of X")
        X = X * 10.0 ** rng.choice([-165, 155])
    if sp.issparse(X):
        storage = str(rng.choice(["csr", "csr", "csc", "coo"]))
        if n * p <= MAX_ENTRIES // 4 and rng.random() < 0.2:
            storage, X = "C", X.toarray()
    else:
        storage = str(rng.choice(["C", "C", "C", "F", "strided", "csr", "csc"]))
        if extreme and "range of X" not in traits and rng.random() < 0.25:
            decades = rng.uniform(2, 12)
            traits.append(f"means {'above' if decades > 6 else 'below'} 1e6 deviations")
            X = X + 10.0**decades * X.std(axis=0) * rng.choice([-1, 1], p)
    if extreme and rng.random() < 0.1:
        traits.append("empty columns")
        X = _times(X, rng.random(p) < 0.7)
    if rng.random() < 0.25 and _representable(X):
        traits.append("float32")
        X = X.astype(np.float32)
    return X, storage


def _times(X: Any, factors: Any) -> Any:
    """X with its columns multiplied"""
    return (X.tocsr() @ sp.diags_array(factors.astype(float))).tocsr() if sp.issparse(X) else X * factors


def _representable(X: Any) -> bool:
    sizes = np.abs(X.data if sp.issparse(X) else X)
    return bool(sizes.max(initial=0.0) < 1e30)


def _targets(rng: Any, X: Any, k: int, extreme: bool, traits: list[str]) -> Any:
    """Noise, a linear function of X, one that lies where X has little, or a mixture, (n, k)"""
    n, p = X.shape
    noise = rng.standard_normal((n, k))
    mode = rng.choice(["noise", "linear", "mixed", "mixed", "small directions"])
    traits.append(f"y {mode}")
    sizes = np.sqrt(np.asarray((X.multiply(X) if sp.issparse(X) else X.astype(float) ** 2).mean(axis=0))).ravel()
    unit = np.divide(1.0, sizes, out=np.zeros(p), where=(sizes > 0) & np.isfinite(sizes))
    linear = np.asarray(_times(X.astype(float), unit) @ rng.standard_normal((p, k))) / np.sqrt(p)
    linear[~np.isfinite(linear)] = 0
    Y = {"noise": noise, "linear": linear, "mixed": linear + 10 ** rng.uniform(-6, 2) * noise}.get(str(mode))
    if Y is None:  # what a few products with X X' leave of noise has little of what X is large in
        Y = noise
        for _ in range(3):
            image = np.asarray(_times(X.astype(float), unit) @ np.asarray(_times(X.astype(float), unit).T @ Y)) / max(n, p)
            Y = Y - image / max(1e-300, np.abs(image).max()) * np.abs(Y).max()
        Y = Y if np.isfinite(Y).all() else noise
    if k > 1 and extreme:
        Y = Y * np.append(10.0 ** rng.uniform(-12, 12, k - 1), rng.choice([0.0, 1.0]))
    if rng.random() < 0.3:
        decades = rng.uniform(0, 10 if extreme else 2)
        traits.append(f"mean of y {'above' if decades > 3 else 'below'} 1e3")
        Y = Y + 10.0**decades
    if extreme and rng.random() < 0.2:
        decades = rng.choice([rng.uniform(-60, 60), -170, 160])
        traits.append("range of y" if abs(decades) > 150 else "scale of y")
        Y = Y * 10.0**decades
    return Y


def _labels(rng: Any, Y: Any) -> Any:
    """Two to five classes, (n,), by the first target"""
    k = int(rng.choice([2, 2, 3, 5]))
    return np.argsort(np.argsort(Y[:, 0])) * k // len(Y)


def _coded(labels: Any) -> Any:
    """The targets of a classifier, -1 and +1: a column for each class, one for two"""
    coded = np.where(labels[:, None] == np.unique(labels), 1.0, -1.0)
    return coded[:, 1:] if coded.shape[1] == 2 else coded


def _sample_weight(rng: Any, n: int, extreme: bool, traits: list[str]) -> Any:
    """None, weights, weights with zeros, weights over decades"""
    choice = rng.random()
    if choice < 0.7:
        return None
    traits.append("weights")
    if choice < 0.85 or n < 2:
        return rng.uniform(0.2, 3, n)
    if choice < 0.95 or not extreme:
        weights = (rng.random(n) < 0.7) * rng.choice([1.0, 2.0], n)
        weights[rng.integers(n)] = 1.0
        return weights
    return 10.0 ** rng.uniform(-8, 8, n)


def _penalty_weights(rng: Any, p: int, traits: list[str]) -> Any:
    """Weights of features, with zeros (few), infinities, or over decades"""
    traits.append("penalty weights")
    d = 10.0 ** rng.uniform(-rng.choice([1, 6]), rng.choice([1, 6]), p)
    if rng.random() < 0.5:
        d[rng.integers(0, p, min(p, int(rng.integers(1, 10))))] = 0
    if rng.random() < 0.3:
        d[rng.random(p) < 0.2] = np.inf
    return d


def _alphas(rng: Any, kind: str, X: Any, n_fits: int) -> Any:
    """Penalties, (n_fits, 1): of the common range, of any size, or relative to the size of X"""
    choice = rng.random()
    sizes = np.sqrt(np.asarray(abs(X).max(axis=0).toarray() if sp.issparse(X) else np.abs(X).max(axis=0), dtype=float))
    if kind in DUMMIES and choice < 0.5:
        exponent = rng.uniform(-8, 0)
    elif choice < 0.6:
        exponent = rng.uniform(-6, 3)
    elif choice < 0.8:
        exponent = rng.uniform(-12, 12)
    else:
        exponent = 4 * np.log10(max(sizes.max(), 1e-150)) + rng.uniform(-16, 1)
    spread = rng.uniform(-3, 3, (n_fits, 1)) if n_fits > 1 else np.zeros((1, 1))
    return 10.0 ** np.clip(exponent + spread, -12, 12)


def _solver(rng: Any, X: Any, way: str) -> str:
    """`auto`, or one that takes seconds at this size"""
    n, p = X.shape
    if way == "ridge_path":
        return str(rng.choice(["auto", "cg"]))
    wanted = str(rng.choice(["auto", "cholesky", "svd", "cg", "cd"], p=[0.5, 0.1, 0.1, 0.2, 0.1]))
    too_slow = {"cd": n * p > MAX_SWEPT, "svd": n * p * min(n, p) > MAX_DECOMPOSED}
    return "auto" if too_slow.get(wanted) else wanted


# Fits and verdicts.


def fits(case: Case) -> Iterator[tuple[int, Any, Any, Any]]:
    """Solve the case as it says; yield number, coefficients (k, p), intercepts (k,) and report of every answer"""
    k, way, options, weights = case.Y.shape[1], case.setting.way, case.setting.options, case.sample_weight
    if way == "ridge_path":
        path = ridge_path(case.X, case.y, case.setting.alphas[:, 0], sample_weight=weights, **options)
        for i, report in enumerate(path.reports):
            yield i, path.coefs[i].reshape(k, -1), np.reshape(path.intercepts[i], k), report
        return
    alpha = case.setting.alphas[0] if k > 1 else case.setting.alphas[0, 0]
    if way == "ridge":
        solution = ridge(case.X, case.y, alpha, sample_weight=weights, **options)
        yield 0, solution.coef.reshape(k, -1), np.reshape(solution.intercept, k), solution.report
        return
    model = (RidgeClassifier if way == "RidgeClassifier" else Ridge)(3 * alpha, warm_start=way == "warm start", **options)
    if way == "warm start":
        model.fit(case.X, case.y, weights)
    model.set_params(alpha=alpha).fit(case.X, case.y, weights)
    yield 0, model.coef_.reshape(k, -1), np.broadcast_to(model.intercept_, k), model.report_


def judge(case: Case, truth: Any, number: int, coef: Any, intercept: Any, report: Any) -> Verdict:
    """Compare what a report claims with the truth"""
    begin = time.perf_counter()
    found = [
        truth.distance(case.setting.alphas[number, target], target, coef[target], intercept[target])
        for target in range(len(coef))
    ]
    tol, converged = case.setting.options["tol"], report.status == "converged"
    failures = set()
    if converged and not report.error_bound <= tol:
        failures.add("unproven")
    if report.status == "estimated" and not report.error <= tol < report.error_bound:
        failures.add("wrong status")
    if all(distance.known for distance in found):
        # First the coefficients alone, then with the intercept; what is certain to be true, at least.
        for name, what in (("coef", ""), ("avoidable", INTERCEPT)):
            least = max(getattr(distance, name) * (1 - TRUSTED) - distance.noise for distance in found)
            claims = {
                "false claim": converged and least > tol * ROUNDED,
                "false bound": not least <= report.error_bound * ROUNDED,
                "false zero": report.error == 0 and least > 0,
            }
            named = {failure.partition(" (")[0] for failure in failures}
            failures |= {claim + what for claim, false in claims.items() if false and claim not in named}
    return Verdict(
        case.setting,
        str(report.status),
        report.solver,
        report.error,
        report.error_bound,
        coef=float(np.max([distance.coef for distance in found])),
        joint=float(np.max([distance.joint for distance in found])),
        seconds_of_truth=time.perf_counter() - begin,
        failures=tuple(sorted(failures)),
    )


def verdicts(case: Case) -> list[Verdict]:
    """Solve and judge a case: a verdict on every answer"""
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            answers = list(fits(case))
    except Exception as error:
        singular = isinstance(error, np.linalg.LinAlgError) and case.setting.options["solver"] == "cholesky"
        both_ends = {"range of X", "range of y"} <= set(case.setting.traits)  # no float64 may hold y / x
        if singular or (isinstance(error, OverflowError) and (both_ends or "float32" in str(error))):
            return [Verdict(case.setting, "refused")]
        what = "warned" if isinstance(error, Warning) else "raised"
        return [Verdict(case.setting, f"{type(error).__name__}: {error}", failures=(f"{what} {type(error).__name__}",))]
    seconds = (time.perf_counter() - begin) / len(answers)
    truth = case.truth()
    return [replace(judge(case, truth, *answer), seconds=seconds) for answer in answers]


# Processes, tables.


class Worker:
    """A process that judges one case after another, so that a crash or a fit without end costs no more than the case"""

    def __init__(self, max_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, max_size), daemon=True)
        self.process.start()
        other.close()

    def begin(self, seeds: Iterator[int]) -> bool:
        """Begin with the next seed; without one, end"""
        for self.seed in seeds:
            self.began = time.monotonic()
            self.connection.send(self.seed)
            return True
        self.stop()
        return False

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def _work(connection: Connection, max_size: int) -> None:
    with threadpool_limits(1), suppress(EOFError):  # the other end is gone
        while True:
            connection.send(verdicts(make_case(connection.recv(), max_size)))


def search(seeds: Iterable[int], max_size: int, jobs: int = 1, patience: float = 300.0) -> Iterator[Verdict]:
    """Yield the verdicts on the cases of all seeds, in the order in which they end

    A case that takes more than `patience` seconds, its truth included, is given up.
    """
    left, busy = iter(seeds), [Worker(max_size) for _ in range(jobs)]
    busy = [worker for worker in busy if worker.begin(left)]
    while busy:
        ready = wait([worker.connection for worker in busy], timeout=1)
        for worker in list(busy):
            failure = ""
            if worker.connection in ready:
                try:
                    yield from worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    failure = "crash"
            elif time.monotonic() - worker.began > patience:
                failure = "no end"
            else:
                continue
            if failure:
                yield Verdict(make_case(worker.seed, max_size).setting, failure, failures=(failure,))
                worker.stop()
                busy[busy.index(worker)] = worker = Worker(max_size)
            if not worker.begin(left):
                busy.remove(worker)


def table(verdicts: list[Verdict], title: str, key: Callable[[Verdict], Iterable[str]]) -> str:
    """Answers, failures, and how loose bounds are, by what `key` says of a verdict"""
    lines = [
        f"\n{title:<24}{'answers':>8}{'converged':>10}{'estimated':>10}{'others':>7}{'no truth':>9}"
        f"{'false claims':>13}{'false bounds':>13}{'intercept':>10}{'zeros':>6}{'else':>5}"
        f"{'bound/error':>12}{'95 %':>8}{'seconds':>9}{'truth':>8}"
    ]
    groups: dict[str, list[Verdict]] = {"all": verdicts}
    for verdict in verdicts:
        for name in key(verdict):
            groups.setdefault(name, []).append(verdict)
    for name, group in sorted(groups.items(), key=lambda item: (item[0] == "all", item[0])):
        statuses = Counter(verdict.status for verdict in group)
        failures = Counter(failure for verdict in group for failure in verdict.failures)
        false = [failures.pop(failure, 0) for failure in ("false claim", "false bound")]
        false.append(sum(failures.pop(failure + INTERCEPT, 0) for failure in ("false claim", "false bound")))
        false.append(sum(failures.pop("false zero" + what, 0) for what in ("", INTERCEPT)))
        loose = [v.bound / v.joint for v in group if 0 < v.joint <= v.bound < np.inf]
        middle, high = np.quantile(loose, [0.5, 0.95]) if loose else (np.nan, np.nan)
        converged, estimated = statuses["converged"], statuses["estimated"]
        lines.append(
            f"{name:<24}{len(group):>8}{converged:>10}{estimated:>10}{len(group) - converged - estimated:>7}"
            f"{sum(np.isnan(v.joint) for v in group):>9}"
            f"{false[0]:>13}{false[1]:>13}{false[2]:>10}{false[3]:>6}{failures.total():>5}"
            f"{middle:>12.3g}{high:>8.2g}{sum(v.seconds for v in group):>9.1f}{sum(v.seconds_of_truth for v in group):>8.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--only", type=int, help="the seed of one case, which is solved in this process")
    parser.add_argument("--max-size", type=int, default=3000, help="unknowns, at most; a seed means another case at another size")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=np.inf, help="no case is begun after")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after which a case is given up")
    arguments = parser.parse_args()
    if arguments.only is not None:
        for verdict in verdicts(make_case(arguments.only, arguments.max_size)):
            print(verdict)
        return 0
    end = time.monotonic() + arguments.seconds
    seeds = takewhile(lambda _: time.monotonic() < end, range(arguments.seed, arguments.seed + arguments.cases))
    found = []
    for verdict in search(seeds, arguments.max_size, arguments.jobs, arguments.patience):
        found.append(verdict)
        if verdict.failures:
            print(verdict, flush=True)
    print(table(found, "kind", lambda verdict: [verdict.setting.kind]))
    print(table(found, "way", lambda verdict: [verdict.setting.way]))
    print(table(found, "solver that ran", lambda verdict: [verdict.solver or "none"]))
    print(table(found, "trait", lambda verdict: verdict.setting.traits))
    failures = Counter(failure for verdict in found for failure in verdict.failures)
    print(
        f"\n{len({verdict.setting.seed for verdict in found})} cases;",
        ", ".join(f"{n} x {f}" for f, n in failures.most_common()) or "no failure",
    )
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
