"""Lines of a dense array: fused products along and across them, blocks for BLAS, Gram matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastridge import parallel
from fastridge._kernels import dense, descent
from fastridge.operators.base import Array, GoOn, Vector
from fastridge.operators.lines import Lines, add_gram, summed

PIECE_BYTES = 1 << 17
"""What a fused pass over dense lines keeps in cache, half of the smallest L2 in use (256 KB)."""
LANE_BLOCKS = 4
"""Lanes fill blocks of their own, which are smaller by this: BLAS on one thread wants no more than 1 to 2 MB."""
MIN_PIECE = 128
"""Entries of a line that are read at once, at the least: many lines are then kept in L3 instead."""
MAX_TOGETHER = 8
"""Dense lines that one fused step takes together; more do not help once v and q are loaded so rarely."""
TOTAL_LANES, TOTAL_SHARE = 8, 4
"""At most 8 lanes sum over blocks, and their totals take at most a fourth of the bytes of the data."""


class DenseLines(Lines):
    """Lines of a dense array, float32 or float64, each contiguous; centred entry by entry while they are in registers"""

    def __init__(self, M: Array, n_threads: int) -> None:
        super().__init__(n_threads)
        self.M = M
        self.shape = (M.shape[0], M.shape[1])
        self.nbytes, self.n_entries, self.sparse = M.size * M.itemsize, M.size, False

    @property
    def _centre(self) -> Vector:
        """What the kernels subtract from every line, times its shift"""
        return np.zeros(self.shape[1]) if self.cross_shift is None else self.cross_shift

    def _cut(self, length: int, out_length: int = 0) -> list[int]:
        return parallel.cut_evenly(length, min(length, parallel.count_lanes(self.nbytes, 8 * out_length)))

    def _take(self, chosen: Array) -> Lines:
        return DenseLines(self.M[chosen], self.n_threads)

    def _dot(self, v: Vector) -> Vector:
        out = np.empty((self.shape[0], v.shape[1]))
        if v.shape[1] != 1:

            def multiply(lo: int, hi: int, block: Array, _: Array) -> None:
                np.matmul(block, v, out=out[lo:hi])

            self._sum_over_blocks(False, None, None, np.empty(0), multiply)
            return out
        cut, b, v1, out1 = self._cut(self.shape[0]), self._centre, v[:, 0], out[:, 0]

        def lane(i: int) -> None:
            dense.dot(self.M, cut[i], cut[i + 1], self.line_shift, b, v1, out1)

        self._run(lane, cut)
        return out

    def _add(self, t: Vector) -> Vector:
        n_lines, width = self.shape
        if t.shape[1] != 1:

            def add(lo: int, hi: int, block: Array, total: Array) -> None:
                total += block.T @ t[lo:hi]

            return self._sum_over_blocks(False, None, None, np.zeros((width, t.shape[1])), add)
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
        return summed(parts)

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
        return summed(parts)

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
        go_on: GoOn | None = None,
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
                if go_on is not None and not go_on():
                    break
                add(lo, hi, block, totals[i])

        if n_lanes == 1:
            with parallel.threaded_blas():
                lane(0)
            return zero
        with parallel.single_threaded_blas():
            self._run(lane, cut)
        for total in totals[1:]:
            zero += total
        return zero

    def gram_along(self, go_on: GoOn | None = None) -> Vector:
        return self._gram(False, self.line_scale, self.cross_scale, np.float64, go_on)

    def gram_across(self, go_on: GoOn | None = None) -> Vector:
        return self._gram(True, self.line_scale, self.cross_scale, np.float64, go_on)

    def _gram(
        self,
        across: bool,
        line_scale: Vector | None,
        cross_scale: Vector | None,
        dtype: Any,
        go_on: GoOn | None,
        fold: int = 1,
    ) -> Array:
        size = self.shape[0] if across else self.shape[1]
        zero = np.zeros((size, size), dtype, order="F")
        return self._sum_over_blocks(across, line_scale, cross_scale, zero, add_gram, fold, go_on)

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
        return summed(parts)

    def sq_norms_along(self) -> Vector:
        total = np.zeros(self.shape[1])
        for _, _, block in self.blocks(across=False):
            total += np.einsum("ij,ij->j", block, block)
        return total

    def sq_norms_across(self) -> Vector:
        out, cut, b = np.empty(self.shape[0]), self._cut(self.shape[0]), self._centre

        def lane(i: int) -> None:
            dense.sq_lines(self.M, cut[i], cut[i + 1], self.line_shift, b, self.sq_cross_scale, out)

        self._run(lane, cut)
        return out if self.sq_line_scale is None else out * self.sq_line_scale

    def sums(self, across: bool, weights: Vector | None, centre: Vector, target: Vector | None = None) -> Vector:
        """The third is of t (x - c) for the target t; 0 without one"""
        n_lines, width = self.shape
        if across:
            out, cut = np.zeros((3, n_lines)), self._cut(n_lines)

            def line_lane(i: int) -> None:
                dense.sums_along(self.M, cut[i], cut[i + 1], weights, target, centre, out)

            self._run(line_lane, cut)
            return out
        cut = self._cut(n_lines, 3 * width)
        parts = np.zeros((len(cut) - 1, 3, width))

        def lane(i: int) -> None:
            dense.sums_across(self.M, cut[i], cut[i + 1], weights, target, centre, parts[i])

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

    def relaid(self) -> tuple[Lines, int]:
        M = np.ascontiguousarray(self.M.T)
        return DenseLines(M, self.n_threads).with_terms(*self.terms_of_transposed()), M.nbytes

    def blocks(self, across: bool) -> Iterator[tuple[int, int, Vector]]:
        return self._blocks(across, self.line_scale, self.cross_scale)

    def product_blocks(self, across: bool, v: Vector, work: Callable[[int, int, Vector], None]) -> None:
        length = self.shape[1] if across else self.shape[0]
        n_lanes = max(1, min(length, TOTAL_LANES, 8 * length * max(v.shape) // parallel.LANE_BYTES))
        cut = parallel.cut_evenly(length, n_lanes)

        def lane(i: int) -> None:
            for lo, hi, block in self._blocks(across, self.line_scale, self.cross_scale, span=(cut[i], cut[i + 1])):
                work(lo, hi, block @ v)

        with parallel.single_threaded_blas():
            self._run(lane, cut)

    def rough_gram(self, across: bool, scale: Vector, fold: int, rng: np.random.Generator, go_on: GoOn | None = None) -> Array:
        """Gram matrix in float32 of a matrix close to this one (transposed where `across`), its columns multiplied by `scale`

        Where `fold` > 1, the matrix has one row for `fold` rows of this one: their sum, with random signs.
        """
        row_scale = self.cross_scale if across else self.line_scale
        if fold > 1:
            signs = rng.choice(np.array([-1.0, 1.0]), self.shape[across])
            row_scale = signs if row_scale is None else signs * row_scale
        line_scale, cross_scale = (scale, row_scale) if across else (row_scale, scale)
        return self._gram(across, line_scale, cross_scale, np.float32, go_on, fold)

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
