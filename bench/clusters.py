"""Fits on two dask workers beside those of one process: a product, a round of messages, whole fits, and dask-ml's."""

import time
import warnings
from functools import partial

import numpy as np
import scipy.sparse as sp

N_FEATURES, N_CHUNKS, N_ROUNDS = 100, 64, 15
TOL = 1e-6


def measure(gigabytes: float, n_workers: int = 2) -> str:
    """Start a cluster of processes with one thread each, fit so many GB there and here; return a markdown table."""
    import distributed

    n = int(gigabytes * 1e9 / 8 / N_FEATURES) // N_CHUNKS * N_CHUNKS
    lines = [
        f"{n:,} x {N_FEATURES} float64, {gigabytes:g} GB in {N_CHUNKS} chunks, on {n_workers} worker process(es) with one thread "
        f"each, and in one process with {n_workers} thread(s). Medians, in brackets the least.",
        "",
        "| | workers | one process |",
        "|---|--:|--:|",
    ]
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50, "host": "127.0.0.1"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(n_workers=n_workers, **options) as cluster, distributed.Client(cluster):
            lines += _of_rounds()
            lines += _of_dense(n, n_workers)
    return "\n".join(lines)


def _of_dense(n: int, n_workers: int) -> list[str]:
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
    lines = [_line("a product", *_interleaved(lambda: far.normal(v), lambda: local.normal(v)))]
    for solver in ("cg", "cholesky"):
        there = Ridge(solver=solver, tol=TOL)
        alone = fastridge.Ridge(solver=solver, tol=TOL, n_threads=n_workers)
        times = _interleaved(lambda model=there: model.fit(X, y), lambda model=alone: model.fit(*here), 3)
        lines.append(_line(f"a fit, {solver}, chunks being loaded on the way", *times))
    try:
        from dask_ml.linear_model import LinearRegression
    except ImportError:
        return [*lines, "| a fit, dask-ml | not installed | |"]
    own = Ridge(fit_intercept=False, solver="cg", tol=TOL)
    seconds = _times(lambda: own.fit(X, y), 1)[0]
    expected = fastridge.ridge(*here, fit_intercept=False, tol=1e-9).coef
    X, y = distributed.get_client().persist((X, y))  # else it computes the chunks anew in every step
    distributed.wait((X, y))
    model = LinearRegression(penalty="l2", C=0.5, solver="lbfgs", fit_intercept=False, solver_kwargs={"normalize": False})
    begin = time.perf_counter()
    model.fit(X, y)
    theirs = time.perf_counter() - begin
    off = np.linalg.norm(here[0] @ (model.coef_ - expected)) / np.linalg.norm(here[0] @ expected)
    return [
        *lines,
        f"| without an intercept, CG, proven to {own.report_.error_bound:.0e} | {seconds:.1f} s | |",
        f"| the same objective, dask-ml's L-BFGS on chunks that are loaded, error {off:.0e} | {theirs:.1f} s | |",
    ]


def _of_rounds() -> list[str]:
    """What a product takes where there is hardly anything to multiply."""
    import dask.array as da

    from fastridge.dask import DaskRows

    lines = []
    for p, dense in ((1000, True), (1_000_000, False)):
        X = da.ones((N_CHUNKS * 10, p if dense else 1), chunks=(10, -1))
        if not dense:
            X = X.map_blocks(_sparse_rows, p, dtype=np.float64, chunks=(X.chunks[0], (p,)), meta=sp.csr_array((0, p)))
        rows = DaskRows(X, da.arange(N_CHUNKS * 10, chunks=10, dtype=np.float64), None)
        product = partial(rows.operator(True, 1, False)[0].normal, np.random.default_rng(0).standard_normal((p, 1)))
        times = _times(product)
        kind = "dense" if dense else "sparse"
        lines.append(f"| a round, {p:,} features, {kind} | {_said(times)} | |")
    return lines


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
    return rng.standard_normal((m, N_FEATURES)) + rng.standard_normal((m, 3)) @ shared


def _target(i: int, m: int) -> np.ndarray:
    rng = np.random.default_rng(5000 + i)
    return _rows(i, m) @ np.cos(np.arange(N_FEATURES)) + rng.standard_normal(m)


def _sparse_rows(block: np.ndarray, p: int) -> sp.csr_array:
    m = len(block)
    columns = np.sort(np.random.default_rng(m).integers(0, p, (m, 10)), axis=1)
    return sp.csr_array((np.ones(m * 10), columns.ravel(), np.arange(0, m * 10 + 1, 10)), shape=(m, p))


def _times(work, n_times: int = N_ROUNDS) -> list[float]:
    times = []
    for _ in range(n_times + 1):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return times[1:]


def _interleaved(one, other, n_times: int = N_ROUNDS) -> tuple[list[float], list[float]]:
    """Return times of both, one after the other, so that what else the machine does counts for both."""
    pairs = [(_times(one, 1)[0], _times(other, 1)[0]) for _ in range(n_times)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _said(times: list[float]) -> str:
    return f"{1e3 * np.median(times):,.0f} ms ({1e3 * min(times):,.0f})"


def _line(name: str, there: list[float], here: list[float]) -> str:
    return f"| {name} | {_said(there)} | {_said(here)} |"
