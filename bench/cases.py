"""Name the data sets measured here; make or load each on first use.

Made sets are drawn from explicit seeds; a linear signal explains about 60 % of the variance of y. Real sets are the npz
files (`X`, or CSR `data`, `indices`, `indptr`, `shape`; and `y`) of the folder that the environment variable
FASTRIDGE_DATA names; without it, of `../shared/data` beside the checkout. Of the sets in REAL, a run names those it lacks.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from scipy import sparse

SIGNAL_SHARE = 0.6  # of the variance of y, in made sets: R2 away from both 0 and 1
REAL = (
    *("alon", "arcene", "cps2012_wage", "diamonds", "golub", "hflights_onehot", "libsvm_a9a", "libsvm_news20", "mnist_t10k"),
    *("nir_corn_m5", "nir_gasoline", "nir_tecator_meats", "sgemm_pairs", "skl_diabetes_raw", "uci_elevators"),
    *("uci_keggundirected", "uci_parkinsons", "uci_protein"),
)
N_GROUPS = 4  # of features, where each has a penalty of its own
SAMPLES = 5  # of the penalties of a path, where fitting all would take too long


@dataclass(frozen=True)
class Data:
    """Hold one ridge problem: X (n, p) dense or sparse, y (n,) or (n, k) float64, and its penalty alpha > 0.

    `alpha` is a number or (k,), one for each target. `bounds` are a lower and an upper one, numbers or (p,), or None.
    `alphas`, falling, are the penalties of a path; `choices` those that one is to be chosen from. `groups`, (p,), are
    labels of features where each group is to have a penalty of its own, or None.
    """

    X: np.ndarray | sparse.csr_array
    y: np.ndarray
    alpha: float | np.ndarray
    task: str = "fit"
    bounds: tuple | None = None
    alphas: np.ndarray | None = None
    choices: np.ndarray | None = None
    groups: np.ndarray | None = None

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

    @property
    def sampled_alphas(self) -> np.ndarray:
        """List the penalties in the middle of SAMPLES equal parts of the path: what a peer without paths fits."""
        return self.alphas[len(self.alphas) // (2 * SAMPLES) :: len(self.alphas) // SAMPLES]

    @property
    def measured_alphas(self) -> np.ndarray:
        """List the penalties at which the error of a path is measured: the sampled ones, then the smallest."""
        return np.append(self.sampled_alphas, self.alphas[-1])

    @property
    def fits_per_sample(self) -> float:
        """Return what the time of a peer's fits has to be multiplied by: it fits a sample of a path."""
        return 1.0 if self.alphas is None else len(self.alphas) / SAMPLES


@dataclass(frozen=True)
class Goal:
    """How fast we want to be: `times` as fast as the best peer, or as ourselves on the case `than`."""

    times: float
    than: str | None = None


@dataclass(frozen=True)
class Case:
    """Name one data set and what is to be done with it; `load` makes it, with `scale` times its rows (and many columns).

    Tasks: "fit", "predict" (after a fit that is not timed), "positive", "bounds", "path" and "classify" (y is then +1 for the
    class of a sample and -1 for the others). "choose": one of `choices` for all targets by leave-one-out errors, and a fit there;
    "choose for each target", "choose by folds" and "choose for classes" alike; "choose for groups": one for each of N_GROUPS
    groups of features, by leave-one-out errors, and `choices` are where a peer may look. `bounds` makes bounds for p columns;
    `family` and `axis` ("n", "p" or "nnz") tie cases of several sizes together. Large cases need memory of `needs_bytes`, and are
    run when they are asked for by name, as are families.
    """

    name: str
    make: Callable[[float], tuple]
    alpha: float | tuple = 1.0
    quick_scale: float = 1.0  # small enough to try the whole suite in seconds
    task: str = "fit"
    bounds: Callable[[int], tuple] | None = None
    alphas: tuple | None = None
    choices: tuple | None = None
    goal: Goal | None = None
    family: str | None = None
    axis: str | None = None
    needs_bytes: float = 0

    @property
    def is_default(self) -> bool:
        """Tell whether this is part of a run of everything."""
        return self.family is None and not self.needs_bytes

    def load(self, *, scale: float = 1.0) -> Data:
        """Make the data set, or return it again if it was the last one made."""
        return _load(self, scale)


@lru_cache(maxsize=1)  # the large sets do not fit in memory together
def _load(case: Case, scale: float) -> Data:
    X, y = case.make(scale)
    return Data(
        X,
        y,
        case.alpha if np.ndim(case.alpha) == 0 else np.array(case.alpha),
        case.task,
        case.bounds and case.bounds(X.shape[1]),
        None if case.alphas is None else np.array(case.alphas),
        None if case.choices is None else np.array(case.choices),
        np.arange(X.shape[1]) % N_GROUPS if case.task == "choose for groups" else None,
    )


class UnknownName(ValueError):
    """Say that a pattern matches no name, and which were meant."""


def select(patterns: str = "*") -> list[Case]:
    """List the cases whose name matches one of the comma-separated shell patterns, in the order they are defined.

    The pattern "*" stands for those that are part of a run of everything. A set of REAL whose data are not there is left out.
    """
    every = made() + families() + real()
    chosen = [case for case in every if any(_matches(case, pattern) for pattern in patterns.split(","))]
    check_patterns(patterns, {*(case.name for case in every), *REAL}, "case")
    if not chosen:
        raise UnknownName(f"{data_folder()} does not hold the data of {patterns!r}, and there is nothing else to run")
    return chosen


def absent(patterns: str = "*") -> list[str]:
    """List the sets of REAL that match one of the patterns and whose data are not there."""
    here = {case.name for case in real()}
    return [name for name in REAL if name not in here and any(fnmatch(name, pattern) for pattern in patterns.split(","))]


def check_patterns(patterns: str, names: Iterable[str], what: str) -> None:
    """Raise UnknownName for the first of the comma-separated patterns that matches none of the names."""
    names = sorted(set(names))
    for pattern in patterns.split(","):
        if not any(fnmatch(name, pattern) for name in names):
            close = get_close_matches(pattern, names, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}"
            raise UnknownName(f"no {what} matches {pattern!r}; {hint}")


def _matches(case: Case, pattern: str) -> bool:
    return case.is_default if pattern == "*" else fnmatch(case.name, pattern)


def made() -> list[Case]:
    """List the made cases."""
    f32 = np.float32
    wide, tall = partial(text_wide, 63_000, 217_000), partial(tfidf_tall, 500_000, 50_000)
    path = tuple(np.geomspace(1e4, 1, 100))
    return [
        Case("text_wide", wide, quick_scale=0.02, goal=Goal(5)),
        Case("text_wide_f32", partial(wide, dtype=f32), quick_scale=0.02, goal=Goal(1.5, "text_wide")),
        Case("text_wide_8_targets", partial(wide, n_targets=8), quick_scale=0.02, goal=Goal(1 / 2, "text_wide")),
        Case("text_wide_path", wide, quick_scale=0.02, task="path", alphas=path, goal=Goal(1 / 3, "text_wide")),
        Case("text_100_targets", partial(text_wide, 6000, 20_500, n_targets=100), quick_scale=0.05),
        Case("tfidf_tall", tall, quick_scale=0.01, goal=Goal(15)),
        Case("tfidf_tall_f32", partial(tall, dtype=f32), quick_scale=0.01, goal=Goal(1.5, "tfidf_tall")),
        Case("onehot_unscaled", partial(onehot_unscaled, 100_000), quick_scale=0.1, goal=Goal(1)),
        Case("dense_200k_250", partial(dense, 200_000, 250), quick_scale=0.01, goal=Goal(3)),
        Case("dense_200k_250_f32", partial(dense, 200_000, 250, dtype=f32), quick_scale=0.01, goal=Goal(1.5, "dense_200k_250")),
        Case("dense_200k_250_columns", partial(dense, 200_000, 250, order="F"), quick_scale=0.01, goal=Goal(3)),
        Case("dense_500k_90", partial(dense, 500_000, 90), quick_scale=0.01, goal=Goal(3)),
        Case("dense_500k_90_f32", partial(dense, 500_000, 90, dtype=f32), quick_scale=0.01, goal=Goal(1.5, "dense_500k_90")),
        Case("dense_100k_1000", partial(dense, 100_000, 1000), quick_scale=0.03, goal=Goal(4)),
        Case(
            "dense_100k_1000_f32", partial(dense, 100_000, 1000, dtype=f32), quick_scale=0.03, goal=Goal(1.5, "dense_100k_1000")
        ),
        Case("dense_heavy_tails", partial(dense, 100_000, 1000, student_degrees=2.5), quick_scale=0.03, goal=Goal(4)),
        Case("dense_wide", partial(dense_wide, 2000, 20_000), quick_scale=0.1, goal=Goal(3)),
        Case("dense_wide_f32", partial(dense_wide, 2000, 20_000, dtype=f32), quick_scale=0.1, goal=Goal(1.5, "dense_wide")),
        Case(
            "dense_100_alphas",
            partial(dense, 3000, 800, n_targets=100),
            alpha=tuple(np.geomspace(1e-2, 1e4, 100)),
            quick_scale=0.1,
        ),
        Case("positive", partial(dense, 100_000, 200), quick_scale=0.02, task="positive", bounds=_positive, goal=Goal(5)),
        Case(
            "positive_sparse",
            partial(tfidf_tall, 200_000, 4000),
            quick_scale=0.02,
            task="positive",
            bounds=_positive,
            goal=Goal(5),
        ),
        Case("bounds", partial(dense, 100_000, 200), quick_scale=0.02, task="bounds", bounds=_uneven, goal=Goal(5)),
        Case("bounds_one_for_all", partial(dense, 20_000, 400), quick_scale=0.1, task="bounds", bounds=_even, goal=Goal(5)),
        Case("small", partial(dense, 100, 10), goal=Goal(1)),
        Case("small_predict", partial(dense, 100, 10), task="predict", goal=Goal(1)),
        *choices(),
        # As many columns as random convolutional kernels give; the reference solution takes minutes, once.
        Case("rocket_classes", partial(classes, 20_000, 20_000), quick_scale=0.025, task="classify", needs_bytes=16e9),
    ]


def choices() -> list[Case]:
    """List the cases in which a penalty is to be chosen."""

    def grid(n: int) -> tuple:
        return tuple(np.geomspace(1e-2, 1e5, n))

    tall = partial(dense, 20_000, 300)
    return [
        Case("choose_20k_300", tall, quick_scale=0.05, task="choose", choices=grid(50), goal=Goal(20)),
        Case("choose_500k_90", partial(dense, 500_000, 90), quick_scale=0.01, task="choose", choices=grid(30), goal=Goal(20)),
        Case("choose_wide", partial(dense_wide, 2000, 20_000), quick_scale=0.1, task="choose", choices=grid(30), goal=Goal(3)),
        Case(
            "choose_100_targets",
            partial(tall, n_targets=100),
            quick_scale=0.05,
            task="choose for each target",
            choices=grid(20),
            goal=Goal(8),
        ),
        Case("choose_by_folds", tall, quick_scale=0.05, task="choose by folds", choices=grid(20), goal=Goal(40)),
        *(
            Case(name, partial(banded, *shape), quick_scale=0.3, task="choose for groups", choices=grid(10))
            for name, shape in (("choose_groups", (2000, 100)), ("choose_groups_wide", (200, 1000)))
        ),
        Case("choose_onehot", partial(onehot, 200_000, 2000), quick_scale=0.05, task="choose", choices=grid(20)),
        Case(
            "choose_classes",
            partial(classes, 10_000, 9996),
            quick_scale=0.03,
            task="choose for classes",
            choices=tuple(np.geomspace(1e-3, 1e3, 10)),
            goal=Goal(5),
            needs_bytes=16e9,
        ),
    ]


def families() -> list[Case]:
    """List made cases of several sizes, for the picture of how times grow."""
    rows, columns, sparse_rows = "dense, p = 200", "dense, n = 50,000", "sparse TF-IDF, p = n / 10"
    return [
        *(
            Case(f"scale_n_{n}", partial(dense, n, 200), quick_scale=0.1, family=rows, axis="n")
            for n in (2000, 10_000, 50_000, 200_000, 500_000)
        ),
        *(
            Case(f"scale_p_{p}", partial(dense, 50_000, p), quick_scale=0.1, family=columns, axis="p")
            for p in (20, 60, 200, 600, 2000)
        ),
        *(
            Case(f"scale_nnz_{n}_rows", partial(tfidf_tall, n, n // 10), quick_scale=0.05, family=sparse_rows, axis="nnz")
            for n in (2500, 24_000, 120_000, 480_000)
        ),
    ]


def real() -> list[Case]:
    """List one case for each npz of the data folder but the certified regressions; none where there is no such folder."""
    # Spectra vary by fractions of a unit: at alpha = 1 nothing of them would be left to fit.
    return [
        Case(path.stem, partial(_read, path), alpha=1e-4 if path.stem.startswith("nir_") else 1.0, quick_scale=0.1)
        for path in sorted(data_folder().glob("*.npz"))
        if not path.stem.startswith("nist_")
    ]


def data_folder() -> Path:
    """Return the folder of the real data, whether it is there or not."""
    return Path(os.environ.get("FASTRIDGE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def _positive(p: int) -> tuple:
    return 0.0, np.inf


def _even(p: int) -> tuple:
    return -0.5, 0.5


def _uneven(p: int) -> tuple:
    """Return bounds that differ by column; about half of them will hold."""
    rng = np.random.default_rng(6)
    return -rng.uniform(0, 1.5, size=p), rng.uniform(0, 1.5, size=p)


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


def onehot(n: int, p: int, scale: float = 1.0, *, seed: int = 8) -> tuple:
    """Make one category of p levels (0/1), an effect each."""
    n, p = _scaled(n, scale), _scaled(p, scale)
    rng = np.random.default_rng(seed)
    X = sparse.csr_array((np.ones(n), rng.integers(p, size=n, dtype=np.int32), np.arange(n + 1, dtype=np.int32)), shape=(n, p))
    return _with_signal(X, rng)


def dense(
    n: int,
    p: int,
    scale: float = 1.0,
    *,
    dtype=np.float64,
    order: str = "C",
    student_degrees: float = 0,
    n_targets: int = 0,
    seed: int = 4,
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
    return _with_signal(np.asarray(X, order=order), rng, n_targets)


def dense_wide(n: int, p: int, scale: float = 1.0, *, dtype=np.float64) -> tuple:
    """Make n rows of p >> n columns, as `dense` does."""
    return dense(_scaled(n, scale), _scaled(p, scale), dtype=dtype, seed=5)


def banded(n: int, p: int, scale: float = 1.0, *, seed: int = 9) -> tuple:
    """Make n rows of p independent columns, every N_GROUPS-th of one group: of strong effects, of weaker ones, of none."""
    n, p = _scaled(n, scale), _scaled(p, scale)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    _, y = _with_signal(X * np.resize([1.0, 0.3, 0.1, 0.0], p), rng)
    return X, y


def classes(n: int, p: int, scale: float = 1.0, *, n_classes: int = 10) -> tuple:
    """Make float32 rows as `dense` does, of the class with the highest linear score; y (n, n_classes) is +1 there, else -1."""
    X, scores = dense(_scaled(n, scale), _scaled(p, scale), dtype=np.float32, n_targets=n_classes, seed=7)
    scores = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    return X, np.where(scores.argmax(axis=1)[:, None] == np.arange(n_classes), 1.0, -1.0)


def _read(path: Path, scale: float) -> tuple:
    with np.load(path) as stored:
        if "X" in stored:
            X = stored["X"]
        else:
            X = sparse.csr_array((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
        # Digits have a target each; the twenty newsgroups are one number, which their counts predict as well.
        y = stored["Y"] if path.stem == "mnist_t10k" else stored["y"]
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
