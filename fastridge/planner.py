"""Which solver `solver="auto"` runs, and why: the only place that knows costs.

The costs are crude (a few rates, measured on two cores of an AVX2 machine with `python -m bench machine`) and only their order
matters: where conjugate gradients may or may not be faster, they are given as many steps as the direct solve would cost and
then give way to it, so that a wrong guess costs at most twice the best.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastridge.monitor import steps_to_come
from fastridge.operators.base import Vector
from fastridge.operators.sparse import SPARSE_GRAM_SECONDS
from fastridge.preconditioners import RANK
from fastridge.problem import Problem
from fastridge.solution import Answer, Settings
from fastridge.solvers import bounded, cg, cholesky, descent, eigen, spectral

SOLVERS: dict[str, Callable[[Problem, Settings], Answer]] = {
    "cholesky": cholesky.solve,
    "svd": spectral.solve,
    "cg": cg.solve,
    "cd": descent.solve,
    "eigh": eigen.solve,
}

BOUNDED = "cd"
"""What solves a problem with bounds goes by this name."""
BYTES_PER_SECOND = 1.3e10
"""Read by one thread in a fused dense pass."""
ENTRIES_PER_SECOND = 7e8
"""Stored entries that one thread visits in a fused sparse pass."""
GEMM_FLOPS = 3.5e10
"""Of one thread, blocks filled and multiplied."""
SKINNY_FLOPS, MANY_TARGETS = 1.2e10, 32
"""Of one thread, in products of blocks with the vectors of fewer targets than that."""
QR_FLOPS = 1.2e10
"""Of one thread."""
EIGH_FLOPS = 1.5e10
"""Of one thread, of the 10 c^3 of an eigendecomposition."""
EXPECTED_STEPS = 25
"""CG steps to 1e-6 that a well-scaled problem takes; a guess that the fall-back makes harmless."""
WORTH_ROUNDING = 0.03
"""Seconds that a Gram matrix costs, from which on one in float32 is thought of: it may turn out to be of no use."""
GRAM_STEPS = 1
"""Refinements to 1e-6 with a float32 factor of the whole Gram matrix."""
FOLDS, MIN_FOLDED = (2, 4, 8, 16, 32, 64), 5
"""Rows that may be added to one before such a Gram matrix is formed, as long as so many sums are left for every column."""
FOLDED_ERROR = 1e-6
"""With m sums of c columns a step of CG gains a factor sqrt(m / c): so many do for this error."""
FOLD_PASSES, CHECKS = 1.5, 1
"""What adding rows costs, and the products with which every solve ends."""
LOOK_EVERY, FAIR_SHARE, PATIENCE = 10, 0.125, 2.0
"""Every so many steps, from that share of those it may take on, the rate of CG is looked at; it is given up where that predicts
so many times the steps it may take."""
SURE_STEPS = 60
"""After which such a factor has turned out to be a bad one."""
CALL_SECONDS = 4e-5
"""A product with nothing to do."""
MAX_DIRECT = 20_000
"""A small side up to which a Gram matrix (3.2 GB) is thought of at all."""


@dataclass(frozen=True)
class Step:
    """A solver to run, and how long before the next one is tried

    Attributes
    ----------
    solver : str
    fold : int
        Of CG's preconditioner; see `Settings`.
    max_iter : int or None
        None: the solver's own limit.
    """

    solver: str
    fold: int = 0
    max_iter: int | None = None

    def __str__(self) -> str:
        name = self.solver
        if self.fold:
            name += " (float32 factor" + (f", rows {self.fold} to 1)" if self.fold > 1 else ")")
        return name if self.max_iter is None else f"{name}, at most {self.max_iter} steps"


@dataclass(frozen=True)
class Option:
    """One way to solve the problem, and what it is estimated to cost"""

    step: Step
    seconds: float
    extra_bytes: float
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What will run, in order until one reaches the tolerance, and why

    Attributes
    ----------
    steps : tuple of Step
        The first is the choice; later ones are what it falls back to.
    reason : str
    options : tuple of Option
        What every way would cost.
    shape : (n_samples, n_features)
    n_threads : int
    relay : bool
        Whether the data are copied from rows to columns, or back, first.
    """

    steps: tuple[Step, ...]
    reason: str
    options: tuple[Option, ...]
    shape: tuple[int, int]
    n_threads: int
    relay: bool = False

    @property
    def solver(self) -> str:
        """The first choice"""
        return self.steps[0].solver

    def __str__(self) -> str:
        n, p = self.shape
        lines = [f"{n} samples x {p} features, {self.n_threads} thread(s): {self.steps[0]}", f"because {self.reason}"]
        lines += [f"falls back to {step}" for step in self.steps[1:]]
        lines.append(f"{'estimates':40s} {'seconds':>9s} {'extra MB':>9s}")
        for option in self.options:
            lines.append(f"{option.step!s:40s} {option.seconds:9.2g} {option.extra_bytes / 1e6:9.1f}  {option.note}".rstrip())
        return "\n".join(lines)


def plan(problem: Problem, solver: str) -> Plan:
    """Choose how to solve `problem`: the solver asked for, or for "auto" the one estimated to be fastest

    Raises
    ------
    ValueError
        If the solver asked for needs more memory than the machine has.
    """
    options = _options(problem)
    steps: tuple[Step, ...]
    if problem.bounds is not None:
        steps, gram = (Step(BOUNDED),), bounded.by_gram(problem)
        n, p = problem.design.shape
        option = next(option for option in options if option.step == steps[0])
        held = 16.0 * p**2 if gram else option.extra_bytes
        options = [replace(option, extra_bytes=held, note="sweeps and Newton steps, as many as bounds take to settle")]
        first = "" if gram or n >= p else "Newton steps on the dual problem, "
        way = "Cholesky factors of A'A" if gram else "factors or conjugate gradients"
        reason = f"coefficients are bounded: {first}coordinate descent, then {way} on those between their bounds"
    elif solver == "auto":
        steps, reason = _choose(problem, options)
    else:
        steps, reason = (Step(solver),), "asked for"
        if solver == "cholesky" and problem.penalty.min() == 0:
            steps += (Step("svd"),)  # as scikit-learn does: least squares of minimum norm where the columns depend on one another
        needed = next(option.extra_bytes for option in options if option.step.solver == solver)
        memory = _physical_memory()
        if needed > memory:
            n, p = problem.design.shape
            raise ValueError(
                f'solver="{solver}" needs about {needed / 1e9:.0f} GB for {n} samples x {p} features '
                f'and the machine has {memory / 1e9:.0f}; use solver="cg"'
            )
    relay = steps[0].solver == "cg" and problem.side.traits.passes > 1 and len(problem.penalty) > 1
    if relay:
        reason += "; the data are copied in the order that its products read in one pass"
    return Plan(steps, reason, tuple(options), problem.design.shape, problem.design.traits.n_threads, relay)


def run(problem: Problem, chosen: Plan, settings: Settings) -> tuple[Answer, str, str]:
    """Run the steps of a plan until one reaches the tolerance; return the best answer, its solver, and the reason

    Where conjugate gradients give way to others of their kind, those begin where they ended. None is begun after the time limit.
    """
    monitor = settings.monitor
    best: tuple[tuple[float, float], Answer, str] | None = None
    reason = chosen.reason
    held = problem.extra_bytes
    if chosen.relay and monitor.go_on():
        problem = problem.with_one_pass()
    for step, following in zip(chosen.steps, (*chosen.steps[1:], None), strict=True):
        limit = step.max_iter if settings.max_iter is None else settings.max_iter
        own_limit = step.max_iter if settings.max_iter is None and following is not None else None
        monitor.turn_to(step.solver, None if own_limit is None else _Patience(own_limit, settings.tol))
        if not monitor.go_on():
            break
        told = replace(settings, max_iter=limit, fold=step.fold)
        try:
            answer = bounded.solve(problem, told) if problem.bounds else SOLVERS[step.solver](problem, told)
        except np.linalg.LinAlgError:
            if following is None and best is None:
                raise
            reason += f"; for {step} the matrix was not positive definite"
            continue
        rank = _rank(answer, problem.penalty)
        unfinished = monitor.timed_out and not answer.w.any()
        if answer.note:
            reason += f"; {answer.note}"
        if best is None or not (rank >= best[0] or unfinished):
            best = rank, answer, step.solver
        if rank[0] <= settings.tol or monitor.timed_out:
            break
        if following is not None and following.solver == "cg" and answer.x is not None:
            settings = replace(settings, start=answer.x)
        if monitor.gave_up:
            reason += f"; {step} {monitor.gave_up}, so on to {following}"
        elif following is not None:
            reason += (
                f"; {step} reached {rank[1]:.1e}, proven {rank[0]:.1e}, in {answer.n_iter.max()} steps, so on to {following}"
            )
    monitor.end()
    if monitor.timed_out:
        reason += "; the time limit came first"
    if best is None:
        answer, ran = bounded.unsolved(problem, monitor) if problem.bounds else Answer.zero(problem), chosen.solver
    else:
        _, answer, ran = best
    return replace(answer, workspace_bytes=answer.workspace_bytes + problem.extra_bytes - held), ran, reason


def _rank(answer: Answer, penalty: Vector) -> tuple[float, float]:
    """The bound and the estimate of the worst target; the estimate alone where alpha = 0 leaves no bound"""
    provable = penalty > 0
    return float(np.where(provable, answer.error_bound, answer.error).max()), float(answer.error.max())


class _Patience:
    """Given the error after every step, says why to give up: the rate since half of them tells that far too many are to come"""

    def __init__(self, limit: int, tol: float) -> None:
        self.limit, self.tol = limit, tol
        self.errors: list[float] = []

    def __call__(self, error: float) -> str:
        # The least so far: of residuals, some steps are larger than those before.
        self.errors.append(min(error, self.errors[-1]) if self.errors else error)
        n = len(self.errors)
        if n % LOOK_EVERY or n < max(2 * LOOK_EVERY, FAIR_SHARE * self.limit):
            return ""
        expected = n + steps_to_come(self.errors, self.tol)
        return (
            f"reached {self.errors[-1]:.1e} in {n} steps and would take {expected:.0f}"
            if expected > PATIENCE * self.limit
            else ""
        )


def path_seconds(problem: Problem, n_penalties: int, n_products: int) -> tuple[float, float]:
    """Estimate what many penalties cost by an eigendecomposition of the small side, and by `n_products` on shared spaces

    The first is infinite where it takes too much memory.
    """
    c, k = problem.rhs.shape
    product = _product_seconds(problem)
    if c > MAX_DIRECT or 4 * 8.0 * c * c > 0.5 * _physical_memory():
        return np.inf, n_products * product
    rate = EIGH_FLOPS * min(problem.design.traits.n_threads, 8)
    rest = 4.0 * c * c * k * n_penalties / GEMM_FLOPS
    return _gram_seconds(problem) + 10 * c**3 / rate + rest, n_products * product


def _options(problem: Problem) -> list[Option]:
    """Estimate every way: passes over the data, a Gram matrix and factorisations are what they are made of"""
    (m, c), k = problem.side.shape, len(problem.penalty)
    flops = GEMM_FLOPS * min(problem.design.traits.n_threads, 8)
    n_penalties = len(set(problem.penalty.tolist()))
    factor, square = c**3 / 3 / flops, 8.0 * c * c
    gram, product, vectors = _gram_seconds(problem), _product_seconds(problem), 8.0 * 7 * c * k
    copy = 0 if problem.side.traits.passes == 1 else problem.design.traits.n_bytes
    note = f"if {EXPECTED_STEPS} steps do; where it sees far more to come it takes {RANK} directions out"
    options = [
        Option(
            Step("cholesky"),
            gram + n_penalties * (factor + CALL_SECONDS) + CHECKS * product,
            square * (1 + n_penalties * (n_penalties > 1)),
        ),
        Option(Step("cg"), (EXPECTED_STEPS + 4) * product, vectors + copy, note),
        Option(Step("svd"), (3 * m * c * c + 20 * c**3) / flops * GEMM_FLOPS / QR_FLOPS + 2 * product, 5 * square),
        Option(Step("cd"), 4 * EXPECTED_STEPS * problem.design.traits.n_threads * product, 2 * square * descent.by_gram(problem)),
    ]
    if n_penalties > 1:
        decomposition = 10 * c**3 / flops * GEMM_FLOPS / EIGH_FLOPS
        options.insert(1, Option(Step("eigh"), gram + decomposition + 2 * product, 4 * square))
    if n_penalties == 1 and problem.side.traits.rough_gram and gram >= WORTH_ROUNDING:
        # In float32 a Gram matrix and its factor cost half; to solve with it is to read it twice.
        one_step = product + square / BYTES_PER_SECOND

        def factored(fold: int, n_steps: int, reading: float) -> Option:
            seconds = (gram / fold + factor) / 2 + reading + (n_steps + CHECKS) * one_step
            return Option(Step("cg", fold), seconds, square / 2 + vectors)

        folded = [
            factored(fold, 1 + math.ceil(math.log(FOLDED_ERROR) / math.log(math.sqrt(fold * c / m))), FOLD_PASSES * product)
            for fold in FOLDS
            if m >= MIN_FOLDED * fold * c
        ]
        options.insert(1, factored(1, GRAM_STEPS, 0.0))
        options[2:2] = sorted(folded, key=_seconds)[:1]
    return options


def _product_seconds(problem: Problem) -> float:
    """One product A'(A v) for all targets"""
    traits, k = problem.side.traits, len(problem.penalty)
    threads = min(traits.n_threads, 8)
    if traits.sparse:
        return CALL_SECONDS + float(traits.n_entries) * (1 + 0.3 * (k - 1)) / (ENTRIES_PER_SECOND * threads)
    n, p = problem.design.shape
    blas = 4.0 * n * p * k / (GEMM_FLOPS if k >= MANY_TARGETS else SKINNY_FLOPS) if k > 1 else 0.0
    return CALL_SECONDS + (traits.n_bytes / BYTES_PER_SECOND + blas) / threads


def _gram_seconds(problem: Problem) -> float:
    """B'B, by dense blocks or, where rows are short, by products of their stored entries"""
    m, c = problem.side.shape
    traits = problem.side.traits
    dense = m * float(c) ** 2 / (GEMM_FLOPS * min(traits.n_threads, 8))
    if not traits.sparse:
        return dense
    return min(dense, 0.5 * SPARSE_GRAM_SECONDS * float(traits.n_entries) ** 2 / m)


def _choose(problem: Problem, options: list[Option]) -> tuple[tuple[Step, ...], str]:
    c = problem.side.shape[1]
    memory = _physical_memory()
    cost = {option.step: option for option in options}
    if problem.penalty.min() == 0:
        if cost[Step("svd")].extra_bytes < memory and c <= MAX_DIRECT:
            return (Step("svd"),), "alpha = 0: the orthogonal route gives the least squares solution of minimum norm"
        return (Step("cg"),), f"alpha = 0, and a factorisation of size {c} is too large"
    least = cost.get(Step("eigh"), cost[Step("cholesky")])
    if c > MAX_DIRECT or min(least.extra_bytes, cost[Step("cholesky")].extra_bytes) > 0.5 * memory:
        return (Step("cg"),), f"a Gram matrix of size {c} is too large"
    fallback = (Step("cholesky"), Step("svd"))
    unsure = (Step("cg"), Step("svd"), Step("cd"))
    sure = min((o for o in options if o.step not in unsure and o.extra_bytes <= 0.5 * memory), key=_seconds)
    if sure.step.solver == "eigh":
        fallback = (Step("eigh"), Step("svd"))
    if sure.seconds <= cost[Step("cg")].seconds:
        if sure.step in fallback:
            if sure.step.solver == "eigh":
                return fallback, f"one eigendecomposition of size {c} serves all penalties"
            return fallback, f"a direct solve of size {c} costs least"
        limit = replace(sure.step, max_iter=SURE_STEPS)
        return (limit, *fallback), f"an approximate factor of size {c} makes a few steps do, for less than a direct solve"
    budget = int(sure.seconds / _product_seconds(problem))
    reason = f"{EXPECTED_STEPS} CG steps cost less than a factorisation of size {c}, which stands by after {budget}"
    after = fallback if sure.step in fallback else (replace(sure.step, max_iter=SURE_STEPS), *fallback)
    return (Step("cg", max_iter=budget), *after), reason


def _seconds(option: Option) -> float:
    return option.seconds


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8e9
