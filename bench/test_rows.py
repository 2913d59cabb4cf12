"""Time every contender on every case, with its memory and the accuracy it really reached.

Timings never fail a row. What fails one is an answer of ours that is further from the solution than its own bound says.
"""

import os
import time
import tracemalloc
import warnings
from dataclasses import asdict
from functools import lru_cache

import numpy as np
import pytest

from bench.accuracy import Reference
from bench.cases import Case
from bench.choice import GroupReference
from bench.contender import Stop, loosest_tol

TARGET = 1e-6  # the accuracy at which contenders are compared: fastridge's default tol
TIMED_SECONDS = 2.0  # of rounds for one row ...
FEWEST_ROUNDS, MOST_ROUNDS = 3, 300  # ... within these
SLOW_SECONDS = 10.0  # a fit that takes longer is timed once
SEARCH_SECONDS = 30  # for a peer's tol: the fastest peers take seconds
HOPELESS = 3.0  # times the fastest row of its side so far, and above HOPELESS_SECONDS: one round shows who is faster
HOPELESS_SECONDS = 0.1
LONGEST_SECONDS = 20.0  # of a peer's iterations in one fit; less where it has become hopeless before


@lru_cache(maxsize=1)  # as many as data sets are kept
def _reference(case: Case, scale: float) -> Reference | GroupReference:
    data = case.load(scale=scale)
    return Reference(data) if data.groups is None else GroupReference(data)


def test_row(case, contender, benchmark, known_tols, save_row, fastest, request):
    is_full = request.config.getoption("full")
    scale = 1.0 if is_full else case.quick_scale
    if missing := contender.lacks():
        pytest.skip(missing)
    if case.needs_bytes * scale**2 > _physical_memory():
        pytest.skip(f"{case.name} needs {case.needs_bytes / 1e9:.0f} GB of memory")
    data = case.load(scale=scale)
    if not contender.takes(data):
        pytest.skip(f"{contender.name} is not for {case.name}")
    reference = _reference(case, scale)
    side = case.name, contender.is_ours
    hopeless = max(HOPELESS_SECONDS, HOPELESS * fastest.get(side, np.inf))
    longest = min(LONGEST_SECONDS if is_full else 1.0, 2 * hopeless)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether it converged is measured from outside
        tol = known_tols.get((case.name, contender.name, scale))
        if contender.start_tol is not None and tol is None:

            def error_at(tol: float) -> float:
                return reference.error(contender.read(contender.prepare(data, Stop(tol, longest))(), data))

            search_seconds = SEARCH_SECONDS if is_full else 1
            tol = loosest_tol(contender.start_tol, error_at, TARGET, seconds=search_seconds, hopeless=hopeless)

        work = contender.prepare(data, Stop(tol, longest))
        result, seconds, peak_bytes = _traced(work)
        answer = contender.read(result, data)
        error = reference.error(answer)
        reached = error <= TARGET
        is_compared = is_full and seconds <= min(hopeless, SLOW_SECONDS) and (reached or contender.start_tol is None)
        rounds = int(np.clip(TIMED_SECONDS / seconds, FEWEST_ROUNDS, MOST_ROUNDS)) if is_compared else 1
        benchmark.group = case.name
        benchmark.extra_info |= {
            "case": case.name,
            "task": case.task,
            "family": case.family,
            "axis": case.axis,
            "goal": case.goal and asdict(case.goal),
            "contender": contender.name,
            "scale": scale,
            "shape": list(data.X.shape),
            "n_stored": data.n_stored,
            "x_bytes": data.n_bytes,
            "dtype": str(data.X.dtype),
            "n_targets": data.y[:1].size,
            "alpha": np.min(data.alpha).item(),
            "n_alphas": _n_alphas(data),
            "tol": tol,
            "error": error,
            "reached": reached,
            "claimed_error": answer.claimed_error,
            "claimed_bound": answer.claimed_bound,
            "proof_steps": answer.proof_steps,
            "solver": answer.solver,
            "preconditioner": answer.preconditioner,
            "reason": answer.reason,
            "n_iter": answer.n_iter,
            "n_iter_all_targets": answer.n_iter_all_targets,
            "status": answer.status,
            "peak_extra_bytes": peak_bytes,
            "times": 1.0 if contender.is_ours else data.fits_per_sample,
        }
        benchmark.pedantic(work, rounds=rounds)
    if benchmark.stats:
        save_row(benchmark)
    if reached and benchmark.stats:
        fastest[side] = min(fastest.get(side, np.inf), benchmark.stats["median"])

    if answer.claimed_bound is not None and data.groups is None:
        assert reference.coef_error(answer.coef) <= answer.claimed_bound + reference.floor(answer.coef.dtype)


def _n_alphas(data) -> int:
    return max(np.size(some) for some in (data.alpha, data.alphas, data.choices) if some is not None)


def _traced(work) -> tuple:
    """Run once; return the result, the seconds (tracing included), and the peak of what numpy allocated, the answer included."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        result = work()
        return result, time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _physical_memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8e9
