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

from fastridge.lines import SparseLines
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
    """

    steps: tuple[tuple[str, int | None], ...]
    reason: str
    options: tuple[Option, ...]
    shape: tuple[int, int]
    n_threads: int

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
    options = _options(problem)
    n_threads = problem.design.lines.n_threads
    if solver != "auto":
        asked = next(option for option in options if option.solver == solver)
        memory = _physical_memory()
        if asked.extra_bytes > memory:
            raise ValueError(
                f'solver="{solver}" needs about {asked.extra_bytes / 1e9:.0f} GB for {problem.design.shape[0]} samples x '
                f'{problem.design.shape[1]} features and the machine has {memory / 1e9:.0f}; use solver="cg"'
            )
        return Plan(((solver, None),), "asked for", options, problem.design.shape, n_threads)
    steps, reason = _choose(problem, {option.solver: option for option in options})
    return Plan(steps, reason, options, problem.design.shape, n_threads)


def run(problem: Problem, chosen: Plan, settings: Settings) -> tuple[Answer, str, str]:
    """Run the steps of a plan until one reaches the tolerance; return the best answer, its solver, and the reason"""
    best: tuple[Answer, str] | None = None
    reason = chosen.reason
    for i, (solver, max_iter) in enumerate(chosen.steps):
        last = i == len(chosen.steps) - 1
        limit = max_iter if settings.max_iter is None else settings.max_iter
        try:
            answer = SOLVERS[solver](problem, replace(settings, max_iter=limit))
        except np.linalg.LinAlgError:
            if last and best is None:
                raise
            reason += f"; {solver} met a matrix that is not positive definite"
            continue
        worst = float(answer.error.max(initial=0.0))
        if best is None or worst < best[0].error.max(initial=0.0):
            best = answer, solver
        if worst <= settings.tol:
            break
        if not last:
            reason += f"; {solver} reached {worst:.1e} in {int(answer.n_iter.max(initial=0))} steps, so on to {chosen.steps[i + 1][0]}"
    assert best is not None
    return *best, reason


def _options(problem: Problem) -> tuple[Option, ...]:
    m, c = problem.side.shape
    k = problem.target.shape[1]
    threads = min(problem.design.lines.n_threads, 8)
    product = _product_seconds(problem)
    n_penalties = len(np.unique(problem.penalty))
    lines = problem.design.lines
    gram = m * c * c / (GEMM_FLOPS * threads)
    if isinstance(lines, SparseLines):
        per_row = lines.data.size / max(1, m)
        gram = min(gram, lines.data.size * per_row * 0.75e-9)
    factor = c**3 / 3 / (GEMM_FLOPS * threads)
    check = 4 * product
    return (
        Option("cholesky", gram + n_penalties * factor + check, 8.0 * c * c * (1 + (n_penalties > 1) * n_penalties) + (1 << 23)),
        Option("svd", (3 * m * c * c + 20 * c**3) / (QR_FLOPS * threads) + check, 8.0 * 5 * c * c),
        Option("cg", (EXPECTED_STEPS + 4) * product, 8.0 * 7 * c * k, f"if {EXPECTED_STEPS} steps do"),
        Option("cd", 30 * product * threads, 8.0 * (2 * min(c, descent.MAX_GRAM) ** 2 + 4 * c * k), "slow unless columns are nearly orthogonal"),
    )


def _product_seconds(problem: Problem) -> float:
    lines = problem.design.lines
    threads = min(lines.n_threads, 8)
    k = problem.target.shape[1]
    passes = 1 if problem.side.streams else 2
    if isinstance(lines, SparseLines):
        return passes * lines.data.size * (1 + 0.3 * (k - 1)) / (ENTRIES_PER_SECOND * threads) + 5e-5
    return passes * (lines.nbytes / BYTES_PER_SECOND + (k > 1) * 4 * problem.design.shape[0] * problem.design.shape[1] * k / GEMM_FLOPS) / threads + 3e-5


def _choose(problem: Problem, options: dict[str, Option]) -> tuple[tuple[tuple[str, int | None], ...], str]:
    c = problem.side.shape[1]
    memory = _physical_memory()
    direct = options["cholesky"]
    if problem.penalty.min() == 0:
        if options["svd"].extra_bytes < memory and c <= MAX_DIRECT:
            return (("svd", None),), "alpha = 0: the orthogonal route gives the least squares solution of minimum norm"
        return (("cg", None),), f"alpha = 0, and a factorisation of size {c} is too large"
    if c > MAX_DIRECT or direct.extra_bytes > 0.5 * memory:
        return (("cg", None),), f"a Gram matrix of size {c} is too large"
    if direct.seconds <= options["cg"].seconds:
        return (("cholesky", None), ("svd", None)), f"the small side has only {c} columns: a direct solve costs less than {EXPECTED_STEPS} CG steps"
    budget = int(max(EXPECTED_STEPS, direct.seconds / _product_seconds(problem)))
    steps: tuple[tuple[str, int | None], ...] = (("cg", budget), ("cholesky", None), ("svd", None))
    return steps, f"{EXPECTED_STEPS} CG steps cost less than a direct solve, which stands by after {budget}"


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return 8e9
