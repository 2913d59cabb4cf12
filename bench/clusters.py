"""Fits on two dask workers beside those of one process: a product, a round of messages, whole fits, and dask-ml's."""

import time
import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
import scipy.sparse as sp

N_FEATURES, N_CHUNKS, N_ROUNDS = 100, 64, 15
TOL, MOST_DENSE = 1e-6, 1000
CLUSTER = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50, "host": "127.0.0.1"}


def measure(gigabytes: float, n_workers: int = 2) -> Iterator[str]:
    """Start a cluster of processes with one thread each, fit there and here; yield the lines of a markdown table."""
    import distributed

    n = int(gigabytes * 1e9 / 8 / N_FEATURES) // N_CHUNKS * N_CHUNKS
    yield from [
        f"{n:,} x {N_FEATURES} float64, {gigabytes:g} GB in {N_CHUNKS} chunks, on {n_workers} worker process(es) with one thread "
        f"each, and in one process with {n_workers} thread(s). Medians, in brackets the least.",
        "",
        "| | workers | one process |",
        "|---|--:|--:|",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(n_workers=n_workers, **CLUSTER) as cluster, distributed.Client(cluster):
            yield from _of_rounds()
            yield from _of_dense(n, n_workers)


def _of_dense(n: int, n_workers: int) -> Iterator[str]:
    import distributed

    import fastridge
    from fastridge.dask import DaskRows, Ridge
    from fastridge.request import Method, Request

    X, y = _on_workers(n)
    here = tuple(np.concatenate([make(i, n // N_CHUNKS) for i in range(N_CHUNKS)]) for make in (_rows, _target))
    asked = {"alpha": 1.0, "fit_intercept": True, "positive": False, "bounds": None, "penalty_weights": None}
    local = Request.checked(*here, None, Method(), **asked).problem(n_workers).design
    far = DaskRows(X, y, None).operator(True, 1, False)[0]
    v = np.random.default_rng(0).standard_normal((N_FEATURES, 1))
    np.testing.assert_allclose(far.normal(v), local.normal(v), rtol=1e-8)
    yield _line("a product", *_interleaved(lambda: far.normal(v), lambda: local.normal(v)))
    for solver in ("cg", "cholesky"):
        there = Ridge(solver=solver, tol=TOL)
        alone = fastridge.Ridge(solver=solver, tol=TOL, n_threads=n_workers)
        times = [once(lambda model=there: model.fit(X, y))], [once(lambda model=alone: model.fit(*here))]
        yield _line(f"a fit, {solver}; on the workers with making the chunks", *times)
    try:
        from dask_ml.linear_model import LinearRegression
    except ImportError:
        yield "| a fit, dask-ml | not installed | |"
        return
    own = Ridge(fit_intercept=False, solver="cg", tol=TOL)
    seconds = once(lambda: own.fit(X, y))
    expected = fastridge.ridge(*here, fit_intercept=False, tol=1e-9).coef
    X, y = distributed.get_client().persist((X, y))  # else it computes the chunks anew in every step
    distributed.wait((X, y))
    model = LinearRegression(penalty="l2", C=0.5, solver="lbfgs", fit_intercept=False, solver_kwargs={"normalize": False})
    theirs = once(lambda: model.fit(X, y))
    off = np.linalg.norm(here[0] @ (model.coef_ - expected)) / np.linalg.norm(here[0] @ expected)
    yield f"| without an intercept, CG, proven to {own.report_.error_bound:.0e} | {seconds:.1f} s | |"
    yield f"| the same objective, dask-ml's L-BFGS on chunks that are loaded, error {off:.0e} | {theirs:.1f} s | |"


def _of_rounds() -> Iterator[str]:
    for p in (1000, 1_000_000):
        product = partial(hardly_any_rows(p).operator(True, 1, False)[0].normal, np.random.default_rng(0).standard_normal((p, 1)))
        times = [once(product) for _ in range(N_ROUNDS + 1)][1:]
        yield f"| a round, {p:,} features | {_said(times)} | |"


def hardly_any_rows(p: int):
    """Return rows with next to nothing to multiply: dense where features are few, else sparse."""
    import dask.array as da

    from fastridge.dask import DaskRows

    X = da.ones((N_CHUNKS * 10, p if p <= MOST_DENSE else 1), chunks=(10, -1))
    if p > MOST_DENSE:
        X = X.map_blocks(_sparse_rows, p, dtype=np.float64, chunks=(X.chunks[0], (p,)), meta=sp.csr_array((0, p)))
    return DaskRows(X, da.arange(N_CHUNKS * 10, chunks=10, dtype=np.float64), None)


def dense_rows(n: int):
    """Return n rows, or a few less, that are made on the workers."""
    from fastridge.dask import DaskRows

    return DaskRows(*_on_workers(n // N_CHUNKS * N_CHUNKS), None)


def _on_workers(n: int) -> tuple:
    import dask
    import dask.array as da

    m = n // N_CHUNKS
    rows, targets = dask.delayed(_rows, pure=True), dask.delayed(_target, pure=True)
    X = [da.from_delayed(rows(i, m), (m, N_FEATURES), np.float64) for i in range(N_CHUNKS)]
    return da.concatenate(X), da.concatenate([da.from_delayed(targets(i, m), (m,), np.float64) for i in range(N_CHUNKS)])


def _rows(i: int, m: int) -> np.ndarray:
    """Return chunk i: columns on one scale, which peers need, that share three factors."""
    rng = np.random.default_rng(i)
    shared = np.random.default_rng(1000).standard_normal((3, N_FEATURES))
    return rng.random((m, N_FEATURES)) + rng.standard_normal((m, 3)) @ shared


def _target(i: int, m: int) -> np.ndarray:
    rng = np.random.default_rng(5000 + i)
    return _rows(i, m) @ np.cos(np.arange(N_FEATURES)) + rng.standard_normal(m)


def _sparse_rows(block: np.ndarray, p: int) -> sp.csr_array:
    m = len(block)
    columns = np.sort(np.random.default_rng(m).integers(0, p, (m, 10)), axis=1)
    return sp.csr_array((np.ones(m * 10), columns.ravel(), np.arange(0, m * 10 + 1, 10)), shape=(m, p))


def once(work) -> float:
    """Return the seconds that `work()` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _interleaved(one, other) -> tuple[list[float], list[float]]:
    """Return times of both, one after the other, so that what else the machine does counts for both."""
    pairs = [(once(one), once(other)) for _ in range(N_ROUNDS + 1)][1:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _said(times: list[float]) -> str:
    return f"{1e3 * np.median(times):,.0f} ms ({1e3 * min(times):,.0f})"


def _line(name: str, there: list[float], here: list[float]) -> str:
    return f"| {name} | {_said(there)} | {_said(here)} |"
