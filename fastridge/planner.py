"""Which solver `solver="auto"` runs, and why: the only place that knows costs.

The costs are crude (a few rates, measured on two cores of an AVX2 machine with `python -m bench machine`) and only their order
matters: where conjugate gradients may or may not be faster, they are given as many steps as the direct solve would cost and
then give way to it, so that a wrong guess costs at most twice the best.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastridge.lines import SPARSE_GRAM_SECONDS, SparseLines
from fastridge.problem import Problem
from fastridge.solution import Answer, Settings
from fastridge.solvers import cg, cholesky, descent, spectral

SOLVERS: dict[str, Callable[[Problem, Settings], Answer]] = {
    "cholesky": cholesky.solve,
    "svd": spectral.solve,
    "cg": cg.solve,
    "cd": descent.solve,
}

BYTES_PER_SECOND = 1.3e10
"""Read by one thread in a fused dense pass."""
ENTRIES_PER_SECOND = 7e8
"""Stored entries that one thread visits in a fused sparse pass."""
GEMM_FLOPS = 3.5e10
"""Of one thread, blocks filled and multiplied."""
QR_FLOPS = 1.2e10
"""Of one thread."""
EXPECTED_STEPS = 25
"""CG steps to 1e-6 that a well-scaled problem takes; a guess that the fall-back makes harmless."""
CALL_SECONDS = 4e-5
"""A product with nothing to do."""
RELAY_PRODUCTS = 10
"""One-pass products that copying a sparse matrix from rows to columns, or back, costs; each saves another."""
MAX_DIRECT = 20_000
"""A small side up to which a Gram matrix (3.2 GB) is thought of at all."""


@dataclass(frozen=True)
class Option:
    """One solver's estimated cost"""

    solver: str
    seconds: float
    extra_bytes: float
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What will run, in order until one reaches the tolerance, and why

    Attributes
    ----------
    steps : tuple of (solver, max_iter)
        The first is the choice; later ones are what it falls back to. max_iter None: the solver's own.
    reason : str
    options : tuple of Option
        What every solver would cost.
    shape : (n_samples, n_features)
    n_threads : int
    relay : bool
        Whether the data are copied from rows to columns, or back, first.
    """

    steps: tuple[tuple[str, int | None], ...]
    reason: str
    options: tuple[Option, ...]
    shape: tuple[int, int]
    n_threads: int
    relay: bool = False

    @property
    def solver(self) -> str:
        """The first choice"""
        return self.steps[0][0]

    def __str__(self) -> str:
        n, p = self.shape
        lines = [f"{n} samples x {p} features, {self.n_threads} thread(s): {self.solver} - {self.reason}"]
        for solver, max_iter in self.steps[1:]:
            before = f" after {self.steps[0][1]} steps" if self.steps[0][1] else ""
            lines.append(f"falls back to {solver}{before if max_iter is None else ''}")
        lines.append(f"{'solver':10s} {'seconds':>10s} {'extra MB':>10s}")
        for option in self.options:
            lines.append(f"{option.solver:10s} {option.seconds:10.2g} {option.extra_bytes / 1e6:10.1f}  {option.note}")
        return "\n".join(lines)


def plan(problem: Problem, solver: str) -> Plan:
    """Choose how to solve `problem`: the solver asked for, or for "auto" the one estimated to be fastest

    Raises
    ------
    ValueError
        If the solver asked for needs more memory than the machine has.
    """
    options = {option.solver: option for option in _options(problem)}
    if solver != "auto":
        memory = _physical_memory()
        if options[solver].extra_bytes > memory:
            n, p = problem.design.shape
            raise ValueError(
                f'solver="{solver}" needs about {options[solver].extra_bytes / 1e9:.0f} GB for {n} samples x {p} features '
                f'and the machine has {memory / 1e9:.0f}; use solver="cg"'
            )
    steps, reason = (((solver, None),), "asked for") if solver != "auto" else _choose(problem, options)
    relay = steps[0][0] == "cg" and not problem.side.streams and EXPECTED_STEPS > 2 * RELAY_PRODUCTS
    if relay:
        reason += "; the data are copied in the order that its products read in one pass"
    return Plan(steps, reason, tuple(options.values()), problem.design.shape, problem.design.lines.n_threads, relay)


def run(problem: Problem, chosen: Plan, settings: Settings) -> tuple[Answer, str, str]:
    """Run the steps of a plan until one reaches the tolerance; return the best answer, its solver, and the reason"""
    best: tuple[Answer, str] | None = None
    reason = chosen.reason
    held = problem.design.extra_bytes
    if chosen.relay:
        problem = problem.streaming()
    for i, (solver, max_iter) in enumerate(chosen.steps):
        following = chosen.steps[i + 1][0] if i + 1 < len(chosen.steps) else None
        limit = max_iter if settings.max_iter is None else settings.max_iter
        try:
            answer = SOLVERS[solver](problem, replace(settings, max_iter=limit))
        except np.linalg.LinAlgError:
            if following is None and best is None:
                raise
            reason += f"; {solver} met a matrix that is not positive definite"
            continue
        worst = float(answer.error.max())
        if best is None or worst < best[0].error.max():
            best = answer, solver
        if worst <= settings.tol:
            break
        if following is not None:
            reason += f"; {solver} reached {worst:.1e} in {answer.n_iter.max()} steps, so on to {following}"
    assert best is not None
    copied = problem.design.extra_bytes - held
    return replace(best[0], workspace_bytes=best[0].workspace_bytes + copied), best[1], reason


def _options(problem: Problem) -> list[Option]:
    """Estimate every solver: a pass over the data, a Gram matrix and factorisations are what they are made of"""
    (m, c), k = problem.side.shape, problem.target.shape[1]
    lines = problem.design.lines
    threads = min(lines.n_threads, 8)
    n_penalties = len(np.unique(problem.penalty))
    factor = n_penalties * c**3 / 3 / (GEMM_FLOPS * threads)
    swept = 2.0 * min(c, descent.MAX_GRAM) ** 2
    product = _product_seconds(problem)
    return [
        Option("cholesky", _gram_seconds(problem) + factor + 2 * product, 8.0 * c * c * (1 + n_penalties * (n_penalties > 1))),
        Option("svd", (3 * m * c * c + 20 * c**3) / (QR_FLOPS * threads) + 2 * product, 8.0 * 5 * c * c),
        Option("cg", (EXPECTED_STEPS + 4) * product, 8.0 * 7 * c * k, f"if {EXPECTED_STEPS} steps do"),
        Option("cd", 4 * EXPECTED_STEPS * product * threads, 8.0 * (swept + 8 * c), "every sweep on one thread"),
    ]


def _product_seconds(problem: Problem) -> float:
    """One product A'(A v) for all targets"""
    lines, k = problem.design.lines, int(problem.target.shape[1])
    threads = min(lines.n_threads, 8)
    if isinstance(lines, SparseLines):
        passes = 1 if problem.side.streams else 2
        return CALL_SECONDS + passes * float(lines.data.size) * (1 + 0.3 * (k - 1)) / (ENTRIES_PER_SECOND * threads)
    n, p = problem.design.shape
    blas = 4.0 * n * p * k / GEMM_FLOPS if k > 1 else 0.0
    return CALL_SECONDS + (lines.nbytes / BYTES_PER_SECOND + blas) / threads


def _gram_seconds(problem: Problem) -> float:
    """B'B, by dense blocks or, where rows are short, by products of their stored entries"""
    m, c = problem.side.shape
    lines = problem.design.lines
    dense = m * float(c) ** 2 / (GEMM_FLOPS * min(lines.n_threads, 8))
    if not isinstance(lines, SparseLines):
        return dense
    return min(dense, 0.5 * SPARSE_GRAM_SECONDS * float(lines.data.size) ** 2 / m)


def _choose(problem: Problem, options: dict[str, Option]) -> tuple[tuple[tuple[str, int | None], ...], str]:
    c = problem.side.shape[1]
    memory = _physical_memory()
    direct, product = options["cholesky"], _product_seconds(problem)
    if problem.penalty.min() == 0:
        if options["svd"].extra_bytes < memory and c <= MAX_DIRECT:
            return (("svd", None),), "alpha = 0: the orthogonal route gives the least squares solution of minimum norm"
        return (("cg", None),), f"alpha = 0, and a factorisation of size {c} is too large"
    if c > MAX_DIRECT or direct.extra_bytes > 0.5 * memory:
        return (("cg", None),), f"a Gram matrix of size {c} is too large"
    if direct.seconds <= options["cg"].seconds:
        return (("cholesky", None), ("svd", None)), f"a direct solve of size {c} costs less than {EXPECTED_STEPS} CG steps"
    budget = int(direct.seconds / product)
    reason = f"{EXPECTED_STEPS} CG steps cost less than a direct solve, which stands by after {budget}"
    return (("cg", budget), ("cholesky", None), ("svd", None)), reason


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8e9
