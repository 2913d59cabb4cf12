"""What an installation is, and whether it works: `facts` for reports of bugs, `check` fits and proves that it fits right."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import scipy
from threadpoolctl import threadpool_info

from fastridge import _kernels, functional
from fastridge._version import __version__
from fastridge.estimators import Ridge
from fastridge.operators.base import Matrix, Vector
from fastridge.parallel import available_threads
from fastridge.validation import SolverName

SIMD = {4: "AVX-512", 3: "AVX2 and FMA", 1: "nothing beyond the platform's baseline"}
ALPHA = 1.0
TOL = 1e-6  # the default
FLOOR = 1e-10
"""What rounding may leave of the closed form: the condition of H is below 1000 in every case, and eps times that is 2e-13."""


def facts() -> list[tuple[str, str]]:
    """What a bug report should say: names and values"""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn", "threadpoolctl"))
    lines = [
        ("fastridge", f"{__version__}, {Path(__file__).parent}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"),
        ("with", libraries),
        ("SIMD", f"{SIMD[_kernels.dense_base.simd_level()]}; dense loops: {_kernels.dense.__name__.rpartition('.')[2]}"),
        ("threads", str(available_threads())),
    ]
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            architecture = pool.get("architecture", "of unknown architecture")
            threads = f"{pool['num_threads']} threads"
            lines.append(("BLAS", f"{pool['internal_api']} {pool['version']}, {architecture}, {threads}, {pool['filepath']}"))
    return lines


def info() -> None:
    """Print the facts"""
    for name, value in facts():
        print(f"{name:11}{value}")


def check() -> int:
    """Fit dense and sparse data by every solver; return 1 if an answer is further from the closed form than it claims"""
    rng = np.random.default_rng(0)
    tall = rng.standard_normal((20_000, 50))  # several lanes
    wide = rng.standard_normal((40, 300))
    thin = scipy.sparse.csr_array(rng.random((3000, 40)) * (rng.random((3000, 40)) < 0.2))
    every: tuple[SolverName, ...] = get_args(SolverName)
    cases: list[tuple[str, Matrix, SolverName]] = [
        *((f"dense, tall, {solver}", tall, solver) for solver in every),
        ("dense, tall, columns", np.asfortranarray(tall), "auto"),
        ("dense, tall, float32", tall.astype(np.float32), "auto"),
        ("dense, wide", wide, "auto"),
        ("sparse, tall, rows", thin, "cg"),
        ("sparse, tall, columns", thin.tocsc(), "auto"),
        ("sparse, wide", thin.T.tocsr(), "auto"),
    ]
    failed = 0
    print(f"{'':24}{'ran':10}{'true error':>12}{'its bound':>12}")
    for name, X, solver in cases:
        y = X @ rng.standard_normal(X.shape[1]) + rng.standard_normal(X.shape[0])
        answer = functional.ridge(X, y, ALPHA, solver=solver)
        report, error = answer.report, true_error(X, y, answer.coef)
        right = report.converged and error <= report.error_bound + FLOOR and error <= TOL + FLOOR
        verdict = "ok" if right else f"WRONG, status {report.status}"
        print(f"{name:24}{report.solver:10}{error:12.1e}{report.error_bound:12.1e}  {verdict}")
        failed += not right
    y = tall @ np.ones(50)
    model = Ridge(ALPHA).fit(tall, y)
    error = true_error(tall, y, model.coef_)
    right = error <= TOL + FLOOR and model.score(tall, y) > 0.999
    print(f"{'the estimator':24}{model.solver_:10}{error:12.1e}{model.report_.error_bound:12.1e}  {'ok' if right else 'WRONG'}")
    failed += not right
    wrong = f"{failed} of {len(cases) + 1} fits are not what they claim to be."
    print(wrong if failed else "All fits are as accurate as they claim.")
    return int(failed > 0)


def true_error(X: Matrix, y: Vector, coef: Vector) -> float:
    """Return ||w - w*||_H / ||w*||_H of w = coef by numpy's solution of the normal equations, in float64"""
    dense: Any = X.toarray() if scipy.sparse.issparse(X) else X
    A = dense.astype(np.float64)
    A -= A.mean(axis=0)
    H = A.T @ A + ALPHA * np.eye(A.shape[1])
    w = np.linalg.solve(H, A.T @ (y - y.mean()))
    d = coef - w
    return float(np.sqrt((d @ H @ d) / (w @ H @ w)))
