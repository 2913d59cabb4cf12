"""Operators made of others: rows or columns projected, means taken off once more, columns combined.

Each implements the whole contract in terms of its base, or refuses: nothing is inherited that would drop what it adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastridge.operators.base import Array, Columns, GoOn, Operator, Target, Traits, Vector
from fastridge.parallel import cached_property

SUM_ERROR = 4 * np.finfo(np.float64).eps
"""Error of a mean of n numbers relative to their root mean square, over the square root of n, as rounding errors add up."""


@dataclass(frozen=True)
class Origin:
    """What `Operator.mean_error`, `sq_read_norms` and `sq_raw_norms` say of the columns; each (c,)"""

    mean_error: Vector
    sq_read: Vector
    sq_raw: Vector

    @classmethod
    def of(cls, design: Operator) -> Origin:
        """Return what is known of the columns of `design` before something is taken off them"""
        error = design.mean_error
        return cls(np.zeros(design.shape[1]) if error is None else error, design.sq_read_norms, design.sq_raw_norms)

    def scaled(self, sq_scale: Vector) -> Origin:
        """Return the same of the columns times the roots of `sq_scale`, (c,)"""
        return Origin(self.mean_error * np.sqrt(sq_scale), self.sq_read * sq_scale, self.sq_raw * sq_scale)

    def take(self, chosen: np.ndarray) -> Origin:
        """Return the same of some of the columns"""
        return Origin(self.mean_error[chosen], self.sq_read[chosen], self.sq_raw[chosen])

    def combined(self, factor: Vector) -> Origin:
        """Return upper bounds of the same of the columns times `factor`, (c, r)"""
        size = np.abs(factor)
        return Origin(self.mean_error @ size, (np.sqrt(self.sq_read) @ size) ** 2, (np.sqrt(self.sq_raw) @ size) ** 2)


class Projected(Operator):
    """(I - Q Q') A for `base` A (m, c) and orthonormal Q (m, q), or A (I - Q Q') for Q (c, q) where not `rows`

    Attributes
    ----------
    origin : Origin or None
        What rounding has to do with the columns; None where not `rows`.
    """

    def __init__(self, base: Operator, basis: Vector, rows: bool) -> None:
        self.base, self.basis, self.rows = base, basis, rows
        self.shape = base.shape
        self.extra_bytes = base.extra_bytes + basis.nbytes * (1 + rows)
        self.origin = Origin.of(base) if rows else None
        self._image: Vector | None = None
        self._sq_norms: Vector | None = None

    @cached_property
    def traits(self) -> Traits:
        return replace(self.base.traits, sweeps=False, rough_gram=False)

    def _project(self, v: Vector) -> Vector:
        out: Vector = v - self.basis @ (self.basis.T @ v)
        return out

    @property
    def image(self) -> Vector:
        """A'Q where `rows`, (c, q); else A Q, (m, q)"""
        if self._image is None:
            self._image = self.base.rmatvec(self.basis) if self.rows else self.base.matvec(self.basis)
        return self._image

    @property
    def T(self) -> Projected:
        return self._of(self.base.T, not self.rows, self._image)

    def _of(self, base: Operator, rows: bool, image: Vector | None) -> Projected:
        """The same projection of another base"""
        other = type(self)(base, self.basis, rows)
        other._image = image
        return other

    def matvec(self, v: Vector) -> Vector:
        """(I - Q Q') A v, or A (I - Q Q') v"""
        return self._project(self.base.matvec(v)) if self.rows else self.base.matvec(self._project(v))

    def rmatvec(self, u: Vector) -> Vector:
        """A' (I - Q Q') u, or (I - Q Q') A'u"""
        return self.base.rmatvec(self._project(u)) if self.rows else self._project(self.base.rmatvec(u))

    def normal(self, v: Vector, target: Vector | None = None) -> Vector:
        """The base's product, in one pass where that is, less what the projection takes off"""
        if self.rows:  # the target is projected already
            out = self.base.normal(v, target)
            out -= self.image @ (self.image.T @ v)
            return out
        return self._project(self.base.normal(self._project(v), target))

    def gradient(self, v: Vector, target: Vector) -> Vector:
        """Take two passes: what is projected out of A v may be far larger than what is left"""
        return self.rmatvec(target - self.matvec(v))

    def stable_normal(self, v: Vector) -> Vector:
        """Take two passes, as `gradient` does"""
        return self.rmatvec(self.matvec(v))

    def gram(self, go_on: GoOn | None = None) -> Vector:
        """The base's Gram matrix less its share in Q"""
        if self.rows:
            gram = self.base.gram(go_on)
            gram -= self.image @ self.image.T
            return _nowhere_negative(gram)
        # P G P with G = A'A: G Q = A'(A Q).
        gram = self.base.full_gram(go_on)
        mixed = self.base.rmatvec(self.image)
        half = self.basis @ (0.5 * (self.image.T @ self.image))
        lost = (mixed - half) @ self.basis.T
        gram -= lost
        gram -= lost.T
        return _nowhere_negative(gram)

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        for lo, hi, block in self.base.blocks():
            if self.rows:
                yield lo, hi, block - self.basis[lo:hi] @ self.image.T
            else:
                yield lo, hi, block - (block @ self.basis) @ self.basis.T

    def product_blocks(self, v: Vector, work: Callable[[int, int, Vector], None]) -> None:
        if not self.rows:
            self.base.product_blocks(self._project(v), work)
            return
        along = self.image.T @ v

        def projected(lo: int, hi: int, block: Vector) -> None:
            block -= self.basis[lo:hi] @ along
            work(lo, hi, block)

        self.base.product_blocks(v, projected)

    @property
    def sq_norms(self) -> Vector:
        if self._sq_norms is None:
            image = self.image
            if self.rows:
                lost = np.einsum("ij,ij->i", image, image)
            else:
                mixed = 2 * self.base.rmatvec(image) - self.basis @ (image.T @ image)
                lost = np.einsum("ij,ij->i", mixed, self.basis)
            self._sq_norms = np.maximum(self.base.sq_norms - lost, 0.0)
        return self._sq_norms

    @property
    def mean_error(self) -> Vector | None:
        return None if self.origin is None else self.origin.mean_error

    @property
    def sq_read_norms(self) -> Vector:
        """Squared norms before the projection, and more where `standard_form` knows more"""
        return self.base.sq_norms if self.origin is None else self.origin.sq_read

    @property
    def sq_raw_norms(self) -> Vector:
        return self.sq_norms if self.origin is None else self.origin.sq_raw

    @property
    def frobenius(self) -> float:
        """The base's, to which rounding errors are relative"""
        return self.base.frobenius

    @property
    def left_null(self) -> Vector | None:
        if not self.rows:
            return None
        others = self.base.left_null
        return (self.basis if others is None else np.hstack([others, self.basis])) if self.basis.size else others

    def with_one_pass(self) -> Projected:
        return self._of(self.base.with_one_pass(), self.rows, self._image)

    def with_columns_scaled(self, sq_scale: Vector) -> Projected:
        assert self.rows
        return self._of(self.base.with_columns_scaled(sq_scale), True, self.image * np.sqrt(sq_scale)[:, None])


class Recentred(Projected):
    """A less what the rounding of its means has left in it: (I - q q') A, q the roots of the weights, normalised

    Where a mean is 1e12 standard deviations from zero, its last digit is 1e-4 of one. Products cost no more for it than two more
    with a vector.
    """

    def __init__(self, base: Operator, basis: Vector, rows: bool) -> None:
        super().__init__(base, basis, rows)
        if self.origin is not None:
            self.origin = replace(self.origin, mean_error=SUM_ERROR * np.sqrt(base.shape[0] * self.origin.sq_read))

    @classmethod
    def of(cls, base: Operator) -> Recentred:
        """Return a design with an intercept, recentred"""
        assert base.left_null is not None
        return cls(base, base.left_null, True)

    @cached_property
    def traits(self) -> Traits:
        """Sweeps of the base do: they begin at a residual that has nothing along q"""
        return replace(super().traits, sweeps=self.base.traits.sweeps)

    @property
    def raw(self) -> Operator | None:
        return self.base.raw

    @property
    def left_null(self) -> Vector | None:
        """The base's: centring has taken q away before"""
        return self.base.left_null

    def gradient(self, v: Vector, target: Vector) -> Vector:
        """Take one pass: what is projected out of A v is small"""
        return -self.normal(v, target)

    def stable_normal(self, v: Vector) -> Vector:
        return self.normal(v)

    def precise_gradient(self, v: Vector, target: Vector) -> Vector | None:
        """Return the base's, which takes off what is taken off here"""
        return self.base.precise_gradient(v, target) if self.rows else None

    @property
    def sq_norms(self) -> Vector:
        """Those of data as they were given are about the true mean"""
        return self.base.sq_norms if self.rows else super().sq_norms

    def columns(self) -> RecentredColumns:
        return RecentredColumns(self.base.columns(), self.basis, self.rows)


class RecentredColumns(Recentred, Columns):
    """The same, its columns contiguous"""

    base: Columns

    @property
    def sq_row_scale(self) -> Vector | None:  # type: ignore[override]
        return self.base.sq_row_scale

    @property
    def row_scale(self) -> Vector | None:  # type: ignore[override]
        return self.base.row_scale

    def sweep(self, *terms: Any, **limits: Any) -> float:
        """Sweep the base"""
        return self.base.sweep(*terms, **limits)

    def take(self, chosen: Array) -> Recentred:
        assert self.rows
        return Recentred(self.base.take(chosen), self.basis, True)


def _nowhere_negative(gram: Vector) -> Vector:
    """A Gram matrix whose diagonal rounding has not left below zero"""
    diagonal = np.einsum("ii->i", gram)
    np.maximum(diagonal, 0.0, out=diagonal)
    return gram


class Transformed(Operator):
    """A T for `base` A (m, c) and T (c, r), or T'A for T (m, r) where not `columns_combined`"""

    def __init__(self, base: Operator, factor: Vector, columns_combined: bool) -> None:
        self.base, self.factor, self.columns_combined = base, np.ascontiguousarray(factor), columns_combined
        m, c = base.shape
        self.shape = (m, factor.shape[1]) if columns_combined else (factor.shape[1], c)
        self.extra_bytes = base.extra_bytes + factor.nbytes
        known = columns_combined and base.mean_error is not None
        self.origin = Origin.of(base).combined(self.factor) if known else None
        self._sq_norms: Vector | None = None

    @cached_property
    def traits(self) -> Traits:
        """Rows that are combined take two passes"""
        passes = self.base.traits.passes if self.columns_combined else 2
        return replace(self.base.traits, passes=passes, sweeps=False, rough_gram=False)

    @property
    def T(self) -> Transformed:
        return Transformed(self.base.T, self.factor, not self.columns_combined)

    def matvec(self, v: Vector) -> Target:
        """A T v, or T'A v"""
        return self.base.matvec(self.factor @ v) if self.columns_combined else self.factor.T @ self.base.matvec(v)

    def rmatvec(self, u: Target) -> Vector:
        """T'A'u, or A'T u"""
        return self.factor.T @ self.base.rmatvec(u) if self.columns_combined else self.base.rmatvec(self.factor @ u)

    def normal(self, v: Vector, target: Target = None) -> Vector:
        """Take one pass over the data where columns are combined"""
        if self.columns_combined:
            return self.factor.T @ self.base.normal(self.factor @ v, target)
        fit = self.matvec(v)
        return self.rmatvec(fit if target is None else fit - target)

    def gradient(self, v: Vector, target: Target) -> Vector:
        """Ask the base where columns are combined"""
        if self.columns_combined:
            return self.factor.T @ self.base.gradient(self.factor @ v, target)
        return -self.normal(v, target)

    def stable_normal(self, v: Vector) -> Vector:
        return self.factor.T @ self.base.stable_normal(self.factor @ v) if self.columns_combined else self.normal(v)

    def sq_image(self, v: Vector) -> Vector:
        return self.base.sq_image(self.factor @ v) if self.columns_combined else super().sq_image(v)

    def sq_target(self, target: Target) -> Vector:
        return self.base.sq_target(target) if self.columns_combined else super().sq_target(target)

    def take_targets(self, target: Target, chosen: Array) -> Target:
        return self.base.take_targets(target, chosen) if self.columns_combined else super().take_targets(target, chosen)

    def gram(self, go_on: GoOn | None = None) -> Vector:
        """T'A'A T, or A'T T'A"""
        if self.columns_combined:
            return np.asfortranarray(self.factor.T @ self.base.full_gram(go_on) @ self.factor)
        rows = self.base.rmatvec(self.factor)
        return np.asfortranarray(rows @ rows.T)

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        if self.columns_combined:
            for lo, hi, block in self.base.blocks():
                yield lo, hi, block @ self.factor
        else:
            yield 0, self.shape[0], self.base.rmatvec(self.factor).T

    def product_blocks(self, v: Vector, work: Callable[[int, int, Vector], None]) -> None:
        if self.columns_combined:
            self.base.product_blocks(self.factor @ v, work)
        else:
            super().product_blocks(v, work)

    @property
    def sq_norms(self) -> Vector:
        if self._sq_norms is None:
            self._sq_norms = np.zeros(self.shape[1])
            for _, _, block in self.blocks():
                self._sq_norms += np.einsum("ij,ij->j", block, block)
        return self._sq_norms

    @property
    def mean_error(self) -> Vector | None:
        return None if self.origin is None else self.origin.mean_error

    @property
    def sq_read_norms(self) -> Vector:
        return self.sq_norms if self.origin is None else self.origin.sq_read

    @property
    def sq_raw_norms(self) -> Vector:
        return self.sq_norms if self.origin is None else self.origin.sq_raw

    @property
    def left_null(self) -> Vector | None:
        return self.base.left_null if self.columns_combined else None

    def with_one_pass(self) -> Transformed:
        return Transformed(self.base.with_one_pass(), self.factor, self.columns_combined)

    def with_columns_scaled(self, sq_scale: Vector) -> Transformed:
        assert self.columns_combined
        return Transformed(self.base, self.factor * np.sqrt(sq_scale), True)
