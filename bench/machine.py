"""Measure what this machine can do: memory bandwidth and matrix products, the limits that a fit is held against."""

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

STREAM_BYTES = 400e6  # well above the caches
DISTRIBUTIONS = ("numpy", "scipy", "scikit-learn", "fastridge-solvers", "scikit-learn-intelex", "glum", "himalaya", "snapml")
N_PASSES = 7  # the best one counts: other work on the machine only slows it


def describe() -> dict:
    """Return processor, threads, versions, BLAS libraries and measured rates, as plain values."""
    return {
        "processor": _processor(),
        "n_cores": _n_cores(),
        "n_threads": _n_threads(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in DISTRIBUTIONS if _version(name)},
        "blas": [
            f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}, {pool['num_threads']} threads"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        ],
        "environment": {key: os.environ[key] for key in sorted(os.environ) if key.startswith(("OPENBLAS_", "OMP_"))},
        "read_bytes_per_second": read_rate(),
        "flops_per_second": {"float64": gemm_rate(np.float64), "float32": gemm_rate(np.float32)},
    }


def read_rate() -> float:
    """Return the bytes that the threads a fit may use read together from memory in a second."""
    n_threads = _n_threads()
    parts = np.array_split(np.ones(int(STREAM_BYTES / 8)), n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        return STREAM_BYTES / _best_seconds(lambda: list(pool.map(np.max, parts)))


def gemm_rate(dtype) -> float:
    """Return the floating-point operations a second of a product of square matrices, with BLAS's own threads."""
    n = 1536
    a = np.random.default_rng(0).random((n, n)).astype(dtype)
    return 2 * n**3 / _best_seconds(lambda: a @ a)


def _best_seconds(work) -> float:
    seconds = []
    for _ in range(N_PASSES):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _n_threads() -> int:
    """Return the cores this process may use, or OMP_NUM_THREADS if that is less: what fastridge takes, and BLAS."""
    return min(_n_cores(), int(os.environ.get("OMP_NUM_THREADS") or _n_cores()))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
