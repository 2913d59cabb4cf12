"""A request: what is asked for and how it is to be solved, checked once, in one place, before any work."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastridge import validation
from fastridge.formulation import make_problem, problem_of_rows
from fastridge.monitor import Monitor, Progress
from fastridge.operators.base import Matrix, Vector
from fastridge.operators.row_blocks import Facts, RowBlocks
from fastridge.parallel import resolve_threads
from fastridge.planning.costs import GRAM_FEATURES
from fastridge.problem import Bounds, Problem
from fastridge.rows import RowSource


@dataclass(frozen=True)
class Method:
    """How a request is solved: the solver, what it is to reach, and how long it may try; see `functional.ridge`"""

    solver: str = "auto"
    tol: float = 1e-6
    max_iter: int | None = None
    n_threads: int | None = None
    time_limit: float | None = None
    callback: Callable[[Progress], object] | None = None
    verbose: bool = False
    checkpoint: str | os.PathLike[str] | None = None

    @classmethod
    def checked(
        cls,
        solver: Any,
        tol: Any,
        max_iter: Any,
        n_threads: Any,
        *,
        time_limit: Any = None,
        callback: Any = None,
        verbose: Any = False,
        checkpoint: Any = None,
        **flags: Any,
    ) -> Method:
        """Of what a user gave; `flags` are other arguments that must be True or False

        Raises
        ------
        ValueError, TypeError
            If one is not what it should be.
        """
        validation.check_options(solver, tol, max_iter, n_threads, time_limit, callback, checkpoint, **flags)
        return cls(solver, tol, max_iter, n_threads, time_limit, callback, bool(verbose), checkpoint)

    def monitor(self) -> Monitor:
        """Return the monitor of a solve that begins now"""
        return Monitor(self.time_limit, self.callback, self.verbose, self.tol)


@dataclass(frozen=True)
class Request:
    """What is asked for: data that have passed `validation`, and the objective

    Attributes
    ----------
    X : (n, p) array with contiguous rows or columns, or csr_array or csc_array; float32 or float64
    y : (n,) or (n, k) float64
    weights : (n,) float64 or None
        Of the samples.
    penalty : (k,) float64
        alpha of every target.
    fit_intercept : bool
    bounds : Bounds or None
    penalty_weights : (p,) or (p, p) float64, or None
    dtype : numpy dtype
        What the coefficients are rounded to.
    """

    X: Matrix
    y: Vector
    weights: Vector | None
    penalty: Vector
    fit_intercept: bool = True
    bounds: Bounds | None = None
    penalty_weights: Vector | None = None
    dtype: Any = np.float64

    @classmethod
    def checked(cls, X: Any, y: Any, sample_weight: Any, method: Method, **asked: Any) -> Request:
        """Of what a user gave, by the names of `functional.ridge`

        Raises
        ------
        ValueError, TypeError
            If something is not what it should be.
        """
        X = validation.check_X(X)
        y = validation.check_y(y, X.shape[0])
        weights = validation.check_sample_weight(sample_weight, X.shape[0])
        return cls.of_data(X, y, weights, method, **asked)

    @classmethod
    def of_data(
        cls,
        X: Matrix,
        y: Vector,
        weights: Vector | None,
        method: Method,
        *,
        alpha: Any,
        fit_intercept: bool,
        positive: Any,
        bounds: Any,
        penalty_weights: Any,
        dtype: Any = np.float64,
    ) -> Request:
        """Of data that have been checked, and what a user asked of them, which has not; raises as `checked`"""
        if method.checkpoint is not None:
            raise ValueError("a checkpoint keeps what passes over rows that are not in memory gave: give scan(X, target=y)")
        penalty = validation.check_alpha(alpha, 1 if y.ndim == 1 else y.shape[1])
        box = validation.check_bounds(positive, bounds, X.shape[1], method.solver)
        d = validation.check_penalty_weights(penalty_weights, X.shape[1], box)
        return cls(X, y, weights, penalty, fit_intercept, box, d, dtype)

    def problem(self, n_threads: int | None) -> Problem:
        """The data centred and weighted, without a copy of X as a rule; see `formulation.make_problem`"""
        data = self.X, self.y, self.penalty, self.weights, self.fit_intercept
        return make_problem(*data, n_threads, self.bounds, self.penalty_weights)


@dataclass(frozen=True)
class RowsRequest(Request):
    """What is asked of rows that a source yields: `X` is the source, and `y` an empty array that says how targets are given"""

    with_gram: bool = False
    known: tuple[RowBlocks, Facts] | None = None

    @classmethod
    def of_source(cls, source: RowSource, method: Method, **asked: Any) -> RowsRequest:
        """Of a source and what a user asked, by the names of `functional.ridge`; raises as `Request.checked`"""
        source.need_target()
        if source.text_target:
            raise ValueError(
                f"{source.text_target}, and a regression predicts numbers: RidgeClassifier takes it as classes, or name a target "
                "of numbers"
            )
        y = np.empty(0 if source.one_target else (0, source.n_targets))
        if asked["positive"] or asked["bounds"] is not None:
            raise ValueError("bounds need X in memory: coordinate descent reads columns")
        if method.solver == "cd":
            raise ValueError('solver="cd" reads columns, and a source yields rows: take "auto", "cg", "cholesky" or "svd"')
        penalty = validation.check_alpha(asked["alpha"], source.n_targets)
        d = validation.check_penalty_weights(asked["penalty_weights"], source.n_features, None)
        if d is not None and (d.ndim == 2 or not ((d > 0) & np.isfinite(d)).all()):
            raise ValueError("penalty_weights of a source of rows must be positive and finite, one for each feature")
        suits = source.n_features <= GRAM_FEATURES and method.solver in ("auto", "cholesky")
        return cls(source, y, None, penalty, asked["fit_intercept"], None, d, source.dtype, suits)

    def problem(self, n_threads: int | None) -> Problem:
        """After a first pass over the rows, unless its outcome is known; see `formulation.problem_of_rows`"""
        return problem_of_rows(*(self.known or self._read(n_threads)), self.penalty, self.penalty_weights)

    def after_first_pass(self, n_threads: int | None) -> RowsRequest:
        """The same request, which has read all rows once"""
        return replace(self, known=self._read(n_threads))

    def _read(self, n_threads: int | None) -> tuple[RowBlocks, Facts]:
        found: tuple[RowBlocks, Facts] = self.X.operator(self.fit_intercept, resolve_threads(n_threads), self.with_gram)
        return found
