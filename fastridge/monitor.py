"""What a solver asks after every step: whether to go on. Here are the time limit, progress, callbacks, the planner's patience."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastridge.operators.base import Passes

SECONDS_BETWEEN_LINES = 0.25
"""Of the progress that `verbose` prints."""
SAID_SECONDS = 1.0
"""From where on the time to come is worth a word."""


def decay(errors: Sequence[float]) -> float:
    """Return the natural logarithm by which errors fall with every step, since half of the steps; 0 where it is not known"""
    n = len(errors)
    before, now = errors[(n - 1) // 2], errors[-1]
    return math.log(before / now) / (n // 2) if n > 1 and now > 0 and math.isfinite(before) else 0.0


def steps_to_come(errors: Sequence[float], tol: float) -> float:
    """Return how many steps errors that go on to fall as they did since half of them take to `tol`; 0 where it is not known"""
    before, now = errors[(len(errors) - 1) // 2], errors[-1]
    if now <= tol or not math.isfinite(before):
        return 0.0
    rate = decay(errors)
    return math.log(now / tol) / rate if rate else math.inf


@dataclass(frozen=True)
class Progress:
    """How far a solve has got

    Attributes
    ----------
    solver : str
        As in `FitReport`.
    step : int
        Steps since the beginning, whatever solvers took them: CG steps, sweeps, refinements, rounds.
    error, error_bound : float
        As in `FitReport`, of the target that is worst among those that are being solved. The bound leaves out what rounding adds
        between two residuals computed from the data; it may rise from one step to the next. inf where there is none yet.
    seconds : float
        Since the beginning.
    seconds_left : float
        To tol, if errors go on to fall as they did since half of the steps, and steps take what they took; inf where they do not
        fall, nan where it is not known yet.
    n_passes : int
        Over rows that do not lie in memory; 0 for those that do.
    rows_per_second : float
        Of all those passes, with the work on them; nan where there was none.
    """

    solver: str
    step: int
    error: float
    error_bound: float
    seconds: float
    seconds_left: float = math.nan
    n_passes: int = 0
    rows_per_second: float = math.nan

    def __str__(self) -> str:
        error, bound = (f"{e:.2e}" if math.isfinite(e) else "not known yet" for e in (self.error, self.error_bound))
        errors = f"error {error}, bound {bound}"
        passes = f"; {self.n_passes} passes, {self.rows_per_second:,.0f} rows a second" if self.n_passes else ""
        left = f", about {self.seconds_left:.0f} s to come" if SAID_SECONDS <= self.seconds_left < math.inf else ""
        return f"{self.solver}, step {self.step}: {errors}, {self.seconds:.2f} s{passes}{left}"


class Monitor:
    """Of one solve: told after every step, it answers whether to go on

    A solver that is told to stop returns the answer it has, with the bound that belongs to it; whoever called the solver decides
    what to make of that. Once the monitor has said stop it keeps to it: about patience until `turn_to`, about time for good.

    Parameters
    ----------
    time_limit : float or None
        Seconds from now.
    callback : callable or None
        Called with a `Progress` after every step. What it raises passes through the solver.
    verbose : bool
        Whether progress is printed to standard error, a few lines a second.
    tol : float
        The error that is asked for, to which the time to come is reckoned; 0 where it is not known.

    Attributes
    ----------
    timed_out : bool
        Whether the time limit has stopped something.
    gave_up : str
        Why the planner's patience with the solver at work is lost; empty while it is not.
    passes : Passes
        Over rows that do not lie in memory; whoever has the operator sets it.
    """

    clock = staticmethod(time.perf_counter)

    def __init__(
        self,
        time_limit: float | None = None,
        callback: Callable[[Progress], object] | None = None,
        verbose: bool = False,
        tol: float = 0.0,
    ) -> None:
        self.verbose, self.tol = verbose, tol
        self.passes = Passes()
        self.timed_out, self.gave_up = False, ""
        self._callback = callback
        self._begin = self.clock()
        self._deadline = math.inf if time_limit is None else self._begin + time_limit
        self._solver, self._n_steps, self._about = "", 0, ""
        self._patience: Callable[[float], str] | None = None
        self._last_line = -math.inf
        self._unsaid = ""
        self._errors: list[float] = []
        self._turned = self._begin

    @property
    def stopped(self) -> bool:
        """Whether a solver has been told to stop; without a look at the clock"""
        return self.timed_out or bool(self.gave_up)

    def say(self, text: object) -> None:
        """Print where `verbose`"""
        if self.verbose:
            print(text, file=sys.stderr)

    def come_to(self, what: str) -> None:
        """Expect steps towards this of several answers, which lines of progress begin with from now on"""
        self._about = f"{what}: "

    def turn_to(self, solver: str, patience: Callable[[float], str] | None = None) -> None:
        """Expect steps of this solver; `patience` takes the error after each and says why to give up, or nothing"""
        self.end()
        self._solver, self._patience, self.gave_up = solver, patience, ""
        self._errors, self._turned = [], self.clock()

    def go_on(self) -> bool:
        """Whether to go on, between two parts of a step"""
        if not self.timed_out and self._deadline < math.inf:
            self.timed_out = self.clock() >= self._deadline
        return not self.stopped

    def after_step(self, error: float, error_bound: float, n_steps: int = 1) -> bool:
        """Take note of the error after one more step, or `n_steps`; return whether to go on"""
        self._n_steps += n_steps
        if self._callback is not None or self.verbose:
            progress = self._progress(error, error_bound)
            if self.verbose:
                self._show(progress)
            if self._callback is not None:
                self._callback(progress)
        if self._patience is not None and not self.gave_up:
            self.gave_up = self._patience(error)
        return self.go_on()

    def within_step(self, error: float, error_bound: float) -> bool:
        """What an iteration within a step asks in place of `after_step`: its errors are of something else"""
        return self.go_on()

    def end(self) -> None:
        """Print the last step of a solver where that has not been said yet"""
        if self._unsaid:
            self.say(self._unsaid)
            self._unsaid = ""

    def _progress(self, error: float, error_bound: float) -> Progress:
        now, passes = self.clock(), self.passes
        self._errors.append(min(error, self._errors[-1]) if self._errors else error)
        n = len(self._errors)
        left = steps_to_come(self._errors, self.tol) * (now - self._turned) / n if self.tol and n > 1 else math.nan
        rate = passes.n_rows / passes.seconds if passes.seconds else math.nan
        return Progress(self._solver, self._n_steps, error, error_bound, now - self._begin, left, passes.n_passes, rate)

    def _show(self, progress: Progress) -> None:
        line = f"{self._about}{progress}"
        if progress.seconds < self._last_line + SECONDS_BETWEEN_LINES:
            self._unsaid = line
            return
        self._last_line, self._unsaid = progress.seconds, ""
        self.say(line)
