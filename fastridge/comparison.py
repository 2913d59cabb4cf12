"""`fastridge bench`: this package beside scikit-learn, on made data, each side timed alike and compared at equal accuracy."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning

from fastridge.estimators import Ridge
from fastridge.operators.base import Array, Matrix, Vector
from fastridge.ridge_cv import RidgeCV

TARGET = 1e-6
"""Relative H-norm error at which times are compared: the default tol here."""
NEAR = 1.25
"""Multiple of the target that counts as reached: a peer is not left out for a hair."""
TOLS = tuple(10.0**-k for k in range(5, 13))
"""Given to the iterative solvers of scikit-learn, until one reaches the target."""
HOPELESS = 4.0
"""A solver that takes this many times as long as the fastest so far is not asked for more digits."""
SHORTEST = 0.02
"""Seconds that are timed together at least."""
ROUNDS = {True: 3, False: 7}
"""Of a quick comparison, and of a whole one."""
ENOUGH, FEWEST = 10.0, 3
"""Seconds after which no further round begins, and the rounds that there are in any case."""
OURS, THEIRS = "tab:blue", "tab:orange"


@dataclass(frozen=True)
class Case:
    """Data to make, and what is done with them

    Attributes
    ----------
    name : str
    make : callable
        Takes a share of the whole case, of its rows and where need be of its columns, and returns X and y.
    quick : float
        The share that a quick comparison takes.
    alphas : (n_alphas,) array or None
        Penalties to choose from by leave-one-out; None: one fit with alpha = 1.
    """

    name: str
    make: Callable[[float], tuple[Matrix, Vector]]
    quick: float = 0.2
    alphas: Vector | None = None


@dataclass(frozen=True)
class Side:
    """How one of the two did: its solver, the error that it reached, and the seconds of every timed fit"""

    solver: str
    error: float
    times: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median"""
        return median(self.times)


@dataclass(frozen=True)
class Row:
    """A case that has been measured; `theirs` is None where no solver of scikit-learn reached the target"""

    case: str
    shape: tuple[int, int]
    stored: int
    ours: Side
    theirs: Side | None

    @property
    def ratio(self) -> float | None:
        """How many times as long scikit-learn takes"""
        return None if self.theirs is None else self.theirs.seconds / self.ours.seconds

    def facts(self) -> dict[str, Any]:
        """Return all there is to say, for JSON"""
        (n, p), theirs = self.shape, self.theirs
        facts: dict[str, Any] = {"case": self.case, "rows": n, "features": p, "stored": self.stored}
        for name, side in (("fastridge", self.ours), ("scikit_learn", theirs)):
            keys = ("solver", "seconds", "error")
            facts[name] = None if side is None else {key: getattr(side, key) for key in keys}
        return facts | {"ratio": self.ratio}


class Truth:
    """The exact minimiser for one penalty, from numpy and scipy, to measure errors with"""

    def __init__(self, X: Matrix, y: Vector, alpha: float) -> None:
        self.X, self.alpha = X, alpha
        self.mean = np.asarray(X.mean(axis=0)).ravel()
        b = y - y.mean()
        self.solution = self._of_sparse(X, b) if sp.issparse(X) else self._of_dense(np.asarray(X), b)

    def error(self, coef: Vector) -> float:
        """Return ||w - w*||_H / ||w*||_H"""
        return self._norm(coef - self.solution) / self._norm(self.solution)

    def _norm(self, w: Vector) -> float:
        return math.hypot(float(np.linalg.norm(self._times(w))), math.sqrt(self.alpha) * float(np.linalg.norm(w)))

    def _times(self, w: Vector) -> Vector:
        return np.asarray(self.X @ w - self.mean @ w)

    def _of_dense(self, X: Array, b: Vector) -> Vector:
        A = X - self.mean
        n, p = A.shape
        if p > n:
            return np.asarray(A.T @ np.linalg.solve(A @ A.T + self.alpha * np.eye(n), b))
        return np.asarray(np.linalg.solve(A.T @ A + self.alpha * np.eye(p), A.T @ b))

    def _of_sparse(self, X: Any, b: Vector) -> Vector:
        n, p = X.shape
        diagonal = np.asarray(X.multiply(X).sum(axis=0)).ravel() - n * np.square(self.mean) + self.alpha

        def product(w: Vector) -> Vector:
            t = self._times(w)
            return np.asarray(X.T @ t - self.mean * t.sum() + self.alpha * w)

        H = LinearOperator((p, p), matvec=product, dtype=np.float64)
        scaling = LinearOperator((p, p), matvec=lambda w: w / diagonal, dtype=np.float64)
        return np.asarray(cg(H, X.T @ b - self.mean * b.sum(), M=scaling, rtol=1e-13, atol=0.0, maxiter=1000)[0])


def cases() -> list[Case]:
    """What is compared, in the order of the table"""
    return [
        Case("dense, tall", partial(_dense, 200_000, 100)),
        Case("dense, square", partial(_dense, 6000, 1500), quick=0.3),
        Case("dense, wide", partial(_dense, 1500, 15_000), quick=0.3),
        Case("sparse, tall", partial(_words, 80_000, 8000, 30), quick=0.6),
        Case("sparse, wide", partial(_words, 25_000, 100_000, 60), quick=0.4),
        Case("one-hot and unscaled", partial(_categories, 100_000, 1000), quick=0.3),
        Case("alpha by leave-one-out", partial(_dense, 50_000, 150), alphas=np.logspace(-2, 4, 20)),
        Case("small", partial(_dense, 100, 10), quick=1.0),
    ]


def compare(quick: bool, begins: Callable[[str], None] = lambda name: None) -> Iterator[Row]:
    """Measure case after case; `begins` is told the name of each"""
    for case in cases():
        begins(case.name)
        yield measure(case, case.quick if quick else 1.0, ROUNDS[quick])


def measure(case: Case, share: float = 1.0, rounds: int = 3) -> Row:
    """Measure one case: find what of scikit-learn reaches the target soonest, then fit both sides in turns"""
    X, y = case.make(share)
    stored = X.nnz if sp.issparse(X) else X.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if case.alphas is None:
            truth, name = Truth(X, y, 1.0), "Ridge"
            fit: Any = Ridge(1.0)
            peers = _peers(X, y, truth)
        else:
            fit = RidgeCV(case.alphas)
            peer, name = linear_model.RidgeCV(case.alphas).fit(X, y), "RidgeCV"
            truth = Truth(X, y, float(peer.alpha_))
            peers = {"RidgeCV": (peer, truth.error(peer.coef_), 0.0)}
        fit.fit(X, y)  # not timed, as the first fits of the others are not
        ours, theirs = Side(name if case.alphas is not None else fit.solver_, truth.error(fit.coef_)), None
        exact = [(seconds, solver) for solver, (_, error, seconds) in peers.items() if error <= NEAR * TARGET]
        if exact:
            _, solver = min(exact)
            peer, error, _ = peers[solver]
            theirs = Side(solver, error)
        begin = time.perf_counter()
        for i in range(rounds):
            if i >= FEWEST and time.perf_counter() - begin > ENOUGH:
                break
            ours.times.append(_seconds(fit, X, y))
            if theirs is not None:
                theirs.times.append(_seconds(peer, X, y))
    return Row(case.name, (X.shape[0], X.shape[1]), int(stored), ours, theirs)


def draw(rows: Iterable[Row], ax: Any) -> None:
    """Draw the seconds of both sides on a logarithmic axis, a line for every case, and how many times faster the one is"""
    rows = list(rows)
    places = np.arange(len(rows))
    for place, row in zip(places, rows, strict=True):
        if row.theirs is not None:
            ends = [row.ours.seconds, row.theirs.seconds]
            ax.plot(ends, [place, place], color="0.75", linewidth=2, zorder=1)
            label = f"{row.ratio:.1f} times" if row.ratio is not None and row.ratio >= 1 else f"1 / {ends[0] / ends[1]:.1f}"
            offset = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            ax.annotate(label, (max(ends), place), **offset)
    ax.plot([row.ours.seconds for row in rows], places, "o", color=OURS, label="fastridge", zorder=2)
    theirs = [(row.theirs.seconds, place) for row, place in zip(rows, places, strict=True) if row.theirs is not None]
    ax.plot(*zip(*theirs, strict=True), "o", color=THEIRS, label="scikit-learn, its fastest", zorder=2)
    ax.set(xscale="log", xlabel="seconds to fit, at equal accuracy")
    ax.margins(x=0.2)
    ax.set_yticks(places, [f"{row.case}\n{row.shape[0]:,} x {row.shape[1]:,}" for row in rows], fontsize=9)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _peers(X: Matrix, y: Vector, truth: Truth) -> dict[str, tuple[Any, float, float]]:
    """Solvers of scikit-learn with the loosest tol that reaches the target: model, error, seconds of one fit"""
    found: dict[str, tuple[Any, float, float]] = {}
    fastest = math.inf
    solvers = ("sparse_cg", "lsqr") if sp.issparse(X) else ("cholesky", "sparse_cg", "lsqr")
    linear_model.Ridge(1.0).fit(X[:100], y[:100])  # a first fit loads libraries
    for solver in solvers:
        for tol in TOLS:
            model = linear_model.Ridge(1.0, solver=solver, tol=tol)
            begin = time.perf_counter()
            model.fit(X, y)
            seconds = time.perf_counter() - begin
            direct = solver == "cholesky"
            error = truth.error(model.coef_)
            found[solver if direct else f"{solver}, tol {tol:.0e}"] = model, error, seconds
            if error <= NEAR * TARGET:
                fastest = min(fastest, seconds)
                break
            if direct or seconds > HOPELESS * fastest:
                break
    return found


def _seconds(model: Any, X: Matrix, y: Vector) -> float:
    """The seconds of a fit, in the mean over as many as take `SHORTEST`"""
    begin, n = time.perf_counter(), 0
    while True:
        model.fit(X, y)
        n += 1
        seconds = time.perf_counter() - begin
        if seconds >= SHORTEST:
            return seconds / n


def _dense(n: int, p: int, share: float) -> tuple[Matrix, Vector]:
    """Columns that share ten factors"""
    rng = np.random.default_rng(0)
    n = max(100, round(share * n))
    p = round(share * p) if p > n else p
    X = rng.standard_normal((n, p))
    X += rng.standard_normal((n, 10)) @ rng.standard_normal((10, p)) / 3
    return X, _response(X, rng)


def _words(n: int, p: int, length: int, share: float) -> tuple[Matrix, Vector]:
    """Rows of unit norm, as of text: a few words are common and most are rare"""
    rng = np.random.default_rng(0)
    n, p = round(share * n), round(share * p)
    words = np.minimum((p ** rng.random(n * length)).astype(np.int64), p) - 1
    values = np.log(p / (words + 1.0)) + 1
    X = sp.csr_array((values, (np.repeat(np.arange(n), length), words)), shape=(n, p))
    X.sum_duplicates()
    X = sp.csr_array(sp.dia_array((1 / np.sqrt(X.multiply(X).sum(axis=1)), 0), shape=(n, n)) @ X)
    return X, _response(X, rng)


def _categories(n: int, p: int, share: float) -> tuple[Matrix, Vector]:
    """One-hot columns of two categories, beside two numbers of another scale"""
    rng = np.random.default_rng(0)
    n = round(share * n)
    hot = [
        sp.csr_array((np.ones(n), (np.arange(n), np.minimum((k ** rng.random(n)).astype(int), k) - 1)), shape=(n, k))
        for k in (p, p // 10)
    ]
    X = sp.csr_array(sp.hstack([*hot, rng.standard_normal((n, 2)) * [3e4, 1e4]], format="csr"))
    return X, _response(X, rng)


def _response(X: Matrix, rng: np.random.Generator) -> Vector:
    """A linear signal that explains about two thirds of the variance"""
    signal = np.asarray(X @ rng.standard_normal(X.shape[1]))
    return np.asarray(signal / signal.std() + 0.7 * rng.standard_normal(X.shape[0]))
