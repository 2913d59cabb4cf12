"""Scores of penalties that differ between groups of features, and their gradients: leave-one-out errors, GCV, the evidence.

Feature j of group g has the penalty d_j = alpha_g. Of a tall problem everything comes from H = A'A + diag(d), that is from A'A,
which is summed once. Leave-one-out errors e_i = r_i / (1 - h_i) take a pass over the rows besides, with z_i = H^-1 a_i:

    d h_i / d log alpha_g = - sum_{j in g} d_j z_ij^2          d r_i / d log alpha_g = sum_{j in g} d_j z_ij w_j

Of a wide one everything comes from M = I + sum_g K_g / alpha_g, the kernels K_g = A_g A_g' being formed once. C is M^-1 without
the directions N that are never penalised, the intercept and unpenalised columns:

    r = C y        e_i = r_i / C_ii        d C / d log alpha_g = C K_g C / alpha_g

so that the derivative of any score is <K_g, R> / alpha_g with one matrix R for all groups. With n rows that have a weight, of
which N fits q, and Q = ||r||^2 + sum_j d_j w_j^2 = y'C y,

    GCV = n ||r||^2 / (n - df)^2        n - df = n - q - p + sum_j d_j (H^-1)_jj = tr C
    log evidence = -1/2 [(n - q) log(2 pi Q / (n - q)) + log det M + n - q] + 1/2 sum log(weights)

The evidence is the density of y where w_j is N(0, sigma^2 / d_j), what is not penalised has a flat prior, and sigma^2 is what
makes it largest. GCV of a tall problem costs no pass over the rows, and is where the search by leave-one-out errors begins there.

References
----------
Golub, Heath & Wahba (1979), DOI 10.1080/00401706.1979.10489751 (GCV); van de Wiel, Lien, Verlaat, van Wieringen & Wilting (2016),
DOI 10.1002/sim.6732 (penalties of groups); Nunez-Elizalde, Huth & Gallant (2019), DOI 10.1016/j.neuroimage.2019.04.012 (banded
ridge); Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022), DOI 10.1016/j.neuroimage.2022.119728.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from fastridge import parallel
from fastridge.factor import ScaledFactor
from fastridge.formulation import plain_form
from fastridge.operators.base import Array, Vector, column_dots
from fastridge.penalty_range import useful_penalties
from fastridge.planning.costs import physical_memory
from fastridge.problem import Problem
from fastridge.selection.criteria import Rows

LOO, GCV, EVIDENCE = "leave-one-out", "gcv", "evidence"
OF_GROUPS = GCV, EVIDENCE
"""What `scoring` may be besides None."""
SWITCHED_OFF = 1e4
"""The largest penalty of a group, relative to the sum of the squared norms of its columns: it leaves nothing of them."""
LARGEST_LOSS = 1e-2
"""Relative error that rounding may make of the factor at the smallest penalties, in the directions that data say least of: there
it is worst and matters least."""
SMALLEST_SHARE = 1e-16
"""Of the largest squared norm in a group, that its smallest penalty is at least where a factor needs it."""
LEFT = 1e-9
"""Of 1 - h, at least: a row with less has no error that a residual could tell."""
NOTHING = 1e-30
"""Share of y that a fit leaves, squared, at least: less is rounding, of either sign."""
KERNELS_SHARE = 0.25
"""Of the memory that kernels may take; more of them are summed anew for every evaluation."""


class Side(ABC):
    """Log scores of some targets and their gradients on the small side of a problem

    `evaluate` gives log sum e^2, log GCV summed over the targets, or minus the mean log evidence but for the weights of rows.
    """

    def __init__(self, inner: Problem, problem: Problem, target: Vector, index: Array, rows: Rows) -> None:
        self.inner, self.problem, self.target, self.index, self.rows = inner, problem, target, index, rows
        self.n_groups = int(index.max()) + 1
        self.rhs = target if inner.wide else inner.design.rmatvec(target)

    def range(self) -> tuple[Vector, Vector]:
        """Smallest and largest log penalties of the groups, wide enough to use all of one and to leave it out"""
        norms = self.inner.design.sq_norms
        sums = self._by_group(norms)
        sums[sums == 0] = 1.0  # a group without columns
        means = sums / np.bincount(self.index, norms > 0, self.n_groups).clip(1)
        mean = norms.sum() / max(1, np.count_nonzero(norms)) or 1.0
        useful = useful_penalties(self.inner, 2)[0][-1] * np.minimum(1.0, means / mean)
        largest = np.zeros(self.n_groups)
        np.maximum.at(largest, self.index, norms)
        share, least = SMALLEST_SHARE, useful
        while not self.factor(least).loss < LARGEST_LOSS:  # of the columns that cost the digits, not of all
            share *= 10
            least = np.maximum(useful, share * largest) if share < 1 else 10 * least
        return np.log(least), np.log(np.maximum(SWITCHED_OFF * sums, least))

    def _by_group(self, of_features: Vector) -> Vector:
        """Sums over the features of every group"""
        return np.bincount(self.index, of_features, self.n_groups).astype(np.float64)

    @abstractmethod
    def factor(self, penalties: Vector) -> ScaledFactor:
        """Of H, or of M, at the penalties of the groups"""

    @abstractmethod
    def of_targets(self, chosen: list[int]) -> Side:
        """The same for some of the targets"""

    @abstractmethod
    def evaluate(self, name: str, penalties: Vector) -> tuple[float, Vector]:
        """The score at the penalties of the groups, (n_groups,), and its derivatives by their logarithms"""


class Tall(Side):
    def __init__(self, inner: Problem, problem: Problem, target: Vector, index: Array, rows: Rows) -> None:
        super().__init__(inner, problem, target, index, rows)
        design = inner.design
        self.gram = design.full_gram()
        null = design.left_null
        self.unseen = np.ones(design.shape[0]) if null is None else 1.0 - np.einsum("iq,iq->i", null, null)
        # A fit to count residuals from: of y itself, sums would lose what is small beside y.
        self.near = self.factor(np.exp(self.range()[0])).solve(self.rhs)
        self.slope = design.gradient(self.near, target)
        residual = target - design.matvec(self.near)
        self.sq_near = column_dots(residual, residual)

    def of_targets(self, chosen: list[int]) -> Tall:
        some = object.__new__(Tall)
        some.__dict__.update(self.__dict__)
        for name in ("target", "rhs", "near", "slope"):
            setattr(some, name, np.ascontiguousarray(getattr(self, name)[:, chosen]))
        some.sq_near = self.sq_near[chosen]
        return some

    def factor(self, penalties: Vector) -> ScaledFactor:
        return ScaledFactor(np.array(self.gram, order="F"), penalties[self.index], self.inner.design.shape[0])

    def evaluate(self, name: str, penalties: Vector) -> tuple[float, Vector]:
        d, factor = penalties[self.index], self.factor(penalties)
        if not np.isfinite(factor.loss):
            return np.inf, np.zeros(self.n_groups)
        root = factor.root_of_inverse()
        with np.errstate(divide="ignore", invalid="ignore"):
            value, slopes = self._leave_one_out(d, root) if name == LOO else self._criterion(name, d, root)
        return value, self._by_group(d * slopes)

    def _leave_one_out(self, d: Vector, root: Vector) -> tuple[float, Vector]:
        """Log of the sum of squares, and what its derivatives by d are"""
        design, (n, k), target = self.inner.design, self.target.shape, self.target
        inner = root @ self.rhs
        ratios, sq_errors, parts = np.empty((n, k)), np.empty(n), {}

        def block(lo: int, hi: int, image: Vector) -> None:
            left = self.unseen[lo:hi] - np.einsum("ij,ij->i", image, image)
            doubtful = left < LEFT
            left[doubtful] = LEFT
            errors = (target[lo:hi] - image @ inner) / left[:, None]
            sq_errors[lo:hi] = np.einsum("ik,ik->i", errors, errors)
            ratios[lo:hi] = errors / left[:, None]
            weights = np.where(doubtful, 0.0, sq_errors[lo:hi] / left)
            parts[lo] = weights @ np.square(image @ root)

        design.product_blocks(np.ascontiguousarray(root.T), block)
        by_leverage = sum(parts[lo] for lo in sorted(parts))
        by_fit = (root.T @ (root @ design.rmatvec(ratios))) * (root.T @ inner)
        total = float(sq_errors.sum())
        return float(np.log(total)), 2.0 * (by_fit.sum(axis=1) - by_leverage) / total

    def _criterion(self, name: str, d: Vector, root: Vector) -> tuple[float, Vector]:
        n, q, k = self.rows.n, self.rows.n_free, self.target.shape[1]
        inverse = root.T @ root
        w = inverse @ self.rhs
        moved = w - self.near
        sq = self.sq_near - 2 * column_dots(moved, self.slope) + column_dots(moved, np.ascontiguousarray(self.gram @ moved))
        sq = np.maximum(sq, NOTHING * column_dots(self.target, self.target))
        diagonal = inverse.diagonal()
        if name == GCV:
            left = n - q - len(d) + float(d @ diagonal)
            by_left = diagonal - np.square(inverse) @ d
            by_sq = 2 * (w * (inverse @ (d[:, None] * w))).sum(axis=1)
            return float(np.log(n * sq.sum()) - 2 * np.log(left)), by_sq / sq.sum() - 2 * by_left / left
        sq = sq + d @ np.square(w)
        log_det = -2 * np.log(root.diagonal()).sum() - np.log(d).sum()
        value = (n - q) / 2 * (np.log(2 * np.pi * sq / (n - q)) + 1).mean() + log_det / 2
        return float(value), (n - q) / (2 * k) * np.square(w) @ (1 / sq) + (diagonal - 1 / d) / 2


class Wide(Side):
    def __init__(self, inner: Problem, problem: Problem, target: Vector, index: Array, rows: Rows) -> None:
        super().__init__(inner, problem, target, index, rows)
        n = len(target)
        self.null = inner.design.left_null
        fits = 8.0 * self.n_groups * n * n <= KERNELS_SHARE * physical_memory()
        self.kernels = self._kernels() if fits else None

    def of_targets(self, chosen: list[int]) -> Wide:
        some = object.__new__(Wide)
        some.__dict__.update(self.__dict__)
        some.target = some.rhs = np.ascontiguousarray(self.target[:, chosen])
        return some

    def _kernels(self) -> list[Vector]:
        """K_g of all groups, both triangles"""
        design, n = self.inner.design, len(self.target)
        if design.traits.sparse:
            return [self._kernel(np.where(np.arange(self.n_groups) == g, 1.0, np.inf)) for g in range(self.n_groups)]
        kernels = [np.zeros((n, n)) for _ in range(self.n_groups)]
        for lo, hi, columns in design.T.blocks():
            own = self.index[lo:hi]

            def add(g: int, own: Array = own, columns: Vector = columns) -> None:
                some = columns[own == g]
                if len(some):
                    kernels[g] += some.T @ some

            with parallel.single_threaded_blas():
                parallel.run(add, self.n_groups, design.traits.n_threads)
        return kernels

    def _kernel(self, penalties: Vector) -> Vector:
        """sum_g K_g / penalty_g from the data"""
        own, d = self.problem.penalty_weights, penalties[self.index]
        with np.errstate(invalid="ignore"):
            d = d if own is None else np.where(own == 0, 0.0, d * own)
        return plain_form(replace(self.problem, penalty_weights=d)).problem.design.T.full_gram()

    def factor(self, penalties: Vector) -> ScaledFactor:
        """Of M + c N N', which is as heavy along N as elsewhere, so that taking N off the inverse costs no digits"""
        n = len(self.target)
        if self.kernels is None:
            matrix = np.asfortranarray(self._kernel(penalties))
        else:
            matrix = np.zeros((n, n), order="F")
            for kernel, penalty in zip(self.kernels, penalties, strict=True):
                matrix += kernel / penalty
        if self.null is not None:
            matrix += float(matrix.trace()) / n * (self.null @ self.null.T)
        return ScaledFactor(matrix, 1.0, max(self.inner.design.shape))

    def evaluate(self, name: str, penalties: Vector) -> tuple[float, Vector]:
        factor = self.factor(penalties)
        if not np.isfinite(factor.loss):
            return np.inf, np.zeros(self.n_groups)
        root = factor.root_of_inverse()
        inverse = root.T @ root
        log_det = -2 * float(np.log(root.diagonal()).sum())
        if self.null is not None:
            along = np.einsum("iq,iq->q", self.null, inverse @ self.null)
            inverse -= (self.null * along) @ self.null.T
            log_det += float(np.log(along).sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            value, slope = self._leave_one_out(inverse) if name == LOO else self._criterion(name, inverse, log_det)
        return value, self._products(slope) / penalties

    def _leave_one_out(self, inverse: Vector) -> tuple[float, Vector]:
        """Log of the sum of squares, and R"""
        residual, diagonal = inverse @ self.target, inverse.diagonal()
        # Where nothing at all is left, nothing was to be predicted: a row whose weight is all there is.
        left = np.where(diagonal > 0, diagonal, np.inf)[:, None]
        errors = residual / left
        sq = np.einsum("ik,ik->i", errors, errors)
        total = float(sq.sum())
        half = inverse * np.sqrt(sq / left[:, 0])
        return float(np.log(total)), 2 / total * ((inverse @ (errors / left)) @ residual.T - half @ half.T)

    def _criterion(self, name: str, inverse: Vector, log_det: float) -> tuple[float, Vector]:
        n, q, k = self.rows.n, self.rows.n_free, self.target.shape[1]
        residual = inverse @ self.target
        if name == GCV:
            left = float(inverse.trace()) - (len(self.target) - n)  # rows without weight count in the trace
            sq = float(np.square(residual).sum())
            slope = 2 / sq * ((inverse @ residual) @ residual.T) - 2 / left * (inverse @ inverse)
            return float(np.log(n * sq) - 2 * np.log(left)), slope
        sq_whole = np.einsum("ik,ik->k", self.target, residual)
        value = (n - q) / 2 * (np.log(2 * np.pi * sq_whole / (n - q)) + 1).mean() + log_det / 2
        return float(value), (n - q) / (2 * k) * ((residual / sq_whole) @ residual.T) - inverse / 2

    def _products(self, slope: Vector) -> Vector:
        """<K_g, R> of all groups"""
        if self.kernels is not None:
            return np.array([float(np.vdot(kernel, slope)) for kernel in self.kernels])
        design = self.inner.design
        sums = np.zeros(design.shape[1])
        for lo, hi, rows in design.blocks():
            sums += np.einsum("ij,ji->j", rows, design.rmatvec(np.ascontiguousarray(slope[:, lo:hi])))
        return self._by_group(sums)
