"""Ridge regression on dask arrays and data frames: the solvers of this package, on rows that stay where they are.

With a distributed client the rows are loaded by tasks in groups of neighbouring chunks, which stay on the workers; every product
is one task a worker, and what travels are vectors of one number a feature. Groups do not depend on the number of workers and
are summed in pairs, pairs of pairs and so on, so that the bits are the same for any number of workers, and after one was lost:
its groups are loaded anew. With another scheduler chunks are computed one after the other in every pass.

Needs dask, and distributed for clusters: pip install "fastridge-solvers[dask]".
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import dask
import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastridge import classifier, estimators, ridge_cv
from fastridge.operators.base import Array, GoOn, Target, Vector
from fastridge.operators.row_blocks import Block, Facts, RowBlocks, Totals, gathered, stacked
from fastridge.rows import MARKS, TRUTH, Code, RowSource, add_every, checked_block, count_labels, fingerprint, sum_over
from fastridge.sums import check_memory

with suppress(ImportError):  # a scheduler on this machine does without
    import distributed

Numbered: TypeAlias = tuple[int, list[Block]]
"""A group of blocks, after the number of its first row."""
LEAST_GROUPS, MOST_GROUPS = 4, 512
"""Of chunks, where there are as many: there is no use for more workers."""
ROWS_IN_GROUP = 0.125
"""Of a group, for each feature, at least: it costs a few vectors of one number a feature as well as its rows."""
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
    """`fastridge.RidgeCV` by exact leave-one-out, a criterion or folds for dask arrays and data frames; see `Ridge` here

    Sums, leave-one-out errors and the proof take a pass each, by tasks where the rows are; criteria take none of their own. With
    `cv` a number the folds are every `cv`-th row, as of a `fastridge.scan`. They are summed one after the other, and for each of
    them a Gram matrix, 8 n_features^2 bytes, comes from every worker; a few, where the number of workers is no power of two.

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
        super().fit(_rows_of(X, y, sample_weight), **params)
        return self

    def predict(self, X: Any) -> Any:
        """Return X w + b as a dask array, lazily; of what is no dask collection as `fastridge.RidgeCV` does"""
        return _lazily(self, X, super().predict)


class RidgeClassifierCV(ridge_cv.RidgeClassifierCV):
    """`fastridge.RidgeClassifierCV` for dask arrays and data frames, with labels that are numbers; see `Ridge` and `RidgeCV` here

    With `cv` a number, one more pass counts the rows of each fold that fits without it put into the right class. The coefficients
    of all folds and penalties go to every worker for that.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastridge.dask import RidgeClassifierCV
    >>> X = da.random.default_rng(0).standard_normal((2000, 5), chunks=(500, 5))
    >>> noise = da.random.default_rng(1).standard_normal(2000, chunks=500)
    >>> RidgeClassifierCV(alphas=[0.1, 10.0, 1000.0]).fit(X, 0.3 * X[:, 0] + noise > 0).alpha_
    10.0
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **params: Any) -> RidgeClassifierCV:
        """Choose the penalty and fit; see `Ridge.fit`"""
        super().fit(_rows_of(X, y, sample_weight), **params)
        return self

    def predict(self, X: Any) -> Any:
        """Return labels as a dask array, lazily; of what is no dask collection as `fastridge.RidgeClassifierCV` does"""
        return _lazily(self, X, super().predict)


class DaskRows(RowSource):
    """The rows of dask collections

    Attributes
    ----------
    n_groups : int
        Groups of neighbouring chunks, which are summed each for itself.
    """

    def __init__(self, X: Any, y: Any, weights: Any) -> None:
        self._given_targets = None if y.ndim == 1 else int(y.shape[1])
        self.n_features = len(X.columns) if hasattr(X, "columns") else int(X.shape[1])
        names = tuple(X.columns) if hasattr(X, "columns") else ()
        self.feature_names = names if names and all(isinstance(name, str) for name in names) else None
        single = X.dtype == np.float32 if hasattr(X, "dtype") else all(kind == np.float32 for kind in X.dtypes)
        self.dtype = np.dtype(np.float32 if single else np.float64)
        self.one_target, self.n_targets = y.ndim == 1, self._given_targets or 1
        self.names = dict(TRUTH) if self.one_target and y.dtype == bool else None
        self._chunks = _chunks_of(X, y, weights)
        n, n_rows = len(self._chunks), X.shape[0] if hasattr(X, "chunks") else np.nan
        enough = n_rows / (ROWS_IN_GROUP * self.n_features) if np.isfinite(n_rows) else MOST_GROUPS
        self.n_groups = min(n, int(np.clip(enough, LEAST_GROUPS, MOST_GROUPS)))
        self._cuts = [n * i // self.n_groups for i in range(self.n_groups + 1)]
        self._client = _client()
        self._parts: list[Any] | None = None
        self._code: Code | None = None

    def describe(self) -> str:
        return f"dask collection of {len(self._chunks)} chunks"

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        for i, chunk in enumerate(self._chunks):
            blocks = _loaded([(i, *dask.compute(*chunk))], self.n_features, self._given_targets)
            for block in blocks if self._code is None else _coded(blocks, self._code):
                yield block.X, block.y[:, 0] if self.one_target else block.y, block.weights, block.where

    def recoded(self, n_targets: int, code: Code) -> RowSource:
        new = copy(self)
        new.n_targets, new.one_target, new.names, new._code, new._seen = n_targets, False, None, code, None
        if self._client is not None:
            new._parts = _submitted(self._client, self._on_workers(), _mapped, _coded, code)
        return new

    def labels(self) -> Counter[float]:
        if self._client is None:
            return super().labels()
        return Counter(_reduced(self._client, self._on_workers(), self.n_groups, _labels, operator.add))

    def facts(self, fit_intercept: bool, n_threads: int, with_gram: bool) -> Facts:
        if self._client is None:
            return super().facts(fit_intercept, n_threads, with_gram)
        asked = self.n_features, self.n_targets, fit_intercept, with_gram
        totals: Totals = _reduced(self._client, self._on_workers(), self.n_groups, _totals, Totals.join, *asked)
        return totals.facts()

    def folds(self, n_folds: int, n_threads: int) -> list[Totals]:
        asked = n_folds, self.n_features, self.n_targets
        if self._client is None:
            levels = 1 + (self.n_groups - 1).bit_length()
            check_memory(self.n_features, n_folds * levels + 1)
            groups = self._groups_here()
            totals = ([_fold(group, i, *asked, n_threads) for i in range(n_folds)] for group in groups)
            folds: list[Totals] = self._joined_here(totals, _folds_of_both)
            return folds
        numbered = self._numbered_parts()
        return [_reduced(self._client, numbered, self.n_groups, _fold, Totals.join, i, *asked) for i in range(n_folds)]

    def summed(self, function: Callable[..., Vector], *arguments: Any) -> Vector:
        if self._client is None:
            sums = (_summed(group, function, *arguments) for group in self._groups_here())
            return np.asarray(self._joined_here(sums, operator.add))
        asked = _summed, operator.add, function, *arguments
        return np.asarray(_reduced(self._client, self._numbered_parts(), self.n_groups, *asked))

    def operator_of(self, facts: Facts, n_threads: int) -> RowBlocks:
        if self._client is None:
            return super().operator_of(facts, n_threads)
        light = replace(facts, gram=None)  # the workers have no use for it
        parts = _submitted(self._client, self._on_workers(), _mapped, _operator, light)
        return RemoteRows(self._client, parts, self.n_groups, facts)

    def marks(self) -> Vector:
        if self._client is None:
            return super().marks()
        return np.concatenate(_reduced(self._client, self._on_workers(), self.n_groups, _marks, operator.add))

    def recognise(self, marks: Vector, path: str) -> None:
        if self._client is None:
            super().recognise(marks, path)
        elif not np.array_equal(self.marks(), marks):
            raise ValueError(f"other rows than those of the checkpoint {path!r}: remove that, or fit to the rows it is of")

    def read_again(self) -> None:
        if self._client is None:
            super().read_again()

    def _groups_here(self) -> Iterator[Numbered]:
        """Groups, in one pass over all chunks"""
        blocks, at = self.blocks(), 0
        block = next(blocks, None)
        for end in self._cuts[1:]:
            own = []
            while block is not None and _number(block) < end:
                own.append(block)
                block = next(blocks, None)
            yield at, _stacked(own)
            at += sum(len(block.y) for block in own)

    def _joined_here(self, values: Iterator[Any], join: Any) -> Any:
        """Values of the groups, which come in turn, joined in the tree that they are joined in on a cluster"""
        return _nodes_of(values, 0, self.n_groups, self.n_groups, join)[0, self.n_groups]

    def _numbered_parts(self) -> list[Any]:
        """Futures of the parts, whose groups have the numbers of their first rows"""
        n_rows = _reduced(self._client, self._on_workers(), self.n_groups, _counted, operator.add)
        return _submitted(self._client, self._on_workers(), _numbered, np.cumsum(n_rows) - n_rows)

    def _on_workers(self) -> list[Any]:
        """Futures of the parts, one for each worker, which are loaded where there is room and stay there"""
        if self._parts is None:
            workers = sorted(self._client.scheduler_info(n_workers=-1)["workers"])
            load = dask.delayed(_loaded_part, pure=False)
            n_parts = max(1, min(len(workers), self.n_groups))
            ends = [self.n_groups * i // n_parts for i in range(n_parts + 1)]
            parts = []
            for i, first in enumerate(ends[:-1]):
                cuts = self._cuts[first : ends[i + 1] + 1]
                chunks = [[(j, *self._chunks[j]) for j in range(*cut)] for cut in pairwise(cuts)]
                task = load(first, self.n_groups, chunks, self.n_features, self._given_targets)
                options = {"workers": workers[i : i + 1] or None, "allow_other_workers": bool(workers), "retries": RETRIES}
                parts.append(self._client.compute(task, **options))
            self._parts = parts
        return self._parts


class RemoteRows(RowBlocks):
    """Rows on the workers of a cluster, in parts whose groups are operators of their own"""

    def __init__(self, client: Any, parts: list[Any], n_groups: int, facts: Facts) -> None:
        super().__init__(tuple, facts, 1)
        self._client, self._parts, self._n_groups = client, parts, n_groups

    def with_columns_scaled(self, sq_scale: Vector) -> RemoteRows:
        new = super().with_columns_scaled(sq_scale)
        assert isinstance(new, RemoteRows)
        new._parts = _submitted(self._client, self._parts, _mapped, RowBlocks.with_columns_scaled, sq_scale)
        return new

    def over_rows(self, function: Any, *arguments: Any) -> Vector:
        """The sum over the groups"""
        return np.asarray(self._over_groups(function, operator.add, *arguments))

    def _over_groups(self, function: Any, join: Any, *arguments: Any) -> Any:
        with self.passes.over(self.shape[0]):
            return _reduced(self._client, self._parts, self._n_groups, function, join, *arguments)

    def normal(self, v: Vector, target: Target = None) -> Vector:
        return self.over_rows(RowBlocks.normal, v, target)

    def sq_image(self, v: Vector) -> Vector:
        return self.over_rows(RowBlocks.sq_image, v)

    def gram_about_high(self, go_on: GoOn | None = None) -> Vector:
        return np.asfortranarray(self.over_rows(RowBlocks.gram_about_high))

    def triangle(self, target: Target = None, go_on: GoOn | None = None) -> Vector:
        return np.asarray(self._over_groups(RowBlocks.triangle, _triangle_of_both, target))

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        raise self._refusal("keeps its rows on other machines")


# Tasks: what runs on the workers.


def _loaded(chunks: list[tuple[int, Any, Any, Any]], n_features: int, n_targets: int | None) -> list[Block]:
    """Blocks of the chunks that have rows"""
    return [
        checked_block(X, _plain(y), _plain(weights), f"chunk {i}", n_features, n_targets)
        for i, X, y, weights in chunks
        if any(x.shape[0] for x in (X, y, weights) if x is not None)
    ]


def _number(block: Block) -> int:
    """Of the chunk that a block was made of"""
    return int(block.where.removeprefix("chunk "))


def _coded(blocks: list[Block], code: Code) -> list[Block]:
    """With the targets and weights that `code` makes of theirs"""
    coded = []
    for block in blocks:
        y, weights = code(block.y, block.weights)
        coded.append(replace(block, y=y, weights=weights))
    return coded


@dataclass(frozen=True)
class _Part:
    """What a worker has: one item for each group from `first` on, of `n_groups` in all"""

    first: int
    n_groups: int
    items: list[Any]


def _loaded_part(first: int, n_groups: int, groups: list[Any], n_features: int, n_targets: int | None) -> _Part:
    return _Part(first, n_groups, [_stacked(_loaded(chunks, n_features, n_targets)) for chunks in groups])


def _stacked(blocks: list[Block]) -> list[Block]:
    """Sparse blocks of fewer entries than features as one: each costs a few vectors of one number a feature"""
    if len(blocks) < 2 or any(isinstance(block.X, np.ndarray) or block.X.size >= block.X.shape[1] for block in blocks):
        return blocks
    return [stacked(blocks)]


def _mapped(part: _Part, function: Any, *arguments: Any) -> _Part:
    """What `function` makes of every item"""
    return replace(part, items=[function(item, *arguments) for item in part.items])


def _nodes(part: _Part, function: Any, join: Any, *arguments: Any) -> dict[tuple[int, int], Any]:
    """What `function` makes of the items, joined as `_nodes_of` does"""
    values = (function(item, *arguments) for item in part.items)
    return _nodes_of(values, part.first, part.first + len(part.items), part.n_groups, join)


def _nodes_of(values: Iterator[Any], first: int, end: int, n_groups: int, join: Any) -> dict[tuple[int, int], Any]:
    """Values of the groups from `first` to `end`, joined as far as the tree of pairs over all has both: {(lo, hi): value}"""

    def within(lo: int, hi: int) -> dict[tuple[int, int], Any]:
        if end <= lo or hi <= first:
            return {}
        if hi - lo == 1:
            return {(lo, hi): next(values)}
        mid = (lo + hi) // 2
        own = within(lo, mid) | within(mid, hi)
        return {(lo, hi): join(own[lo, mid], own[mid, hi])} if first <= lo and hi <= end else own

    return within(0, n_groups)


def _triangle_of_both(one: Vector, other: Vector) -> Vector:
    return np.asarray(np.linalg.qr(np.concatenate([one, other]), mode="r"))


def _plain(x: Any) -> Any:
    """A series or frame as an array; what else there is as it is"""
    return x.to_numpy() if hasattr(x, "to_numpy") else x


def _labels(blocks: list[Block]) -> Counter[float]:
    return sum((Counter(count_labels(block.y)) for block in blocks), Counter())


def _marks(blocks: list[Block]) -> list[Vector]:
    return [np.array([fingerprint(block) for block in blocks]).reshape(-1, MARKS)]


def _totals(blocks: list[Block], p: int, k: int, fit_intercept: bool, with_gram: bool) -> Totals:
    totals = Totals(p, k, fit_intercept, with_gram)
    for block in gathered(blocks, p) if with_gram and fit_intercept else blocks:
        totals.add(block, 1)
    return totals


def _counted(blocks: list[Block]) -> list[int]:
    return [sum(len(block.y) for block in blocks)]


def _numbered(part: _Part, starts: Vector) -> _Part:
    """Every item with the number of its first row"""
    own = starts[part.first : part.first + len(part.items)].tolist()
    return replace(part, items=list(zip(own, part.items, strict=True)))


def _fold(group: Numbered, fold: int, n_folds: int, p: int, k: int, n_threads: int = 1) -> Totals:
    """Over the rows of a group whose numbers are `fold`, fold + n_folds, fold + 2 n_folds and so on"""
    at, blocks = group
    totals = Totals(p, k, True, True)
    for block in gathered(blocks, n_folds * p // 2):
        add_every(totals, block, (fold - at) % n_folds, n_folds, n_threads)
        at += len(block.y)
    return totals


def _summed(group: Numbered, function: Callable[..., Vector], *arguments: Any) -> Vector:
    return sum_over(*group, function, *arguments)


def _folds_of_both(one: list[Totals], other: list[Totals]) -> list[Totals]:
    return [own.join(more) for own, more in zip(one, other, strict=True)]


def _operator(blocks: list[Block], facts: Facts) -> RowBlocks:
    return RowBlocks(_Held(blocks), facts, 1)


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


def _submitted(client: Any, parts: list[Any], function: Any, *arguments: Any) -> list[Any]:
    """Futures of function(part, *arguments): tasks that are taken up again where a worker is lost"""
    shared = [[argument] * len(parts) for argument in arguments]
    return list(client.map(function, parts, *shared, pure=False, retries=RETRIES))


def _reduced(client: Any, parts: list[Any], n_groups: int, function: Any, join: Any, *arguments: Any) -> Any:
    """What `function` makes of the items of all parts, joined in pairs, pairs of pairs and so on, whatever part they are in"""
    known: dict[tuple[int, int], Any] = {}
    for own in client.gather(_submitted(client, parts, _nodes, function, join, *arguments)):
        known |= own

    def joined(lo: int, hi: int) -> Any:
        mid = (lo + hi) // 2
        return known[lo, hi] if (lo, hi) in known else join(joined(lo, mid), joined(mid, hi))

    return joined(0, n_groups)


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
    nothing = sample[:0]
    predicted = partial(_predicted, local, kind, nothing)
    return X.map_blocks(predicted, dtype=sample.dtype, drop_axis=dropped, chunks=chunks, meta=nothing)


def _predicted(model: Any, kind: Any, nothing: Array, X: Any) -> Array:
    return np.asarray(kind.predict(model, X)) if X.shape[0] else nothing
