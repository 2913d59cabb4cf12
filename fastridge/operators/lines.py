"""The array that holds the data, read line by line: products, sums, Gram matrices and blocks, without a copy of it.

The rows of C order or CSR, the columns of F order or CSC are the *lines* of an array; every loop of the package runs along
them. Nothing here knows about regression. Vectors are float64, (length, k) for k targets, C-contiguous.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np

from fastridge import parallel
from fastridge._kernels import blas
from fastridge.operators.base import Array, GoOn, Vector

BLOCK_BYTES, MIN_BLOCK_BYTES, BLOCK_SHARE = 1 << 24, 1 << 20, 50
"""Dense float64 blocks (for Gram matrices, factorisations, many targets) take a fiftieth of the data, within these bounds: BLAS
wants them large, since its threads meet after every one; memory wants them small. Up to a quarter of a Gram matrix is allowed."""


class Lines:
    """The matrix  diag(line_scale) (M - a b') diag(cross_scale)  for an array M (n_lines, width) that is never changed

    Attributes
    ----------
    line_shift, cross_shift : (n_lines,) and (width,) float64 or None
        a and b; without b nothing is centred, without a it stands for ones.
    line_scale, cross_scale : (n_lines,) and (width,) float64 or None
    n_threads : int
    nbytes : int
        What one pass over M reads.
    n_entries : int
        Stored entries.
    sparse : bool
    """

    shape: tuple[int, int]
    nbytes: int
    n_entries: int
    sparse: bool

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.line_shift: Vector | None = None
        self.cross_shift: Vector | None = None
        self.line_scale: Vector | None = None
        self.cross_scale: Vector | None = None
        self.sq_line_scale: Vector | None = None
        self.sq_cross_scale: Vector | None = None

    def with_terms(
        self,
        line_shift: Vector | None,
        cross_shift: Vector | None,
        sq_line_scale: Vector | None,
        sq_cross_scale: Vector | None,
    ) -> Lines:
        """Return the same array centred and scaled otherwise"""
        new = copy.copy(self)
        new.__dict__.pop("_descent_terms", None)
        new.line_shift, new.cross_shift = (None, None) if cross_shift is None else (line_shift, cross_shift)
        new.sq_line_scale, new.sq_cross_scale = sq_line_scale, sq_cross_scale
        new.line_scale = None if sq_line_scale is None else np.sqrt(sq_line_scale)
        new.cross_scale = None if sq_cross_scale is None else np.sqrt(sq_cross_scale)
        return new

    def terms_of_transposed(self) -> tuple[Vector | None, Vector | None, Vector | None, Vector | None]:
        """What `with_terms` takes for the transposed matrix"""
        a, b = self.line_shift, self.cross_shift
        if b is not None and a is None:
            a = np.ones(self.shape[0])
        return b, a, self.sq_cross_scale, self.sq_line_scale

    def take(self, chosen: Array) -> Lines:
        """The matrix of some of the lines, (n_lines,) bool, which are copied"""
        new = self._take(chosen)
        shift, sq_scale = (None if v is None else v[chosen] for v in (self.line_shift, self.sq_line_scale))
        return new.with_terms(shift, self.cross_shift, sq_scale, self.sq_cross_scale)

    def dot(self, v: Vector) -> Vector:
        """The matrix times v: (width, k) -> (n_lines, k)"""
        return scaled(self._dot(scaled(v, self.cross_scale)), self.line_scale)

    def add(self, t: Vector) -> Vector:
        """The transposed matrix times t: (n_lines, k) -> (width, k)"""
        return scaled(self._add(scaled(t, self.line_scale)), self.cross_scale)

    def normal_along(self, v: Vector, target: Vector | None = None) -> Vector:
        """Transposed matrix times (matrix times v, less target): (width, k) -> (width, k), target (n_lines, k) or None"""
        goal = None if target is None else scaled(target, self.line_scale)
        return scaled(self._normal_along(scaled(v, self.cross_scale), goal), self.cross_scale)

    def normal_across(self, v: Vector, target: Vector | None = None) -> Vector:
        """Matrix times (transposed matrix times v, less target): (n_lines, k) -> (n_lines, k), target (width, k) or None"""
        goal = None if target is None else scaled(target, self.cross_scale)
        return scaled(self._normal_across(scaled(v, self.line_scale), goal), self.line_scale)

    def sq_norms_along(self) -> Vector:
        """Squared norms of the columns of the matrix: (width,)"""
        raise NotImplementedError

    def sq_norms_across(self) -> Vector:
        """Squared norms of the lines: (n_lines,)"""
        raise NotImplementedError

    def gram_along(self, go_on: GoOn | None = None) -> Vector:
        """Transposed matrix times matrix, lower triangle, F order: (width, width)"""
        raise NotImplementedError

    def gram_across(self, go_on: GoOn | None = None) -> Vector:
        """Matrix times transposed matrix, lower triangle, F order: (n_lines, n_lines)"""
        raise NotImplementedError

    def sweep(
        self,
        sq_norms: Vector,
        linear: Vector,
        penalty: float,
        z: Vector,
        tau: Vector,
        backward: bool,
        lower: Vector | None = None,
        upper: Vector | None = None,
        penalty_weights: Vector | None = None,
    ) -> float:
        """Sweep of coordinate descent over the lines, changing z (n_lines,) and tau (width,) in place; see `_kernels.descent`

        `lower` and `upper`, (n_lines,) or None, keep z between them; `penalty_weights`, (n_lines,), None for ones, multiply the
        penalty. Returns the decrease of the objective, times two.
        """
        raise NotImplementedError

    def blocks(self, across: bool) -> Iterator[tuple[int, int, Vector]]:
        """Yield (lo, hi, block): lines [lo, hi) of the matrix in float64, or where `across` its columns [lo, hi) as rows

        A block is overwritten by the next one.
        """
        raise NotImplementedError

    def product_blocks(self, across: bool, v: Vector, work: Callable[[int, int, Vector], None]) -> None:
        """Call work(lo, hi, block @ v) for all blocks as `blocks` has them, from several threads, BLAS being on one in each"""
        raise NotImplementedError

    def rough_gram(self, across: bool, scale: Vector, fold: int, rng: np.random.Generator, go_on: GoOn | None = None) -> Array:
        """Gram matrix in float32 of a matrix close to this one (transposed where `across`), its columns multiplied by `scale`

        Where `fold` > 1, the matrix has one row for `fold` rows of this one: their sum, with random signs.
        """
        raise NotImplementedError("only for dense data")

    def relaid(self) -> tuple[Lines, int]:
        """The transposed matrix of the same entries, columns of M being its lines: a copy, and the bytes that it holds"""
        raise NotImplementedError

    def sums(self, across: bool, weights: Vector | None, centre: Vector) -> Vector:
        """Sums of w (x - c), w (x - c)^2, and one more, over the columns of M, (3, width), or `across` them, (3, n_lines)"""
        raise NotImplementedError

    def _take(self, chosen: Array) -> Lines:
        raise NotImplementedError

    def _dot(self, v: Vector) -> Vector:
        raise NotImplementedError

    def _add(self, t: Vector) -> Vector:
        raise NotImplementedError

    def _normal_along(self, v: Vector, goal: Vector | None) -> Vector:
        raise NotImplementedError

    def _normal_across(self, v: Vector, goal: Vector | None) -> Vector:
        raise NotImplementedError

    def _block_rows(self, length: int, width: int, at_once: int = 1) -> int:
        beside_gram = min(2 * width * width, self.nbytes)
        n_bytes = min(max(self.nbytes // BLOCK_SHARE, MIN_BLOCK_BYTES, beside_gram), BLOCK_BYTES) // at_once
        return max(1, min(length, n_bytes // (8 * max(1, width))))

    def _run(self, task: Callable[[int], None], cut: list[int]) -> None:
        parallel.run(task, len(cut) - 1, self.n_threads)


def scaled(v: Vector, scale: Vector | None) -> Vector:
    """Every row of v times its entry of `scale`; None: ones"""
    return v if scale is None else v * scale[:, None]


def add_gram(lo: int, hi: int, block: Array, gram: Array) -> None:
    """Add block'block to the lower triangle of `gram`, F order, in its precision"""
    blas.add_gram(block, gram)


def summed(parts: Vector) -> Vector:
    """Sum of the lanes, (length, 1)"""
    total: Vector = parts[0] if len(parts) == 1 else parts.sum(axis=0)
    return total[:, None]
