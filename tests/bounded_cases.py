"""Random problems with bounds, their solutions in long double, and what a fit claims held against those."""

import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from helpers import stacked
from truth import BoundedTruth

from fastridge import Ridge, Status, ridge
from fastridge.solvers.bounded import columns, dual_newton, gram

WAYS = ("gram", "factors", "cg")
"""How the solver is to go about it: with A'A, with blocks of it, or by conjugate gradients wherever a few columns do not do."""
KINDS = ("gauss", "factors", "positive", "geometric", "few huge", "few tiny", "deficient", "hilbert", "twins", "sparse", "onehot")
KINDS += ("powers", "cauchy", "counts", "far")
STARTS = ("none", "none", "none", "noise", "near")
SURE, LEAST = 0.05, 1e-13
"""Share of the tolerance, and what is always allowed, that the solution may be unsure by: cases that are worse tell nothing."""
SLACK = 1e-3
"""By which a bound may be missed, relative to itself."""


@dataclass(frozen=True)
class BoundedCase:
    """One problem: X (n, p) as it is stored and as a dense float64 array, y (n,), and what `ridge` is told"""

    X: object
    dense: np.ndarray
    y: np.ndarray
    alpha: float
    lower: np.ndarray
    upper: np.ndarray
    weights: np.ndarray | None
    d: np.ndarray | None
    intercept: bool
    tol: float
    start: str
    way: str
    info: str


def bounded_case(seed, n_max=40, p_max=40):
    """Draw a problem of at most n_max samples and p_max features: shapes, spectra, scales, storages, bounds and penalties"""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(1, n_max + 1)), int(rng.integers(1, p_max + 1))
    if rng.random() < 0.25:
        n = max(1, min(n, p // 3))
    kind, X = _matrix(rng, n, p)
    info = [kind, f"{n}x{p}"]
    if rng.random() < 0.35:
        decades = rng.choice([1, 3, 8])
        X = X * 10 ** rng.uniform(-decades, decades, p)
        info.append(f"column scales {decades}")
    if rng.random() < 0.1:
        X = X * 10 ** rng.uniform(-3, 3, n)[:, None]
        info.append("row scales")
    storage = str(rng.choice(["C", "F", "csr", "csc", "C float32", "F float32", "csr float32"]))
    if "float32" in storage:
        X = X.astype(np.float32)
    y = _target(rng, np.asarray(X, dtype=np.float64), info)
    weights = None
    if rng.random() < 0.25:
        weights = rng.choice(
            [rng.uniform(0.1, 2, n), 10 ** rng.uniform(-6, 6, n), (np.arange(n) == 0) + 1.0 * (rng.random(n) < 0.7)]
        )
        info.append("weights")
    d = _penalty_weights(rng, p)
    if d is not None:
        info.append("d with 0" if (d == 0).any() else "d")
    intercept = bool(rng.random() < 0.6)
    alpha = float(10 ** (rng.uniform(-12, 12) if rng.random() < 0.4 else rng.uniform(-9, 3)))
    if rng.random() < 0.3:
        largest = float(np.abs(X).max()) ** 2 + 1e-30
        alpha = float(np.clip(largest * 10 ** rng.uniform(-16, 0), 1e-12, 1e12))
    lower, upper = _bounds(rng, np.asarray(X, dtype=np.float64), y, info)
    if d is not None:
        off = np.isinf(d) & ((lower > 0) | (upper < 0))
        d[off] = 1.0
    tol = float(10 ** rng.uniform(-11, -3)) if rng.random() < 0.6 else 1e-6
    start, way = str(rng.choice(STARTS)), str(rng.choice(WAYS))
    if "float32" in storage and start != "none":
        tol = max(tol, 1e-5)  # an estimator rounds its coefficients to float32
    stored = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_array, "csc": sp.csc_array}[storage.split()[0]](X)
    info += [storage, "intercept" if intercept else "", f"alpha {alpha:.1e}", f"tol {tol:.0e}", f"start {start}", way]
    text = ", ".join(part for part in info if part)
    dense = np.asarray(X, dtype=np.float64)
    return BoundedCase(stored, dense, y, alpha, lower, upper, weights, d, intercept, tol, start, way, text)


def truth_of(case, start):
    """The minimiser of a case; the search for it begins at `start`"""
    d = np.ones(len(case.lower)) if case.d is None else case.d
    fixed = np.isinf(d)
    K, t = stacked(case.dense, case.y, case.alpha, case.weights, case.intercept, np.where(fixed, 0.0, d), np.longdouble)
    return BoundedTruth(K, t, np.where(fixed, 0.0, case.lower), np.where(fixed, 0.0, case.upper), start)


def first_guess(case, seed):
    """The start of a case, (p,), or None"""
    rng, p = np.random.default_rng(seed + 1), case.dense.shape[1]
    if case.start == "none":
        return None
    if case.start == "noise":
        return 10 ** rng.uniform(-3, 3) * rng.standard_normal(p)
    exact = truth_of(case, np.clip(np.zeros(p), case.lower, case.upper))
    return exact.coef * (1 + 10 ** rng.uniform(-9, -1) * rng.standard_normal(p))


@contextmanager
def going(way, p):
    """Have small problems of p features solved as large ones are"""
    before = gram.MAX_GRAM, columns.MAX_BLOCK, dual_newton.MAX_STEPS
    try:
        if way != "gram":
            gram.MAX_GRAM = 0
        if way == "cg":
            columns.MAX_BLOCK, dual_newton.MAX_STEPS = p // 3, 0
        yield
    finally:
        gram.MAX_GRAM, columns.MAX_BLOCK, dual_newton.MAX_STEPS = before


def fit(case, seed):
    """Coefficients and report of a case"""
    start, bounds = first_guess(case, seed), (case.lower, case.upper)
    options = {"fit_intercept": case.intercept, "bounds": bounds, "penalty_weights": case.d, "tol": case.tol}
    with going(case.way, case.dense.shape[1]), warnings.catch_warnings():
        if start is None or len(case.y) == 1:  # estimators want two samples
            found = ridge(case.X, case.y, case.alpha, sample_weight=case.weights, **options)
            return found.coef, found.report
        warnings.simplefilter("ignore")
        model = Ridge(case.alpha, warm_start=True, **options)
        model.coef_ = start
        model.fit(case.X, case.y, sample_weight=case.weights)
        return model.coef_, model.report_


@dataclass(frozen=True)
class Verdict:
    """What came of a case: `wrong` names what is claimed and not so, or is empty; `sure` where the truth is known well enough"""

    case: BoundedCase
    report: object
    error: float
    sure: bool
    wrong: str

    def __str__(self):
        claim = (
            f"{self.report.status} {self.report.error:.1e}, bound {self.report.error_bound:.1e}, {self.report.n_iter[0]} rounds"
        )
        return f"{self.wrong or 'right'}: {claim}; truth {self.error:.1e}, {self.case.info}"


def bounded_verdict(seed, n_max=40, p_max=40):
    """Solve a random case, and hold what the report claims against the solution in long double"""
    case = bounded_case(seed, n_max, p_max)
    coef, report = fit(case, seed)
    truth = truth_of(case, np.asarray(coef, dtype=np.float64))
    error, sure = truth.error(coef), bool(truth.unsure <= max(SURE * case.tol, LEAST))
    least = (error - truth.unsure) / (1 + SLACK)
    wrong = []
    if sure and not least <= report.error_bound:
        wrong.append("bound")
    if sure and report.status is Status.CONVERGED and least > case.tol:
        wrong.append("claim")
    inside = coef.dtype == np.float32 or bool(((coef >= case.lower) & (coef <= case.upper)).all())  # float32 may have none inside
    return Verdict(case, report, error, sure, " and ".join(wrong if inside else [*wrong, "outside"]))


def _spectrum(rng, kind, m):
    if kind == "geometric":
        return 10.0 ** -np.linspace(0, rng.uniform(1, 12), m)
    if kind == "few huge":
        return np.where(np.arange(m) < rng.integers(1, m // 4 + 2), 10 ** rng.uniform(2, 8), 1.0)
    if kind == "few tiny":
        return np.where(np.arange(m) < rng.integers(1, m // 4 + 2), 10 ** rng.uniform(-10, -2), 1.0)
    return np.where(np.arange(m) < max(1, m // 3), 0.0, 1.0)


def _matrix(rng, n, p):
    kind = str(rng.choice(KINDS))
    if kind == "gauss":
        return kind, rng.standard_normal((n, p))
    if kind == "factors":
        return kind, rng.standard_normal((n, p)) + 3 * rng.standard_normal((n, 2)) @ rng.standard_normal((2, p))
    if kind == "positive":
        return kind, np.exp(rng.normal(0, 1.5, p) + 0.5 * rng.standard_normal((n, p)))
    if kind == "hilbert":
        return kind, 1 / (np.arange(n)[:, None] + np.arange(p)[None] + 1.0)
    if kind == "twins":
        X = rng.standard_normal((n, p))[:, rng.integers(0, max(1, p // 2), p)]
        return kind, X + (rng.random() < 0.5) * 10 ** rng.uniform(-10, -3) * rng.standard_normal((n, p))
    if kind == "sparse":
        return kind, rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.2)
    if kind == "onehot":
        X = np.zeros((n, p))
        X[np.arange(n), (p * rng.random(n) ** 2).astype(int)] = 1
        return kind, X
    if kind == "powers":
        return kind, np.vander(np.linspace(-1, 1, n), p)
    if kind == "cauchy":
        return kind, np.clip(rng.standard_cauchy((n, p)), -1e6, 1e6)
    if kind == "counts":
        return kind, rng.poisson(10 ** rng.uniform(-2, 1, p), (n, p)).astype(float)
    if kind == "far":
        return kind, rng.standard_normal((n, p)) + 10 ** rng.uniform(0, 3, p)
    m = min(n, p)
    u, v = (np.linalg.qr(rng.standard_normal((size, m)))[0] for size in (n, p))
    return kind, u * _spectrum(rng, kind, m) @ v.T


def _target(rng, X, info):
    n, p = X.shape
    unit = X / np.maximum(np.abs(X).max(axis=0, initial=0), 1e-300)
    mode = str(rng.choice(["noise", "signal", "exact", "positive", "pushed"]))
    info.append(mode)
    y = rng.standard_normal(n)
    if mode == "pushed":  # most bounds hold
        y = -np.abs(unit).sum(axis=1) + 0.01 * y
    elif mode != "noise":
        w = np.abs(rng.standard_normal(p)) * (rng.random(p) < 0.5) if mode == "positive" else rng.standard_normal(p)
        y = unit @ w + (mode == "signal") * 10 ** rng.uniform(-6, 1) * y
    if rng.random() < 0.2:
        y = y + 10 ** rng.uniform(0, 5)
    return y * 10 ** rng.uniform(-6, 6) if rng.random() < 0.2 else y


def _penalty_weights(rng, p):
    r = rng.random()
    if r < 0.1:
        return rng.choice([1e-6, 1.0, 1e6, 7.0], p)
    if r < 0.17:
        return rng.choice([1.0, 2.0, np.inf], p)
    if r < 0.27:
        return rng.choice([0.0, 1.0, 1.0, 1e-6], p)
    return None


def _bounds(rng, X, y, info):
    """Most of a size that matters: that of coefficients of one column alone"""
    p = X.shape[1]
    size = 10 ** rng.uniform(-2, 1) * np.linalg.norm(y - y.mean()) / np.maximum(np.linalg.norm(X, axis=0), 1e-150) / np.sqrt(p)
    size = np.clip(size, 1e-12, 1e12)
    kind = str(rng.choice(["positive", "positive", "box", "one-sided", "mixed", "shifted", "fixed"]))
    info.append(kind)
    lower, upper = np.full(p, -np.inf), np.full(p, np.inf)
    if kind == "positive":
        lower[:] = 0
    elif kind == "box":
        lower, upper = -size * rng.random(p), size * rng.random(p)
    elif kind == "one-sided":
        upper = np.where(rng.random(p) < 0.5, size * rng.random(p), upper)
        upper[0] = 0
    elif kind == "mixed":
        lower = np.where(rng.random(p) < 0.6, -size * rng.random(p), lower)
        upper = np.where(rng.random(p) < 0.6, size * rng.random(p), upper)
        lower[0] = min(0.0, upper[0])
    elif kind == "shifted":  # zero lies outside
        lower, upper = 0.1 * size, size * (1 + rng.random(p))
    else:
        held = rng.random(p) < 0.4
        held[0] = True
        lower = np.where(held, size * rng.standard_normal(p), np.where(rng.random(p) < 0.5, 0, -np.inf))
        upper = np.where(held, lower, upper)
    return lower, upper
