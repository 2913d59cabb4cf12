"""The contract between matrices and what is above them: planner, preconditioners, paths and solvers know a matrix by this alone.

A new storage is one class in one file: a subclass of `Operator` that has the abstract methods, and `Traits` that say what it
costs to read and which of the optional abilities it has.

Rows may live elsewhere. Then an (m, k) array of targets would have to as well, and what stands for it is whatever the operator
takes for a target: nothing above looks into one. Solvers of tall problems need p-vectors, A'y, ||y||^2 and gradients.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import qr

from fastridge._kernels import vectors
from fastridge.parallel import threaded_blas

Array = np.ndarray[Any, np.dtype[Any]]
Vector = np.ndarray[Any, np.dtype[np.float64]]
"""float64, (length, k) for k targets, C-contiguous."""
Matrix: TypeAlias = Any
"""A dense array, a csr_array or a csc_array; scipy is not typed."""
Target: TypeAlias = Any
"""An (m, k) float64 array, or what an operator whose rows live elsewhere takes for one."""
GoOn: TypeAlias = Callable[[], bool]
"""Says whether to go on with a long sum or factorisation. After a no the result is unfinished: whoever asked drops it."""

MIRROR_BLOCK = 256
"""Columns of a Gram matrix that are copied across its diagonal at once."""


@dataclass(frozen=True)
class Traits:
    """What a matrix costs to read, and what it can do besides the products that every operator has

    Attributes
    ----------
    n_bytes : int
        What one pass over the data reads.
    n_entries : int
        Stored entries: what one pass multiplies.
    n_threads : int
    sparse : bool
        Whether zeros are left out.
    passes : int
        Over the data, that `Operator.normal` takes: 1 or 2.
    transposes : bool
        Whether there is an `Operator.T`; without one a wide problem is solved for its p unknowns.
    sweeps : bool
        Whether `Operator.columns` gives columns that coordinate descent can sweep.
    rough_gram : bool
        Whether there is an `Operator.rough_gram`.
    streamed : bool
        Whether every pass reads rows from a file or a stream, which takes longer than memory does.
    gram_known : bool
        Whether the Gram matrix has been summed already.
    """

    n_bytes: int
    n_entries: int
    n_threads: int
    sparse: bool
    passes: int
    transposes: bool = True
    sweeps: bool = False
    rough_gram: bool = False
    streamed: bool = False
    gram_known: bool = False


@dataclass
class Passes:
    """How often rows that do not lie in memory were read, how many they were in all, and how long that and its work took"""

    n_passes: int = 0
    n_rows: int = 0
    seconds: float = 0.0

    @contextmanager
    def over(self, n_rows: int) -> Iterator[None]:
        """Count what runs within as a pass over `n_rows` rows, once it has ended"""
        begin = time.perf_counter()
        yield
        self.n_passes, self.n_rows, self.seconds = (
            self.n_passes + 1,
            self.n_rows + n_rows,
            self.seconds + time.perf_counter() - begin,
        )


class Operator(ABC):
    """A matrix A (m, c): products, sums, and what is known about their rounding

    Attributes
    ----------
    shape : (m, c)
    extra_bytes : int
        Copies of the data that this operator holds.
    passes : Passes or None
        Of rows that do not lie in memory.
    """

    shape: tuple[int, int]
    extra_bytes: int = 0
    passes: Passes | None = None

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """Costs and abilities; the same object every time"""

    @abstractmethod
    def matvec(self, v: Vector) -> Target:
        """A v: (c, k) -> (m, k)"""

    @abstractmethod
    def rmatvec(self, u: Target) -> Vector:
        """A'u: (m, k) -> (c, k)"""

    @abstractmethod
    def normal(self, v: Vector, target: Target = None) -> Vector:
        """A'(A v - target): (c, k) -> (c, k), target (m, k) or None for zero; reads A once where its storage allows"""

    @abstractmethod
    def gram(self, go_on: GoOn | None = None) -> Vector:
        """A'A: (c, c), the lower triangle of an F-ordered array"""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        """Yield (lo, hi, rows [lo, hi) of A as dense float64); a block is overwritten by the next one"""

    @property
    @abstractmethod
    def sq_norms(self) -> Vector:
        """Squared norms of the columns: (c,)"""

    # What follows has a default, which some do better.

    def product_blocks(self, v: Vector, work: Callable[[int, int, Vector], None]) -> None:
        """Call work(lo, hi, A[lo:hi] @ v) for blocks of rows that cover A, maybe from several threads at once

        The product is work's to change, and is gone afterwards. Blocks depend on the data and on v alone.
        """
        for lo, hi, block in self.blocks():
            work(lo, hi, block @ v)

    def gradient(self, v: Vector, target: Target) -> Vector:
        """A'(target - A v): (c, k), with errors relative to the size of target - A v: what checks take in place of `normal`"""
        return -self.normal(v, target)

    def precise_gradient(self, v: Vector, target: Target) -> Vector | None:
        """A'(target - A v): (c, k), its products and sums with twice the digits; None where that is not to be had"""
        return None

    def stable_normal(self, v: Vector) -> Vector:
        """A'A v: (c, k), with errors relative to the size of A v"""
        return self.normal(v)

    def sq_image(self, v: Vector) -> Vector:
        """||A v||^2 of every column of v, (c, k): (k,)"""
        return self.sq_target(self.matvec(v))

    def sq_target(self, target: Target) -> Vector:
        """Squared norms of the columns of a target: (k,)"""
        return column_dots(target, target)

    def take_targets(self, target: Target, chosen: Array) -> Target:
        """Some columns of a target, which may repeat"""
        return np.ascontiguousarray(target[:, chosen])

    def full_gram(self, go_on: GoOn | None = None) -> Vector:
        """A'A with both triangles: (c, c)"""
        gram = self.gram(go_on)
        for lo in range(0, len(gram), MIRROR_BLOCK):
            hi = lo + MIRROR_BLOCK
            corner = gram[lo:hi, lo:hi]
            corner[...] = np.tril(corner) + np.tril(corner, -1).T
            gram[lo:hi, hi:] = gram[hi:, lo:hi].T
        return gram

    def triangle(self, target: Target = None, go_on: GoOn | None = None) -> Vector:
        """R of the QR factorisation of [A target], (rows, c + k), from block after block of rows, as many as R has or more"""
        m = self.shape[0]
        size = self.shape[1] + (0 if target is None else target.shape[1])
        parts: list[Vector] = [np.empty((0, size))]
        for lo, hi, block in self.blocks():
            if go_on is not None and not go_on():
                break
            parts.append(block.copy() if target is None else np.concatenate([block, target[lo:hi]], axis=1))
            if hi == m or sum(map(len, parts[1:])) >= size:
                stacked = np.concatenate(parts)
                parts.clear()
                with threaded_blas():
                    parts.append(qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0][:size])
        return parts[0]

    @property
    def mean_error(self) -> Vector | None:
        """At least the norms of what the rounding of means adds to the columns, (c,); None where they are not centred

        With e this vector, entry i, j of A'A is wrong by at most e_i e_j, in a matrix that is positive semi-definite.
        """
        return None

    @property
    def sq_read_norms(self) -> Vector:
        """Squared norms of the columns as they are read, (c,): what the rounding of products is relative to"""
        return self.sq_norms

    @property
    def sq_raw_norms(self) -> Vector:
        """Squared norms of the columns before anything was taken off them, (c,): columns that are eps times that are rounding"""
        return self.sq_norms

    @property
    def frobenius(self) -> float:
        """Frobenius norm of A"""
        return float(np.sqrt(self.sq_norms.sum()))

    @property
    def left_null(self) -> Vector | None:
        """Orthonormal directions u, (m, q), with A'u = 0 that centring and projections have made; None where they made none"""
        return None

    @property
    def raw(self) -> Operator | None:
        """What is stored: neither centred nor scaled; None where the matrix is computed from others"""
        return None

    def recentred(self) -> Operator:
        """A less what the rounding of means has left in it; A itself where nothing can be done about it"""
        return self

    # Abilities that not all have: `traits` says which.

    @property
    def T(self) -> Operator:
        """The transposed matrix"""
        raise self._refusal("cannot be transposed")

    def with_columns_scaled(self, sq_scale: Vector) -> Operator:
        """The same matrix, without a copy, its columns multiplied by the root of `sq_scale` (c,); a column times 0 is left out"""
        raise self._refusal("has no columns to scale")

    def with_one_pass(self) -> Operator:
        """The same matrix, copied where that is what `normal` needs to read it once"""
        return self

    def rough_gram(self, scale: Vector, fold: int, rng: np.random.Generator, go_on: GoOn | None = None) -> Array:
        """A'A in float32, lower triangle, of a matrix close to A, its columns times `scale`

        Where `fold` > 1 that many of its rows are added to one, with random signs.
        """
        raise self._refusal("has no Gram matrix in float32")

    def columns(self) -> Columns:
        """The same matrix, its columns contiguous: copied where they are not"""
        raise self._refusal("has no columns to sweep")

    def _refusal(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"a matrix of type {type(self).__name__} {what}")


class Columns(Operator):
    """A matrix whose columns are contiguous, as coordinate descent takes it

    Attributes
    ----------
    sq_row_scale, row_scale : (m,) float64 or None
        Factors of the rows, sample weights and their roots: sweeps take those of `tau` with them.
    """

    sq_row_scale: Vector | None
    row_scale: Vector | None

    @abstractmethod
    def sweep(
        self,
        linear: Vector,
        penalty: float,
        z: Vector,
        tau: Vector,
        backward: bool,
        lower: Vector | None = None,
        upper: Vector | None = None,
        penalty_weights: Vector | None = None,
    ) -> float:
        """Sweep over the columns, changing z (c,) and tau (m,) in place; see `_kernels.descent`

        `lower` and `upper`, (c,) or None, keep z between them; `penalty_weights`, (c,), None for ones, multiply the penalty.
        Returns the decrease of the objective, times two.
        """

    @abstractmethod
    def take(self, chosen: Array) -> Operator:
        """The matrix of some of the columns, (c,) bool, which are copied"""


def column_dots(x: Vector, y: Vector) -> Vector:
    """(x * y).sum(axis=0) for C-contiguous (length, k) arrays"""
    out = np.empty(x.shape[1])
    vectors.dots(x, y, out)
    return out
