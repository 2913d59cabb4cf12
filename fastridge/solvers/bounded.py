"""Bounds on the coefficients: sweeps of coordinate descent that settle which are active, and Newton steps on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dpocon, dpotrf, dpotrs

from fastridge import dual_newton
from fastridge._kernels import descent
from fastridge.krylov import conjugate_gradient
from fastridge.lines import Array, Vector
from fastridge.parallel import blas_for
from fastridge.preconditioners import Jacobi
from fastridge.problem import ROUNDING, Problem, relative_near
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
MAX_BLOCK = 512
"""Columns between their bounds up to which they are copied and their block of A'A is factored, where that is not formed."""
FIRST_SWEEPS, SWEEPS = 4, 2
"""Before the first Newton step, and before the others until the free coordinates stay the same; the first one of them is over all
coordinates, the others over those that it left free."""
SHORTER = 0.3
"""What a clipped step that does not make P fall is multiplied by."""
ROOM, FORCING = 0.3, 0.05
"""Share of the tolerance, and while the free coordinates still change share of the last error, that CG aims at."""
PATIENCE = 4
"""Rounds with the same free coordinates in which the error does not halve, after which rounding is in the way."""
PROXIMAL = 1e-8
"""Of a coordinate without a penalty, or of a block that is singular: a penalty on the step, relative to the diagonal."""
STRICTER = 0.1
"""By which steps are more exact once the sound measure was not content."""
BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Of the Gram matrix and its factor, relative to the norm of H; times the square root of the longer side."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise P(w) = 1/2 ||y - A w||^2 + 1/2 alpha sum_j d_j w_j^2 over lower <= w <= upper, every target by itself"""
    return BoundedSolver(problem).solve(np.arange(len(problem.penalty)), problem.penalty, settings)


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

    def __init__(self, problem: Problem) -> None:
        assert problem.bounds is not None
        # The unknown is w, whatever the shape.
        self.problem, self.bounds = replace(problem, dual=False), problem.bounds
        d = problem.penalty_weights
        d = np.ones(problem.design.shape[1]) if d is None else d
        self.newton: _Gram | _Lines = _Gram(self.problem, d) if by_gram(problem) else _Lines(self.problem, d)

    def solve(self, targets: np.ndarray, penalties: Vector, settings: Settings) -> Answer:
        """Solve for `targets`, (k,), which may repeat, at `penalties`, (k,)

        `settings.start`, (p, k), is where to begin, clipped into the bounds; a column no better than zero is not used.
        """
        p, k = self.problem.design.shape[1], len(targets)
        limit = DEFAULT_ROUNDS if settings.max_iter is None else settings.max_iter
        start = settings.start if settings.start is not None and settings.start.shape == (p, k) else None
        w, n_iter, stalled = np.empty((p, k)), np.empty(k, dtype=np.int64), False
        history: list[float] = []
        sq_error, sq_bound, sq_size, rounding = np.empty((4, k))
        for i, target in enumerate(targets):
            self.newton.begin(self.problem.select(np.array([target]), penalties[i : i + 1]))
            first = self._first(None if start is None else start[:, i])
            end = _solve_one(self.newton, first, settings, limit, history)
            w[:, i], n_iter[i], stalled = end.w, end.n_iter, stalled or end.stalled
            sq_error[i], sq_bound[i] = end.sq_error, end.sq_bound
            sq_size[i], rounding[i] = end.look.sq_size, end.look.rounding
        return Answer(
            w,
            n_iter,
            relative_near(sq_error, sq_size),
            relative_near((np.sqrt(sq_bound) + rounding) ** 2, sq_size),
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
    (n, p), n_bytes = problem.design.shape, problem.design.lines.nbytes
    nearly_empty = n_bytes < n * p
    return p <= min(MAX_GRAM, GRAM_RATIO * n) and not (nearly_empty and p**3 > FACTOR_WORTH * n_bytes)


@dataclass
class _Look:
    """The negative gradient g at w, (p,); `exact`: from the data, with ||w||_H^2, the gap and what rounding may hide"""

    g: Vector
    sq_size: float
    exact: bool
    sq_gap: float = np.inf
    rounding: float = 0.0


@dataclass
class _End:
    w: Vector
    n_iter: int
    sq_error: float
    sq_bound: float
    stalled: bool
    look: _Look


def _solve_one(newton: _Gram | _Lines, w: Vector, settings: Settings, limit: int, history: list[float]) -> _End:
    """Solve by the dual problem where that is small, and if that does not do by rounds, from w"""
    before = len(history)

    def on_step(error: float) -> None:
        history.append(error)
        if settings.on_step is not None:
            settings.on_step(len(history) - before, error)

    w, n_steps = newton.by_dual(w, ROOM * settings.tol, limit - 1, on_step)
    if n_steps:
        look = newton.look(w, exact=True)
        if relative_near(np.array(look.sq_gap), np.array(look.sq_size)) <= settings.tol:
            return _End(w, n_steps, look.sq_gap, look.sq_gap, False, look)
    end = _descend(newton, w, settings.tol, limit - n_steps, on_step)
    return replace(end, n_iter=end.n_iter + n_steps)


def _descend(newton: _Gram | _Lines, w: Vector, tol: float, limit: int, on_step: Callable[[float], None]) -> _End:
    """Run rounds from w until the error is at most the tolerance, by data at hand and then by the data themselves"""
    lower, upper = newton.lower, newton.upper
    last_chosen, full, settled, best, patience, error = None, False, False, np.inf, PATIENCE, 1.0
    strictness, sq_upper_full = 1.0, np.inf
    for n_iter in range(1, limit + 1):
        # Once bounds turn out not to settle soon, a round that met one goes on among the coordinates still between theirs until
        # it has their minimiser: P falls from one such minimiser to the next, and there are only so many.
        face = EASY_ROUNDS < n_iter < limit and not full
        if not face and not (settled and full):
            newton.sweep(w, FIRST_SWEEPS if last_chosen is None else SWEEPS)
        look = newton.look(w, exact=n_iter == limit)
        while True:
            inside, drawn = _free(look.g, w, lower, upper)
            chosen = inside if face else inside | drawn
            settled = last_chosen is not None and bool((chosen == last_chosen).all())
            aim = ROOM * tol * strictness
            aim = aim if settled else max(aim, FORCING * min(error, 1.0))
            step, sq_error, sq_upper = newton.step(look, w, chosen, aim)
            sq_error = min(sq_error, look.sq_gap)
            error = float(relative_near(np.array(sq_error), np.array(look.sq_size)))
            if look.exact or face or error > tol:
                break
            look = newton.look(w, exact=True)
        if error <= tol and not face and relative_near(np.array(look.sq_gap), np.array(look.sq_size)) > tol:
            # Another set of bounds may be that of w*: the sound measure lets every coordinate move.
            sq_full, sq_upper_full = newton.measure(look, w, inside | drawn, tol)
            sq_error, sq_upper_full = min(max(sq_error, sq_full), look.sq_gap), min(sq_upper_full, look.sq_gap)
            error = float(relative_near(np.array(sq_error), np.array(look.sq_size)))
            strictness = strictness if error <= tol else STRICTER * strictness
        on_step(error)
        patience = PATIENCE if not (settled and full) or error < 0.5 * best else patience - 1
        best = min(best, error) if settled and full else np.inf
        if (error <= tol and not face) or n_iter == limit or patience == 0:
            break
        full = _go(newton, look, w, step) or (face and error <= tol)
        last_chosen = chosen
    if not look.exact:
        look = newton.look(w, exact=True)
    sq_bound = min(look.sq_gap, sq_upper_full if error <= tol and not face else np.inf)
    kept = ~chosen & (lower < upper)
    if sq_upper < sq_bound < np.inf and (np.abs(look.g[kept]) > np.sqrt(newton.curvatures[kept] * sq_bound)).all():
        sq_bound = sq_upper
    return _End(w, n_iter, min(sq_error, sq_bound), sq_bound, patience == 0 and error > tol, look)


def _free(g: Vector, w: Vector, lower: Vector, upper: Vector) -> tuple[Array, Array]:
    """Return which coordinates are between their bounds, and which the negative gradient draws off one"""
    movable = lower < upper
    inside = (w > lower) & (w < upper)
    drawn = movable & (((w <= lower) & (g > 0)) | ((w >= upper) & (g < 0)))
    return inside, drawn


def _go(newton: _Gram | _Lines, look: _Look, w: Vector, step: Vector) -> bool:
    """Move w along `step`, clipped, or along as much of it as makes P fall; return whether the whole step was taken"""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, newton.upper - w, newton.lower - w) / step
    # As far as that nothing is clipped, and the step is straight.
    straight = min(1.0, room[(step != 0) & (room > 0)].min(initial=1.0))
    share = 1.0
    while True:
        ahead = np.clip(w + share * step, newton.lower, newton.upper)
        d = ahead - w
        # On the chord from w to there, the minimiser is not much nearer.
        if float(look.g @ d) >= 0.6 * newton.prepare(d) or share <= straight:
            break
        share = max(straight, SHORTER * share)
    full = share == 1.0 and bool((ahead == w + step).all())
    newton.move()
    w[:] = ahead
    return full


class _Newton:
    """What both ways to take a step share: the problem of one target, its bounds, its gradient and gap from the data"""

    def __init__(self, problem: Problem, d: Vector) -> None:
        assert problem.bounds is not None
        self.d, self.bounds = d, problem.bounds
        self.lower, self.upper = problem.bounds.lower, problem.bounds.upper

    def begin(self, problem: Problem) -> None:
        """Turn to another target or penalty"""
        self.problem, self.alpha = problem, float(problem.penalty[0])
        self.pull = self.alpha * self.d
        self.curvatures: Vector = problem.design.sq_norms + self.pull

    def by_dual(self, w: Vector, tol: float, max_iter: int, on_step: Callable[[float], None]) -> tuple[Vector, int]:
        """Go to where Newton steps on the dual problem lead, if it is small and they help; return that, and their number"""
        return w, 0

    def sq_gap(self, g: Vector, w: Vector) -> float:
        """Twice the sum over j of max over v in [l_j, u_j] of g_j (v - w_j) - alpha d_j / 2 (v - w_j)^2"""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            d = np.clip(np.where(g == 0, w, w + g / self.pull), self.lower, self.upper) - w
            # Where neither penalty nor bound is in the way, inf.
            gains = np.where(np.isinf(d), np.inf, d * (2 * g - self.pull * d))
        return float(np.maximum(gains, 0.0).sum())

    def inspect(self, w: Vector) -> tuple[_Look, Vector]:
        """Return what the data say about w, and y - A w"""
        design = self.problem.design
        fit = design.matvec(w[:, None])[:, 0]
        rest = self.problem.target[:, 0] - fit
        g = design.rmatvec(rest[:, None])[:, 0] - self.pull * w
        sq_size = float(fit @ fit + self.pull @ w**2)
        # At a bound, with a gradient that rounding cannot turn, a coordinate adds nothing to the gap.
        size, frobenius = float(np.linalg.norm(rest)), self.problem.frobenius
        moved = frobenius * float(np.linalg.norm(w))
        doubt = ROUNDING * (np.sqrt(design.sq_norms) * (size + moved) + self.pull * np.abs(w))
        inside, drawn = _free(g, w, self.lower, self.upper)
        unsure = inside | drawn | ((self.lower < self.upper) & (np.abs(g) <= doubt) & (design.sq_norms > 0))
        rounding = 0.0
        if unsure.any():
            weakest, reach = self.pull[unsure].min(), (self.upper - self.lower)[unsure].max()
            hidden = np.sqrt(design.sq_norms[unsure].sum()) * size
            with np.errstate(divide="ignore", invalid="ignore"):
                # What an error e of g adds to the gap: e^2 / (alpha d) at most, and no more than 2 |e| times the way to a bound.
                by_bounds = np.sqrt(2 * hidden * reach * np.sqrt(unsure.sum()) / ROUNDING) if hidden > 0 else 0.0
                by_penalty = hidden / np.sqrt(weakest) if hidden > 0 else 0.0
            rounding = ROUNDING * (moved + np.sqrt(sq_size) + min(by_penalty, by_bounds))
        return _Look(g, sq_size, True, self.sq_gap(g, w), float(rounding)), rest

    def step(self, look: _Look, w: Vector, chosen: Array, aim: float) -> tuple[Vector, float, float]:
        raise NotImplementedError

    def measure(self, look: _Look, w: Vector, chosen: Array, aim: float) -> tuple[float, float]:
        """Estimate and bound of g_R'(H^-1)_RR g_R for R the chosen, H of all coordinates that may move"""
        _, sq_error, sq_upper = self.step(replace(look, g=np.where(chosen, look.g, 0.0)), w, self.lower < self.upper, aim)
        return sq_error, sq_upper

    def sweeps(self, w: Vector, n_sweeps: int) -> None:
        """Sweep forth and back in turn, the first time over all coordinates, then over those left between their bounds"""
        lower, upper = self.lower, self.upper
        for i in range(n_sweeps):
            self.sweep_once(w, bool(i % 2), lower, upper)
            if i == 0:
                inside = (w > lower) & (w < upper)
                lower, upper = np.where(inside, lower, w), np.where(inside, upper, w)

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> None:
        raise NotImplementedError


class _Block:
    """A Cholesky factor of the block of H = A'A + alpha D of the coordinates chosen; a singular one has a little added

    `gram`, their block of A'A, F order, both triangles, is overwritten; `longest` is the longer side of A.
    """

    def __init__(self, gram: Vector, chosen: Array, pull: Vector, longest: int) -> None:
        self.chosen = chosen
        diagonal = np.einsum("ii->i", gram)
        diagonal += pull[chosen]
        norm, own = float(np.abs(gram).sum(axis=0).max()), diagonal.copy()
        proximal = 0.0
        while True:
            diagonal[:] = own + proximal
            with blas_for(len(gram)):
                self.factor, info = dpotrf(gram, lower=1, clean=0, overwrite_a=1)
            if info == 0:
                break
            # Singular: steps of the proximal point method. The upper triangle is as it was.
            gram[...] = np.triu(gram) + np.triu(gram, 1).T
            proximal = max(100 * proximal, PROXIMAL**1.5 * norm, np.finfo(np.float64).tiny)
        rcond = dpocon(self.factor, norm, uplo="L")[0]
        # H >= (1 - theta) times the matrix that the factor really belongs to.
        theta = BACKWARD_ERROR * np.sqrt(longest)
        self.theta = theta / rcond if rcond > 0 and proximal == 0 else np.inf

    def step(self, g: Vector) -> tuple[Vector, float, float]:
        """Return the Newton step from the negative gradient g, (p,), g's, and a bound of g_R'H_RR^-1 g_R"""
        step = np.zeros(len(g))
        with blas_for(len(self.factor)):
            step[self.chosen] = dpotrs(self.factor, g[self.chosen], lower=1)[0]
        sq_error = max(float(g @ step), 0.0)
        return step, sq_error, sq_error / (1 - self.theta) if self.theta < 0.5 else np.inf


class _Gram(_Newton):
    """Steps through a Cholesky factor of the block of A'A + alpha D; the gradient is kept up to date"""

    def __init__(self, problem: Problem, d: Vector) -> None:
        super().__init__(problem, d)
        self.gram = problem.design.full_gram().T
        # A'y of all targets, for each to take from.
        self.nbytes = 2 * self.gram.nbytes + problem.rhs.nbytes

    def begin(self, problem: Problem) -> None:
        super().begin(problem)
        self.rhs = problem.rhs[:, 0]
        self.block: _Block | None = None

    def place(self, w: Vector) -> float:
        """Go to w; return 2 (P(w) - P(0))"""
        self.g: Vector = self.rhs - self.gram @ w - self.pull * w
        return -float(w @ (self.rhs + self.g))

    def sweep(self, w: Vector, n_sweeps: int) -> None:
        self.sweeps(w, n_sweeps)

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> None:
        descent.sweep_gram(self.gram, self.alpha, w, self.g, backward, lower, upper, self.d)

    def look(self, w: Vector, exact: bool) -> _Look:
        """The gradient at w"""
        if not exact:
            return _Look(self.g, max(float(w @ (self.rhs - self.g)), 0.0), False)
        look = self.inspect(w)[0]
        self.g = look.g.copy()
        return look

    def step(self, look: _Look, w: Vector, chosen: Array, aim: float) -> tuple[Vector, float, float]:
        """Return the Newton step on the chosen coordinates, g's, and a bound of g_R'H_RR^-1 g_R"""
        if not chosen.any():
            return np.zeros(len(w)), 0.0, 0.0
        if self.block is None or (chosen != self.block.chosen).any():
            whole = bool(chosen.all())
            part = self.gram.copy() if whole else self.gram[np.ix_(chosen, chosen)]
            self.block = _Block(part.T, chosen, self.pull, max(self.problem.design.shape))  # symmetric; now in F order
        return self.block.step(look.g)

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

    def __init__(self, problem: Problem, d: Vector) -> None:
        super().__init__(problem, d)
        self.dual: Vector | None = None
        self.columns = problem.design.with_rows_as_lines(False)
        self.block_bytes = 0
        n, p = problem.design.shape
        self.held = self.columns.extra_bytes - problem.design.extra_bytes + 8 * (8 * min(n, p) + 4 * p)
        if n < p and n <= dual_newton.MAX_FACTOR:
            self.held += 8 * n * n
        self.no_linear = np.zeros(len(d))

    @property
    def nbytes(self) -> int:
        """Held so far"""
        return self.held + self.block_bytes

    def begin(self, problem: Problem) -> None:
        super().begin(problem)
        self.block: _Block | None = None

    def by_dual(self, w: Vector, tol: float, max_iter: int, on_step: Callable[[float], None]) -> tuple[Vector, int]:
        n, p = self.problem.design.shape
        if n >= p or not self.pull.all():
            return w, 0
        value = self.place(w)
        by_columns = replace(self.problem, design=self.columns)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # where alpha d is all but zero
            point = dual_newton.maximise(by_columns, self.pull, self.rest, tol, max_iter, on_step)
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
        return float(self.rest @ self.rest + self.pull @ w**2)

    def sweep(self, w: Vector, n_sweeps: int) -> None:
        scale = self.columns.lines.cross_scale
        self.tau = self.rest * (1.0 if scale is None else scale)
        self.sweeps(w, n_sweeps)

    def sweep_once(self, w: Vector, backward: bool, lower: Vector, upper: Vector) -> None:
        sq_norms = self.columns.sq_norms
        self.columns.lines.sweep(sq_norms, self.no_linear, self.alpha, w, self.tau, backward, lower, upper, self.d)

    def look(self, w: Vector, exact: bool) -> _Look:
        """The gradient at w"""
        look, self.rest = self.inspect(w)
        if self.dual is not None:
            # The gap of any n-vector u in the place of y - A w: ||y - A w - u||^2 more, and g = A'u - alpha D w.
            off = self.rest - self.dual
            g = self.columns.rmatvec(self.dual[:, None])[:, 0] - self.pull * w
            look.sq_gap = min(look.sq_gap, float(off @ off) + self.sq_gap(g, w))
        return look

    def step(self, look: _Look, w: Vector, chosen: Array, aim: float) -> tuple[Vector, float, float]:
        """Return the Newton step on the chosen coordinates, and estimate and bound of g_R'H_RR^-1 g_R"""
        (n, p), alpha = self.problem.design.shape, self.alpha
        if not chosen.any():
            return np.zeros(p), 0.0, 0.0
        if np.count_nonzero(chosen) <= MAX_BLOCK:
            if self.block is None or (chosen != self.block.chosen).any():
                few = self.columns.with_columns(chosen)
                self.block = _Block(few.full_gram(), chosen, self.pull, max(n, p))
                self.block_bytes = max(
                    self.block_bytes, few.extra_bytes - self.columns.extra_bytes + 2 * self.block.factor.nbytes
                )
            return self.block.step(look.g)
        # Columns are divided by the roots of their penalties' weights; one without a penalty is given one on the step.
        free = (self.d == 0) & (alpha > 0)
        weight = np.where(free, np.maximum(PROXIMAL * self.columns.sq_norms / (alpha or 1.0), 1e-300), self.d if alpha else 1.0)
        sq_scale = chosen / weight
        dual = n < int(np.count_nonzero(chosen)) and alpha > 0
        design = self.columns if dual else self.problem.design
        sub = self.problem.restricted(design.with_columns_scaled(sq_scale), dual)
        scaled = sq_scale * look.g
        residual = design.matvec(scaled[:, None]) / alpha if dual else np.sqrt(sq_scale)[:, None] * look.g[:, None]
        sizes = np.array([look.sq_size]) if look.sq_size > 0 else None
        x = np.zeros_like(residual)
        run = conjugate_gradient(sub, x, residual, Jacobi.of(sub), sizes, aim, max(1000, 10 * len(x)))
        if dual:
            # (D + A'A / alpha)^-1 by way of n-vectors; y - A w - alpha x is a point of the dual problem.
            step = scaled / alpha - np.sqrt(sq_scale) * sub.design.rmatvec(run.x)[:, 0]
            self.dual = self.rest - alpha * run.x[:, 0]
        else:
            step = np.sqrt(sq_scale) * run.x[:, 0]
        decrease = max(float(look.g @ step), 0.0)
        proven = not dual and not (free & chosen).any() and alpha > 0
        return step, decrease + float(run.sq_error[0]), decrease + float(run.sq_bound[0]) if proven else np.inf

    def prepare(self, d: Vector) -> float:
        """Return d'H d"""
        self.change: Vector = self.problem.design.matvec(d[:, None])[:, 0]
        return float(self.change @ self.change + self.pull @ d**2)

    def move(self) -> None:
        """Take the step prepared"""
        self.rest = self.rest - self.change
