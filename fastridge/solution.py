"""What a solve returns: the coefficients, and a report that says how accurate they are and how that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from fastridge.monitor import Monitor
from fastridge.operators.base import Vector
from fastridge.problem import Problem

EPS = float(np.finfo(np.float64).eps)


class Status(StrEnum):
    """How a solve ended"""

    CONVERGED = "converged"
    """The H-norm error is at most tol: `error_bound`, which is proven, is."""
    ESTIMATED = "estimated"
    """Estimated, not proven: `error` is at most tol, `error_bound` is not."""
    TIME_LIMIT = "time_limit"
    """The time limit came first; `error_bound` says what is known of the answer, zeros where nothing had been solved."""
    MAX_ITER = "max_iter"
    """The iteration limit came first; `error` says how far it got."""
    STALLED = "stalled"
    """Rounding errors keep the answer from tol: a smaller one is not to be had with this solver in float64."""
    UNCERTIFIED = "uncertified"
    """alpha = 0: the answer is the best this solver gives, but no bound on its error exists."""
    FAILED = "failed"
    """alpha = 0, and the answer is certain to be farther from every least squares solution than tol."""


@dataclass(frozen=True)
class FitReport:
    """How a solve went and how accurate its answer is

    Errors are those of the coefficients as they are returned; the intercept is the best one for these, rounded to float64. They
    are relative in the norm of the objective, ``||w - w*||_H / ||w*||_H`` with ``H = A'A + alpha I`` (A: centred, weighted
    X). With several targets, errors are those of the worst one.

    Attributes
    ----------
    solver : str
        "cholesky", "svd", "cg" or "cd": what really ran; "eigh" where "auto" met several penalties that one eigendecomposition
        serves.
    reason : str
        Why that solver.
    status : Status
    n_iter : (n_targets,) int array
        Iterations: CG steps, sweeps of coordinate descent, refinements of a direct solve; with bounds rounds of a few sweeps and
        a Newton step, and Newton steps on the dual.
    error : float
        Estimate of the error. Nothing that is claimed rests on it.
    error_bound : float
        Proven upper bound, rounding errors of the check included; inf where there is none (alpha = 0).
    rcond : float
        Reciprocal condition number of H on the small side, for "cholesky" scaled to a diagonal of ones (1-norm estimate); nan for
        iterative solvers.
    seconds : float
        Wall-clock time of the solve, validation excluded.
    extra_bytes : int
        Memory the solve held beside the data and the answer: copies, Gram matrices, factors, vectors.
    history : tuple of float
        Error estimate after every iteration, of the target that was worst then; empty for direct solvers.
    """

    solver: str
    reason: str
    status: Status
    n_iter: np.ndarray
    error: float
    error_bound: float
    rcond: float
    seconds: float
    extra_bytes: int
    history: tuple[float, ...] = field(default=(), repr=False)

    @property
    def converged(self) -> bool:
        """Whether the answer is as accurate as was asked"""
        return self.status is Status.CONVERGED

    def __str__(self) -> str:
        known = f"the error of the coefficients is about {self.error:.1e}, and proven to be at most {self.error_bound:.1e}"
        outcome = {
            Status.CONVERGED: f"the error of the coefficients is proven to be at most {self.error_bound:.1e}",
            Status.UNCERTIFIED: "alpha is 0, so that no bound of the error is known",
            Status.FAILED: "alpha is 0, and the answer is certain to miss every least squares solution",
        }.get(self.status, known)
        n, extra = int(self.n_iter.max(initial=0)), f"{self.extra_bytes / 1e6:.3g} MB beside the data"
        step = "step" if self.solver in ("cg", "cd") else "refinement"
        return (
            f"{self.status}: {outcome} (relative, in the norm of the objective).\n"
            f"solver {self.solver}, {n} {step}{'s' * (n != 1)}, {self.seconds:.2g} s, {extra}.\n"
            f"why this solver: {self.reason}."
        )

    def __repr__(self) -> str:
        return f"<FitReport {self}>"


def report_of(
    solver: str,
    reason: str,
    tol: float,
    *,
    provable: bool,
    stalled: bool,
    error: Vector,
    error_bound: Vector,
    timed_out: bool = False,
    **facts: Any,
) -> FitReport:
    """The report on an answer whose targets have these errors, (k,): its status follows from them and from `tol`

    `provable`: whether a bound is to be had where there is none; `stalled`: whether rounding ended the solve, `timed_out`: the
    time limit. `facts` are the other attributes.
    """
    bound = float(error_bound.max())
    least = min(bound, max(float(error.max()), EPS))  # zero only where that is proven
    if bound <= tol:
        status = Status.CONVERGED
    elif timed_out:
        status = Status.TIME_LIMIT
    elif not (provable or bound < np.inf):
        status = Status.UNCERTIFIED
    elif least <= tol:
        status = Status.ESTIMATED
    else:
        status = Status.STALLED if stalled else Status.MAX_ITER
    return FitReport(solver=solver, reason=reason, status=status, error=least, error_bound=bound, **facts)


@dataclass(frozen=True)
class Solution:
    """The minimiser and the report on it

    Attributes
    ----------
    coef : (n_features,) or (n_targets, n_features) float64
    intercept : float or (n_targets,) float64
    report : FitReport
    """

    coef: Vector
    intercept: float | Vector
    report: FitReport
    _small_side: Vector | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<Solution with coef of shape {self.coef.shape}, {self.report}>"


@dataclass(frozen=True)
class Answer:
    """What a solver hands back to the planner: coefficients (p, k) and, per target, what it knows about them

    `error_bound` is proven, `error` an estimate; both are relative to ||w*||_H, of whose square `sq_size` is a lower bound.
    `stalled` says that more iterations would not have helped.
    """

    w: Vector
    n_iter: np.ndarray
    error: Vector
    error_bound: Vector
    sq_size: Vector
    stalled: bool = False
    rcond: float = float("nan")
    workspace_bytes: int = 0
    history: tuple[float, ...] = ()
    x: Vector | None = None
    """The answer on the small side, (c, k), of iterative solvers: where a warm start may begin."""
    note: str = ""
    """What the solver changed on its way, and why."""

    @classmethod
    def zero(cls, problem: Problem) -> Answer:
        """Zeros, where there was no time to solve: w* itself is missing, an error of one"""
        (p, c), k = (problem.design.shape[1], problem.side.shape[1]), len(problem.penalty)
        sq_size = np.zeros(k) if problem.sq_fitted is None else problem.sq_fitted
        w = np.zeros((p, k))
        return cls(w, np.zeros(k, dtype=np.int64), np.ones(k), np.ones(k), sq_size, x=np.zeros((c, k)) if problem.wide else w)

    @classmethod
    def in_parts(cls, problem: Problem, monitor: Monitor, solve: Callable[[np.ndarray, Problem], Answer]) -> Answer:
        """The answer of `solve(targets, their problem)` for as many targets together as memory is set aside for

        Targets whose turn comes after the monitor has said stop get zeros.
        """

        def parts() -> Iterator[Answer]:
            for targets, part in problem.chunks():
                yield cls.zero(part) if monitor.stopped else solve(targets, part)

        return cls.joined(parts(), (problem.design.shape[1], len(problem.penalty)))

    @classmethod
    def joined(cls, parts: Iterable[Answer], shape: tuple[int, int]) -> Answer:
        """One answer, `w` of the given shape, for targets solved in parts, which come in their order; a single part as it is"""
        (p, k), lo = shape, 0
        w = np.empty((p, 0))
        xs: list[Vector | None] = []
        kept: list[Answer] = []
        for part in parts:
            hi = lo + part.w.shape[1]
            if hi - lo == k:
                return part
            w = w if kept else np.empty(shape)
            w[:, lo:hi], lo = part.w, hi
            xs.append(None if part.x is part.w else part.x)
            kept.append(replace(part, w=w[:, lo:hi], x=None))
        small = [x for x in xs if x is not None]
        return cls(
            w,
            np.concatenate([part.n_iter for part in kept]),
            np.concatenate([part.error for part in kept]),
            np.concatenate([part.error_bound for part in kept]),
            np.concatenate([part.sq_size for part in kept]),
            stalled=any(part.stalled for part in kept),
            rcond=min(part.rcond for part in kept),
            workspace_bytes=max(part.workspace_bytes for part in kept),
            history=max((part.history for part in kept), key=len),
            x=np.concatenate(small, axis=1) if small else w,
            note=next((part.note for part in kept if part.note), ""),
        )


@dataclass(frozen=True)
class Settings:
    """What every solver is told: the tolerance on the H-norm error, how long it may try, and whom to ask whether to go on"""

    tol: float
    max_iter: int | None
    fold: int = 0
    """CG on dense data has a float32 factor of the Gram matrix of rows added `fold` to one as preconditioner; 0: the diagonal."""
    monitor: Monitor = field(default_factory=Monitor)
    """Told after every step; says whether to go on."""
    start: Vector | None = None
    """Where iterative solvers begin on the small side, (c, k), or with bounds coefficients, (p, k); direct ones ignore it."""
    likely: bool = False
    """Whether the start may well be the answer: CG looks whether it is before it prepares anything."""
