"""Rows that come in blocks, from a file or a stream: an operator that holds one block at a time and reads all once a product.

What is known of all rows, `Facts`, comes out of the first pass. Targets and weights live with their rows: `OwnTarget` stands for
the targets in the operator's contract. Blocks are centred about the mean of all rows, which is carried in two parts, high and
low: the high part is subtracted from entries as they are read, and what the low one still has to take off a product is constant
but for the weights' roots, A v - root (low'v); transposed products lose nothing to it, since the columns of A and the targets
are centred.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import qr
from scipy.linalg.blas import dsyr

from fastridge.operators.base import Array, GoOn, Matrix, Operator, Passes, Target, Traits, Vector
from fastridge.operators.composed import SUM_ERROR
from fastridge.operators.design import SHIFT_RATIO, Design, centred_design, design_about, full_columns
from fastridge.parallel import threaded_blas
from fastridge.sums import Sums, centre_of, sum_block, two_sum

NEGLIGIBLE = 1e-3 * np.finfo(np.float64).eps
"""Share of the squares of a column up to which A'A does without the low part of its mean, which takes W low low' off."""


@dataclass(frozen=True)
class Block:
    """Some rows: X (m, p) as `centred_design` takes it, y (m, k) and weights (m,) float64 or None, and where they come from"""

    X: Matrix
    y: Vector
    weights: Vector | None
    where: str


@dataclass(frozen=True)
class Facts:
    """What the first pass tells of all rows

    Attributes
    ----------
    shape : (n, p)
    weight : float
        Sum of the weights.
    x_mean, y_mean : (2, p) and (2, k) float64
        Weighted means, high and low parts; zero without an intercept.
    sq_norms : (p,) float64
        Squared norms of the columns of A.
    image : (p, k) float64
        A'y.
    sq_target : (k,) float64
    n_bytes, n_entries : int
    sparse : bool
    shifted : (p,) bool or None
        Columns of sparse blocks whose entries are all stored and far from zero: they are shifted as they are read.
    n_weighted : int
        Rows that have a weight.
    log_weights : float
        Sum of the logarithms of their weights.
    gram : (p, p) float64, lower triangle, or None
        A'A, where it was summed on the way.
    """

    shape: tuple[int, int]
    weight: float
    x_mean: Vector
    y_mean: Vector
    sq_norms: Vector
    image: Vector
    sq_target: Vector
    n_bytes: int
    n_entries: int
    sparse: bool
    shifted: Array | None
    n_weighted: int
    log_weights: float
    gram: Vector | None = field(default=None, repr=False)

    def with_shifts(self, full: Array | None) -> Facts:
        """The same, with those columns shifted that are far from zero of the `full` ones, (p,) bool or None"""
        far = self.x_mean[0] ** 2 * self.weight > SHIFT_RATIO**2 * self.sq_norms
        return self if full is None or not (far & full).any() else replace(self, shifted=far & full)


class OwnTarget:
    """The targets that live with the rows, or some columns of them: what stands for an (n, k) array"""

    def __init__(self, shape: tuple[int, int], columns: Array | None = None) -> None:
        self.columns = np.arange(shape[1]) if columns is None else columns
        self.shape = shape[0], len(self.columns)

    def __getitem__(self, chosen: tuple[slice, Array]) -> OwnTarget:
        return OwnTarget(self.shape, self.columns[chosen[1]])


class RowBlocks(Operator):
    """A = R (X - 1 mean') of rows that `blocks` yields anew on every call; tall, one pass a product

    Parameters
    ----------
    blocks : callable
        Returns an iterator of `Block`, the same rows every time.
    facts : Facts
    n_threads : int
    """

    passes: Passes

    def __init__(self, blocks: Callable[[], Iterable[Block]], facts: Facts, n_threads: int) -> None:
        self._blocks, self._facts, self._n_threads = blocks, facts, n_threads
        self.shape, self.passes, self._centred = facts.shape, Passes(), bool(facts.x_mean.any())
        self._low_counts = bool((facts.weight * facts.x_mean[1] ** 2 > NEGLIGIBLE * facts.sq_norms).any())
        self._sq_scale: Vector | None = None
        sizes = facts.n_bytes, facts.n_entries, n_threads, facts.sparse, 1
        self._traits = Traits(*sizes, transposes=False, streamed=True, gram_known=facts.gram is not None)

    @property
    def traits(self) -> Traits:
        return self._traits

    @property
    def weight(self) -> float:
        """Sum of the weights"""
        return self._facts.weight

    @property
    def n_weighted(self) -> int:
        """Rows that have a weight"""
        return self._facts.n_weighted

    @property
    def log_weights(self) -> float:
        """Sum of the logarithms of their weights"""
        return self._facts.log_weights

    @property
    def target(self) -> OwnTarget:
        """What stands for the targets"""
        return OwnTarget((self.shape[0], len(self._facts.sq_target)))

    def with_columns_scaled(self, sq_scale: Vector) -> RowBlocks:
        assert self._sq_scale is None
        new = copy.copy(self)
        new._sq_scale = sq_scale
        return new

    def normal(self, v: Vector, target: Target = None) -> Vector:
        total = PairSum()
        low = self._low @ v
        for block, design in self._designs():
            goal = _roots(block) * low if self._low_counts else None
            if target is not None:
                own = self._target_of(block)[:, target.columns]
                goal = own if goal is None else goal + own
            total.add(design.normal(v, None if goal is None else np.ascontiguousarray(goal)))
        return total.value

    def matvec(self, v: Vector) -> Target:
        raise self._refusal("keeps no vectors of samples")

    def rmatvec(self, u: Target) -> Vector:
        if not isinstance(u, OwnTarget):
            raise self._refusal("takes no vectors of samples")
        return np.ascontiguousarray(self._scaled(self._facts.image[:, u.columns]))

    def sq_image(self, v: Vector) -> Vector:
        total = PairSum()
        low = self._low @ v
        for block, design in self._designs():
            fit = design.matvec(v)
            if self._low_counts:
                fit -= _roots(block) * low
            total.add(np.asarray((fit**2).sum(axis=0)))
        return total.value

    def sq_target(self, target: Target) -> Vector:
        return np.asarray(self._facts.sq_target[target.columns])

    def take_targets(self, target: Target, chosen: Array) -> Target:
        return target[:, chosen]

    def gram(self, go_on: GoOn | None = None) -> Vector:
        known = self._facts.gram
        if known is None:
            return np.asfortranarray(dsyr(-self._facts.weight, self._low, lower=1, a=self.gram_about_high(go_on), overwrite_a=1))
        out: Vector = known.copy(order="F")
        if self._sq_scale is not None:
            root = np.sqrt(self._sq_scale)
            out *= root
            out *= root[:, None]
        return out

    def gram_about_high(self, go_on: GoOn | None = None) -> Vector:
        """The Gram matrix of rows less the high part of the mean alone, lower triangle"""
        out = np.zeros((self.shape[1],) * 2, order="F")
        for _, design in self._designs():
            if go_on is not None and not go_on():
                break
            out += design.gram(go_on)
        return out

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        for lo, rows, _, _ in self.rows():
            yield lo, lo + len(rows), rows

    def triangle(self, target: Target = None, go_on: GoOn | None = None) -> Vector:
        size = self.shape[1] + (0 if target is None else target.shape[1])
        triangle = np.empty((0, size))
        for _, rows, goal, _ in self.rows():
            if go_on is not None and not go_on():
                break
            own = rows if target is None else np.concatenate([rows, goal[:, target.columns]], axis=1)
            stacked = np.concatenate([triangle, own])
            with threaded_blas():
                triangle = qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0][:size]
        return triangle

    @property
    def sq_norms(self) -> Vector:
        return self._sq_scaled(self._facts.sq_norms)

    @property
    def mean_error(self) -> Vector | None:
        if not self._centred:
            return None
        # Sums about a row of the block, which is not far from its mean, or of unshifted sparse columns about zero.
        return 2 * SUM_ERROR * np.sqrt(self.shape[0] * self.sq_read_norms)

    @property
    def sq_read_norms(self) -> Vector:
        facts = self._facts
        if not (facts.sparse and self._centred):
            return self.sq_norms
        return self._sq_scaled(self._sq_about(facts.x_mean[0] if facts.shifted is None else facts.x_mean[0] * ~facts.shifted))

    @property
    def sq_raw_norms(self) -> Vector:
        return self._sq_scaled(self._sq_about(self._facts.x_mean[0]))

    def _sq_about(self, distance: Vector) -> Vector:
        return np.asarray(self._facts.sq_norms + self._facts.weight * distance**2)

    @property
    def _low(self) -> Vector:
        return np.asarray(self._scaled(self._facts.x_mean[1]))

    def _scaled(self, x: Vector) -> Vector:
        """Times the scales of the columns, which are its first axis"""
        return x if self._sq_scale is None else (x.T * np.sqrt(self._sq_scale)).T

    def _sq_scaled(self, sq: Vector) -> Vector:
        return sq if self._sq_scale is None else sq * self._sq_scale

    def _designs(self) -> Iterator[tuple[Block, Design]]:
        """Every block, and its rows about the high part of the mean"""
        facts = self._facts
        mean = facts.x_mean[0] if self._centred else None
        with self.passes.over(self.shape[0]):
            for block in self._blocks():
                design = design_about(block.X, block.weights, mean, facts.shifted, self._n_threads)
                if self._sq_scale is not None:
                    design = design.with_columns_scaled(self._sq_scale)
                yield block, design

    def rows(self) -> Iterator[tuple[int, Vector, Vector, Vector]]:
        """Yield (lo, dense rows of A from lo on, their targets, the roots of their weights (m, 1))"""
        at = 0
        for block, design in self._designs():
            root, goal = _roots(block), self._target_of(block)
            for lo, hi, rows in design.blocks():
                yield at + lo, rows - np.multiply.outer(root[lo:hi, 0], self._low), goal[lo:hi], root[lo:hi]
            at += len(block.y)

    def over_rows(self, function: Callable[..., Vector], *arguments: Any) -> Vector:
        """The sum over parts of the rows, which may lie on several machines, of function(part, *arguments)"""
        return function(self, *arguments)

    def _target_of(self, block: Block) -> Vector:
        high, low = self._facts.y_mean
        return np.asarray(_roots(block) * ((block.y - high) - low))


def first_pass(blocks: Iterable[Block], fit_intercept: bool, n_threads: int, with_gram: bool) -> Facts:
    """Read all rows once and return what is to be known of them; with the Gram matrix as well where there is an intercept

    Blocks are summed about their own means, and joined by the differences of these, in pairs of numbers: how far means lie from
    zero, and how rows are cut into blocks, costs no digits.

    Raises
    ------
    ValueError
        If there is no row with a weight, or an entry is not finite or too large or small to be squared.

    References
    ----------
    Chan, Golub & LeVeque (1983), DOI 10.1080/00031305.1983.10483115.
    """
    totals: Totals | None = None
    for block in blocks:
        if totals is None:
            totals = Totals(block.X.shape[1], block.y.shape[1], fit_intercept, with_gram)
        totals.add(block, n_threads)
    if totals is None:
        raise ValueError("the source has no rows")
    return totals.facts()


def gathered(blocks: Iterable[Block], n_rows: int) -> Iterator[Block]:
    """Yield blocks, or neighbours as one where they have fewer than `n_rows`

    To add a block costs a pass over a Gram matrix, which many rows should share.
    """
    held: list[Block] = []
    for block in blocks:
        if held and isinstance(block.X, np.ndarray) != isinstance(held[0].X, np.ndarray):
            yield stacked(held)
            held = []
        if not held and len(block.y) >= n_rows:
            yield block
            continue
        held.append(replace(block, X=block.X.copy()))  # it may be overwritten
        if sum(len(own.y) for own in held) >= n_rows:
            yield stacked(held)
            held = []
    if held:
        yield stacked(held)


def stacked(blocks: list[Block]) -> Block:
    """Neighbours, all dense or all sparse, as one block"""
    if len(blocks) == 1:
        return blocks[0]
    rows = [block.X for block in blocks]
    X: Any = np.concatenate(rows) if isinstance(rows[0], np.ndarray) else sp.vstack(rows, format="csr")
    weights = None
    if any(block.weights is not None for block in blocks):
        weights = np.concatenate([np.ones(len(block.y)) if block.weights is None else block.weights for block in blocks])
    return Block(X, np.concatenate([block.y for block in blocks]), weights, f"{blocks[0].where} to {blocks[-1].where}")


class Totals:
    """Sums over blocks of rows, about their mean, which is carried in pairs; with a Gram matrix where that is wanted

    Parameters
    ----------
    p, k : int
        Features and targets.
    fit_intercept : bool
    with_gram : bool
        Whether A'A is summed as well; not without an intercept.
    """

    def __init__(self, p: int, k: int, fit_intercept: bool, with_gram: bool) -> None:
        self.p, self.k, self.fit_intercept, self.weight = p, k, fit_intercept, 0.0
        self.n_rows = self.n_bytes = self.n_entries = self.n_weighted = 0
        self.log_weights = 0.0
        self.sparse = False
        self.full: Array | None = None
        self.sums = Sums(p, k) if with_gram and fit_intercept else None
        size = 0 if self.sums is not None else p + k
        self.mean, self.sq, self.cross = np.zeros((2, size)), np.zeros((2, size)), np.zeros((2, p if size else 0, k))

    def add(self, block: Block, n_threads: int) -> None:
        """Add a block

        Raises
        ------
        ValueError
            If an entry is not finite, or too large or small to be squared.
        """
        X, weights = block.X, block.weights
        sparse = not isinstance(X, np.ndarray)
        full = full_columns(X) if sparse else None
        n_bytes = X.data.nbytes + X.indices.nbytes if sparse else X.nbytes
        self._count(X.shape[0], n_bytes, X.data.size if sparse else X.size, full)
        if weights is None:
            self.n_weighted += X.shape[0]
        else:
            used = weights[weights > 0]
            self.n_weighted, self.log_weights = self.n_weighted + len(used), self.log_weights + float(np.log(used).sum())
        try:
            if self.sums is not None:
                self.sums.add(sum_block(X, block.y, weights, n_threads))
                self.weight = self.sums.weight
                return
            weight = float(X.shape[0]) if weights is None else float(weights.sum())
            if weight:
                self._merge(weight, *self._of_block(block, weight, n_threads))
        except ValueError as error:
            raise ValueError(f"{block.where}: {error}") from error

    def join(self, other: Totals) -> Totals:
        """Add the rows of another one, and return this one"""
        self._count(other.n_rows, other.n_bytes, other.n_entries, other.full)
        self.n_weighted, self.log_weights = self.n_weighted + other.n_weighted, self.log_weights + other.log_weights
        if self.sums is not None:
            assert other.sums is not None
            self.sums.add(other.sums)
            self.weight = self.sums.weight
        elif other.weight:
            self._merge(other.weight, other.mean, other.sq.sum(axis=0), other.cross.sum(axis=0))
        return self

    @classmethod
    def of_all(cls, parts: list[Totals]) -> Totals:
        """The rows of all `parts`, which stay as they are"""
        first = parts[0]
        total = cls(first.p, first.k, first.fit_intercept, first.sums is not None)
        for part in parts:
            total.join(part)
        return total

    def _count(self, n_rows: int, n_bytes: int, n_entries: int, full: Array | None) -> None:
        self.n_rows, self.n_bytes, self.n_entries = self.n_rows + n_rows, self.n_bytes + n_bytes, self.n_entries + n_entries
        if full is not None:
            self.sparse = True
            self.full = full if self.full is None else self.full & full

    def _of_block(self, block: Block, weight: float, n_threads: int) -> tuple[Vector, Vector, Vector]:
        """Mean in two parts, (2, p + k), squares about it, (p + k,), and A'y, (p, k)"""
        with np.errstate(invalid="ignore"):
            centred = centred_design(block.X, block.weights, self.fit_intercept, n_threads)
        if centred.power:
            raise ValueError("X has columns whose squares leave float64: rescale it")
        root = _roots(block)
        y_centre = centre_of(block.y, block.weights) * self.fit_intercept
        target = root * (block.y - y_centre)
        y_left = np.einsum("i,il->l", root[:, 0], target) / weight * self.fit_intercept  # what rounding has left of the mean
        target -= root * y_left
        x_mean = centred.mean
        if self.fit_intercept and not centred.design.traits.sparse:  # a centre is a rounded mean: what rounding has left of it
            x_mean = np.stack([x_mean[0], centred.design.rmatvec(root)[:, 0] / weight])
        mean = np.concatenate([x_mean, np.stack([y_centre, y_left])], axis=1)
        sq = np.concatenate([centred.design.sq_norms, np.einsum("il,il->l", target, target)])
        return mean, sq, centred.design.rmatvec(np.ascontiguousarray(target))

    def _merge(self, weight: float, mean: Vector, sq: Vector, cross: Vector) -> None:
        share = weight / (self.weight + weight)
        delta = ((mean[0] - self.mean[0]) + (mean[1] - self.mean[1])) * self.fit_intercept
        moved = self.weight * share
        _add_to_pair(self.sq, sq + moved * delta**2)
        _add_to_pair(self.cross, cross + moved * np.multiply.outer(delta[: self.p], delta[self.p :]))
        if self.weight:
            _add_to_pair(self.mean, delta * share)
        else:
            self.mean[...] = mean
        self.weight += weight

    def facts(self) -> Facts:
        """What they tell

        Raises
        ------
        ValueError
            If there is no row, or none with a weight.
        """
        if not self.n_rows:
            raise ValueError("the source has no rows")
        if not self.weight > 0:
            raise ValueError("all sample weights are zero")
        p, sums, gram = self.p, self.sums, None
        if sums is None:
            mean, sq, cross = self.mean, np.maximum(self.sq.sum(axis=0), 0.0), self.cross.sum(axis=0)
        else:
            mean, sq, cross = sums.pair("mean"), sums.sq_columns, sums.cross
            gram = np.asfortranarray(np.tril(sums.gram))
        facts = Facts(
            shape=(self.n_rows, p),
            weight=self.weight,
            x_mean=mean[:, :p].copy(),
            y_mean=mean[:, p:].copy(),
            sq_norms=sq[:p].copy(),
            image=cross.copy(),
            sq_target=sq[p:].copy(),
            n_bytes=self.n_bytes,
            n_entries=self.n_entries,
            sparse=self.sparse,
            shifted=None,
            n_weighted=self.n_weighted,
            log_weights=self.log_weights,
            gram=gram,
        )
        return facts.with_shifts(self.full) if self.fit_intercept else facts


def _roots(block: Block) -> Vector:
    """Square roots of the weights, (m, 1)"""
    return np.ones((len(block.y), 1)) if block.weights is None else np.sqrt(block.weights)[:, None]


class PairSum:
    """A sum of arrays with twice the digits; of one it is that one, without a copy, and of none 0"""

    def __init__(self) -> None:
        self.high: Vector | None = None
        self.low: Vector | None = None

    def add(self, x: Vector) -> None:
        """Add an array, which is the sum's from now on"""
        if self.high is None:
            self.high = x
            return
        self.high, error = two_sum(self.high, x)
        self.low = error if self.low is None else self.low + error

    @property
    def value(self) -> Vector:
        """The sum, rounded"""
        if self.high is None:
            return np.zeros(())
        return self.high if self.low is None else self.high + self.low


def _add_to_pair(total: Vector, x: Vector) -> None:
    """Add x to a pair of numbers, (2, ...), in place"""
    high, low = two_sum(total[0], x)
    total[0] = high
    total[1] += low
