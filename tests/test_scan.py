"""Rows that are read block by block: the answers and proofs of a fit on an array, and errors that say where."""

import gzip
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from pyarrow import csv, dataset, feather, parquet
from sklearn.datasets import dump_svmlight_file
from truth import Exact

from fastridge import (
    Moments,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    explain,
    load,
    ridge,
    ridge_path,
    rows,
    save,
    scan,
)
from fastridge.io import arrays, tables, text
from fastridge.rows import RowSource

N, P = 900, 12
EPS = np.finfo(np.float64).eps


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(text, "CHUNK_BYTES", 30_000)
    monkeypatch.setattr(tables, "COLUMNS_IN_LANE", 3)
    monkeypatch.setattr(pa, "cpu_count", lambda: 4)


def make(n=N, p=P, *, seed=0, sparse=False, n_targets=0, far=0.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * 10.0 ** rng.uniform(-1, 1, p) + far * rng.uniform(-1, 1, p)
    if sparse:
        X *= rng.random((n, p)) < 0.3
    X = X.astype(dtype)
    noise = rng.standard_normal((n, n_targets or 1))
    y = (X - X.mean(axis=0)) @ rng.standard_normal((p, n_targets or 1)) + noise + 5
    return X, y if n_targets else y[:, 0], rng.uniform(0.1, 2, n) * (rng.random(n) < 0.9)


def frame(X, y, weights=None):
    columns = {f"x{j}": X[:, j] for j in range(X.shape[1])}
    targets = {"y": y} if y.ndim == 1 else {f"y{j}": y[:, j] for j in range(y.shape[1])}
    return pa.table(columns | targets | ({} if weights is None else {"weight": weights}))


def names(y):
    return "y" if y.ndim == 1 else [f"y{j}" for j in range(y.shape[1])]


def of_npy(folder, X, y, weights, order="C"):
    np.save(folder / "X.npy", np.asarray(X, order=order))
    np.save(folder / "y.npy", y)
    return scan(folder / "X.npy", target=str(folder / "y.npy"), weight=weights)


def of_memmap(folder, X, y, weights):
    np.save(folder / "X.npy", X)
    return scan(np.load(folder / "X.npy", mmap_mode="r"), target=y, weight=weights)


def of_npz(folder, X, y, weights, save=np.savez):
    save(folder / "all.npz", X=X, y=y, **({} if weights is None else {"w": weights}))
    return scan(folder / "all.npz", target="y", weight=None if weights is None else "w")


def of_sparse_npz(folder, X, y, weights):
    sp.save_npz(folder / "X.npz", sp.csr_array(X))
    return scan(folder / "X.npz", target=y, weight=weights)


def of_array(folder, X, y, weights):
    return scan(X, target=y, weight=weights)


def of_blocks(folder, X, y, weights, store=np.asarray):
    def blocks():
        for lo in range(0, len(y), 170):
            part = slice(lo, lo + 170)
            yield store(X[part]), y[part], None if weights is None else weights[part]

    return scan(blocks)


def of_table(folder, X, y, weights, write=None, name=None):
    table = frame(X, y, weights)
    weight = None if weights is None else "weight"
    if write is not None:
        write(table, folder / name)
    return scan(folder / name if write is not None else table, target=names(y), weight=weight)


def of_csv(folder, X, y, weights, pack=False):
    table = frame(X.astype(np.float64), y, weights)
    csv.write_csv(table, folder / "t.csv")
    path = folder / "t.csv"
    if pack:
        path = folder / "t.csv.gz"
        path.write_bytes(gzip.compress((folder / "t.csv").read_bytes()))
    return scan(path, target=names(y), weight=None if weights is None else "weight")


def of_folder(folder, X, y, weights):
    table = frame(X, y, weights)
    for i, lo in enumerate(range(0, len(y), 400)):
        parquet.write_table(table.slice(lo, 400), folder / f"part{i}.parquet", row_group_size=150)
    return scan(folder, target=names(y), weight=None if weights is None else "weight")


def of_frame(folder, X, y, weights, library=pl.from_arrow):
    return scan(library(frame(X, y, weights)), target=names(y), weight=None if weights is None else "weight")


def of_reopened_stream(folder, X, y, weights):
    table = frame(X, y, weights)
    return scan(table.to_reader, target=names(y), weight=None if weights is None else "weight")


def of_lazy_frame(folder, X, y, weights):
    lazy = pl.from_arrow(frame(X, y, weights)).lazy()
    return scan(lazy, target=names(y), weight=None if weights is None else "weight")


def of_dataset(folder, X, y, weights):
    of_folder(folder, X, y, weights)
    return scan(dataset.dataset(folder), target=names(y), weight=None if weights is None else "weight")


DENSE = {
    "npy": of_npy,
    "npy in F order": partial(of_npy, order="F"),
    "memory map": of_memmap,
    "npz": of_npz,
    "packed npz": partial(of_npz, save=np.savez_compressed),
    "array": of_array,
    "blocks": of_blocks,
    "parquet": partial(of_table, write=parquet.write_table, name="t.parquet"),
    "feather": partial(of_table, write=feather.write_feather, name="t.feather"),
    "arrow table": of_table,
    "csv": of_csv,
    "packed csv": partial(of_csv, pack=True),
    "folder": of_folder,
    "polars": of_frame,
    "pandas": partial(of_frame, library=lambda table: table.to_pandas()),
    "stream that is opened anew": of_reopened_stream,
    "lazy frame": of_lazy_frame,
    "dataset": of_dataset,
}
SPARSE = {
    "sparse npz": of_sparse_npz,
    "sparse blocks": partial(of_blocks, store=sp.csr_array),
    "csc blocks": partial(of_blocks, store=sp.csc_array),
    "sparse array": lambda folder, X, y, weights: scan(sp.csr_array(X), target=y, weight=weights),
    "dense and sparse blocks": partial(of_blocks, store=lambda X: sp.csr_array(X) if X[0, 0] > 0 else X),
}


def assert_proven(found, X, y, alpha, weights, intercept=True, tol=1e-9):
    """The answer to a scan converged, and is as near to the exact one as its bound says; the intercept is the best one for it"""
    exact = Exact(X, y, alpha, weights, intercept)
    assert found.report.converged
    assert found.report.error_bound <= tol
    assert exact.error(found.coef).max() <= found.report.error_bound * (1 + 1e-6) + 4 * EPS  # the coefficients are rounded
    best = exact.best_intercept(found.coef)
    size = np.abs(exact.y_mean) + np.abs(np.atleast_2d(found.coef)) @ np.abs(exact.x_mean)
    assert (np.abs(found.intercept - best) <= 16 * EPS * size).all()


@pytest.mark.parametrize("n_targets", [0, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [*DENSE, *SPARSE])
def test_every_source_gives_the_answer_of_the_array(tmp_path, kind, weighted, n_targets):
    X, y, weights = make(sparse=kind in SPARSE, n_targets=n_targets)
    weights = weights if weighted else None
    source = (DENSE | SPARSE)[kind](tmp_path, X, y, weights)
    assert isinstance(source, RowSource)
    assert_proven(ridge(source, alpha=0.5, tol=1e-9), X, y, 0.5, weights)
    assert source.n_samples == N
    assert str(N) in repr(source)


@pytest.mark.parametrize("solver", ["auto", "cholesky", "cg", "svd"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sparse", [False, True])
def test_solvers(solver, intercept, sparse):
    X, y, weights = make(sparse=sparse, n_targets=2)
    source = of_blocks(None, X, y, weights, sp.csr_array if sparse else np.asarray)
    solution = ridge(source, alpha=0.5, solver=solver, fit_intercept=intercept, tol=1e-9)
    assert solution.report.solver == ("cholesky" if solver == "auto" else solver)
    assert_proven(solution, X, y, 0.5, weights, intercept)


@pytest.mark.parametrize("kind", ["npy", "parquet", "sparse blocks"])
def test_float32_stays_float32(tmp_path, kind):
    X, y, _ = make(sparse=kind in SPARSE, dtype=np.float32)
    source = (DENSE | SPARSE)[kind](tmp_path, X, y, None)
    model = Ridge(0.5).fit(source)
    assert model.coef_.dtype == np.float32
    assert model.report_.converged
    np.testing.assert_allclose(model.coef_, Ridge(0.5).fit(X, y).coef_, rtol=1e-5)


@pytest.mark.parametrize("far", [0.0, 1e5, 1e12])
def test_products_about_means_that_are_no_numbers(far):
    """At 1e12 a rounded mean is off by some 1e-5, the squares of which would be 1e-11 of the product"""
    rng = np.random.default_rng(3)
    whole, v = rng.integers(-8, 9, (499, 3)).astype(float), rng.standard_normal((3, 1))
    design, _ = scan(far + whole, target=np.zeros(499)).operator(True, 1, False)
    A = whole - whole.mean(axis=0)
    size = np.linalg.norm(A) ** 2 * np.abs(v).max()
    np.testing.assert_allclose(design.normal(v), A.T @ (A @ v), rtol=0, atol=1e-14 * size)
    np.testing.assert_allclose(design.sq_image(v), ((A @ v) ** 2).sum(axis=0), rtol=0, atol=1e-14 * size)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("far", [1e3, 1e8])
def test_means_far_from_zero(far, solver, sparse):
    X, y, weights = make(far=far)
    source = of_blocks(None, X, y, weights, sp.csr_array if sparse else np.asarray)
    assert_proven(ridge(source, alpha=0.5, solver=solver, tol=1e-9), X, y, 0.5, weights)


def test_rows_that_are_sorted_and_blocks_of_one_row():
    X, y, _ = make(n=60, far=1e8)
    X = X[np.argsort(X[:, 0])]
    y = X[:, 0] - X[0, 0] + np.sin(np.arange(60))

    def blocks():
        for i in range(60):
            yield X[i : i + 1], y[i : i + 1]

    assert_proven(ridge(scan(blocks), alpha=1e-3, tol=1e-9), X, y, 1e-3, None)


@pytest.mark.parametrize("solver", ["cholesky", "cg", "svd"])
@pytest.mark.parametrize("value", [-1.0, 1e8 / 3])
def test_targets_that_are_constant_where_there_is_weight(value, solver):
    X, Y, weights = make(n_targets=2)
    Y[:, 0] = np.where(weights > 0, value, 2 - value)  # as of a class that has no weight
    for given in ((X, Y), (of_blocks(None, X, Y, weights), None)):
        found = ridge(*given, alpha=0.5, sample_weight=weights if given[0] is X else None, solver=solver)
        assert found.report.converged
        assert not found.coef[0].any()
        assert found.intercept[0] == value


def test_blocks_without_a_weight():
    X, y, weights = make()
    weights[170:340] = 0
    assert_proven(ridge(of_blocks(None, X, y, weights), alpha=0.5, tol=1e-9), X, y, 0.5, weights)
    assert_proven(ridge(of_blocks(None, X, y, weights), alpha=0.5, solver="cg", tol=1e-9), X, y, 0.5, weights)
    with pytest.raises(ValueError, match="all sample weights are zero"):
        ridge(of_blocks(None, X, y, 0 * weights))


def test_penalty_weights_and_penalties_of_targets():
    X, y, _ = make(n_targets=3)
    d = np.linspace(0.5, 3, P)
    for solver in ("cholesky", "cg"):
        found = ridge(of_blocks(None, X, y, None), alpha=[0.1, 1.0, 10.0], penalty_weights=d, solver=solver, tol=1e-9)
        expected = ridge(X, y, [0.1, 1.0, 10.0], penalty_weights=d, tol=1e-11)
        assert found.report.converged
        np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-6)


@pytest.mark.parametrize("targets", [1, 3])
def test_blocks_outlive_what_reads_ahead(tmp_path, targets):
    """Buffers are used again: no block may change while it is computed with, however sources are stacked"""
    X, y, _ = make(n=3000, p=20, n_targets=targets)
    source = of_npy(tmp_path, X, y, None).recoded(targets, lambda y, weights: (2 * y, weights))
    at = 0
    for block in source.blocks():
        time.sleep(1e-3)
        np.testing.assert_array_equal(block.X, X[at : at + len(block.y)])
        np.testing.assert_array_equal(block.y, 2 * y[at : at + len(block.y)])
        at += len(block.y)
    assert at == 3000


def test_the_same_bits_for_any_number_of_threads():
    X, y, weights = make(n=3000, p=40)
    for solver in ("cholesky", "cg"):
        one, three = (ridge(of_array(None, X, y, weights), solver=solver, n_threads=n) for n in (1, 3))
        np.testing.assert_array_equal(one.coef, three.coef)


def counting(X, y):
    passes = []

    def blocks():
        passes.append(0)
        for lo in range(0, len(y), 300):
            passes[-1] += 1
            yield X[lo : lo + 300], y[lo : lo + 300]

    return scan(blocks), passes


def test_passes():
    X, y, _ = make()
    source, passes = counting(X, y)
    ridge(source, alpha=1.0)
    assert len(passes) - 1 <= 2  # one to see the first block
    source, passes = counting(X, y)
    n_steps = ridge(source, alpha=1.0, solver="cg").report.n_iter[0]
    assert len(passes) - 1 <= n_steps + 2


def test_what_can_be_read_once_is_summed():
    X, y, weights = make()
    blocks = [(X[lo : lo + 300], y[lo : lo + 300], weights[lo : lo + 300]) for lo in range(0, N, 300)]
    source = scan(iter(blocks))
    assert not source.repeatable
    solution = ridge(source, alpha=0.5, tol=1e-9)
    assert "once" in solution.report.reason
    assert_proven(solution, X, y, 0.5, weights)
    with pytest.raises(RuntimeError, match="once only"):
        ridge(source, alpha=0.5)
    reader = frame(X, y).to_reader(max_chunksize=100)
    assert_proven(ridge(scan(reader, target="y"), alpha=0.5, tol=1e-9), X, y, 0.5, None)
    with pytest.raises(ValueError, match="can be read once"):
        ridge(scan(iter(blocks)), solver="cg")


def test_svmlight(tmp_path):
    X, y, _ = make(sparse=True)
    for zero_based in (False, True):
        path = tmp_path / f"t{zero_based}.svmlight"
        dump_svmlight_file(X, y, str(path), zero_based=zero_based)
        found = ridge(scan(path), alpha=0.5, tol=1e-9)
        expected = ridge(X, y, 0.5, tol=1e-11)
        np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-6)
        packed = tmp_path / f"t{zero_based}.svmlight.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        np.testing.assert_allclose(ridge(scan(packed), alpha=0.5, solver="cg", tol=1e-9).coef, expected.coef, rtol=1e-6)
    assert scan(path, n_features=20).n_features == 20
    with pytest.raises(ValueError, match="n_features is 5"):
        scan(path, n_features=5)
    path.write_text("1 0:2 nonsense\n")
    with pytest.raises(ValueError, match=r"tTrue\.svmlight, from byte 0"):
        scan(path)


def test_the_estimator(tmp_path):
    X, y, weights = make()
    source = of_table(tmp_path, X, y, weights, parquet.write_table, "t.parquet")
    model = Ridge(0.5, tol=1e-9).fit(source)
    assert model.n_features_in_ == P
    assert list(model.feature_names_in_) == [f"x{j}" for j in range(P)]
    expected = Ridge(0.5, tol=1e-11).fit(X, y, weights)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(source), expected.predict(X), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.predict(pd.DataFrame(X, columns=model.feature_names_in_)), expected.predict(X), rtol=1e-6)
    model.fit(X, y)
    assert not hasattr(model, "feature_names_in_")
    before = model.coef_
    with pytest.raises(ValueError, match="live with the rows"):
        model.fit(source, y)
    assert model.coef_ is before
    with pytest.raises(ValueError, match="12 features, the fit had 3"):
        Ridge().fit(X[:, :3], y).predict(source)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 2: 0.5}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_classes(tmp_path, kind, n_classes, weighted, class_weight):
    X, y, weights = make()
    labels = np.digitize(y, np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1])) * 2
    weights = weights if weighted else None
    source = DENSE[kind](tmp_path, X, labels, weights)
    found = RidgeClassifier(0.5, tol=1e-9, class_weight=class_weight).fit(source)
    expected = RidgeClassifier(0.5, tol=1e-11, class_weight=class_weight).fit(X, labels, weights)
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    assert found.classes_.dtype == np.int64
    assert found.report_.converged
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.predict(source), expected.predict(X))


def test_classes_that_cannot_be_fitted(tmp_path):
    X, y, _ = make()
    with pytest.raises(ValueError, match="at least two classes, got one class: 7"):
        RidgeClassifier().fit(scan(X, target=np.full(N, 7)))
    with pytest.raises(ValueError, match="at least two classes, got no rows"):
        RidgeClassifier().fit(scan(frame(X[:0], y[:0]), target="y"))
    with pytest.raises(ValueError, match="must be known before"):
        RidgeClassifier().fit(scan(iter([(X, y > 0)])))
    with pytest.raises(ValueError, match="must be known before"):
        RidgeClassifier().fit(scan(X, target=np.column_stack([y, y])))


WORDS = np.array(["wasp", "ant", "äffin", "bee"])


def of_labels(y, kind):
    """Labels that say something about y, whose sorted order is not that in which they come"""
    if kind == "truth values":
        return y > np.median(y)
    n = int(kind[0])
    return WORDS[np.digitize(y, np.quantile(y, np.linspace(0, 1, n + 1)[1:-1]))]


def assert_same_classifier(found, source, expected, X):
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    assert found.classes_.dtype.kind == expected.classes_.dtype.kind
    assert found.report_.converged
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, rtol=1e-6, atol=1e-9)
    predicted = found.predict(source)
    np.testing.assert_array_equal(predicted, expected.predict(X))
    assert predicted.dtype == found.classes_.dtype


@pytest.mark.parametrize("labels", ["2 words", "4 words", "truth values"])
@pytest.mark.parametrize("kind", [*DENSE, *SPARSE])
def test_classes_of_words_and_of_truth_values(tmp_path, kind, labels):
    X, y, weights = make(sparse=kind in SPARSE)
    y = of_labels(y, labels)
    source = (DENSE | SPARSE)[kind](tmp_path, X, y, weights)
    found = RidgeClassifier(0.5, tol=1e-9).fit(source)
    assert_same_classifier(found, source, RidgeClassifier(0.5, tol=1e-11).fit(X, y, weights), X)
    found.fit(source)  # once more
    assert_same_classifier(found, source, RidgeClassifier(0.5, tol=1e-11).fit(X, y, weights), X)


@pytest.mark.parametrize("class_weight", ["balanced", {"bee": 3.0, "wasp": 0.5}, {"bee": 0.0, "ant": 2, "äffin": 1, "wasp": 3}])
@pytest.mark.parametrize("kind", ["npy", "blocks", "csv", "parquet"])
def test_weights_of_classes_of_words(tmp_path, kind, class_weight):
    X, y, weights = make()
    y = of_labels(y, "4 words")
    y[:300] = "bee"  # fewer of the others
    source = DENSE[kind](tmp_path, X, y, weights)
    for scoring in (RidgeClassifier, partial(RidgeClassifierCV, cv=None)):
        options = {"class_weight": class_weight}
        expected = scoring(0.5, tol=1e-11, **options).fit(X, y, weights)
        assert_same_classifier(scoring(0.5, tol=1e-9, **options).fit(source), source, expected, X)
    with pytest.raises(ValueError, match=r"not in class_weight"):  # as scikit-learn says of arrays
        RidgeClassifier(class_weight={"beee": 2.0}).fit(source)


@pytest.mark.parametrize("text", ["string", "large_string", "string_view", "dictionary", "objects", "category"])
def test_kinds_of_text(tmp_path, text):
    X, y, _ = make()
    y = of_labels(y, "4 words")
    expected = RidgeClassifier(0.5, tol=1e-11).fit(X, y)
    if text in ("objects", "category"):
        table = pd.DataFrame(X).add_prefix("x")
        table["y"] = pd.Series(y.astype(object)) if text == "objects" else pd.Categorical(y, categories=["unused", *WORDS])
        sources = [scan(table, target="y"), scan(X, target=table["y"]), scan(lambda: [(X, table["y"])])]
    else:
        column = pa.array(y).dictionary_encode() if text == "dictionary" else pa.array(y, getattr(pa, text)())
        table = frame(X, np.zeros(N)).set_column(P, "y", column)
        parquet.write_table(table, tmp_path / "t.parquet", row_group_size=350)
        sources = [scan(table, target="y"), scan(tmp_path / "t.parquet", target="y")]
    for source in sources:
        assert_same_classifier(RidgeClassifier(0.5, tol=1e-9).fit(source), source, expected, X)


def test_classes_of_words_beside_columns_of_categories(tmp_path):
    table, X = coded()
    y = WORDS[np.arange(N) % 3]
    path = tmp_path / "t.csv"
    table = table.set_column(1, "c1", table["c1"].cast(pa.string()))
    csv.write_csv(table.drop_columns(["y"]).append_column("y", pa.array(y)), path)
    source = scan(path, target="y", categories=["c0", "c1"])
    expected = RidgeClassifier(0.5, tol=1e-11).fit(X, y)
    found = RidgeClassifier(0.5, tol=1e-9).fit(source)
    assert_same_classifier(found, source, expected, X)
    save(found, tmp_path / "model")
    assert_same_classifier(load(tmp_path / "model"), source, expected, X)
    other = table.drop_columns(["y"]).append_column("y", pa.array(["new"] * N))  # of which predictions know nothing
    np.testing.assert_array_equal(found.predict(scan(other, target="y", categories=source.categories)), expected.predict(X))
    with pytest.raises(ValueError, match=r"has the feature 'c0=ä01' where the fit had 'c0=ä00': scan it with"):
        found.predict(scan(other, target="y", categories={**source.categories, "c0": [f"ä{i:02d}" for i in (1, 0, 2, 3, 4)]}))
    with pytest.raises(ValueError, match=r"has no more features where the fit had 'c1=b03'"):
        found.predict(scan(other.slice(0, 0), target="y", categories={**source.categories, "c1": ["b00", "b01", "b02"]}))
    with pytest.raises(ValueError, match=r"column 'c1' has 'b03' in row \d+ of these, which the fit has not seen"):
        list(scan(table, target="y", categories={**source.categories, "c1": ["b00", "b01", "b02"]}).blocks())


@pytest.mark.parametrize("kind", ["npy", "npz", "array", "parquet", "feather", "arrow table", "polars", "folder"])
def test_labels_are_found_in_the_target_alone(tmp_path, kind, monkeypatch):
    X, y, _ = make()
    source = DENSE[kind](tmp_path, X, of_labels(y, "4 words"), None)
    asked = []
    monkeypatch.setattr(source, "read", lambda: asked.append("rows"))
    if opener := getattr(source, "_opener", None):
        source._opener = replace(opener, batches=lambda names, size: asked.extend(names) or opener.batches(names, size))
    assert sum(source.labels().values()) == N
    assert asked == ([] if opener is None else ["y"])


def test_passes_of_classifiers():
    X, y, _ = make()
    source, passes = counting(X, of_labels(y, "4 words"))
    RidgeClassifier().fit(source)
    assert len(passes) - 1 <= 3  # labels, sums and the proof; one to see the first block


def test_labels_that_are_missing(tmp_path):
    X, y, _ = make()
    y = of_labels(y, "4 words").astype(object)
    y[700] = None
    model = RidgeClassifier()
    for write, name in ((parquet.write_table, "t.parquet"), (feather.write_feather, "t.feather"), (csv.write_csv, "t.csv")):
        write(frame(X, y), tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}, rows \d+ to \d+: column 'y' has no value in row \d+ of these: fill"):
            model.fit(scan(tmp_path / name, target="y"))
    for missing in (None, np.nan, pd.NA, 3):
        y[700] = missing
        with pytest.raises(ValueError, match=rf"y has {missing!r} in row 700 of these, and text in others"):
            scan(X, target=y)
    with pytest.raises(ValueError, match=r"block 4, rows 680 to 849: y has 3 in row 20 of these, and text in others"):
        model.fit(of_blocks(None, X, y, None))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(scan(X, target=np.where(np.arange(N) == 5, np.nan, 1.0)))
    with pytest.raises(ValueError, match=r"column 'y' has nan in row"):
        model.fit(scan(frame(X, np.where(np.arange(N) == 5, np.nan, 1.0)), target="y"))
    with pytest.raises(ValueError, match=r"block 1, rows 300 to 599: y has 1 in row 0 of these, and true or false in others"):
        model.fit(scan(lambda: [(X[:300], X[:300, 0] > 0), (X[300:600], np.arange(1, 301))]))
    assert not hasattr(model, "classes_")


def test_other_labels_on_a_later_pass(tmp_path):
    X, y, _ = make()
    y = of_labels(y, "4 words")
    openings = []

    def opened():
        openings.append(0)
        return frame(X, np.where((np.arange(N) == 500) & (len(openings) > 1), "cow", y)).to_reader(max_chunksize=300)

    with pytest.raises(RuntimeError, match=r"stream, rows \d+ to \d+: 'cow' was no label before"):
        RidgeClassifier().fit(scan(opened, target="y"))
    openings.clear()

    def blocks():
        openings.append(0)
        yield X, np.where((np.arange(N) == 500) & (len(openings) > 2), "cow", y)

    with pytest.raises(RuntimeError, match="block 0, rows 0 to 899: other rows than on the first pass"):
        RidgeClassifier().fit(scan(blocks))


def test_regressions_of_words(tmp_path):
    X, y, _ = make()
    y = of_labels(y, "4 words")
    csv.write_csv(frame(X, y), tmp_path / "t.csv")
    np.save(tmp_path / "X.npy", X)

    def blocks():
        yield X[:300], y[:300]
        raise AssertionError("read on")

    for source, named in (
        (scan(tmp_path / "t.csv", target="y"), rf"column 'y' of .*t\.csv is text \(row 2 has '{y[0]}'\)"),
        (scan(tmp_path / "X.npy", target=y), r"y of .*X\.npy is text"),
        (scan(blocks), "y of blocks of a function is text"),
        (scan(iter([(X, y)])), "y of blocks of an iterator is text"),
    ):
        for fit in (Ridge().fit, ridge, RidgeCV().fit, partial(ridge_path, alphas=[1.0]), explain):
            if source.repeatable or fit is ridge:
                with pytest.raises(ValueError, match=f"{named}, and a regression predicts numbers: RidgeClassifier"):
                    fit(source)
    with pytest.raises(ValueError, match=r"column 'y' of .* is string, not a number: targets and weights must be numbers"):
        scan(tmp_path / "t.csv", target=["y", "x0"])
    with pytest.raises(ValueError, match="one column"):
        scan(X, target=np.column_stack([y, y]))
    truth = y == "bee"
    np.testing.assert_allclose(ridge(scan(X, target=truth)).coef, ridge(X, truth).coef, rtol=1e-5)


@pytest.mark.parametrize("kind", ["npy", "sparse npz", "array", "parquet", "csv", "arrow table"])
def test_predictions_need_no_target(tmp_path, kind):
    X, y, _ = make()
    model = Ridge().fit((DENSE | SPARSE)[kind](tmp_path, X, y, None))
    features = None if kind in ("npy", "sparse npz", "array") else model.feature_names_in_
    given = {"npy": "X.npy", "sparse npz": "X.npz", "parquet": "t.parquet", "csv": "t.csv"}
    source = scan(tmp_path / given[kind] if kind in given else X if kind == "array" else frame(X, y), features=features)
    np.testing.assert_allclose(model.predict(source), model.predict(pd.DataFrame(X, columns=features)), rtol=1e-12, atol=1e-12)
    for fit in (Ridge().fit, RidgeClassifier().fit, RidgeCV().fit, RidgeClassifierCV(cv=3).fit, ridge, explain):
        with pytest.raises(ValueError, match=r"900 rows, 12 features> has no target, which a fit needs: name it in scan"):
            fit(source)


def test_a_target_that_is_also_a_feature():
    table, _ = coded(n_numbers=1)
    with pytest.raises(ValueError, match="features has 'y', which is the target"):
        scan(table, target="y", features=["x0", "y"])
    with pytest.raises(ValueError, match="categories has 'c0', which is the target"):
        scan(table, target="c0", categories=["c0", "c1"])
    with pytest.raises(ValueError, match=r"column 'c1' of .* is .*, not a number: leave it out by features"):
        scan(table, target="c0")


def test_some_columns_in_another_order():
    X, y, _ = make()
    source = scan(frame(X, y), target="y", features=["x3", "x0"])
    assert source.feature_names == ("x3", "x0")
    assert_proven(ridge(source, alpha=0.5, tol=1e-9), X[:, [3, 0]], y, 0.5, None)


def test_integers_booleans_and_decimals(tmp_path):
    rng = np.random.default_rng(3)
    table = pa.table(
        {
            "i": rng.integers(0, 9, 200),
            "b": rng.random(200) < 0.5,
            "f": rng.random(200).astype(np.float32),
            "y": rng.random(200),
        }
    )
    X = np.column_stack([np.asarray(table[name]).astype(np.float64) for name in "ibf"])
    assert_proven(ridge(scan(table, target="y"), alpha=0.5, tol=1e-9), X, np.asarray(table["y"]), 0.5, None)
    np.save(tmp_path / "i.npy", X.astype(">i2"))
    y = rng.random(200)
    assert_proven(ridge(scan(tmp_path / "i.npy", target=y), alpha=0.5, tol=1e-9), X.astype(int), y, 0.5, None)


# Categories.


def coded(n=N, levels=(5, 4), n_numbers=0, seed=4):
    """A table with columns of categories, and the array that they become"""
    rng = np.random.default_rng(seed)
    table, parts = {}, []
    for j, n_levels in enumerate(levels):
        codes = np.concatenate([np.arange(n_levels), rng.integers(0, n_levels, n - n_levels)])
        names = np.array([f"{'äbc'[j]}{level:02d}" for level in range(n_levels)])
        table[f"c{j}"] = pa.array(names[codes]).dictionary_encode() if j == 1 else names[codes]
        parts.append(codes[:, None] == np.arange(n_levels))
    for j in range(n_numbers):
        table[f"x{j}"] = rng.standard_normal(n)
        parts.append(table[f"x{j}"][:, None])
    X = np.concatenate(parts, axis=1).astype(np.float64)
    table["y"] = X @ rng.standard_normal(X.shape[1]) + rng.standard_normal(n)
    return pa.table(table), X


def blocks_are_sparse(source):
    return {sp.issparse(block.X) for block in source.blocks()}


@pytest.mark.parametrize("kind", ["parquet", "feather", "csv", "stream"])
@pytest.mark.parametrize(("n_numbers", "sparse"), [(0, True), (1, False)])
@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_columns_of_categories(tmp_path, kind, n_numbers, sparse, solver):
    table, X = coded(n_numbers=n_numbers)
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=350)
    elif kind == "feather":
        feather.write_feather(table, path)
    elif kind == "csv":
        csv.write_csv(table.set_column(1, "c1", table["c1"].cast(pa.string())), path)
    source = scan(table.to_reader if kind == "stream" else path, target="y", categories=["c0", "c1"])
    assert blocks_are_sparse(source) == {sparse}
    names = [f"c0=ä{level:02d}" for level in range(5)] + [f"c1=b{level:02d}" for level in range(4)]
    assert source.feature_names == (*names, *["x0"][:n_numbers])
    assert_proven(ridge(source, alpha=0.5, solver=solver, tol=1e-9), X, np.asarray(table["y"]), 0.5, None)
    again = scan(table, target="y", categories=source.categories)
    np.testing.assert_array_equal(np.concatenate([block.X @ np.eye(X.shape[1]) for block in again.blocks()]), X)


def test_whole_numbers_and_truth_values_as_categories(tmp_path):
    rng = np.random.default_rng(5)
    zip_code, flag, y = rng.choice([7, 10, 200], 300), rng.random(300) < 0.5, rng.random(300)
    parquet.write_table(pa.table({"zip": zip_code, "flag": flag, "y": y}), tmp_path / "t.parquet")
    source = scan(tmp_path / "t.parquet", target="y", categories=["flag", "zip"], features=["zip", "flag"])
    assert source.feature_names == ("zip=10", "zip=200", "zip=7", "flag=false", "flag=true")
    X = np.column_stack([zip_code == 10, zip_code == 200, zip_code == 7, ~flag, flag]).astype(float)
    assert_proven(ridge(source, alpha=0.5, tol=1e-9), X, y, 0.5, None)
    given = scan(tmp_path / "t.parquet", target="y", categories={"zip": [200, 10, 7]}, features=["zip"])
    assert given.feature_names == ("zip=200", "zip=10", "zip=7")


def test_many_categories_beside_numbers_far_from_zero():
    table, X = coded(levels=(30, 20), n_numbers=2)
    table = table.set_column(2, "x0", pa.array(np.asarray(table["x0"]) + 1e6))
    X[:, 50] += 1e6
    source = scan(table, target="y", categories=["c0", "c1"])
    assert blocks_are_sparse(source) == {True}
    for solver in ("cg", "cholesky"):
        assert_proven(ridge(source, alpha=0.5, solver=solver, tol=1e-9), X, np.asarray(table["y"]), 0.5, None)


def test_categories_that_cannot_be_had(tmp_path):
    table, _ = coded()
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(TypeError, match="categories must be a list of names"):
        scan(table, target="y", categories="c0")
    with pytest.raises(ValueError, match="no column 'c9'"):
        scan(table, target="y", categories=["c9"])
    with pytest.raises(ValueError, match=r"column 'c1'.*is dictionary.*not a number"):
        scan(table, target="y", categories=["c0"])
    with pytest.raises(ValueError, match="can be read once: give its categories as a dict"):
        scan(table.to_reader(), target="y", categories=["c0", "c1"])
    known = {"c0": ["ä00", "ä01", "ä02"], "c1": ["b00", "b01", "b02", "b03"]}
    with pytest.raises(ValueError, match=r"t\.parquet, rows 0 to \d+: column 'c0' has 'ä03' in row 3 of these, which the fit"):
        ridge(scan(tmp_path / "t.parquet", target="y", categories=known))
    missing = table.set_column(1, "c1", pa.array([None if i == 800 else "b" for i in range(N)]))
    parquet.write_table(missing, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet, rows \d+ to \d+: column 'c1' has no value in row 800"):
        scan(tmp_path / "t.parquet", target="y", categories=["c0", "c1"])


# What goes wrong on the way.


def test_a_block_with_nan_is_named(tmp_path):
    X, y, _ = make()
    X[700, 3] = np.nan
    for solver in ("cg", "cholesky"):
        with pytest.raises(ValueError, match=r"X\.npy, rows \d+ to \d+: X contains NaN.*column 3"):
            ridge(of_npy(tmp_path, X, y, None), solver=solver)
    X[700, 3], y[500] = 0, np.inf
    with pytest.raises(ValueError, match=r"rows \d+ to \d+: y contains NaN or infinity"):
        ridge(of_npy(tmp_path, X, y, None))
    table = frame(X, np.arange(N)).set_column(2, "x2", pa.array([None if i == 800 else 1.0 for i in range(N)]))
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet, rows \d+ to \d+: column 'x2' has no value in row"):
        ridge(scan(tmp_path / "t.parquet", target="y"))


def test_truncated_files(tmp_path):
    X, y, _ = make()
    source = of_npy(tmp_path, X, y, None)
    whole = (tmp_path / "X.npy").read_bytes()
    (tmp_path / "X.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        scan(tmp_path / "X.npy", target=y)
    with pytest.raises(ValueError, match=r"X\.npy, rows \d+ to \d+: the file ends in the middle"):
        ridge(source)  # of which it was found whole before
    (tmp_path / "X.npy").write_bytes(b"not an array")
    with pytest.raises(ValueError, match="not an array file"):
        scan(tmp_path / "X.npy", target=y)
    for name, write in (("t.parquet", parquet.write_table), ("t.feather", feather.write_feather)):
        write(frame(X, y), tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=name):
            scan(tmp_path / name, target="y")
    np.savez(tmp_path / "t.npz", X=X, y=y)
    whole = (tmp_path / "t.npz").read_bytes()
    (tmp_path / "t.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        scan(tmp_path / "t.npz", target="y")


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(bytes(content))


def test_a_flipped_bit_is_found_by_checksums(tmp_path):
    X, y, _ = make()
    path = tmp_path / "t.parquet"
    parquet.write_table(frame(X, y), path, compression="none", use_dictionary=False, write_page_checksum=True)
    flipped(path, 4000)
    with pytest.raises(ValueError, match=r"t\.parquet.*(CRC|checksum)"):
        ridge(scan(path, target="y"))
    np.savez(tmp_path / "t.npz", X=X, y=y)
    flipped(tmp_path / "t.npz", 4000)
    with pytest.raises(ValueError, match=r"t\.npz, rows \d+ to \d+: the file is damaged"):
        ridge(scan(tmp_path / "t.npz", target=y))


def test_files_that_differ(tmp_path):
    X, y, _ = make()
    parquet.write_table(frame(X, y), tmp_path / "a.parquet")
    parquet.write_table(frame(X, y).drop_columns(["x4"]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet has no column 'x4'"):
        ridge(scan(tmp_path, target="y"))
    changed = frame(X, y).set_column(4, "x4", pa.array(["text"] * N))
    parquet.write_table(changed, tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet, rows \d+ to \d+: column 'x4' is string, and was double"):
        ridge(scan([tmp_path / "a.parquet", tmp_path / "b.parquet"], target="y"))
    parquet.write_table(frame(X.astype(np.float32), y), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet, rows \d+ to \d+: column 'x0' is float, and was double"):
        ridge(scan([tmp_path / "a.parquet", tmp_path / "b.parquet"], target="y"))


def changing(X, y, change):
    calls = []

    def blocks():
        calls.append(0)
        last = len(y) if len(calls) < 2 or change != "shorter" else 600
        for lo in range(0, last, 300):
            own = X[lo : lo + 300]
            other = len(calls) >= 2 and lo == 300
            weights = np.full(len(own), 2.0 if other and change == "weights" else 1.0)
            if other and change == "order":
                own = own[::-1]
            yield (own + 1 if other and change == "values" else own), y[lo : lo + 300], weights
        if change == "longer" and len(calls) >= 2:
            yield X[:10], y[:10]

    return scan(blocks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("weights", "block 1, rows 300 to 599: other rows than on the first pass"),
        ("order", "block 1, rows 300 to 599: other rows than on the first pass"),
        ("values", "block 1, rows 300 to 599: other rows than on the first pass"),
        ("shorter", "ended after 600 rows where the first pass had 900"),
        ("longer", "block 3, rows 900 to 909: other rows"),
    ],
)
@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_other_rows_on_a_later_pass(change, message, solver):
    X, y, _ = make()
    with pytest.raises(RuntimeError, match=message):
        ridge(changing(X, y, change), solver=solver)


def test_an_error_of_the_source_passes_through():
    X, y, _ = make()

    def blocks():
        yield X, y
        raise OSError("the line is dead")

    with pytest.raises(OSError, match="the line is dead"):
        ridge(scan(blocks))


def test_an_index_of_pandas_is_no_feature(tmp_path):
    X, y, _ = make(p=3)
    plain = pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y)
    for given in (plain.iloc[::-1], plain.set_index("c")):
        given.to_parquet(tmp_path / "t.parquet")
        features = [name for name in given.columns if name != "y"]
        for source in (given, tmp_path / "t.parquet"):
            assert list(scan(source, target="y").feature_names) == features
    assert scan(tmp_path / "t.parquet", target="y", features=["c"]).feature_names == ("c",)
    plain.assign(kind=np.where(X[:, 0] > 0, "u", "v")).iloc[::-1].to_parquet(tmp_path / "t.parquet")
    names = scan(tmp_path / "t.parquet", target="y", categories=["kind"]).feature_names
    assert names == ("a", "b", "c", "kind=u", "kind=v")
    plain.to_csv(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="column 0 has no name, as an index that pandas writes: write with index=False"):
        scan(tmp_path / "t.csv", target="y")


@pytest.mark.parametrize("kind", ["file", "table"])
def test_a_weight_may_be_a_feature_as_well(tmp_path, kind):
    X, y, weights = make()
    table = frame(X, y, weights)
    parquet.write_table(table, tmp_path / "t.parquet")
    features = ["weight", *(f"x{j}" for j in range(P))]
    source = scan(tmp_path / "t.parquet" if kind == "file" else table, target="y", weight="weight", features=features)
    assert_proven(ridge(source, alpha=0.5, tol=1e-9), np.column_stack([weights, X]), y, 0.5, weights)


def test_files_by_a_pattern(tmp_path):
    X, y, _ = make()
    of_folder(tmp_path, X, y, None)
    found = ridge(scan(tmp_path / "part*.parquet", target="y"))
    assert np.array_equal(found.coef, ridge(scan(tmp_path, target="y")).coef)
    with pytest.raises(FileNotFoundError, match=r"no file is named like .*other\*\.parquet"):
        scan(tmp_path / "other*.parquet", target="y")


def test_partitions(tmp_path):
    X, y, _ = make()
    table = frame(X, y).append_column("year", pa.array(np.repeat([2024, 2025], N // 2), pa.int32()))
    dataset.write_dataset(table, tmp_path / "parts", format="parquet", partitioning=["year"], partitioning_flavor="hive")
    with pytest.raises(ValueError, match=r"what is in its folders is read by scan\(pyarrow\.dataset"):
        scan(tmp_path / "parts", target="y")
    source = scan(dataset.dataset(tmp_path / "parts", partitioning="hive"), target="y")
    assert source.feature_names[-1] == "year"
    assert_proven(ridge(source, alpha=0.5, tol=1e-9), np.column_stack([X, np.repeat([2024.0, 2025.0], N // 2)]), y, 0.5, None)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labels", [None, [0, 1, 2], ["high", "low", "mid"]])
def test_scores_of_a_scan(tmp_path, labels, weighted):
    X, y, weights = make()
    weights = weights if weighted else None
    if labels is not None:
        y = np.array(labels)[np.digitize(y, np.quantile(y, [0.3, 0.6]))]
    model = (Ridge if labels is None else RidgeClassifier)().fit(X, y, weights)
    source = of_table(tmp_path, X, y, weights)
    assert model.score(source) == pytest.approx(model.score(X, y, weights), rel=1e-12)
    with pytest.raises(ValueError, match="live with the rows"):
        model.score(source, y)
    with pytest.raises(ValueError, match="has no target"):
        model.score(scan(frame(X, y), features=[f"x{j}" for j in range(P)]))


@pytest.mark.parametrize("name", ["X", "y"])
def test_a_path_in_the_place_of_an_array(tmp_path, name):
    given = {"X": np.ones((3, 1)), "y": np.arange(3.0)} | {name: str(tmp_path / "t.parquet")}
    with pytest.raises(ValueError, match=rf"{name} is .*t\.parquet., not an array; fastridge\.scan"):
        Ridge().fit(**given)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nothing.parquet", {"target": "y"}), FileNotFoundError, "there is no file nothing.parquet"),
        ((5, {}), TypeError, "scan takes a path"),
        (([], {}), ValueError, "empty"),
        ((lambda: [], {}), ValueError, "yields no block"),
        ((lambda: [np.ones((3, 2))], {}), TypeError, r"block 0 must be a tuple"),
        ((lambda: [(np.ones(3), np.ones(3))], {}), ValueError, "two dimensions"),
        ((np.ones((5, 2)), {"target": np.ones(4)}), ValueError, r"target|y has shape \(4,\)"),
        ((pa.table({"a": [1.0], "y": [1.0]}), {"target": []}), ValueError, "target must be the name"),
        ((pa.table({"a": [1.0], "y": [1.0]}), {"target": "z"}), ValueError, "no column 'z'; its columns are 'a', 'y'"),
        ((pa.table({"a": ["x"], "y": [1.0]}), {"target": "y"}), ValueError, "column 'a'.*is string, not a number.*one-hot"),
        ((pa.table({"y": [1.0]}), {"target": "y"}), ValueError, "no columns beside"),
    ],
)
def test_what_cannot_be_scanned(arguments, error, message):
    source, options = arguments
    with pytest.raises(error, match=message):
        scan(source, **options)


def test_what_cannot_be_asked_of_a_scan(tmp_path):
    X, y, _ = make()
    source = of_blocks(None, X, y, None)
    for options in ({"positive": True}, {"bounds": (0, 1)}):
        with pytest.raises(ValueError, match="bounds need X in memory"):
            ridge(source, **options)
    with pytest.raises(ValueError, match="cd"):
        ridge(source, solver="cd")
    for d in (np.zeros(P), np.eye(P)):
        with pytest.raises(ValueError, match="penalty_weights"):
            ridge(source, penalty_weights=d)
    with pytest.raises(ValueError, match="live with the rows"):
        ridge(source, y)
    (tmp_path / "t.xyz").write_text("")
    with pytest.raises(ValueError, match=r"t\.xyz has none of the endings"):
        scan(tmp_path / "t.xyz", target="y")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no file"):
        scan(tmp_path / "empty", target="y")
    np.save(tmp_path / "o.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        scan(tmp_path / "o.npy", target=y)
    np.save(tmp_path / "v.npy", y)
    with pytest.raises(ValueError, match="two dimensions"):
        scan(tmp_path / "v.npy", target=y)
    huge = 1e200 * X
    for solver in ("cg", "cholesky"):
        with pytest.raises(ValueError, match=r"rescale|overflow"):
            ridge(of_blocks(None, huge, y, None), solver=solver)


def test_a_scan_of_moments():
    X, y, weights = make()
    moments = Moments()
    for block in of_blocks(None, X, y, weights).blocks():
        moments.update(block.X, block.y[:, 0], block.weights)
    np.testing.assert_allclose(moments.solve(0.5).coef, ridge(X, y, 0.5, sample_weight=weights).coef, rtol=1e-5)


def test_reading_ahead_ends_with_the_reader():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i

    reading = rows.ahead(items())
    assert [next(reading), next(reading)] == [0, 1]
    reading.close()
    assert len(made) <= 4


def test_blocks_are_small_and_few(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(rows, "BLOCK_BYTES", 1 << 18)
    X, y, _ = make(n=40_000, p=20)
    source = of_npy(tmp_path, X, y, None)
    for solver in ("cholesky", "cg"):
        tracemalloc.start()
        ridge(source, solver=solver)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Two blocks of X, targets and products of one, and p-vectors.
        assert peak < (arrays.BUFFERS + 2) * (1 << 18) < X.nbytes / 4


def test_explain_reads_a_scan_once():
    X, y, _ = make()
    calls = []

    def blocks():
        calls.append(0)
        yield X, y

    source = scan(blocks)
    calls.clear()
    plan = explain(source, alpha=0.5)
    assert len(calls) <= 1
    assert plan.shape == X.shape
    assert plan.solver == ridge(scan(blocks), alpha=0.5).report.solver
    with pytest.raises(ValueError, match="live with the rows"):
        explain(scan(blocks), y)


def test_classes_are_whole_numbers():
    X, y, _ = make()
    with pytest.raises(ValueError, match="classes must be whole numbers"):
        RidgeClassifier().fit(scan(X, target=y))


def test_the_file_of_text_is_closed_where_reading_ends_early(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n" + "1,2\n" * 400_000 + ",2\n")
    source = scan(tmp_path / "t.csv", target="y")
    with pytest.raises(ValueError, match="no value"):
        ridge(source)
    reading = source.read()
    next(reading)
    reading.close()  # an open file would be warned of, and fail the test


@pytest.mark.parametrize("n_groups", [1, 20])
def test_a_parquet_file_is_read_in_pieces(n_groups, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", 1 << 19)
    X, y, _ = make(n=2_000_000, p=4)
    parquet.write_table(frame(X, y), tmp_path / "t.parquet", row_group_size=len(X) // n_groups, compression="none")
    source, before, most = scan(tmp_path / "t.parquet", target="y"), pa.total_allocated_bytes(), 0
    for _ in source.blocks():
        most = max(most, pa.total_allocated_bytes() - before)
    # A buffer and a decoded page of each column, and the batches that are ahead.
    assert most < X.nbytes / 2
