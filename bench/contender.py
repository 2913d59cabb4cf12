"""Say what a contender is and what it answers, and search for the tol of those that need one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.cases import Data

TOLS = [10.0**-k for k in range(2, 15)]


@dataclass(frozen=True)
class Stop:
    """Say when a peer's iterations end: at its tol, its default where that is None, or after about so many seconds."""

    tol: float | None = None
    seconds: float = 20.0  # float32 conjugate gradients may never meet a small tol


@dataclass(frozen=True)
class Answer:
    """Hold what a fit returned: coef (p,) or (k, p), its intercept, and what it says of itself.

    Where `alphas` of groups were to be chosen, they are judged with the coefficients.
    A path has a row for each of `Data.measured_alphas`, or for the first of them. A prediction, (n,), stands alone.
    """

    coef: np.ndarray | None
    intercept: float | np.ndarray | None
    solver: str
    n_iter: int | None = None  # the largest over targets ...
    n_iter_all_targets: int | None = None  # ... and their sum
    status: str | None = None
    claimed_error: float | None = None
    claimed_bound: float | None = None
    proof_steps: int | None = None  # those that came after the estimate had passed, for the bound to pass
    reason: str | None = None
    preconditioner: str | None = None
    prediction: np.ndarray | None = None
    alphas: np.ndarray | None = None  # of groups of features, (n_groups,)


@dataclass(frozen=True)
class Contender:
    """Name one way to solve a task.

    `prepare(data, stop)` is not timed and returns what is: a function without arguments, a whole fit as a user would call it.
    `read(result, data)` turns what that returned into an Answer, not timed either.
    """

    name: str
    prepare: Callable[[Data, Stop], Callable[[], Any]]
    read: Callable[[Any, Data], Answer]
    task: str = "fit"
    takes: Callable[[Data], bool] = lambda data: True
    lacks: Callable[[], str | None] = lambda: None  # what is missing from the package to run at all
    start_tol: float | None = None  # where the search for tol begins; None: no search, its own default

    @property
    def is_ours(self) -> bool:
        """Tell whether this is fastridge."""
        return self.name.startswith("fastridge")


def loosest_tol(start: float, error: Callable[[float], float], target: float, *, seconds: float, hopeless: float) -> float:
    """Return the loosest of TOLS at which error(tol) is at most target, or the best one met.

    Walks from `start`, looser while the target is reached and tighter while it is not: with a good start, two or three fits.
    Ends after the seconds given in all, or after one fit that took longer than `hopeless`.
    """
    errors, begin = {}, time.perf_counter()
    place = TOLS.index(start)
    while 0 <= place < len(TOLS) and place not in errors:
        last = time.perf_counter()
        errors[place] = error(TOLS[place])
        place += -1 if errors[place] <= target else 1
        now = time.perf_counter()
        if now - begin > seconds or now - last > hopeless:
            break
    reached = [place for place in errors if errors[place] <= target]
    return TOLS[min(reached) if reached else min(errors, key=errors.get)]


def largest(values):
    """Return the largest of one value or one value per target, as a plain number; None stays None."""
    return None if values is None else np.max(values).item()
