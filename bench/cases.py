"""Name the data sets measured here; make or load each on first use.

Made sets are drawn from explicit seeds; a linear signal explains about 60 % of the variance of y. Real sets are the npz
files (`X`, or CSR `data`, `indices`, `indptr`, `shape`; and `y`) of the folder that the environment variable
FASTRIDGE_DATA names; without it, of `../shared/data` beside the checkout; where that is not there, only made sets are.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from scipy import sparse

SIGNAL_SHARE = 0.6  # of the variance of y, in made sets: R2 away from both 0 and 1


@dataclass(frozen=True)
class Data:
    """Hold one ridge problem: X (n, p) dense or sparse, y (n,) or (n, k) float64, and its penalty alpha > 0."""

    X: np.ndarray | sparse.csr_array
    y: np.ndarray
    alpha: float

    @property
    def n_bytes(self) -> int:
        """Count the bytes of X as stored."""
        if sparse.issparse(self.X):
            return self.X.data.nbytes + self.X.indices.nbytes + self.X.indptr.nbytes
        return self.X.nbytes

    @property
    def n_stored(self) -> int:
        """Count the stored entries of X."""
        return self.X.nnz if sparse.issparse(self.X) else self.X.size


@dataclass(frozen=True)
class Case:
    """Name one data set; `load` makes it, with `scale` times its rows (and columns, where there are many)."""

    name: str
    make: Callable[[float], tuple]
    alpha: float = 1.0
    quick_scale: float = 1.0  # small enough to try the whole suite in seconds

    def load(self, *, scale: float = 1.0) -> Data:
        """Make the data set, or return it again if it was the last one made."""
        return _load(self, scale)


@lru_cache(maxsize=1)  # the large sets do not fit in memory together
def _load(case: Case, scale: float) -> Data:
    X, y = case.make(scale)
    return Data(X, y, case.alpha)


def select(patterns: str = "*") -> list[Case]:
    """List the cases whose name matches one of the comma-separated shell patterns, in the order they are defined."""
    cases = made() + real()
    chosen = [case for case in cases if any(fnmatch(case.name, pattern) for pattern in patterns.split(","))]
    if not chosen:
        raise ValueError(f"no case matches {patterns!r}; there are: {', '.join(case.name for case in cases)}")
    return chosen


def made() -> list[Case]:
    """List the made cases, at full size about 3 s each at most."""
    f32 = np.float32
    return [
        Case("text_wide", partial(text_wide, 63_000, 217_000), quick_scale=0.02),
        Case("text_wide_f32", partial(text_wide, 63_000, 217_000, dtype=f32), quick_scale=0.02),
        Case("text_wide_8_targets", partial(text_wide, 63_000, 217_000, n_targets=8), quick_scale=0.02),
        Case("tfidf_tall", partial(tfidf_tall, 500_000, 50_000), quick_scale=0.01),
        Case("tfidf_tall_f32", partial(tfidf_tall, 500_000, 50_000, dtype=f32), quick_scale=0.01),
        Case("onehot_unscaled", partial(onehot_unscaled, 100_000), quick_scale=0.1),
        Case("dense_200k_250", partial(dense, 200_000, 250), quick_scale=0.01),
        Case("dense_200k_250_f32", partial(dense, 200_000, 250, dtype=f32), quick_scale=0.01),
        Case("dense_200k_250_columns", partial(dense, 200_000, 250, order="F"), quick_scale=0.01),
        Case("dense_500k_90", partial(dense, 500_000, 90), quick_scale=0.01),
        Case("dense_500k_90_f32", partial(dense, 500_000, 90, dtype=f32), quick_scale=0.01),
        Case("dense_100k_1000", partial(dense, 100_000, 1000), quick_scale=0.03),
        Case("dense_100k_1000_f32", partial(dense, 100_000, 1000, dtype=f32), quick_scale=0.03),
        Case("dense_heavy_tails", partial(dense, 100_000, 1000, student_degrees=2.5), quick_scale=0.03),
        Case("dense_wide", partial(dense_wide, 2000, 20_000), quick_scale=0.1),
        Case("dense_wide_f32", partial(dense_wide, 2000, 20_000, dtype=f32), quick_scale=0.1),
        Case("small", partial(dense, 100, 10)),
    ]


def real() -> list[Case]:
    """List one case for each npz of the data folder; none where there is no such folder."""
    folder = os.environ.get("FASTRIDGE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    # Spectra vary by fractions of a unit: at alpha = 1 nothing of them would be left to fit.
    return [
        Case(path.stem, partial(_read, path), alpha=1e-4 if path.stem.startswith("nir_") else 1.0, quick_scale=0.1)
        for path in sorted(Path(folder).glob("*.npz"))
    ]


def tfidf_tall(n: int, p: int, scale: float = 1.0, *, dtype=np.float64, seed: int = 1) -> tuple:
    """Make n documents of some 42 words each out of p, frequent like 1/rank: TF-IDF with rows of length 1."""
    n, p = _scaled(n, scale), _scaled(p, scale)
    rng = np.random.default_rng(seed)
    lengths = rng.geometric(1 / 50, size=n)
    # The inverse distribution function of the density 1/rank on [1, p + 1) is (p + 1)^u.
    words = np.exp(rng.random(lengths.sum(), dtype=np.float32) * np.float32(np.log(p + 1))).astype(np.int32) - 1
    X = _count(np.minimum(words, p - 1), _offsets(lengths), (n, p))
    return _with_signal(_tfidf(X, dtype), rng)


def text_wide(n: int, p: int, scale: float = 1.0, *, dtype=np.float64, n_targets: int = 0, seed: int = 2) -> tuple:
    """Make n documents over p words, most of which occur 2 to 4 times: TF-IDF with rows of length 1."""
    n, p = _scaled(n, scale), _scaled(p, scale)
    rng = np.random.default_rng(seed)
    # A power law P(count >= c) = (2 / c)^1.01 up to n / 2: two words in three occur 2 to 4 times, on average 20 times.
    counts = np.minimum(2 * rng.random(p) ** (-1 / 1.01), n / 2).astype(np.int64)
    places = rng.lognormal(sigma=0.7, size=n).cumsum()  # long and short documents
    rows = places.searchsorted(rng.random(counts.sum()) * places[-1]).astype(np.int32)
    X = sparse.csc_array((np.ones(len(rows)), rows, _offsets(counts)), shape=(n, p)).tocsr()
    X.sum_duplicates()
    return _with_signal(_tfidf(X, dtype), rng, n_targets)


def onehot_unscaled(n: int, scale: float = 1.0, *, seed: int = 3) -> tuple:
    """Make categories of 1000, 400 and 100 levels (0/1) beside two numeric columns with deviations 3e4 and 1e4."""
    n = _scaled(n, scale)
    rng = np.random.default_rng(seed)
    sizes = np.array([1000, 400, 100])
    # Level l with density 1/sqrt(l): frequent and rare levels.
    levels = [(size * rng.random(n) ** 2).astype(np.int32) for size in sizes]
    numeric = rng.normal([5e4, -2e4], [3e4, 1e4], size=(n, 2))
    indices = np.column_stack([*(levels + np.array([[0], [1000], [1400]])), np.full(n, 1500), np.full(n, 1501)])
    values = np.column_stack([np.ones((n, 3)), numeric])
    X = sparse.csr_array((values.ravel(), indices.ravel().astype(np.int32), 5 * np.arange(n + 1, dtype=np.int32)))
    effects = rng.normal(size=1502)
    effects[1500:] = 0.3 / 3e4, 0.3 / 1e4
    signal = X @ effects
    # Little noise, as where such data were met: R2 0.94 at the optimum.
    return X, signal + rng.normal(scale=0.25 * signal.std(), size=n)


def dense(
    n: int, p: int, scale: float = 1.0, *, dtype=np.float64, order: str = "C", student_degrees: float = 0, seed: int = 4
) -> tuple:
    """Make n rows of p columns that share ten factors and have means and unequal scales; normal or Student rows."""
    n = _scaled(n, scale)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p), dtype=np.float32 if dtype == np.float32 else np.float64)
    X += rng.standard_normal((n, 10)).astype(X.dtype) @ rng.normal(size=(10, p)).astype(X.dtype)
    if student_degrees:
        X *= np.sqrt(student_degrees / rng.chisquare(student_degrees, size=(n, 1)))
    X *= rng.uniform(0.5, 2.0, size=p).astype(X.dtype)
    X += rng.normal(size=p).astype(X.dtype)
    return _with_signal(np.asarray(X, order=order), rng)


def dense_wide(n: int, p: int, scale: float = 1.0, *, dtype=np.float64) -> tuple:
    """Make n rows of p >> n columns, as `dense` does."""
    return dense(_scaled(n, scale), _scaled(p, scale), dtype=dtype, seed=5)


def _read(path: Path, scale: float) -> tuple:
    with np.load(path) as stored:
        if "X" in stored:
            X = stored["X"]
        else:
            X = sparse.csr_array((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
        y = stored["y"]
    n = min(len(y), max(100, _scaled(len(y), scale)))
    return (X, y) if n == len(y) else (X[:n].copy(), y[:n])


def _with_signal(X, rng, n_targets: int = 0) -> tuple:
    """Return X and y = X w + noise, (n,) or (n, n_targets)."""
    signal = X @ rng.standard_normal((X.shape[1], n_targets or 1)).astype(X.dtype)
    noise = signal.std(axis=0) * (1 / SIGNAL_SHARE - 1) ** 0.5
    y = signal + rng.standard_normal(signal.shape) * noise
    return X, y if n_targets else y[:, 0]


def _count(columns, offsets, shape) -> sparse.csr_array:
    """Return the CSR matrix of how often each column occurs in each row."""
    X = sparse.csr_array((np.ones(len(columns), dtype=np.float32), columns, offsets), shape=shape)
    X.sum_duplicates()
    return X


def _tfidf(X: sparse.csr_array, dtype) -> sparse.csr_array:
    """Return counts as (1 + log count) * (1 + log(n / documents with the word)), rows divided by their length."""
    n, p = X.shape
    idf = 1 + np.log(n / np.maximum(np.bincount(X.indices, minlength=p), 1))
    data = (1 + np.log(X.data)) * idf[X.indices]
    sq_lengths = np.bincount(np.repeat(np.arange(n), np.diff(X.indptr)), weights=data * data, minlength=n)
    data /= np.repeat(np.sqrt(sq_lengths), np.diff(X.indptr))
    return sparse.csr_array((data.astype(dtype), X.indices, X.indptr), shape=X.shape)


def _offsets(counts) -> np.ndarray:
    return np.concatenate([[0], counts.cumsum()]).astype(np.int32)


def _scaled(size: int, scale: float) -> int:
    return max(1, round(size * scale))
