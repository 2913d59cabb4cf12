"""Fit two real ridge regressions with fastridge and with scikit-learn, and compare time, accuracy and memory.

1. Photographs (dense): predict each pixel from the 120 pixels around it. Trained on one photograph, tested on another.
2. Source code (sparse): predict how long a function is from its name, arguments and docstring, as TF-IDF of character
   n-grams. The functions are those of Python's own standard library; one in five is held out.

Nothing is downloaded: the photographs come with scikit-learn, the source code with Python. Takes one to two minutes.

    python examples/quickstart.py --output quickstart.png
"""

import argparse
import ast
import statistics
import sysconfig
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sklearn.linear_model
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, lsqr
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

import fastridge

ALPHA = 1.0
TARGET = 1e-6  # the accuracy at which times are compared: fastridge's default
ROUNDS = 3  # fits of every row of a table, in turns
FAMILIES = {"fastridge": "o", "scikit-learn, default": "D", "scikit-learn, lsqr": "s", "scikit-learn, sparse_cg": "^"}
PATCH = 11  # pixels: 11 x 11 around each, without the one in the middle


@dataclass
class Job:
    """Hold one regression problem, and its exact solution to measure errors with."""

    name: str
    X: np.ndarray | sparse.csr_array
    y: np.ndarray
    X_test: np.ndarray | sparse.csr_array
    y_test: np.ndarray

    def __post_init__(self):
        self.mean = np.asarray(self.X.mean(axis=0)).ravel()
        self.solution = self._solve()

    def error(self, coef) -> float:
        """Return ||w - w*||_H / ||w*||_H with H = A'A + alpha I and A the centred X.

        Its square is the share of what fitting can gain in the objective that this fit leaves on the table.
        """
        return self._norm(coef - self.solution) / self._norm(self.solution)

    def _norm(self, w) -> float:
        return np.hypot(np.linalg.norm(self.X @ w - self.mean @ w), ALPHA**0.5 * np.linalg.norm(w))

    def _solve(self):
        n, p = self.X.shape
        y = self.y - self.y.mean()
        if sparse.issparse(self.X):  # to nearly machine precision, at whatever cost
            A = LinearOperator(
                (n, p),
                matvec=lambda w: self.X @ w - self.mean @ w,
                rmatvec=lambda u: self.X.T @ u - self.mean * u.sum(),
                dtype=np.float64,
            )
            return lsqr(A, y, damp=ALPHA**0.5, atol=1e-13, btol=1e-13, iter_lim=5000)[0]
        A = self.X - self.mean
        return np.linalg.solve(A.T @ A + ALPHA * np.eye(p), A.T @ y)


@dataclass
class Fit:
    """Hold one fitted model: how long every fit of it took, how exact it is, how well it predicts."""

    label: str
    model: object
    times: list[float]
    error: float
    r2: float

    @property
    def seconds(self) -> float:
        """Return the median time of a fit."""
        return statistics.median(self.times)

    @property
    def is_exact(self) -> bool:
        """Tell whether the target is reached; a near miss, by less than a quarter, counts as well."""
        return self.error <= 1.25 * TARGET


def photographs() -> tuple[Job, np.ndarray]:
    """Return the pixel problem, and the photograph it is tested on."""
    train, test = (image.mean(axis=2) / 255 for image in load_sample_images().images)  # grey, 0 to 1
    return Job("photographs", *_patches(train), *_patches(test)), test


def source_code() -> Job:
    """Return the function-length problem."""
    texts, n_lines = _functions(Path(sysconfig.get_path("stdlib")))
    texts_train, texts_test, y, y_test = train_test_split(texts, np.log(n_lines), test_size=0.2, random_state=0)
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, sublinear_tf=True)
    return Job("source code", vectorizer.fit_transform(texts_train), y, vectorizer.transform(texts_test), y_test)


def compare(job: Job) -> list[Fit]:
    """Fit with fastridge and scikit-learn, each at several tolerances; print the rows that matter; return all.

    Every model is fitted once. Those of the table are fitted twice more, in turns, and the medians are compared.
    """
    for model in (fastridge.Ridge(ALPHA), sklearn.linear_model.Ridge(ALPHA)):
        model.fit(job.X[:1000], job.y[:1000])  # a first fit loads libraries, on both sides
    ours = [fit(job, f"fastridge, tol={tol:.0e}", fastridge.Ridge(ALPHA, tol=tol)) for tol in (1e-2, 1e-4, 1e-6, 1e-8)]
    default = fit(job, "scikit-learn, default", sklearn.linear_model.Ridge(ALPHA))
    peers = [default]
    for solver in ("lsqr", "sparse_cg"):
        for tol in (1e-6, 1e-7, 1e-8, 1e-9):
            model = sklearn.linear_model.Ridge(ALPHA, solver=solver, tol=tol)
            peers.append(fit(job, f"scikit-learn, {solver} tol={tol:.0e}", model))
            if peers[-1].is_exact:
                break
    best = min((peer for peer in peers if peer.is_exact), key=lambda peer: peer.seconds)
    rows = [ours[2], default, best] if best is not default else [ours[2], default]
    for _ in range(ROUNDS - 1):
        for row in rows:
            row.times.append(timed(job, row.model))

    n, p = job.X.shape
    print(f"\n{job.name}: {n:,} rows, {p:,} columns, {job.X.nnz if sparse.issparse(job.X) else job.X.size:,} values")
    print(f"  {'':34} {'seconds':>8} {'error':>8} {'extra MB':>9} {'R2 test':>8}")
    for row in rows:
        print(f"  {row.label:34} {row.seconds:8.3f} {row.error:8.0e} {extra_megabytes(job, row):9.1f} {row.r2:8.4f}")
    best = min((row for row in rows[1:] if row.is_exact), key=lambda row: row.seconds)
    print(f"  fastridge is {best.seconds / ours[2].seconds:.1f} times as fast as the fastest one that is as exact")
    return ours + peers


def fit(job: Job, label: str, model) -> Fit:
    """Fit once."""
    seconds = timed(job, model)
    return Fit(label, model, [seconds], job.error(model.coef_), model.score(job.X_test, job.y_test))


def timed(job: Job, model) -> float:
    """Fit; return how many seconds that took."""
    start = time.perf_counter()
    model.fit(job.X, job.y)
    return time.perf_counter() - start


def extra_megabytes(job: Job, row: Fit) -> float:
    """Return the peak of the memory allocated during a fit, X not counted."""
    tracemalloc.start()
    row.model.fit(job.X, job.y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def draw(plt, fits: dict[str, list[Fit]], photograph: np.ndarray, output: Path) -> None:
    """Save the photograph with its prediction, and accuracy over time for both problems."""
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.4))
    model = fits["photographs"][2].model
    X, y = _patches(photograph)
    side = tuple(size - PATCH + 1 for size in photograph.shape)
    predicted = model.predict(X).reshape(side)
    for axes, image, title, limits in zip(
        top.subplots(1, 3),
        (y.reshape(side), predicted, predicted - y.reshape(side)),
        ("photograph it never saw", "each pixel predicted from those around it", "difference, 5 times"),
        ((0, 1), (0, 1), (-0.1, 0.1)),
        strict=True,
    ):
        axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1])
        axes.set_title(title)
        axes.axis("off")
    for axes, (name, rows) in zip(bottom.subplots(1, 2), fits.items(), strict=True):
        for label, marker in FAMILIES.items():
            chosen = [row for row in rows if row.label.startswith(label)]
            axes.loglog([row.seconds for row in chosen], [row.error for row in chosen], marker + "-", label=label)
        axes.axhline(TARGET, color="gray", linestyle=":", linewidth=1, label="where times are compared")
        axes.set(title=name, xlabel="seconds to fit", ylabel="error (H-norm, relative)")
        axes.xaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.grid(alpha=0.3)
    bottom.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(output, dpi=120)


def _patches(image) -> tuple[np.ndarray, np.ndarray]:
    """Return the surroundings of every inner pixel, (n, PATCH * PATCH - 1), and the pixel itself, (n,)."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH)).reshape(-1, PATCH * PATCH)
    middle = PATCH * PATCH // 2
    return np.delete(windows, middle, axis=1), windows[:, middle].copy()


def _functions(folder: Path) -> tuple[list[str], list[int]]:
    """Return name, arguments and docstring of every function below a folder, and how many lines its code has."""
    texts, n_lines = [], []

    def visit(body, where):
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{where} {node.name}")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node) or ""
                code = node.body[1:] if doc and len(node.body) > 1 else node.body
                texts.append(" ".join([where, node.name, *(argument.arg for argument in node.args.args), doc]))
                n_lines.append(node.end_lineno - code[0].lineno + 1)

    for path in sorted(folder.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.parts):
            continue
        try:
            module = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):  # broken on purpose: files that test the parser
            continue
        visit(module.body, " ".join(path.relative_to(folder).with_suffix("").parts))
    return texts, n_lines


def main() -> None:
    """Run both problems, print their tables, save the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("quickstart.png"), help="where to save the picture")
    output = parser.parse_args().output

    pixels, photograph = photographs()
    fits = {job.name: compare(job) for job in (pixels, source_code())}
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("\nNo picture: matplotlib is not installed (pip install matplotlib).")
        return
    draw(plt, fits, photograph, output)
    print(f"\nPicture saved: {output}")


if __name__ == "__main__":
    main()
