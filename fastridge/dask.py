"""Ridge regression on dask arrays and data frames: the solvers of this package, on rows that stay where they are.

With a distributed client the rows are loaded by tasks in groups of chunks, which stay on the workers; every product is one task a
group, and what travels are vectors of one number a feature. Groups do not depend on the number of workers and are summed in
their order, so that the bits are the same for any number of workers, and after one was lost: its groups are loaded anew. With
another scheduler chunks are computed one after the other in every pass.

Needs dask, and distributed for clusters: pip install "fastridge-solvers[dask]".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import dask
import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastridge import classifier, estimators, ridge_cv
from fastridge.operators.base import Array, GoOn, Target, Vector
from fastridge.operators.row_blocks import Block, Facts, RowBlocks, Totals, add_to_pair
from fastridge.rows import MARKS, Code, RowSource, checked_block, count_labels, fingerprint

with suppress(ImportError):  # a scheduler on this machine does without
    import distributed

N_GROUPS = 8
"""Of chunks, at least, where there are as many: some for every worker, and few vectors that travel."""
RETRIES = 5
"""Of a task whose worker is lost."""


class Ridge(estimators.Ridge):
    """`fastridge.Ridge` for dask arrays (dense, or chunks of scipy.sparse) and data frames

    Parameters and attributes are those of `fastridge.Ridge`. `fit` takes X, y and sample_weight as dask collections whose chunks
    are rows; `predict` returns a dask array, and computes nothing. Bounds, and penalty weights of 0 or infinity, are refused:
    they need X in memory.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> from fastridge.dask import Ridge
    >>> X = da.random.default_rng(0).standard_normal((2000, 5), chunks=(500, 5))
    >>> model = Ridge(alpha=0.1).fit(X, X @ np.arange(5.0) + 1)
    >>> np.round(model.coef_, 2) + 0.0
    array([0., 1., 2., 3., 4.])
    >>> model.predict(X).shape  # a dask array
    (2000,)
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Ridge:
        """Fit to dask collections; see `fastridge.Ridge.fit`

        Parameters
        ----------
        X : (n_samples, n_features) dask array or data frame
            In chunks of rows; columns in several chunks are brought together.
        y : (n_samples,) or (n_samples, n_targets) dask array, series or data frame
            In chunks like those of X.
        sample_weight : (n_samples,) dask array, series or None

        Raises
        ------
        ValueError, TypeError
            If chunks do not agree, or hold what a fit cannot take; the message names the chunk.
        """
        super().fit(_rows_of(X, y, sample_weight))
        return self

    def predict(self, X: Any) -> Any:
        """Return X w + b as a dask array, lazily; of what is no dask collection as `fastridge.Ridge` does"""
        return _lazily(self, X, super().predict)


class RidgeClassifier(classifier.RidgeClassifier):
    """`fastridge.RidgeClassifier` for dask arrays and data frames, with labels that are numbers; see `Ridge` here

    Examples
    --------
    >>> import dask.array as da
    >>> from fastridge.dask import RidgeClassifier
    >>> X = da.random.default_rng(0).standard_normal((2000, 5), chunks=(500, 5))
    >>> model = RidgeClassifier().fit(X, X[:, 0] > 0)
    >>> bool((model.predict(X) == (X[:, 0] > 0)).mean().compute() > 0.98)
    True
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> RidgeClassifier:
        """Fit to dask collections; see `Ridge.fit`"""
        super().fit(_rows_of(X, y, sample_weight))
        return self

    def predict(self, X: Any) -> Any:
        """Return labels as a dask array, lazily; of what is no dask collection as `fastridge.RidgeClassifier` does"""
        return _lazily(self, X, super().predict)


class RidgeCV(ridge_cv.RidgeCV):
    """`fastridge.RidgeCV` by exact leave-one-out (``cv=None``) for dask arrays and data frames; see `Ridge` here

    Sums, leave-one-out errors and the proof take a pass each, by tasks where the rows are.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastridge.dask import RidgeCV
    >>> X = da.random.default_rng(0).standard_normal((2000, 5), chunks=(500, 5))
    >>> noise = da.random.default_rng(1).standard_normal(2000, chunks=500)
    >>> RidgeCV(alphas=[0.1, 10.0, 1000.0]).fit(X, 0.3 * X[:, 0] + noise).alpha_
    10.0
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **params: Any) -> RidgeCV:
        """Choose the penalty and fit; see `Ridge.fit`"""
        if self.cv is not None:
            raise ValueError(f"cv must be None, leave-one-out, on dask collections, got {self.cv!r}")
        super().fit(_rows_of(X, y, sample_weight), **params)
        return self

    def predict(self, X: Any) -> Any:
        """Return X w + b as a dask array, lazily; of what is no dask collection as `fastridge.RidgeCV` does"""
        return _lazily(self, X, super().predict)


class DaskRows(RowSource):
    """The rows of dask collections

    Attributes
    ----------
    n_groups : int
        Groups of neighbouring chunks, each one task a product.
    """

    def __init__(self, X: Any, y: Any, weights: Any, code: Code | None = None, n_targets: int | None = None) -> None:
        self._given, self._own_code = (X, y, weights), code
        self._own_targets = None if y.ndim == 1 else int(y.shape[1])
        self.n_features = len(X.columns) if hasattr(X, "columns") else int(X.shape[1])
        names = tuple(X.columns) if hasattr(X, "columns") else ()
        self.feature_names = names if names and all(isinstance(name, str) for name in names) else None
        single = X.dtype == np.float32 if hasattr(X, "dtype") else all(kind == np.float32 for kind in X.dtypes)
        self.dtype = np.dtype(np.float32 if single else np.float64)
        self.one_target = code is None and y.ndim == 1
        self.n_targets = n_targets if n_targets is not None else self._own_targets or 1
        self._chunks = _chunks_of(X, y, weights)
        n = len(self._chunks)
        self.n_groups = min(n, N_GROUPS)
        self._cuts = [n * i // self.n_groups for i in range(self.n_groups + 1)]
        self._client = _client()
        self._groups: list[Any] | None = None

    def describe(self) -> str:
        return f"dask collection of {len(self._chunks)} chunks"

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        for i, chunk in enumerate(self._chunks):
            block = _loaded([(i, *dask.compute(*chunk))], self.n_features, self._own_targets, self._own_code)[0]
            if len(block.y):
                y = block.y[:, 0] if self.one_target else block.y
                yield block.X, y, block.weights, block.where

    def recoded(self, n_targets: int, code: Code) -> RowSource:
        return DaskRows(*self._given, code, n_targets)

    def labels(self) -> Counter[float]:
        if self._client is None:
            return super().labels()
        counts: Counter[float] = Counter()
        for own in _each(self._client, _labels, self._on_workers()):
            counts.update(own)
        return counts

    def facts(self, fit_intercept: bool, n_threads: int, with_gram: bool) -> Facts:
        if self._client is None:
            return super().facts(fit_intercept, n_threads, with_gram)
        totals: Totals | None = None
        asked = self.n_features, self.n_targets, fit_intercept, with_gram
        for own in _each(self._client, _totals, self._on_workers(), *asked):
            if totals is None:
                totals = own
            else:
                totals.join(own)
        assert totals is not None
        return totals.facts()

    def operator_of(self, facts: Facts, n_threads: int) -> RowBlocks:
        if self._client is None:
            return super().operator_of(facts, n_threads)
        light = replace(facts, gram=None)  # the workers have no use for it
        return RemoteRows(self._client, _submitted(self._client, _operator, self._on_workers(), light), facts)

    def marks(self) -> Vector:
        if self._client is None:
            return super().marks()
        return np.concatenate(_each(self._client, _marks, self._on_workers()))

    def recognise(self, marks: Vector, path: str) -> None:
        if self._client is None:
            super().recognise(marks, path)
        elif not np.array_equal(self.marks(), marks):
            raise ValueError(f"other rows than those of the checkpoint {path!r}: remove that, or fit to the rows it is of")

    def read_again(self) -> None:
        if self._client is None:
            super().read_again()

    def _on_workers(self) -> list[Any]:
        """Futures of the groups of blocks, which are loaded where there is room and stay there"""
        if self._groups is None:
            workers = sorted(self._client.scheduler_info(n_workers=-1)["workers"])
            load = dask.delayed(_loaded, pure=False)
            groups = []
            for g in range(self.n_groups):
                chunks = [(i, *self._chunks[i]) for i in range(self._cuts[g], self._cuts[g + 1])]
                task = load(chunks, self.n_features, self._own_targets, self._own_code)
                home = workers[g * len(workers) // self.n_groups]
                options = {"workers": [home], "allow_other_workers": True, "retries": RETRIES}
                groups.append(self._client.compute(task, **options))
            self._groups = groups
        return self._groups


class RemoteRows(RowBlocks):
    """Rows on the workers of a cluster, in groups that are operators of their own"""

    def __init__(self, client: Any, parts: list[Any], facts: Facts) -> None:
        super().__init__(tuple, facts, 1)
        self._client, self._parts = client, parts

    def with_columns_scaled(self, sq_scale: Vector) -> RemoteRows:
        new = super().with_columns_scaled(sq_scale)
        assert isinstance(new, RemoteRows)
        new._parts = _submitted(self._client, RowBlocks.with_columns_scaled, self._parts, sq_scale)
        return new

    def over_rows(self, function: Any, *arguments: Any) -> Vector:
        """The sum over the groups, in their order"""
        with self.passes.over(self.shape[0]):
            parts = _each(self._client, function, self._parts, *arguments)
        total = np.zeros((2, *parts[0].shape))
        for part in parts:
            add_to_pair(total, part)
        return np.asarray(total.sum(axis=0))

    def normal(self, v: Vector, target: Target = None) -> Vector:
        return self.over_rows(RowBlocks.normal, v, target)

    def sq_image(self, v: Vector) -> Vector:
        return self.over_rows(RowBlocks.sq_image, v)

    def gram_about_high(self, go_on: GoOn | None = None) -> Vector:
        return np.asfortranarray(self.over_rows(RowBlocks.gram_about_high))

    def triangle(self, target: Target = None, go_on: GoOn | None = None) -> Vector:
        stacked = np.concatenate(_each(self._client, RowBlocks.triangle, self._parts, target))
        return np.asarray(np.linalg.qr(stacked, mode="r"))

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        raise self._refusal("keeps its rows on other machines")


# Tasks: what runs on the workers.


def _loaded(chunks: list[tuple[int, Any, Any, Any]], n_features: int, n_targets: int | None, code: Code | None) -> list[Block]:
    blocks = []
    for i, X, y, weights in chunks:
        block = checked_block(X, _plain(y), _plain(weights), f"chunk {i}", n_features, n_targets)
        if code is not None:
            y, weights = code(block.y, block.weights)
            block = replace(block, y=np.asarray(y, dtype=np.float64).reshape(len(block.y), -1), weights=weights)
        blocks.append(block)
    return blocks


def _plain(x: Any) -> Any:
    """A series or frame as an array; what else there is as it is"""
    return x.to_numpy() if hasattr(x, "to_numpy") else x


def _labels(blocks: list[Block]) -> dict[float, int]:
    return count_labels(np.concatenate([block.y for block in blocks]))


def _marks(blocks: list[Block]) -> Vector:
    return np.array([fingerprint(block) for block in blocks if len(block.y)]).reshape(-1, MARKS)


def _totals(blocks: list[Block], p: int, k: int, fit_intercept: bool, with_gram: bool) -> Totals:
    totals = Totals(p, k, fit_intercept, with_gram)
    for block in blocks:
        if len(block.y):
            totals.add(block, 1)
    return totals


def _operator(blocks: list[Block], facts: Facts) -> RowBlocks:
    return RowBlocks(_Held([block for block in blocks if len(block.y)]), facts, 1)


class _Held:
    """Blocks in memory, as `RowBlocks` takes them"""

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks

    def __call__(self) -> list[Block]:
        return self.blocks


# On the side of the user.


def _rows_of(X: Any, y: Any, sample_weight: Any) -> DaskRows:
    """The source of what a user gave, which must be dask collections"""
    if not dask.is_dask_collection(X):
        raise TypeError(f"X must be a dask array or data frame, got {type(X).__name__}: fastridge.Ridge takes others")
    if y is None or not dask.is_dask_collection(y):
        raise TypeError(f"y must be a dask collection in chunks like those of X, got {type(y).__name__}")
    if sample_weight is not None and not dask.is_dask_collection(sample_weight):
        raise TypeError(f"sample_weight must be a dask collection or None, got {type(sample_weight).__name__}")
    return DaskRows(X, y, sample_weight)


def _chunks_of(X: Any, y: Any, weights: Any) -> list[tuple[Any, Any, Any]]:
    """(X, y, weights or None) of every chunk of rows, delayed"""
    parts = [_delayed(x) for x in (X, y)]
    parts.append([None] * len(parts[0]) if weights is None else _delayed(weights))
    if len({len(part) for part in parts}) != 1:
        counts = ", ".join(f"{len(part)} of {name}" for name, part in zip(("X", "y", "sample_weight"), parts, strict=True))
        raise ValueError(f"X, y and sample_weight must be in the same chunks of rows, got {counts}: rechunk them alike")
    return list(zip(*parts, strict=True))


def _delayed(x: Any) -> list[Any]:
    """Chunks of rows, each with all of its columns"""
    if not hasattr(x, "chunks"):
        return list(x.to_delayed())
    if x.ndim == 2 and x.numblocks[1] > 1:
        x = x.rechunk({1: -1})
    return list(np.asarray(x.to_delayed(), dtype=object).ravel())


def _client() -> Any:
    """The distributed client at work; None where there is none"""
    try:
        return distributed.get_client()
    except (ValueError, NameError):
        return None


def _submitted(client: Any, function: Any, things: list[Any], *arguments: Any) -> list[Any]:
    """Futures of function(thing, *arguments): tasks that are taken up again where a worker is lost"""
    return [client.submit(function, thing, *arguments, pure=False, retries=RETRIES) for thing in things]


def _each(client: Any, function: Any, things: list[Any], *arguments: Any) -> list[Any]:
    """What becomes of them, in their order"""
    return list(client.gather(_submitted(client, function, things, *arguments)))


def _lazily(model: Any, X: Any, predict: Any) -> Any:
    """What `predict` makes of every chunk"""
    if not dask.is_dask_collection(X):
        return predict(X)
    check_is_fitted(model)
    width = len(X.columns) if hasattr(X, "columns") else X.shape[1]
    if width != model.n_features_in_:
        raise ValueError(f"X has {width} features, the fit had {model.n_features_in_}")
    sample = predict(np.zeros((1, model.n_features_in_)))
    names = getattr(model, "feature_names_in_", None)
    local = copy(model)
    if names is not None:
        del local.feature_names_in_  # chunks are passed as arrays
    kind = next(base for base in type(model).__mro__ if base.__module__ != __name__)
    if hasattr(X, "columns"):
        X = X.to_dask_array()
    elif X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    dropped = [1] if sample.ndim == 1 else None
    chunks = None if sample.ndim == 1 else (X.chunks[0], (sample.shape[1],))
    return X.map_blocks(partial(_predicted, local, kind), dtype=sample.dtype, drop_axis=dropped, chunks=chunks, meta=sample[:0])


def _predicted(model: Any, kind: Any, X: Any) -> Array:
    return np.asarray(kind.predict(model, X))
