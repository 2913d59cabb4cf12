"""Bounds on the coefficients: sweeps of coordinate descent that settle which are active, and Newton steps on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastridge import dual_newton
from fastridge._kernels import descent
from fastridge.factor import BACKWARD_ERROR, ScaledFactor
from fastridge.krylov.iteration import conjugate_gradient
from fastridge.monitor import Monitor
from fastridge.operators.base import Array, GoOn, Vector
from fastridge.preconditioners import Jacobi
from fastridge.problem import ROUNDING, Problem
from fastridge.solution import Answer, Settings

MAX_GRAM = 4096
"""Columns up to which A'A (128 MB, and as much for its factor) is formed once."""
GRAM_RATIO = 2
"""Of columns to rows up to which that is done: past it the conjugate gradients on the n-vectors are the shorter way."""
FACTOR_WORTH = 200
"""Times the bytes of data that have less than one for each entry: where p^3 is more, some 25 products cost less than a factor."""
DEFAULT_ROUNDS = 1000
EASY_ROUNDS = 20
"""Most problems take fewer."""
IDLE = 1e-4
"""Share of the squared tolerance that P must fall by: after EASY_ROUNDS rounds in a row without it rounding is in the way."""
MAX_BLOCK = 512
"""Columns between their bounds up to which they are copied and their block of A'A is factored, where that is not formed."""
FIRST_SWEEPS, SWEEPS = 4, 2
"""Before the first Newton step, and before the others until the free coordinates stay the same; the first one of them is over all
coordinates, the others over those that it left free."""
SHORTER = 0.3
"""What a clipped step that does not make P fall is multiplied by."""
CLOSE = 4 * np.finfo(np.float64).eps
"""What is this much, relative to a coefficient, away from a bound is put on it where a step goes that way."""
ROOM, FORCING = 0.3, 0.05
"""Share of the tolerance, and while the free coordinates still change share of the last error, that CG aims at."""
PATIENCE = 4
"""Rounds with the same free coordinates in which neither error nor bound halves, nor P falls by what IDLE says, after which
rounding is in the way."""
PROXIMAL = 1e-8
"""Of a coordinate without a penalty, or of a block that is singular: a penalty on the step, relative to the diagonal."""
ADDED = 0.01
"""Share of H that such penalties may come to where it is known."""
STRICTER = 0.1
"""By which steps are more exact once the sound measure was not content."""
SMALLEST = np.finfo(np.float64).eps ** 2
"""Penalties on a step through n-vectors relative to the diagonal, where those of the problem are smaller."""
MAX_ADDITIONS = 5
"""Times that coordinates are added to those that a proof solves for."""
LOOSE = 0.1
"""Share of the tolerance that the gaps of all coordinates may take, each its part, before one is looked at otherwise."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise P(w) = 1/2 ||y - A w||^2 + 1/2 alpha sum_j d_j w_j^2 over lower <= w <= upper, every target by itself"""
    return BoundedSolver(problem, settings.monitor).solve(np.arange(len(problem.penalty)), problem.penalty, settings)


def unsolved(problem: Problem, monitor: Monitor) -> Answer:
    """The point within the bounds that is nearest to zero, where there is no time to solve; zeros lack w*, an error of one"""
    answer = Answer.zero(problem)
    assert problem.bounds is not None
    nearest = problem.bounds.clip(np.zeros(len(answer.w)))
    if not nearest.any():
        return answer
    error, newton = np.empty(len(problem.penalty)), _Newton(problem, _weights(problem), monitor)
    for target in range(len(error)):
        newton.begin(problem.for_target(target))
        error[target] = _end(newton.inspect(nearest)[0], nearest, 0).error
    return replace(answer, w=np.repeat(nearest[:, None], len(error), axis=1), error=error, error_bound=error, x=None)


def _weights(problem: Problem) -> Vector:
    """D, (p,)"""
    return np.ones(problem.design.shape[1]) if problem.penalty_weights is None else problem.penalty_weights


def _end(look: _Look, w: Vector, n_iter: int) -> _End:
    """W with what the gradient there says of its error"""
    bound = look.error(look.sq_bound)
    return _End(w, n_iter, bound, bound, look.sq_size, False)


class BoundedSolver:
    """Minimises P(w) = 1/2 ||y - A w||^2 + 1/2 alpha sum_j d_j w_j^2 over lower <= w <= upper, for any targets and penalties

    What does not depend on those, A'A or the columns one after the other, is formed once.

    A round sweeps over the coordinates, clipping each, then solves H_RR s = g_R for the set R of those that are between their
    bounds or that the negative gradient g draws off one, and goes along the clipped step as far as P falls. Once R stays the
    same the sweeps are left out and what remains are Newton's steps on a quadratic: one, and refinements against the data.

    Where there are few samples, Newton steps on the dual problem come first (`dual_newton`), and may be all.

    Where w is feasible, P(w) - P* >= 1/2 ||w - w*||_H^2, and 2 (P(w) - P*) is at most

    - the separable gap, sum_j max over v in [l_j, u_j] of 2 g_j (v - w_j) - alpha d_j (v - w_j)^2, which is guaranteed, and
    - with every coordinate that may move, g_R'(H^-1)_RR g_R, guaranteed as far as it is known exactly: the estimate where the gap
      does not do,
    - g_R'H_RR^-1 g_R where every coordinate off R stays at its bound in w*, which the gap shows where |g_j| > sqrt(H_jj gap);
      elsewhere that only says when to look at the one before.

    References
    ----------
    Bertsekas (1982), DOI 10.1137/0320018 (projected Newton steps); Portugal, Judice & Vicente (1994), DOI
    10.1090/S0025-5718-1994-1250776-4 (block pivoting); Ndiaye, Fercoq, Gramfort & Salmon (2017), JMLR 18(128) (gap safe rules).
    """

    def __init__(self, problem: Problem, monitor: Monitor) -> None:
        assert problem.bounds is not None
        # The unknown is w, whatever the shape.
        self.problem, self.bounds = replace(problem, dual=False), problem.bounds
        kind = _Gram if by_gram(problem) else _Lines
        self.newton: _Gram | _Lines = kind(self.problem, _weights(problem), monitor)

    def solve(self, targets: np.ndarray, penalties: Vector, settings: Settings) -> Answer:
        """Solve for `targets`, (k,), which may repeat, at `penalties`, (k,)

        `settings.start`, (p, k), is where to begin, clipped into the bounds; a column no better than zero is not used.
        """
        p, k = self.problem.design.shape[1], len(targets)
        limit = DEFAULT_ROUNDS if settings.max_iter is None else settings.max_iter
        start = settings.start if settings.start is not None and settings.start.shape == (p, k) else None
        w, n_iter, stalled = np.empty((p, k)), np.empty(k, dtype=np.int64), False
        history: list[float] = []
        error, bound, sq_size = np.empty((3, k))
        for i, target in enumerate(targets):
            if settings.monitor.stopped:
                rest = unsolved(self.problem.select(targets[i:], penalties[i:]), settings.monitor)
                w[:, i:], n_iter[i:] = rest.w, 0
                error[i:], bound[i:], sq_size[i:] = rest.error, rest.error_bound, rest.sq_size
                break
            self.newton.begin(self.problem.select(np.array([target]), penalties[i : i + 1]))
            first = self._first(None if start is None else start[:, i])
            end = _solve_one(self.newton, first, settings, limit, history)
            w[:, i], n_iter[i], stalled = end.w, end.n_iter, stalled or end.stalled
            error[i], bound[i], sq_size[i] = end.error, end.bound, end.sq_size
        return Answer(
            w,
            n_iter,
            error,
            bound,
            sq_size,
            stalled=stalled,
            workspace_bytes=self.newton.nbytes + 8 * p * (k + 12),
            history=tuple(history),
        )

    def _first(self, start: Vector | None) -> Vector:
        """Go to the feasible point nearest to `start`, or to zero where that is no worse; return it"""
        nearest = self.bounds.clip(np.zeros(self.problem.design.shape[1]))
        value = self.newton.place(nearest)
        if start is None:
            return nearest
        with np.errstate(all="ignore"):
            warm = self.bounds.clip(np.where(np.isfinite(start), start, 0.0))
            if self.newton.place(warm) < value:
                return warm
        self.newton.place(nearest)
        return nearest


def by_gram(problem: Problem) -> bool:
    """Whether A'A is formed"""
    (n, p), n_bytes = problem.design.shape, problem.design.traits.n_bytes
    nearly_empty = n_bytes < n * p
    return p <= min(MAX_GRAM, GRAM_RATIO * n) and not (nearly_empty and p**3 > FACTOR_WORTH * n_bytes)


@dataclass
class _Look:
    """The negative gradient g at w, (p,); `exact`: from the data, with ||w||_H^2 and what is proven of the squared error of w

    `doubt`, (p,), is how far rounding may have put g off; `blurred` are coordinates at a bound that g may draw off it or not.
    `off` is how far rounding may have put y - A w off, in the 2-norm, and `hidden` the H-norm error that it may hide besides;
    `sq_bound`, from the separable gap, includes that.
    """

    g: Vector
    sq_size: float
    exact: bool
    doubt: Vector
    blurred: Array
    off: float = 0.0
    hidden: float = 0.0
    sq_bound: float = np.inf

    def error(self, sq_error: float) -> float:
        """Relative to ||w*||_H"""
        return dual_newton.relative_near(sq_error, self.sq_size)


@dataclass
class _Step:
    """A solution s, (p,), of H_QQ s = g, roughly, zero off the coordinates Q, (p,) bool, and what is known about it

    `sq_error` is about g'H_QQ^-1 g, `sq_upper` an upper bound, `left` one of the H-norm error of s; inf where there is none.
    `least` is a lower bound of the spectrum of H_QQ scaled to a diagonal of ones, or 0. A `guess` knows nothing of H_QQ itself.

    Where `residual` is given, (p,), the bounds hold if that is g - H_QQ s, with the penalties `pull`, (p,), in which zeros are
    replaced, so that H_QQ grows by the share `added` at most.
    """

    chosen: Array
    s: Vector
    sq_error: float = 0.0
    sq_upper: float = 0.0
    left: float = 0.0
    least: float = 0.0
    guess: bool = False
    residual: Vector | None = None
    pull: Vector | None = None
    added: float = 0.0


@dataclass
class _End:
    w: Vector
    n_iter: int
    error: float
    bound: float
    sq_size: float
    stalled: bool


def _solve_one(newton: _Gram | _Lines, w: Vector, settings: Settings, limit: int, history: list[float]) -> _End:
    """Solve by the dual problem where that is small, and if that does not do by rounds, from w"""

    def on_step(error: float, bound: float) -> bool:
        history.append(error)
        return settings.monitor.after_step(error, bound)

    w, n_steps = newton.by_dual(w, ROOM * settings.tol, limit - 1, on_step)
    if n_steps or settings.monitor.stopped:
        end = _end(newton.look(w, exact=True), w, n_steps)
        if end.bound <= settings.tol or settings.monitor.stopped:
            return end
    end = _descend(newton, w, settings.tol, limit - n_steps, on_step)
    return replace(end, n_iter=end.n_iter + n_steps)


def _descend(newton: _Gram | _Lines, w: Vector, tol: float, limit: int, on_step: Callable[[float, float], bool]) -> _End:
    """Run rounds from w until the bound of the error is at most the tolerance, or neither bound nor estimate falls any more"""
    lower, upper = newton.lower, newton.upper
    last_chosen, full, settled, patience, error, bound = None, False, False, PATIENCE, 1.0, np.inf
    strictness, best, n_idle, stalled = 1.0, (np.inf, np.inf), 0, False
    for n_iter in range(1, limit + 1):
        # Once bounds turn out not to settle soon, a round that met one goes on among the coordinates still between theirs until
        # it has their minimiser: P falls from one such minimiser to the next, and there are only so many.
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
            inside, drawn = _free(look.g, w, lower, upper)
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
            sq_error, sq_bound = newton.prove(look, w, step, tol)
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
            return _end(newton.look(w, exact=True), w, n_iter)
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
        inside, drawn = _free(look.g, w, lower, upper)
        sq_error, sq_bound = newton.prove(look, w, newton.step(look.g, inside | drawn, look.sq_size, ROOM * tol), tol)
        error, bound = look.error(sq_error), look.error(sq_bound)
    return _End(w, n_iter, min(error, bound), bound, look.sq_size, stalled)


def _free(g: Vector, w: Vector, lower: Vector, upper: Vector) -> tuple[Array, Array]:
    """Return which coordinates are between their bounds, and which the negative gradient draws off one"""
    movable = lower < upper
    inside = (w > lower) & (w < upper)
    drawn = movable & (((w <= lower) & (g > 0)) | ((w >= upper) & (g < 0)))
    return inside, drawn


@dataclass(frozen=True)
class _Fall:
    """What a step did: whether it was taken in `full`, and by how much 2 P fell, or that it would lead `beyond` bounds w is at"""

    full: bool
    sq_fall: float = 0.0
    beyond: bool = False


def _go(newton: _Gram | _Lines, g: Vector, w: Vector, step: Vector) -> _Fall:
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
        return _Fall(False, beyond=bool((room <= 0).any()))
    full = share == 1.0 and not bool((room < 1.0).any())
    newton.move()
    w[:] = ahead
    return _Fall(full, 2 * slope - curvature)


class _Newton:
    """What both ways to take a step share: the problem of one target, its bounds, and what is proven of an answer

    Any n-vector u proves ||w - w*||_H^2 <= ||y - A w - u||^2 + sum_j gain_j(A'u - alpha D w), a gain being the most that moving
    w_j within its bounds may bring: the duality gap. With u = y - A w that is the separable gap. For u = y - A (w + s), where s
    solves H_QQ s = g on some coordinates Q, the terms of those come to g'H_QQ^-1 g, which a factor of H_QQ knows where division
    by alpha would make much of rounding.
    """

    def __init__(self, problem: Problem, d: Vector, monitor: Monitor) -> None:
        assert problem.bounds is not None
        self.d, self.bounds, self.monitor = d, problem.bounds, monitor
        self.lower, self.upper = problem.bounds.lower, problem.bounds.upper
        self.norms: Vector = np.sqrt(problem.design.sq_norms)
        self.blocks: list[_Block] = []
        self.held = self.block_bytes = 0

    @property
    def nbytes(self) -> int:
        """Held at most so far"""
        return self.held + self.block_bytes

    def begin(self, problem: Problem) -> None:
        """Turn to another target or penalty"""
        self.problem, self.alpha = problem, float(problem.penalty[0])
        self.pull = self.alpha * self.d
        self.curvatures: Vector = problem.design.sq_norms + self.pull
        self.blocks = []

    def by_dual(self, w: Vector, tol: float, max_iter: int, on_step: Callable[[float, float], bool]) -> tuple[Vector, int]:
        """Go to where Newton steps on the dual problem lead, if it is small and they help; return that, and their number"""
        return w, 0

    def gains(self, g: Vector, w: Vector, doubt: Vector, least: float = 0.0) -> Vector:
        """Max over v_j in [l_j, u_j] and e_j of size doubt_j of 2 (g_j + e_j) (v_j - w_j) - alpha d_j (v_j - w_j)^2: (p,)

        Penalties count as this share of the squared norm of the column at `least`.
        """
        pull = np.maximum(self.pull, least * self.problem.design.sq_norms) if least else self.pull
        ends = np.array([g - doubt, g + doubt])
        with np.errstate(all="ignore"):
            d = np.clip(np.where(ends == 0, 0.0, ends / pull), self.lower - w, self.upper - w)
            # Where neither penalty nor bound is in the way, inf.
            gains = np.where(np.isinf(d), np.inf, d * (2 * ends - pull * d))
        most: Vector = np.maximum(gains.max(axis=0), 0.0)
        return most

    def inspect(self, w: Vector) -> tuple[_Look, Vector]:
        """Return what the data say about w, and y - A w"""
        design, target = self.problem.design, self.problem.target[:, 0]
        fit = design.matvec(w[:, None])[:, 0]
        rest = target - fit
        g = design.rmatvec(rest[:, None])[:, 0] - self.pull * w
        sq_size = float(fit @ fit + np.sum((np.sqrt(self.pull) * w) ** 2))
        # Of y - A w, in the 2-norm: the H-norm error that it hides, or, where penalties are large, part of the doubt about g.
        off = float(ROUNDING * (self.norms @ np.abs(w) + np.linalg.norm(target)))
        doubt, hidden = self.doubt(rest, w), off
        inside, drawn = _free(g, w, self.lower, self.upper)
        at_bound = (self.lower < self.upper) & ~inside
        if not (inside | drawn | (at_bound & (np.abs(g) <= doubt + off * self.norms) & (self.norms > 0))).any():
            # No rounding can turn a gradient that pushes every coordinate against its bound: w is the answer.
            return _Look(g, sq_size, True, doubt, np.zeros(len(w), dtype=bool), off, 0.0, 0.0), rest
        if _norm_over(self.norms, self.pull) < 1:
            doubt += off * self.norms
            hidden = 0.0
        total = max(float(self.gains(g, w, doubt).sum()), float(np.finfo(np.float64).tiny))  # squares may underflow
        blurred = at_bound & ~drawn & (np.abs(g) <= doubt)
        return _Look(g, sq_size, True, doubt, blurred, off, hidden, float((np.sqrt(total) + hidden) ** 2)), rest

    def doubt(self, u: Vector, w: Vector) -> Vector:
        """How far rounding may put A'u - alpha D w off, coordinate by coordinate"""
        return ROUNDING * (self.norms * float(np.linalg.norm(u)) + self.pull * np.abs(w))

    def step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> _Step:
        """Solve H_QQ s = g for the chosen coordinates Q, with an error of `aim` relative to the root of `sq_size`"""
        raise NotImplementedError

    def image(self, s: Vector) -> Vector:
        """A'A s"""
        raise NotImplementedError

    def sq_ahead(self, look: _Look, w: Vector, step: _Step) -> float:
        """Bound of the squared error of w by a point of the dual problem that the step led to; inf where it did not"""
        return np.inf

    def prove(self, look: _Look, w: Vector, step: _Step, tol: float) -> tuple[float, float]:
        """Estimate and bound of the squared error of w, once the step from there is known"""
        inside, drawn = _free(look.g, w, self.lower, self.upper)
        felt = inside | drawn | look.blurred
        sq_error, sq_bound = step.sq_error, min(look.sq_bound, self.sq_ahead(look, w, step))

        def passes() -> bool:
            return look.error(sq_bound) <= tol

        if not passes():
            found = self._by_step(look, w, step, felt, tol)
            sq_error, sq_bound = found[0], min(sq_bound, found[1])
        if not passes():
            # Coordinates that have next to no penalty by a factor, the others by the gap.
            loose = felt & (self.gains(look.g, w, look.doubt) > LOOSE * tol**2 * look.sq_size / len(w))
            loose = loose if self.factors(loose) else loose & (self.pull == 0)
            if (loose != step.chosen).any() and loose.any() and self.factors(loose):
                part = self.step(np.where(loose, look.g, 0.0), loose, look.sq_size, tol)
                sq_bound = min(sq_bound, self._by_step(look, w, part, felt, tol)[1])
        return min(sq_error, sq_bound), sq_bound

    def factors(self, chosen: Array) -> bool:
        """Whether a step on these takes a factor"""
        raise NotImplementedError

    def _by_step(self, look: _Look, w: Vector, step: _Step, felt: Array, tol: float) -> tuple[float, float]:
        """Estimate and bound of the squared error of w by the dual point of a step, coordinates added that turn out to matter

        Those of the step on which the gradient is not `felt` must be pushed against their bounds.
        """
        sq_error, sq_bound = np.inf, np.inf
        rounding = BACKWARD_ERROR * np.sqrt(max(self.problem.design.shape))
        for _ in range(MAX_ADDITIONS):
            if step.guess:
                break
            chosen, s = step.chosen, step.s
            image = self.image(s)
            ahead, off_step = look.g - image, ~chosen
            # Of next to no penalty rounding makes too much for an estimate.
            seen = self.gains(ahead, w, np.zeros(len(w)), PROXIMAL**1.5)
            sq_error = min(sq_error, step.sq_error + float(seen[off_step].sum()))
            if not step.sq_upper < np.inf:
                break
            sq_upper, left = step.sq_upper, step.left
            pull = self.pull if step.pull is None else step.pull
            if step.residual is not None:
                g = np.where(chosen & felt, look.g, 0.0)
                drift = np.where(chosen, g - image - pull * s - step.residual, 0.0)
                left += _norm_over(drift, pull)
                sq_upper = (1 + step.added) * (max(float(s @ (2 * g - image - pull * s)), 0.0) + left**2)
                left += step.added * np.sqrt(sq_upper)
            # What an error of g moves the solution by.
            doubt = np.where(chosen & felt, look.doubt, 0.0)
            moved = np.sqrt(1 + step.added) * _norm_over(doubt, pull)
            if step.least > 0:
                moved = min(moved, _norm_over(doubt, self.curvatures * step.least))
            blur = look.doubt + self.norms * (left + moved + rounding * float(self.norms @ np.abs(s)))
            gains = np.where(off_step, self.gains(ahead, w, blur), 0.0)
            total = (np.sqrt(sq_upper) + moved) ** 2 + float(gains.sum())
            sq_bound = min(sq_bound, float((np.sqrt(total) + look.hidden) ** 2))
            if look.error(sq_bound) <= tol or not (gains > 0).any():
                break
            wanted = chosen | (gains > 0)
            step = self.step(np.where(wanted & felt, look.g, 0.0), wanted, look.sq_size, tol)
        return sq_error, sq_bound

    def block_of(self, chosen: Array) -> _Block:
        """A factor of the block of H of the coordinates chosen; the last two are kept"""
        for i, block in enumerate(self.blocks):
            if (block.chosen == chosen).all():
                self.blocks.insert(0, self.blocks.pop(i))
                return block
        del self.blocks[1:]
        longest, go_on = max(self.problem.design.shape), self.monitor.go_on
        self.blocks.insert(0, _Block(self.gram_of(chosen), chosen, self.pull, longest, go_on))
        self.block_bytes = max(self.block_bytes, sum(block.nbytes for block in self.blocks))
        return self.blocks[0]

    def gram_of(self, chosen: Array) -> Vector:
        """The block of A'A of the coordinates chosen, in F order, to be overwritten"""
        raise NotImplementedError

    def sweeps(self, w: Vector, n_sweeps: int) -> float:
        """Sweep forth and back in turn, the first time over all coordinates, then over those left between their bounds

        Return the decrease of 2 P.
        """
        lower, upper, sq_fall = self.lower, self.upper, 0.0
        for i in range(n_sweeps):
            sq_fall += self.sweep_once(w, bool(i % 2), lower, upper)
            if i == 0:
                inside = (w > lower) & (w < upper)
                lower, upper = np.where(inside, lower, w), np.where(inside, upper, w)
        return sq_fall

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> float:
        raise NotImplementedError


def _norm_over(v: Vector, diagonal: Vector) -> float:
    """The root of the sum of v^2 / diagonal over those v that are not zero"""
    some = v != 0
    with np.errstate(divide="ignore", over="ignore"):
        return float(np.linalg.norm(v[some] / np.sqrt(diagonal[some])))


class _Block(ScaledFactor):
    """A factor of the block of H = A'A + alpha D of the coordinates chosen; a singular one has a little added"""

    def __init__(self, gram: Vector, chosen: Array, pull: Vector, longest: int, go_on: GoOn) -> None:
        super().__init__(gram, pull[chosen], longest, PROXIMAL**1.5, go_on=go_on)
        self.chosen = chosen

    def step(self, g: Vector) -> _Step:
        """The Newton step from the negative gradient g, (p,): with a singular block one of the proximal point method"""
        s = np.zeros(len(g))
        if not self.complete:
            return _Step(self.chosen, s, np.inf, np.inf, np.inf)
        s[self.chosen] = self.solve(g[self.chosen])
        sq_error = max(float(g @ s), 0.0)
        if self.loss == np.inf:
            return _Step(self.chosen, s, sq_error, np.inf, np.inf)
        sq_upper = sq_error / (1 - self.loss)
        return _Step(self.chosen, s, sq_error, sq_upper, self.loss * np.sqrt(sq_upper), self.smallest)


class _Gram(_Newton):
    """Steps through a Cholesky factor of the block of A'A + alpha D; the gradient is kept up to date"""

    def __init__(self, problem: Problem, d: Vector, monitor: Monitor) -> None:
        super().__init__(problem, d, monitor)
        self.gram = problem.design.full_gram(monitor.go_on).T
        # A'y of all targets, for each to take from.
        self.held = self.gram.nbytes + problem.rhs.nbytes

    def begin(self, problem: Problem) -> None:
        super().begin(problem)
        self.rhs = problem.rhs[:, 0]
        self.nothing = np.zeros(len(self.rhs)), np.zeros(len(self.rhs), dtype=bool)

    def place(self, w: Vector) -> float:
        """Go to w; return 2 (P(w) - P(0))"""
        self.g: Vector = self.rhs - self.gram @ w - self.pull * w
        return -float(w @ (self.rhs + self.g))

    def sweep(self, w: Vector, n_sweeps: int) -> float:
        return self.sweeps(w, n_sweeps)

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> float:
        return float(descent.sweep_gram(self.gram, self.alpha, w, self.g, backward, lower, upper, self.d))

    def look(self, w: Vector, exact: bool) -> _Look:
        """The gradient at w"""
        if not exact:
            return _Look(self.g, max(float(w @ (self.rhs - self.g)), 0.0), False, *self.nothing)
        look = self.inspect(w)[0]
        self.g = look.g.copy()
        return look

    def step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> _Step:
        return self.block_of(chosen).step(g) if chosen.any() else _Step(chosen, np.zeros(len(g)))

    def image(self, s: Vector) -> Vector:
        out: Vector = self.gram @ s
        return out

    def factors(self, chosen: Array) -> bool:
        return True

    def gram_of(self, chosen: Array) -> Vector:
        part: Vector = self.gram.copy() if chosen.all() else self.gram[np.ix_(chosen, chosen)]
        return part.T  # symmetric; now in F order

    def prepare(self, d: Vector) -> float:
        """Return d'H d"""
        self.change: Vector = self.gram @ d + self.pull * d
        return float(d @ self.change)

    def move(self) -> None:
        """Take the step prepared"""
        self.g -= self.change


class _Lines(_Newton):
    """Steps by a Cholesky factor of the few columns chosen; of many by conjugate gradients, the others times zero, or on the
    n-vectors where those are fewer

    Sweeps run over the columns as lines, copied where they are not contiguous.
    """

    def __init__(self, problem: Problem, d: Vector, monitor: Monitor) -> None:
        super().__init__(problem, d, monitor)
        self.dual: Vector | None = None
        self.columns = problem.design.columns()
        n, p = problem.design.shape
        self.held = self.columns.extra_bytes - problem.design.extra_bytes + 8 * (8 * min(n, p) + 4 * p)
        if n < p and n <= dual_newton.MAX_FACTOR:
            self.held += 8 * n * n
        self.no_linear = np.zeros(len(d))

    def by_dual(self, w: Vector, tol: float, max_iter: int, on_step: Callable[[float, float], bool]) -> tuple[Vector, int]:
        n, p = self.problem.design.shape
        if n >= p or not self.pull.all():
            return w, 0
        value = self.place(w)
        by_columns = replace(self.problem, design=self.columns)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # where alpha d is all but zero
            point = dual_newton.maximise(by_columns, self.pull, self.rest, tol, max_iter, on_step, self.monitor)
            helps = self.place(point.w) < value
        if helps:
            self.dual = point.u
            return point.w, point.n_iter
        self.place(w)
        return w, point.n_iter

    def place(self, w: Vector) -> float:
        """Go to w; return 2 P(w)"""
        self.dual = None
        self.rest: Vector = self.problem.target[:, 0]
        if w.any():
            self.rest = self.rest - self.columns.matvec(w[:, None])[:, 0]
        return float(self.rest @ self.rest + np.sum((np.sqrt(self.pull) * w) ** 2))

    def sweep(self, w: Vector, n_sweeps: int) -> float:
        scale = self.columns.row_scale
        self.tau = self.rest * (1.0 if scale is None else scale)
        return self.sweeps(w, n_sweeps)

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> float:
        return self.columns.sweep(self.no_linear, self.alpha, w, self.tau, backward, lower, upper, self.d)

    def look(self, w: Vector, exact: bool) -> _Look:
        """The gradient at w"""
        look, self.rest = self.inspect(w)
        look.sq_bound = min(look.sq_bound, self._sq_gap(look, w))
        return look

    def _sq_gap(self, look: _Look, w: Vector) -> float:
        """Bound of the squared error of w by the point of the dual problem at hand"""
        if self.dual is None:
            return np.inf
        off = self.rest - self.dual
        g = self.columns.rmatvec(self.dual[:, None])[:, 0] - self.pull * w
        total = float(off @ off + self.gains(g, w, self.doubt(self.dual, w)).sum())
        return float((np.sqrt(total) + look.off) ** 2)

    def sq_ahead(self, look: _Look, w: Vector, step: _Step) -> float:
        return np.inf if step.sq_upper < np.inf else self._sq_gap(look, w)

    def factors(self, chosen: Array) -> bool:
        return int(np.count_nonzero(chosen)) <= MAX_BLOCK

    def gram_of(self, chosen: Array) -> Vector:
        few = self.columns.take(chosen)
        gram = few.full_gram()
        held = gram.nbytes + sum(block.nbytes for block in self.blocks)
        self.block_bytes = max(self.block_bytes, few.extra_bytes - self.columns.extra_bytes + held)
        return gram

    def image(self, s: Vector) -> Vector:
        return self.problem.design.normal(s[:, None])[:, 0]

    def step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> _Step:
        if not chosen.any():
            return _Step(chosen, np.zeros(len(g)))
        if self.factors(chosen):
            return self.block_of(chosen).step(g)
        by_samples = self.problem.design.shape[0] < int(np.count_nonzero(chosen))
        return (self._dual_step if by_samples else self._primal_step)(g, chosen, sq_size, aim)

    def _dual_step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> _Step:
        """By way of n-vectors x: (I + A_Q P_Q^-1 A_Q') x = A_Q P_Q^-1 g and P_Q s = g - A_Q'x, P the penalties"""
        sq_scale = np.divide(1.0, self._positive(PROXIMAL), out=np.zeros(len(g)), where=chosen)
        residual = self.columns.matvec((sq_scale * g)[:, None])[:, 0]
        size = float(np.linalg.norm(residual))
        share = min(1.0, aim * np.sqrt(sq_size) / size) if sq_size > 0 and size > 0 else aim
        by_columns = replace(self.problem, design=self.columns)
        x = dual_newton.solve(by_columns, sq_scale, residual, share, self.monitor)
        s = sq_scale * (g - self.columns.rmatvec(x[:, None])[:, 0])
        if not np.isfinite(s).all():
            return _Step(chosen, np.zeros(len(g)), np.inf, np.inf, np.inf)
        self.dual = self.rest - x
        return _Step(chosen, s, max(float(g @ s), 0.0), np.inf, np.inf, guess=True)

    def _primal_step(self, g: Vector, chosen: Array, sq_size: float, aim: float) -> _Step:
        """By conjugate gradients on the columns chosen, divided by the roots of their penalties

        Those without a penalty, Z, are given one on the step: a share zeta of the diagonal of H_ZZ. With sigma^2 the least
        eigenvalue of that block, scaled to a diagonal of ones, and F^2 the sum of ||a_j||^2 / (alpha d_j) over the others, x'H x
        is at least x'(what is added)x sigma^2 / (zeta (1 + F)^2).
        """
        free, share, added = chosen & (self.pull == 0), PROXIMAL, 0.0
        if free.any():
            reach = 1 + _norm_over(np.where(chosen & ~free, self.norms, 0.0), self.pull)
            least = self.block_of(free).smallest if self.factors(free) and reach > 1 else 0.0
            share, added = (least * ADDED / reach**2, ADDED) if least * ADDED > SMALLEST * reach**2 else (PROXIMAL, np.inf)
        pull, alpha = self._positive(share), self.alpha or 1.0
        root = np.sqrt(chosen * (alpha / pull))
        sub = self.problem.restricted(self.problem.design.with_columns_scaled(root**2), False)
        sub = replace(sub, penalty=np.full(1, alpha))
        sizes = np.array([sq_size]) if sq_size > 0 else None
        first, rest = np.zeros((len(g), 1)), (root * g)[:, None]
        limit, go_on = max(1000, 10 * len(g)), self.monitor.within_step
        run = conjugate_gradient(sub, first, rest, Jacobi.of(sub), sizes, aim, limit, go_on)
        s = root * run.x[:, 0]
        gained, sq_left = max(float(g @ s), 0.0), float(run.sq_bound[0])
        sq_error = gained + float(run.sq_error[0])
        if added == np.inf or (pull != self.pull)[chosen & ~free].any():
            return _Step(chosen, s, sq_error, np.inf, np.inf)
        residual = np.divide(run.residual[:, 0], root, out=np.zeros(len(g)), where=chosen)
        return _Step(chosen, s, sq_error, gained + sq_left, np.sqrt(sq_left), residual=residual, pull=pull, added=added)

    def _positive(self, share: float) -> Vector:
        """The penalties, with this share of the squared norm in place of zero; the others are kept from underflow"""
        sq_norms = self.problem.design.sq_norms
        pull = np.maximum(self.pull, np.where(self.pull == 0, share, SMALLEST) * sq_norms)
        return np.where(pull > 0, pull, 1.0)

    def prepare(self, d: Vector) -> float:
        """Return d'H d"""
        self.change: Vector = self.problem.design.matvec(d[:, None])[:, 0]
        return float(self.change @ self.change + self.pull @ d**2)

    def move(self) -> None:
        """Take the step prepared"""
        self.rest = self.rest - self.change
