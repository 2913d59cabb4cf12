"""Lines of a CSR or CSC matrix: fused products, sums and Gram matrices of its stored entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastridge import parallel
from fastridge._kernels import descent, moments, sparse, vectors
from fastridge.operators.base import Array, GoOn, Vector
from fastridge.operators.lines import MIN_BLOCK_BYTES, Lines, add_gram, scaled
from fastridge.parallel import cached_property

TARGETS_TOGETHER = 4
"""Targets in one sparse product: GROUP of the kernel. The vectors of more leave the cache."""
SCATTER_COST = 2
"""Times what reading an entry takes, that adding it to scattered sums does: so much more there is to gain from a lane."""
CACHE_LINE = 64
GRAM_LINES = 4096
"""Lines whose products are scattered in one call, which no interrupt ends."""
PRODUCT_LINES = 64
"""Lines that are multiplied by a matrix together, at the least; more, as long as their products fill no more than a block."""
DENSE_SHARE = 0.1
"""Of the entries that are stored, from which on a block of lines is filled in for BLAS before it is multiplied."""
SPARSE_GRAM_SECONDS, DENSE_GRAM_SECONDS = 1.5e-9, 2e-11
"""Per product of two stored entries scattered into a Gram matrix, and per entry product of a dense block (2 AVX2 cores)."""


class SparseLines(Lines):
    """Lines of a CSR or CSC matrix, float32 or float64, no entry stored twice; centred by scalars"""

    def __init__(self, data: Array, indices: Array, indptr: Array, width: int, n_threads: int) -> None:
        super().__init__(n_threads)
        self.data, self.indices, self.indptr = data, indices, indptr
        self.shape = (indptr.shape[0] - 1, width)
        self.nbytes, self.n_entries, self.sparse = data.nbytes + indices.nbytes, data.size, True

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
        out: Vector = parts[0] if len(parts) == 1 else parts.sum(axis=0)
        if self.cross_shift is not None:
            out -= np.multiply.outer(self.cross_shift, a_t.sum(axis=0))
        return out

    def _take(self, chosen: Array) -> Lines:
        some = sp.csr_array((self.data, self.indices, self.indptr), shape=self.shape)[chosen]
        return SparseLines(some.data, some.indices, some.indptr, self.shape[1], self.n_threads)

    def _dot(self, v: Vector) -> Vector:
        out, b_v = np.empty((self.shape[0], v.shape[1])), self._b_dot(v)
        cut = self._cut()

        def group(some: slice) -> None:
            packed = _packed(v[:, some])

            def lane(i: int) -> None:
                lo, hi = cut[i], cut[i + 1]
                sparse.dot(self.data, self.indices, self.indptr, lo, hi, self.line_shift, b_v[some], packed, out[:, some])

            self._run(lane, cut)

        self._in_groups(group, v.shape[1])
        return out

    def _add(self, t: Vector) -> Vector:
        width, k = self.shape[1], t.shape[1]
        out = np.empty((width, k))

        def group(some: slice) -> None:
            here = t[:, some]
            size = 1 if k == 1 else TARGETS_TOGETHER
            cut = self._cut(width * size // SCATTER_COST)
            parts, a_t = empty_in_cache_lines((len(cut) - 1, width, size)), np.zeros((len(cut) - 1, here.shape[1]))

            def lane(i: int) -> None:
                parts[i] = 0.0
                sparse.add(self.data, self.indices, self.indptr, cut[i], cut[i + 1], self.line_shift, here, parts[i], a_t[i])

            self._run(lane, cut)
            out[:, some] = self._finish(parts[:, :, : here.shape[1]], a_t)

        self._in_groups(group, k)
        return out

    def _in_groups(self, task: Callable[[slice], None], k: int) -> None:
        """Call task(targets) for groups of targets, on the pool"""
        groups = [*range(0, k, TARGETS_TOGETHER), k]  # fewer cost as much as four, but for one
        self._run(lambda i: task(slice(groups[i], groups[i + 1])), groups)

    def _normal_across(self, v: Vector, goal: Vector | None) -> Vector:
        t = scaled(self._add(v), self.sq_cross_scale)
        return self._dot(t if goal is None else t - goal)

    def _normal_along(self, v: Vector, goal: Vector | None) -> Vector:
        k = v.shape[1]
        out = np.empty_like(v)
        b_v = self._b_dot(v)

        def group(some: slice) -> None:
            out[:, some] = self._normal_of_group(v[:, some], None if goal is None else goal[:, some], b_v[some])

        self._in_groups(group, k)
        return out

    def _normal_of_group(self, v: Vector, goal: Vector | None, b_v: Vector) -> Vector:
        width, k = v.shape
        half = 1 if k == 1 else TARGETS_TOGETHER
        cut = self._cut(2 * width * half)
        both, a_t = empty_in_cache_lines((len(cut) - 1, width, 2 * half)), np.zeros((len(cut) - 1, k))
        terms = (self.line_shift, self.sq_line_scale, goal, b_v, v)

        def lane(i: int) -> None:
            sparse.normal(self.data, self.indices, self.indptr, cut[i], cut[i + 1], *terms, both[i], a_t[i])

        self._run(lane, cut)
        return self._finish(both[:, :, half : half + k], a_t)

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
        """Over stored entries alone; the third is of their w"""
        n_lines, width = self.shape
        if across:
            out, cut = np.zeros((n_lines, 3)), self._cut()

            def line_lane(i: int) -> None:
                moments.sparse_along(self.data, self.indices, self.indptr, cut[i], cut[i + 1], weights, centre, out)

            self._run(line_lane, cut)
            return out.T
        cut = self._cut(width // 2)  # scattered sums cost several times what reading does
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

    def gram_along(self, go_on: GoOn | None = None) -> Vector:
        n_lines, width = self.shape
        sizes = np.diff(self.indptr).astype(np.float64)
        if SPARSE_GRAM_SECONDS * 0.5 * (sizes @ sizes) > DENSE_GRAM_SECONDS * n_lines * float(width) ** 2:
            dense_gram = np.zeros((width, width), order="F")
            for lo, hi, block in self.blocks(across=False):
                if go_on is not None and not go_on():
                    break
                add_gram(lo, hi, block, dense_gram)
            return dense_gram
        cut = self._cut(8 * width**2)  # lanes only where their Gram matrices are small beside the data
        parts = np.zeros((len(cut) - 1, width, width))

        def lane(i: int) -> None:
            for lo in range(cut[i], cut[i + 1], GRAM_LINES):
                if go_on is not None and not go_on():
                    break
                hi = min(cut[i + 1], lo + GRAM_LINES)
                sparse.gram(self.data, self.indices, self.indptr, lo, hi, self.sq_line_scale, parts[i])

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

    def gram_across(self, go_on: GoOn | None = None) -> Vector:
        return self.relaid()[0].gram_along(go_on)

    def relaid(self) -> tuple[Lines, int]:
        other = sp.csr_array((self.data, self.indices, self.indptr), shape=self.shape).tocsc()
        lines = SparseLines(other.data, other.indices, other.indptr, self.shape[0], self.n_threads)
        return lines.with_terms(*self.terms_of_transposed()), lines.nbytes

    def blocks(self, across: bool) -> Iterator[tuple[int, int, Vector]]:
        if across:
            yield from self.relaid()[0].blocks(across=False)
            return
        n_lines, width = self.shape
        size = self._block_rows(n_lines, width)
        for lo in range(0, n_lines, size):
            hi = min(n_lines, lo + size)
            block = self._part(lo, hi).toarray().astype(np.float64, copy=False)
            if self.cross_scale is not None:
                block *= self.cross_scale
            self._finish_lines(lo, hi, block, self._scaled_shift)
            yield lo, hi, block

    def product_blocks(self, across: bool, v: Vector, work: Callable[[int, int, Vector], None]) -> None:
        if across:
            self.relaid()[0].product_blocks(False, v, work)
            return
        n_lines, (width, k) = self.shape[0], v.shape
        filled = self.n_entries > DENSE_SHARE * n_lines * width
        size = max(PRODUCT_LINES, MIN_BLOCK_BYTES // (8 * max(k, width if filled else 1)))
        n_lanes = max(1, min(n_lines // size, parallel.MAX_LANES, 8 * n_lines * k // parallel.LANE_BYTES))
        cut = parallel.cut_by_weight(self.indptr, n_lanes) if n_lanes > 1 else [0, n_lines]
        shift = self._scaled_shift
        b_v = None if shift is None else shift @ v
        v = np.ascontiguousarray(scaled(v, self.cross_scale))  # once, or scipy copies it for every block

        def lane(i: int) -> None:
            for lo in range(cut[i], cut[i + 1], size):
                hi = min(cut[i + 1], lo + size)
                part = self._part(lo, hi)
                block = np.asarray((part.toarray() if filled else part) @ v)
                self._finish_lines(lo, hi, block, b_v)
                work(lo, hi, block)

        with parallel.single_threaded_blas():
            self._run(lane, cut)

    def _part(self, lo: int, hi: int) -> Any:
        """Lines [lo, hi) of M, which share its entries"""
        first, last = self.indptr[lo], self.indptr[hi]
        part = self.data[first:last], self.indices[first:last], self.indptr[lo : hi + 1] - first
        return sp.csr_array(part, shape=(hi - lo, self.shape[1]))

    @property
    def _scaled_shift(self) -> Vector | None:
        return self.cross_shift if self.cross_shift is None or self.cross_scale is None else self.cross_shift * self.cross_scale

    def _finish_lines(self, lo: int, hi: int, block: Vector, shift: Vector | None) -> None:
        """Take a times `shift` off lines [lo, hi), or their products, and scale them, in place"""
        if shift is not None:
            block -= shift if self.line_shift is None else np.multiply.outer(self.line_shift[lo:hi], shift)
        if self.line_scale is not None:
            block *= self.line_scale[lo:hi, None]


def empty_in_cache_lines(shape: tuple[int, ...]) -> Vector:
    """np.empty in float64 that begins with a cache line, so that rows of a power of two numbers lie in as few as can be"""
    n_bytes = 8 * math.prod(shape)
    raw = np.empty(n_bytes + CACHE_LINE, dtype=np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(np.float64).reshape(shape)


def _packed(v: Vector) -> Vector:
    """One vector as it is; two to four side by side with zeros in the place of what lacks of four"""
    if v.shape[1] == 1:
        return np.ascontiguousarray(v)
    packed = empty_in_cache_lines((len(v), TARGETS_TOGETHER))
    packed[:, : v.shape[1]], packed[:, v.shape[1] :] = v, 0.0
    return packed


def _positive(sq: Vector, scale: Vector | None) -> Vector:
    """Squares, rounding below zero cut off, times their squared scale"""
    cut: Vector = np.maximum(sq, 0.0)
    return cut if scale is None else cut * scale
