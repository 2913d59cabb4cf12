"""Classes and ten penalties for rows in a file, in little memory, beside the same as it is written by hand in torch."""

import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench.streams import child

N_CLASSES, N_MEASURED, N_TEST, BATCH = 10, 2000, 20_000, 5000
ALPHAS = np.logspace(-1, 6, 10)
IN_A_CHILD = """
import json, sys, time
from pathlib import Path
from bench.classes import CLASSIFIERS, accuracy
from bench.streams import peak_megabytes
folder, name = Path(sys.argv[1]), sys.argv[2]
cpu, begin = time.process_time(), time.perf_counter()
coef, intercept, alpha, bound = CLASSIFIERS[name](folder)
seconds, cpu, peak = time.perf_counter() - begin, time.process_time() - cpu, peak_megabytes()
print(json.dumps(dict(alpha=alpha, bound=bound, seconds=seconds, cpu=cpu, peak=peak,
                      accuracy=accuracy(folder, coef, intercept))))
"""


def measure(n: int) -> str:
    """Write n rows of `N_CLASSES` classes in float32, choose one of ten penalties for them, and return a markdown table."""
    lines = [
        f"{n:,} x {N_MEASURED} float32, {n * N_MEASURED * 4 / 1e9:.1f} GB, {N_CLASSES} classes, {len(ALPHAS)} penalties.",
        "",
        "| | alpha | right of new rows | error bound | seconds | CPU seconds | peak memory |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n)
        for name in CLASSIFIERS:
            if "torch" in name and find_spec("torch") is None:
                continue
            row = child(IN_A_CHILD, folder, name)
            bound = "" if row["bound"] is None else f"{row['bound']:.0e}"
            lines.append(
                f"| {name} | {row['alpha']:.3g} | {row['accuracy']:.2%} | {bound} | {row['seconds']:.0f} | {row['cpu']:.0f} "
                f"| {row['peak']:.0f} MB |"
            )
    return "\n".join(lines)


def write(folder: Path, n: int) -> None:
    """Write rows to fit and `N_TEST` new ones: what rectifiers make of a few numbers that depend on the class, and of noise."""
    rng = np.random.default_rng(0)
    maps, centres = (
        rng.standard_normal((30, N_MEASURED), dtype=np.float32),
        rng.standard_normal((N_CLASSES, 30), dtype=np.float32),
    )
    for name, count in (("fit", n), ("new", N_TEST)):
        labels = rng.integers(0, N_CLASSES, count)
        np.save(folder / f"{name}_y.npy", labels)
        X = np.lib.format.open_memmap(folder / f"{name}_X.npy", "w+", np.float32, (count, N_MEASURED))
        for lo in range(0, count, BATCH):
            own = labels[lo : lo + BATCH]
            hidden = 0.7 * centres[own] + rng.standard_normal((len(own), 30), dtype=np.float32)
            X[lo : lo + BATCH] = np.maximum(hidden @ maps / 5 + rng.standard_normal((len(own), N_MEASURED), dtype=np.float32), 0)


def accuracy(folder: Path, coef, intercept) -> float:
    """Return the share of new rows whose class is found."""
    X, y = np.load(folder / "new_X.npy"), np.load(folder / "new_y.npy")
    return float(((X @ coef.T + intercept).argmax(axis=1) == y).mean())


def choose(folder: Path, cv=None) -> tuple:
    """Return coefficients, intercepts, penalty and error bound."""
    from fastridge import RidgeClassifierCV, scan

    model = RidgeClassifierCV(alphas=ALPHAS, cv=cv).fit(scan(folder / "fit_X.npy", target=str(folder / "fit_y.npy")))
    return model.coef_, model.intercept_, model.alpha_, model.report_.error_bound


def by_hand(folder: Path) -> tuple:
    """Return the same without a bound, as it is written in torch: sums of batches in float32, the penalty by rows kept apart."""
    import torch

    X, y = np.load(folder / "fit_X.npy", mmap_mode="r"), torch.from_numpy(np.load(folder / "fit_y.npy"))
    n_sums = len(X) - len(X) // 20
    signs = 2 * torch.eye(N_CLASSES) - 1
    gram, cross = torch.zeros(N_MEASURED, N_MEASURED), torch.zeros(N_MEASURED, N_CLASSES)
    x_sum, y_sum = torch.zeros(N_MEASURED), torch.zeros(N_CLASSES)
    for lo in range(0, n_sums, BATCH):
        x, t = torch.from_numpy(np.array(X[lo : min(n_sums, lo + BATCH)])), signs[y[lo : min(n_sums, lo + BATCH)]]
        gram, cross, x_sum, y_sum = gram + x.T @ x, cross + x.T @ t, x_sum + x.sum(0), y_sum + t.sum(0)
    x_mean, y_mean = x_sum.double() / n_sums, y_sum.double() / n_sums
    values, vectors = torch.linalg.eigh(gram.double() - n_sums * torch.outer(x_mean, x_mean))
    inner = vectors.T @ (cross.double() - n_sums * torch.outer(x_mean, y_mean))
    fits = []
    for alpha in ALPHAS:
        w = vectors @ (inner / (values + alpha)[:, None])
        fits.append((w.float(), (y_mean - x_mean @ w).float(), float(alpha)))
    hits = np.zeros(len(fits))
    for lo in range(n_sums, len(X), BATCH):
        x = torch.from_numpy(np.array(X[lo : lo + BATCH]))
        hits += [int(((x @ w + b).argmax(1) == y[lo : lo + BATCH]).sum()) for w, b, _ in fits]
    w, b, alpha = fits[int(hits.argmax())]
    return w.numpy().T, b.numpy(), alpha, None


CLASSIFIERS = {"leave-one-out": choose, "five folds": partial(choose, cv=5), "torch, by hand": by_hand}
