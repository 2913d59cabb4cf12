"""Rounds of sweeps and Newton steps, until the answer is proven or rounding is in the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastridge.operators.base import Vector
from fastridge.solvers.bounded.certificate import prove
from fastridge.solvers.bounded.newton import Newton, free
from fastridge.solvers.bounded.records import End, Fall

EASY_ROUNDS = 20
"""Rounds within which the bounds of most problems settle."""
IDLE = 1e-4
"""Share of the squared tolerance that P must fall by: after EASY_ROUNDS rounds in a row without it rounding is in the way."""
FIRST_SWEEPS, SWEEPS = 4, 2
"""Sweeps before the first Newton step, and before the others until the free coordinates stay the same. The first sweep of each
group is over all coordinates, the others over those that it left free."""
SHORTER = 0.3
"""A clipped step that does not make P fall is multiplied by this."""
CLOSE = 4 * np.finfo(np.float64).eps
"""A coefficient within this distance of a bound, relative to itself, is put on it where a step goes that way."""
ROOM, FORCING = 0.3, 0.05
"""CG aims at this share of the tolerance, or, while the free coordinates still change, of the last error."""
PATIENCE = 4
"""Rounds with the same free coordinates in which neither error nor bound halves, nor P falls by what IDLE says, after which
rounding is in the way."""
STRICTER = 0.1
"""Steps become more exact by this factor once the bound was not proven."""


def descend(newton: Newton, w: Vector, tol: float, limit: int, on_step: Callable[[float, float], bool]) -> End:
    """Run rounds from w until the bound of the error is at most the tolerance, or neither bound nor estimate falls any more"""
    lower, upper = newton.lower, newton.upper
    last_chosen, full, settled, patience, error, bound = None, False, False, PATIENCE, 1.0, np.inf
    strictness, best, n_idle, stalled = 1.0, (np.inf, np.inf), 0, False
    for n_iter in range(1, limit + 1):
        # Once bounds turn out not to settle soon, a round that met one goes on among the coordinates still between theirs until
        # it has their minimiser: P falls from one such minimiser to the next, and their number is finite.
        face = EASY_ROUNDS < n_iter < limit and not full
        sq_fall = 0.0
        if not face and not (settled and full):
            sq_fall = newton.sweep(w, FIRST_SWEEPS if last_chosen is None else SWEEPS)
        look = newton.look(w, exact=n_iter == limit)
        if look.error(look.sq_bound) <= tol:
            sq_error = sq_bound = look.sq_bound
            error = bound = look.error(sq_bound)
            on_step(error, bound)
            break
        while True:
            inside, drawn = free(look.g, w, lower, upper)
            chosen = inside if face else inside | drawn
            settled = last_chosen is not None and bool((chosen == last_chosen).all())
            aim = ROOM * tol * strictness
            aim = aim if settled else max(aim, FORCING * min(error, 1.0))
            step = newton.step(look.g, chosen, look.sq_size, aim)
            sq_error = min(step.sq_error, look.sq_bound)
            error = look.error(sq_error)
            if look.exact or face or error > tol:
                break
            look = newton.look(w, exact=True)
        sq_bound = look.sq_bound
        if not face and look.exact and (error <= tol or n_iter == limit) and look.error(sq_bound) > tol:
            sq_error, sq_bound = prove(newton, look, w, step, tol)
            error = look.error(sq_error)
            strictness *= STRICTER
        bound = look.error(sq_bound)
        stop = not on_step(error, bound)
        if settled and full:
            better = error < 0.5 * best[0] or bound < 0.5 * best[1] or n_idle == 0
            patience = PATIENCE if better else patience - 1
            best = min(best[0], error), min(best[1], bound)
        else:
            patience, best = PATIENCE, (np.inf, np.inf)
        stalled = patience == 0 or n_idle == EASY_ROUNDS
        if stop and not look.exact:
            return newton.look(w, exact=True).end(w, n_iter)
        if bound <= tol or n_iter == limit or stalled or stop:
            break
        while (fall := _go(newton, look.g, w, step.s)).beyond:
            # Without the coordinates that the step takes beyond the bound they are at, it leads downhill.
            within = ((w > lower) | (step.s >= 0)) & ((w < upper) | (step.s <= 0))
            step = newton.step(look.g, step.chosen & within, look.sq_size, aim)
        n_idle = n_idle + 1 if sq_fall + fall.sq_fall <= IDLE * tol**2 * look.sq_size else 0
        full = fall.full or (face and error <= tol)
        last_chosen = chosen
    if bound > tol and (face or not look.exact) and not newton.monitor.stopped:
        look = look if look.exact else newton.look(w, exact=True)
        inside, drawn = free(look.g, w, lower, upper)
        sq_error, sq_bound = prove(newton, look, w, newton.step(look.g, inside | drawn, look.sq_size, ROOM * tol), tol)
        error, bound = look.error(sq_error), look.error(sq_bound)
    return End(w, n_iter, min(error, bound), bound, look.sq_size, stalled)


def _go(newton: Newton, g: Vector, w: Vector, step: Vector) -> Fall:
    """Move w along `step`, clipped, or along as much of it as makes P fall

    w stays where P does not fall: the step takes coordinates beyond a bound they are at, or rounding is in the way.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bound = np.where(step > 0, newton.upper, newton.lower)
        room = np.where(step == 0, np.inf, (bound - w) / step)
        at_hand = (step != 0) & (np.abs(bound - w) <= CLOSE * np.abs(w))
        w[at_hand], room[at_hand] = bound[at_hand], 0.0
        # As far as that nothing is clipped, and the step is straight.
        straight = room[room > 0].min(initial=1.0)
        share = 1.0
        while True:
            ahead = np.where(room <= share, bound, w + share * step)
            d = ahead - w
            slope, curvature = float(g @ d), newton.prepare(d)
            # On the chord from w to there, the minimiser is not much nearer.
            if slope >= 0.6 * curvature or share <= straight:
                break
            share = max(straight, SHORTER * share)
    if not slope >= 0.5 * curvature:
        return Fall(False, beyond=bool((room <= 0).any()))
    full = share == 1.0 and not bool((room < 1.0).any())
    newton.move()
    w[:] = ahead
    return Fall(full, 2 * slope - curvature)
