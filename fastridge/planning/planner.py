"""Which solver `solver="auto"` runs, and why; and how its plan is carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from fastridge.monitor import steps_to_come
from fastridge.operators.base import Vector
from fastridge.planning.costs import EXPECTED_STEPS, MAX_DIRECT, Option, Step, options_of, physical_memory, product_seconds
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
LOOK_EVERY, FAIR_SHARE, PATIENCE = 10, 0.125, 2.0
"""Steps between two looks at the rate of CG, the share of its limit before the first look, and the multiple of its limit that,
once predicted, ends it."""
SURE_STEPS = 60
"""After which such a factor has turned out to be a bad one."""


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
        threads = "1 thread" if self.n_threads == 1 else f"{self.n_threads} threads"
        lines = [f"{n} samples x {p} features, {threads}: {self.steps[0]}", f"why: {self.reason}"]
        if len(self.steps) > 1:
            lines.append(f"where that does not do: {', then '.join(map(str, self.steps[1:]))}")
        lines.append(f"{'estimates':44s} {'seconds':>9s} {'extra MB':>9s}")
        for option in self.options:
            lines.append(f"{option.step!s:44s} {option.seconds:9.2g} {option.extra_bytes / 1e6:9.1f}  {option.note}".rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Plan\n{self}>"


def plan(problem: Problem, solver: str) -> Plan:
    """Choose how to solve `problem`: the solver asked for, or for "auto" the one estimated to be fastest

    Raises
    ------
    ValueError
        If the solver asked for needs more memory than the machine has.
    """
    options = options_of(problem)
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
        memory = physical_memory()
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


def _choose(problem: Problem, options: list[Option]) -> tuple[tuple[Step, ...], str]:
    c = problem.side.shape[1]
    memory = physical_memory()
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
    sure = min((o for o in options if o.step not in unsure and o.extra_bytes <= 0.5 * memory), key=attrgetter("seconds"))
    if sure.step.solver == "eigh":
        fallback = (Step("eigh"), Step("svd"))
    if sure.seconds <= cost[Step("cg")].seconds:
        if sure.step in fallback:
            if sure.step.solver == "eigh":
                return fallback, f"one eigendecomposition of size {c} serves all penalties"
            return fallback, f"a direct solve of size {c} costs least"
        limit = replace(sure.step, max_iter=SURE_STEPS)
        return (limit, *fallback), f"an approximate factor of size {c} makes a few steps do, for less than a direct solve"
    budget = int(sure.seconds / product_seconds(problem))
    reason = f"{EXPECTED_STEPS} CG steps are expected, and a factorisation of size {c} costs as much as {budget}"
    after = fallback if sure.step in fallback else (replace(sure.step, max_iter=SURE_STEPS), *fallback)
    return (Step("cg", max_iter=budget), *after), reason
