"""Time `fit` of every contender on every case, with its memory and the accuracy it really reached.

Timings never fail a row. What fails one is an answer of ours that is further from the solution than its own bound says.
"""

import math
import time
import tracemalloc
from functools import lru_cache

import numpy as np
import pytest

from bench.accuracy import GOAL, Reference
from bench.cases import Case
from bench.peers import Answer, loosest_tol

TARGET = 1e-6  # the accuracy at which contenders are compared: fastridge's default tol
TIMED_SECONDS = 3.0  # of rounds for one row ...
FEWEST_ROUNDS, MOST_ROUNDS = 5, 200  # ... within these
SEARCH_SECONDS = 60  # for a peer's tol: the fastest peers take seconds


@lru_cache(maxsize=1)  # as many as data sets are kept
def _reference(case: Case, scale: float) -> Reference:
    return Reference(case.load(scale=scale))


def test_fit(case, contender, benchmark, known_tols, request):
    is_full = request.config.getoption("full")
    scale = 1.0 if is_full else case.quick_scale
    data = case.load(scale=scale)
    if not contender.takes(data):
        pytest.skip(f"{contender.name} is not for {case.name}")
    reference = _reference(case, scale)

    def error(answer: Answer) -> float:
        return math.hypot(reference.error(answer.coef), reference.intercept_error(answer.coef, answer.intercept))

    tol = known_tols.get((case.name, contender.name, scale))
    if contender.is_tuned and tol is None:
        tol = loosest_tol(contender, data, error, TARGET, seconds=SEARCH_SECONDS if is_full else 1)

    start = time.perf_counter()
    answer = contender.fit(data, tol)
    seconds = time.perf_counter() - start
    reached = error(answer) <= TARGET
    if is_full and (reached or not contender.is_tuned):
        rounds = int(np.clip(TIMED_SECONDS / seconds, FEWEST_ROUNDS, MOST_ROUNDS))
    else:
        rounds = 1  # compared with nothing
    benchmark.group = case.name
    benchmark.extra_info |= {
        "case": case.name,
        "contender": contender.name,
        "scale": scale,
        "shape": list(data.X.shape),
        "n_stored": data.n_stored,
        "x_bytes": data.n_bytes,
        "dtype": str(data.X.dtype),
        "n_targets": data.y[:1].size,
        "alpha": data.alpha,
        "tol": tol,
        "error": error(answer),
        "reached": reached,
        "coef_error": reference.error(answer.coef),
        "claimed_error": answer.claimed_error,
        "claimed_bound": answer.claimed_bound,
        "solver": answer.solver,
        "reason": answer.reason,
        "n_iter": answer.n_iter,
        "status": answer.status,
        "peak_extra_bytes": _peak_bytes(lambda: contender.fit(data, tol)),
    }
    benchmark.pedantic(contender.fit, args=(data, tol), rounds=rounds)

    if answer.claimed_bound is not None:
        # Rounding w* itself to the type that was returned, the measurement's own floor, and the bound.
        rounding = 4 * reference.error(reference.coef.astype(answer.coef.dtype)) + GOAL
        assert reference.error(answer.coef) <= answer.claimed_bound + rounding


def _peak_bytes(fit) -> int:
    """Run fit once more; return the peak of what numpy allocated meanwhile, the answer included."""
    tracemalloc.start()
    try:
        fit()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
