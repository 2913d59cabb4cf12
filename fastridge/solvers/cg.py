"""Conjugate gradients with Jacobi scaling on the small side, restarted from the true residual until the error is certain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastridge.krylov import conjugate_gradient, relative_bound
from fastridge.preconditioners import SKETCH_ROWS, Factor, Jacobi, Preconditioner
from fastridge.problem import Check, Problem, relative
from fastridge.solution import Answer, Settings

MAKE: dict[str, Callable[[Problem], Preconditioner]] = {
    "jacobi": Jacobi.of,
    "gram": Factor.of_gram,
    "sketch": lambda problem: Factor.of_sketch(problem, np.random.default_rng(SEED)),
}
PRECONDITIONER_BYTES = {"jacobi": 0, "gram": 4, "sketch": 4 * (SKETCH_ROWS + 1)}
"""Beside vectors, per entry of a matrix (c, c)."""
SEED = 0
"""Of the signs and buckets of a sketch: the same data give the same bits."""
MAX_RESTARTS = 5
"""Each gains all the digits that the residual has; a problem that needs more is beyond float64 in this form."""
ROOM = 0.95
"""Share of the tolerance that CG aims at; the rest is for rounding between the recursive residual and the true one."""
SHORT_RUN = 8
"""Steps after a true residual during which the recursive one is as good."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective by conjugate gradients on M x = b

    Guaranteed: `error_bound` (the duality gap of a wide problem, else Gauss-Radau or the gradient, whichever is smaller). Where
    alpha is small the bound is loose and the stop is by the estimate.

    The recursive residual of CG loses touch with the true one (kappa^2 in the normal equations), so the true one is computed
    at return. Unless the bound has passed, CG starts again from it (residual replacement): the first steps measure the error that
    was left, a direction that the first run had not met included.

    References
    ----------
    Hestenes & Stiefel (1952), DOI 10.6028/jres.049.044; van der Vorst & Ye (2000), DOI 10.1137/S1064827599353865.
    """
    c, k = problem.rhs.shape
    max_iter = max(1000, 10 * c) if settings.max_iter is None else settings.max_iter
    preconditioner = MAKE[settings.preconditioner](problem)
    x, residual, sq_size = np.zeros((c, k)), problem.rhs.copy(), None
    n_iter, stalled = np.zeros(k, dtype=np.int64), False
    history: tuple[float, ...] = ()
    check: Check | None = None
    for restart in range(MAX_RESTARTS + 1):
        run = conjugate_gradient(
            problem, x, residual, preconditioner, sq_size, ROOM * settings.tol, max_iter - int(n_iter.max()), settings.on_step
        )
        x, n_iter, history = run.x, n_iter + run.n_iter, history + run.history
        # The recursive residual of a short run from a true one is as good as true.
        if check is None or run.n_iter.max() > SHORT_RUN:
            check = problem.check(x)
            drift = check.residual - run.residual
        else:
            drift = np.zeros_like(run.residual)
        sq_drift = problem.sq_bound(drift)
        sq_bound = np.minimum((np.sqrt(run.sq_bound) + np.sqrt(sq_drift)) ** 2, problem.sq_bound(run.residual + drift))
        if restart:
            # A restart sums up the error it began with: measured, where the bound of the drift is loose.
            sq_drift = np.minimum(sq_drift, run.sq_first_error + run.sq_error)
        sq_error = np.minimum(run.sq_error + sq_drift, sq_bound)
        limit = settings.tol**2 * check.sq_size
        # Not proven, and never begun again from the true residual: a component that CG has not met yet shows up there.
        settled = (sq_bound <= limit) | ((restart > 0) & (sq_error <= limit))
        if settled.all() or n_iter.max() >= max_iter:
            break
        residual, sq_size = run.residual + drift, check.sq_size
    else:
        stalled = True
    assert check is not None
    return Answer(
        problem.coefficients(x),
        n_iter,
        relative(sq_error, check.sq_size),
        relative_bound(sq_bound, check),
        stalled=stalled,
        workspace_bytes=8 * c * k * 7 + PRECONDITIONER_BYTES[settings.preconditioner] * c * c,
        history=history,
    )
