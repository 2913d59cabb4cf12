"""The array that holds the data, read line by line: products, sums, Gram matrices and blocks, without a copy of it.

The rows of C order or CSR, the columns of F order or CSC are the *lines* of an array; every loop of the package runs along
them. Nothing here knows about regression. Vectors are float64, (length, k) for k targets, C-contiguous.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from fastridge import parallel
from fastridge._kernels import blas, dense, descent, moments, sparse, vectors

PIECE_BYTES = 1 << 17
"""What a fused pass over dense lines keeps in cache, half of the smallest L2 in use (256 KB)."""
BLOCK_BYTES, MIN_BLOCK_BYTES, BLOCK_SHARE = 1 << 24, 1 << 20, 50
"""Dense float64 blocks (for Gram matrices, factorisations, many targets) take a fiftieth of the data, within these bounds: BLAS
wants them large, since its threads meet after every one; memory wants them small."""
LANE_BLOCKS = 4
"""Lanes fill blocks of their own, which are smaller by this: BLAS on one thread wants no more than 1 to 2 MB."""
MIN_PIECE = 128
"""Entries of a line that are read at once, at the least: many lines are then kept in L3 instead."""
MAX_TOGETHER = 8
"""Dense lines that one fused step takes together; more do not help once v and q are loaded so rarely."""
TOTAL_LANES, TOTAL_SHARE = 8, 4
"""Lanes that sum over blocks are at most so many and hold totals of at most a fourth of the data in all."""
TARGETS_TOGETHER = 4
"""Targets in one sparse product; the vectors of more leave the cache (4.2M entries, 63,000 rows: 52 ms for 4, 301 for 8)."""
SPARSE_GRAM_SECONDS, DENSE_GRAM_SECONDS = 1.5e-9, 2e-11
"""Per product of two stored entries scattered into a Gram matrix, and per entry product of a dense block (2 AVX2 cores)."""

Array = np.ndarray[Any, np.dtype[Any]]
Vector = np.ndarray[Any, np.dtype[np.float64]]
Matrix: TypeAlias = Any
"""A dense array, a csr_array or a csc_array; scipy is not typed."""


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
    """

    shape: tuple[int, int]
    nbytes: int

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

    def dot(self, v: Vector) -> Vector:
        """The matrix times v: (width, k) -> (n_lines, k)"""
        return _scaled(self._dot(_scaled(v, self.cross_scale)), self.line_scale)

    def add(self, t: Vector) -> Vector:
        """The transposed matrix times t: (n_lines, k) -> (width, k)"""
        return _scaled(self._add(_scaled(t, self.line_scale)), self.cross_scale)

    def normal_along(self, v: Vector, target: Vector | None = None) -> Vector:
        """Transposed matrix times (matrix times v, less target): (width, k) -> (width, k), target (n_lines, k) or None"""
        goal = None if target is None else _scaled(target, self.line_scale)
        return _scaled(self._normal_along(_scaled(v, self.cross_scale), goal), self.cross_scale)

    def normal_across(self, v: Vector, target: Vector | None = None) -> Vector:
        """Matrix times (transposed matrix times v, less target): (n_lines, k) -> (n_lines, k), target (width, k) or None"""
        goal = None if target is None else _scaled(target, self.cross_scale)
        return _scaled(self._normal_across(_scaled(v, self.line_scale), goal), self.line_scale)

    def sq_norms_along(self) -> Vector:
        """Squared norms of the columns of the matrix: (width,)"""
        raise NotImplementedError

    def sq_norms_across(self) -> Vector:
        """Squared norms of the lines: (n_lines,)"""
        raise NotImplementedError

    def gram_along(self) -> Vector:
        """Transposed matrix times matrix, lower triangle, F order: (width, width)"""
        raise NotImplementedError

    def gram_across(self) -> Vector:
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

    def rough_gram(self, across: bool, scale: Vector, fold: int, rng: np.random.Generator) -> Array:
        """Gram matrix in float32 of a matrix close to this one (transposed where `across`), its columns multiplied by `scale`

        Where `fold` > 1 so many of its rows are added to one, with random signs.
        """
        raise NotImplementedError("only for dense data")

    def sums(self, across: bool, weights: Vector | None, centre: Vector) -> Vector:
        """Sums of w (x - c), w (x - c)^2 and w over the stored entries of M, (3, width), or of its lines, (3, n_lines)"""
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
        n_bytes = min(max(self.nbytes // BLOCK_SHARE, MIN_BLOCK_BYTES), BLOCK_BYTES) // at_once
        return max(1, min(length, n_bytes // (8 * max(1, width))))

    def _run(self, task: Callable[[int], None], cut: list[int]) -> None:
        parallel.run(task, len(cut) - 1, self.n_threads)


class DenseLines(Lines):
    """Lines of a dense array, float32 or float64, each contiguous; centred entry by entry while they are in registers"""

    def __init__(self, M: Array, n_threads: int) -> None:
        super().__init__(n_threads)
        self.M = M
        self.shape = (M.shape[0], M.shape[1])
        self.nbytes = M.size * M.itemsize

    @property
    def _centre(self) -> Vector:
        """What the kernels subtract from every line, times its shift"""
        return np.zeros(self.shape[1]) if self.cross_shift is None else self.cross_shift

    def _cut(self, length: int, out_length: int = 0) -> list[int]:
        return parallel.cut_evenly(length, min(length, parallel.count_lanes(self.nbytes, 8 * out_length)))

    def _dot(self, v: Vector) -> Vector:
        out = np.empty((self.shape[0], v.shape[1]))
        if v.shape[1] != 1:
            for lo, hi, block in self._blocks(False, None, None):
                np.matmul(block, v, out=out[lo:hi])
            return out
        cut, b, v1, out1 = self._cut(self.shape[0]), self._centre, v[:, 0], out[:, 0]

        def lane(i: int) -> None:
            dense.dot(self.M, cut[i], cut[i + 1], self.line_shift, b, v1, out1)

        self._run(lane, cut)
        return out

    def _add(self, t: Vector) -> Vector:
        n_lines, width = self.shape
        if t.shape[1] != 1:
            total = np.zeros((width, t.shape[1]))
            for lo, hi, block in self._blocks(False, None, None):
                total += block.T @ t[lo:hi]
            return total
        t1, b = t[:, 0], self._centre
        if width > n_lines:  # long lines: a lane owns a stretch of the result
            out, cut = np.empty((width, 1)), self._cut(width)

            def stretch(i: int) -> None:
                dense.add(self.M, cut[i], cut[i + 1], self.line_shift, b, t1, out[:, 0])

            self._run(stretch, cut)
            return out
        cut = self._cut(n_lines, width)
        parts = np.empty((len(cut) - 1, width))

        def lane(i: int) -> None:
            lo, hi = cut[i], cut[i + 1]
            a = None if self.line_shift is None else self.line_shift[lo:hi]
            dense.add(self.M[lo:hi], 0, width, a, b, t1[lo:hi], parts[i])

        self._run(lane, cut)
        return _total(parts)

    def _normal_along(self, v: Vector, goal: Vector | None) -> Vector:
        n_lines, width = self.shape
        if v.shape[1] != 1:
            return self._normal_of_blocks(False, self.sq_line_scale, v, goal)
        cut, b, v1, goal1 = self._cut(n_lines, width), self._centre, v[:, 0], None if goal is None else goal[:, 0]
        parts = np.zeros((len(cut) - 1, width))
        n_together = int(np.clip(PIECE_BYTES // max(1, width * self.M.itemsize) // 4 * 4, 1, MAX_TOGETHER))

        def lane(i: int) -> None:
            dense.normal_along(
                self.M,
                cut[i],
                cut[i + 1],
                self.line_shift,
                b,
                self.sq_line_scale,
                goal1,
                v1,
                parts[i],
                n_together,
            )

        self._run(lane, cut)
        return _total(parts)

    def _normal_of_blocks(self, across: bool, weights: Vector | None, v: Vector, goal: Vector | None) -> Vector:
        """Products for several targets are BLAS's"""

        def add(lo: int, hi: int, block: Array, total: Array) -> None:
            t = block @ v
            if weights is not None:
                t *= weights[lo:hi, None]
            if goal is not None:
                t -= goal[lo:hi]
            total += block.T @ t

        return self._sum_over_blocks(across, None, None, np.zeros_like(v), add)

    def _sum_over_blocks(
        self,
        across: bool,
        line_scale: Vector | None,
        cross_scale: Vector | None,
        zero: Array,
        add: Callable[[int, int, Array, Array], None],
        fold: int = 1,
    ) -> Array:
        """Sum in lanes, each with BLAS on its own thread and a total like `zero`; in one lane where that is large"""
        length = self.shape[1] if across else self.shape[0]
        lane_bytes = max(parallel.LANE_BYTES, TOTAL_SHARE * zero.nbytes)
        n_lanes = max(1, min(length, TOTAL_LANES, self.nbytes // lane_bytes))
        cut = parallel.cut_evenly(length, n_lanes)
        totals = [zero, *(np.zeros_like(zero) for _ in range(n_lanes - 1))]

        def lane(i: int) -> None:
            span = None if n_lanes == 1 else (cut[i], cut[i + 1])
            for lo, hi, block in self._blocks(across, line_scale, cross_scale, zero.dtype, span, fold):
                add(lo, hi, block, totals[i])

        if n_lanes == 1:
            lane(0)
            return zero
        with parallel.single_threaded_blas():
            self._run(lane, cut)
        for total in totals[1:]:
            zero += total
        return zero

    def gram_along(self) -> Vector:
        return self._gram(False, self.line_scale, self.cross_scale, np.float64)

    def gram_across(self) -> Vector:
        return self._gram(True, self.line_scale, self.cross_scale, np.float64)

    def _gram(self, across: bool, line_scale: Vector | None, cross_scale: Vector | None, dtype: Any, fold: int = 1) -> Array:
        size = self.shape[0] if across else self.shape[1]
        zero = np.zeros((size, size), dtype, order="F")
        return self._sum_over_blocks(across, line_scale, cross_scale, zero, _add_gram, fold)

    def _normal_across(self, v: Vector, goal: Vector | None) -> Vector:
        n_lines, width = self.shape
        if v.shape[1] != 1:
            return self._normal_of_blocks(True, self.sq_cross_scale, v, goal)
        cut, b, v1, goal1 = self._cut(width, n_lines), self._centre, v[:, 0], None if goal is None else goal[:, 0]
        parts = np.zeros((len(cut) - 1, n_lines))
        piece = max(MIN_PIECE, PIECE_BYTES // max(1, n_lines * self.M.itemsize) // 8 * 8)

        def lane(i: int) -> None:
            dense.normal_across(
                self.M,
                cut[i],
                cut[i + 1],
                self.line_shift,
                b,
                self.sq_cross_scale,
                goal1,
                v1,
                parts[i],
                np.empty(piece),
            )

        self._run(lane, cut)
        return _total(parts)

    def sq_norms_along(self) -> Vector:
        total = np.zeros(self.shape[1])
        for _, _, block in self.blocks(across=False):
            total += np.einsum("ij,ij->j", block, block)
        return total

    def sq_norms_across(self) -> Vector:
        out = np.empty(self.shape[0])
        for lo, hi, block in self.blocks(across=False):
            out[lo:hi] = np.einsum("ij,ij->i", block, block)
        return out

    def sums(self, across: bool, weights: Vector | None, centre: Vector) -> Vector:
        n_lines, width = self.shape
        if across:
            out, cut = np.zeros((3, n_lines)), self._cut(n_lines)

            def line_lane(i: int) -> None:
                dense.sums_along(self.M, cut[i], cut[i + 1], weights, centre, out)

            self._run(line_lane, cut)
            return out
        cut = self._cut(n_lines, 3 * width)
        parts = np.zeros((len(cut) - 1, 3, width))

        def lane(i: int) -> None:
            dense.sums_across(self.M, cut[i], cut[i + 1], weights, centre, parts[i])

        self._run(lane, cut)
        return np.asarray(parts.sum(axis=0))

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
        return float(
            descent.sweep_dense(
                self.M,
                self.line_shift,
                self.cross_shift,
                self.line_scale,
                self.sq_cross_scale,
                sq_norms,
                linear,
                penalty,
                z,
                tau,
                backward,
                lower,
                upper,
                penalty_weights,
            )
        )

    def blocks(self, across: bool) -> Iterator[tuple[int, int, Vector]]:
        return self._blocks(across, self.line_scale, self.cross_scale)

    def rough_gram(self, across: bool, scale: Vector, fold: int, rng: np.random.Generator) -> Array:
        """Gram matrix in float32 of a matrix close to this one (transposed where `across`), its columns multiplied by `scale`

        Where `fold` > 1 so many of its rows are added to one, with random signs.
        """
        row_scale = self.cross_scale if across else self.line_scale
        if fold > 1:
            signs = rng.choice(np.array([-1.0, 1.0]), self.shape[across])
            row_scale = signs if row_scale is None else signs * row_scale
        line_scale, cross_scale = (scale, row_scale) if across else (row_scale, scale)
        return self._gram(across, line_scale, cross_scale, np.float32, fold)

    def _blocks(
        self,
        across: bool,
        line_scale: Vector | None,
        cross_scale: Vector | None,
        dtype: Any = np.float64,
        span: tuple[int, int] | None = None,
        fold: int = 1,
    ) -> Iterator[tuple[int, int, Array]]:
        """Yield blocks as `blocks` does, all of them, or those of `span` filled by the calling thread alone

        Rows of a block are sums of `fold` scaled rows, which lie apart: neighbours are often alike.
        """
        length, width = self.shape[::-1] if across else self.shape
        start, stop = span or (0, length)
        size = self._block_rows(-((start - stop) // fold), width, 1 if span is None else LANE_BLOCKS)
        buffer = np.empty((width, size) if across else (size, width), dtype=dtype)
        for lo in range(start, stop, size * fold):
            hi = min(stop, lo + size * fold)
            n_rows = -((lo - hi) // fold)
            if n_rows < size:
                buffer = np.empty((width, n_rows), dtype=dtype) if across else buffer[:n_rows]
            self._fill(buffer, across, lo, hi, line_scale, cross_scale, fold, on_pool=span is None)
            yield lo, hi, buffer.T if across else buffer

    def _fill(
        self,
        buffer: Array,
        across: bool,
        lo: int,
        hi: int,
        line_scale: Vector | None,
        cross_scale: Vector | None,
        fold: int,
        on_pool: bool,
    ) -> None:
        n_lanes = min(buffer.shape[0], parallel.count_lanes(buffer.nbytes * fold)) if on_pool else 1
        cut = parallel.cut_evenly(buffer.shape[0], n_lanes)
        terms = (self.line_shift, self._centre, line_scale, cross_scale)
        width = self.shape[1]

        def lane(i: int) -> None:
            first, last, part = cut[i], cut[i + 1], buffer[cut[i] : cut[i + 1]]
            if fold == 1 and across:
                dense.fill(self.M, first, last, lo, hi, *terms, part)
            elif fold == 1:
                dense.fill(self.M, lo + first, lo + last, 0, width, *terms, part)
            elif across:
                dense.fold_across(self.M, first, last, lo, hi, part.shape[1], *terms, part, np.empty(part.shape[1]))
            else:
                dense.fold_along(self.M, lo + first, hi, len(buffer), *terms, part, np.empty(width))

        self._run(lane, cut)


class SparseLines(Lines):
    """Lines of a CSR or CSC matrix, float32 or float64, no entry stored twice; centred by scalars"""

    def __init__(self, data: Array, indices: Array, indptr: Array, width: int, n_threads: int) -> None:
        super().__init__(n_threads)
        self.data, self.indices, self.indptr = data, indices, indptr
        self.shape = (indptr.shape[0] - 1, width)
        self.nbytes = data.nbytes + indices.nbytes

    def _cut(self, out_length: int = 0) -> list[int]:
        n_lanes = min(self.shape[0], parallel.count_lanes(self.nbytes, 8 * out_length))
        return parallel.cut_by_weight(self.indptr, n_lanes)

    def _b_dot(self, v: Vector) -> Vector:
        """b'v, (k,)"""
        out = np.zeros(v.shape[1])
        if self.cross_shift is not None:
            vectors.weighted_sums(self.cross_shift, v, out)  # BLAS would wake threads of its own
        return out

    def _finish(self, parts: Vector, a_t: Vector) -> Vector:
        """Sum the lanes and take b (a't) off"""
        out: Vector = np.ascontiguousarray(parts[0]) if len(parts) == 1 else parts.sum(axis=0)
        if self.cross_shift is not None:
            out -= np.multiply.outer(self.cross_shift, a_t.sum(axis=0))
        return out

    def _dot(self, v: Vector) -> Vector:
        out = np.empty((self.shape[0], v.shape[1]))
        cut, b_v = self._cut(), self._b_dot(v)

        def lane(i: int) -> None:
            sparse.dot(self.data, self.indices, self.indptr, cut[i], cut[i + 1], self.line_shift, b_v, v, out)

        self._run(lane, cut)
        return out

    def _add(self, t: Vector) -> Vector:
        k = t.shape[1]
        cut = self._cut(self.shape[1] * k)
        parts, a_t = np.zeros((len(cut) - 1, self.shape[1], k)), np.zeros((len(cut) - 1, k))

        def lane(i: int) -> None:
            sparse.add(self.data, self.indices, self.indptr, cut[i], cut[i + 1], self.line_shift, t, parts[i], a_t[i])

        self._run(lane, cut)
        return self._finish(parts, a_t)

    def _normal_across(self, v: Vector, goal: Vector | None) -> Vector:
        t = _scaled(self._add(v), self.sq_cross_scale)
        return self._dot(t if goal is None else t - goal)

    def _normal_along(self, v: Vector, goal: Vector | None) -> Vector:
        k = v.shape[1]
        if k > TARGETS_TOGETHER:
            groups = parallel.cut_evenly(k, -(-k // TARGETS_TOGETHER))
            out = np.empty_like(v)

            def group(i: int) -> None:
                some = slice(groups[i], groups[i + 1])
                aim = None if goal is None else np.ascontiguousarray(goal[:, some])
                out[:, some] = self._normal_along(np.ascontiguousarray(v[:, some]), aim)

            self._run(group, groups)
            return out
        cut, b_v = self._cut(2 * self.shape[1] * k), self._b_dot(v)
        pairs, a_t = np.empty((len(cut) - 1, self.shape[1], 2 * k)), np.zeros((len(cut) - 1, k))
        terms = (self.line_shift, self.sq_line_scale, goal, b_v, v)

        def lane(i: int) -> None:
            lo, hi = cut[i], cut[i + 1]
            sparse.normal(self.data, self.indices, self.indptr, lo, hi, *terms, pairs[i], a_t[i], np.empty(k))

        self._run(lane, cut)
        return self._finish(pairs[:, :, k:], a_t)

    def sq_norms_along(self) -> Vector:
        # sum_i w_i (x_ij - a_i b_j)^2 = sum w x^2 - 2 b_j sum w a x + b_j^2 sum w a^2, then the column's own scale.
        sq = self.sums(False, self.sq_line_scale, np.zeros(self.shape[1]))[1]
        if self.cross_shift is not None:
            w_a, sq_a = self._weighted_shift()
            sq = sq - 2 * self.cross_shift * self._plain_add(w_a) + sq_a * self.cross_shift**2
        return _positive(sq, self.sq_cross_scale)

    def sq_norms_across(self) -> Vector:
        sq = self.sums(True, self.sq_cross_scale, np.zeros(self.shape[0]))[1]
        if self.cross_shift is not None:
            _, h, eta = self._descent_terms
            a = np.ones(self.shape[0]) if self.line_shift is None else self.line_shift
            sq = sq - 2 * a * h + eta * a**2
        return _positive(sq, self.sq_line_scale)

    def _weighted_shift(self) -> tuple[Vector, float]:
        """(W a, a'W a) with W the squared line scales"""
        a = np.ones(self.shape[0]) if self.line_shift is None else self.line_shift
        w_a = a if self.sq_line_scale is None else a * self.sq_line_scale
        return w_a, float(w_a @ a)

    def plain_dot(self, v: Vector) -> Vector:
        """M v for one vector, neither centred nor scaled: (width,) -> (n_lines,)"""
        return self.with_terms(None, None, None, None)._dot(v[:, None])[:, 0]

    def _plain_add(self, t: Vector) -> Vector:
        return self.with_terms(None, None, None, None)._add(t[:, None])[:, 0]

    def sums(self, across: bool, weights: Vector | None, centre: Vector) -> Vector:
        n_lines, width = self.shape
        if across:
            out, cut = np.zeros((n_lines, 3)), self._cut()

            def line_lane(i: int) -> None:
                moments.sparse_along(self.data, self.indices, self.indptr, cut[i], cut[i + 1], weights, centre, out)

            self._run(line_lane, cut)
            return out.T
        cut = self._cut(3 * width)
        parts = np.zeros((len(cut) - 1, width, 3))

        def lane(i: int) -> None:
            moments.sparse_across(self.data, self.indices, self.indptr, cut[i], cut[i + 1], weights, centre, parts[i])

        self._run(lane, cut)
        return np.asarray(parts.sum(axis=0).T)

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
        w_b, h, eta = (None, None, 0.0) if self.cross_shift is None else self._descent_terms
        state = np.array([0.0, 0.0 if self.cross_shift is None else self.cross_shift @ tau])
        decrease = descent.sweep_sparse(
            self.data,
            self.indices,
            self.indptr,
            self.line_shift,
            self.line_scale,
            self.sq_cross_scale,
            h,
            eta,
            sq_norms,
            linear,
            penalty,
            z,
            tau,
            state,
            backward,
            lower,
            upper,
            penalty_weights,
        )
        if w_b is not None:
            tau += state[0] * w_b
        return float(decrease)

    @cached_property
    def _descent_terms(self) -> tuple[Vector, Vector, float]:
        """(w o b, M (w o b), b'(w o b)), w: the squared cross scales, b: the cross shift"""
        b = np.zeros(self.shape[1]) if self.cross_shift is None else self.cross_shift
        w_b: Vector = b if self.sq_cross_scale is None else b * self.sq_cross_scale
        return w_b, self.plain_dot(w_b), float(b @ w_b)

    def gram_along(self) -> Vector:
        n_lines, width = self.shape
        sizes = np.diff(self.indptr).astype(np.float64)
        if SPARSE_GRAM_SECONDS * 0.5 * (sizes @ sizes) > DENSE_GRAM_SECONDS * n_lines * float(width) ** 2:
            dense_gram = np.zeros((width, width), order="F")
            for lo, hi, block in self.blocks(across=False):
                _add_gram(lo, hi, block, dense_gram)
            return dense_gram
        cut = self._cut(8 * width**2)  # lanes only where their Gram matrices are small beside the data
        parts = np.zeros((len(cut) - 1, width, width))

        def lane(i: int) -> None:
            sparse.gram(self.data, self.indices, self.indptr, cut[i], cut[i + 1], self.sq_line_scale, parts[i])

        self._run(lane, cut)
        gram: Vector = (parts[0] if len(parts) == 1 else parts.sum(axis=0)).T
        if self.cross_shift is not None:
            # Full columns far from zero have been shifted, so what is left to centre does not cancel badly.
            w_a, sq_a = self._weighted_shift()
            mixed = np.multiply.outer(self.cross_shift, self._plain_add(w_a) - 0.5 * sq_a * self.cross_shift)
            gram -= mixed
            gram -= mixed.T
        if self.cross_scale is not None:
            gram *= self.cross_scale
            gram *= self.cross_scale[:, None]
        return gram

    def gram_across(self) -> Vector:
        return self.transposed_copy().gram_along()

    def transposed_copy(self) -> SparseLines:
        """The same matrix with columns as lines: a copy of its entries in the other order"""
        other = sp.csr_array((self.data, self.indices, self.indptr), shape=self.shape).tocsc()
        lines = SparseLines(other.data, other.indices, other.indptr, self.shape[0], self.n_threads)
        return lines.with_terms(*self.terms_of_transposed())  # type: ignore[return-value]

    def blocks(self, across: bool) -> Iterator[tuple[int, int, Vector]]:
        if across:
            yield from self.transposed_copy().blocks(across=False)
            return
        n_lines, width = self.shape
        size = self._block_rows(n_lines, width)
        matrix = sp.csr_array((self.data, self.indices, self.indptr), shape=self.shape)
        for lo in range(0, n_lines, size):
            hi = min(n_lines, lo + size)
            block = matrix[lo:hi].toarray().astype(np.float64, copy=False)
            if self.cross_shift is not None:
                a = np.ones(hi - lo) if self.line_shift is None else self.line_shift[lo:hi]
                block -= np.multiply.outer(a, self.cross_shift)
            if self.line_scale is not None:
                block *= self.line_scale[lo:hi, None]
            if self.cross_scale is not None:
                block *= self.cross_scale
            yield lo, hi, block


def _scaled(v: Vector, scale: Vector | None) -> Vector:
    return v if scale is None else v * scale[:, None]


def _positive(sq: Vector, scale: Vector | None) -> Vector:
    """Squares, rounding below zero cut off, times their squared scale"""
    cut: Vector = np.maximum(sq, 0.0)
    return cut if scale is None else cut * scale


def _total(parts: Vector) -> Vector:
    """Sum of the lanes, (length, 1)"""
    total: Vector = parts[0] if len(parts) == 1 else parts.sum(axis=0)
    return total[:, None]


def _add_gram(lo: int, hi: int, block: Array, gram: Array) -> None:
    """Add block'block to the lower triangle of `gram`, F order, in its precision"""
    blas.add_gram(block, gram)
