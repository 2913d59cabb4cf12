"""Sources of rows that do not lie in memory: what every one of them is, read ahead, checked, and the same on every pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from fastridge import validation
from fastridge.operators.base import Array, Passes, Vector
from fastridge.operators.row_blocks import Block, Facts, RowBlocks, Totals, first_pass, gathered

BLOCK_BYTES = 1 << 23
"""Of X in one block: large enough that starting a block costs nothing, small enough that two of them stay near the processor."""
SAMPLED_ROWS = 16
"""Of a block, by which it is known again: to sum all would cost half of a product."""
TRUTH = {False: 0, True: 1}
"""The names of a target of truth values."""
MARKS = 5
"""Numbers by which a block is known again."""


Code: TypeAlias = Callable[[Vector, Vector | None], tuple[Vector, Vector | None]]
"""From targets (m, k) and weights (m,) or None to others."""


class RowSource(ABC):
    """Rows of X, y and weights that are read block by block; `fastridge.scan` makes one

    Attributes
    ----------
    n_features : int
    feature_names : tuple of str or None
    n_targets : int
    one_target : bool
        Whether y is one column, given as such.
    dtype : numpy dtype
        float32 where X is, else float64: that of the coefficients.
    repeatable : bool
        Whether the rows can be read more than once.
    categories : dict of str to list of str
        Of the columns that became columns `name=category` of zeros and ones.
    names : dict of label to int, or None
        Of a target that is words or truth values: the labels that have been met, and the numbers that stand for them in y.
    text_target : str
        Says that the target is words, and which one, for messages; empty where it is not.
    has_target : bool
        Whether there is one; else y is zeros, for predictions.
    """

    n_features: int
    feature_names: tuple[str, ...] | None = None
    n_targets: int = 1
    one_target: bool = True
    dtype: np.dtype[Any] = np.dtype(np.float64)
    repeatable: bool = True
    categories: Mapping[str, list[str]] = MappingProxyType({})
    names: dict[Any, int] | None = None
    text_target: str = ""
    has_target: bool = True
    _seen: list[tuple[float, ...]] | None = None
    _known_from = ""
    _begun = False

    @abstractmethod
    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        """Yield (X, y, weights or None, where these rows come from) for block after block, from the first row on

        A block may be overwritten once two more have been asked for.
        """

    @abstractmethod
    def describe(self) -> str:
        """What is read, for messages"""

    def blocks(self) -> Iterator[Block]:
        """Yield what `verified` does, the next block being read and checked meanwhile"""
        yield from ahead(self.verified())

    def verified(self) -> Iterator[Block]:
        """Yield checked blocks, which are those of the first pass again

        Raises
        ------
        ValueError, TypeError
            If a block is not what it should be; the message says where it comes from.
        RuntimeError
            If the rows cannot be read again, or differ from those of the first pass; a ValueError if that is in a checkpoint.
        """
        if self._begun and not self.repeatable:
            raise RuntimeError(f"{self.describe()} can be read once only: give a callable that opens it anew")
        self._begun = True
        seen: list[tuple[float, ...]] = []
        for X, y, weights, where in self.read():
            block = self._checked(X, y, weights, where)
            seen.append(fingerprint(block))
            if self._seen is not None and (len(seen) > len(self._seen) or seen[-1] != self._seen[len(seen) - 1]):
                raise self._other_rows(f"{where}: other rows than on the first pass")
            yield block
        if self._seen is None:
            self._seen = seen
        elif len(seen) < len(self._seen):
            n_rows = sum(int(one[0]) for one in seen)
            raise self._other_rows(f"{self.describe()} ended after {n_rows} rows where the first pass had {self.n_samples}")

    def _other_rows(self, what: str) -> Exception:
        if self._known_from:
            return ValueError(
                f"{what}, which is in the checkpoint {self._known_from!r}: remove that, or fit to the rows it is of"
            )
        return RuntimeError(f"{what}: a source must yield the same rows every time")

    @property
    def n_samples(self) -> int | None:
        """How many rows there are; None before the first pass has ended"""
        return None if self._seen is None else sum(int(one[0]) for one in self._seen)

    def operator(self, fit_intercept: bool, n_threads: int, with_gram: bool) -> tuple[RowBlocks, Facts]:
        """Read all rows once; return A, and what is known of it: the Gram matrix too, if `with_gram` and there is an intercept"""
        return self.operator_after(lambda: self.facts(fit_intercept, n_threads, with_gram), n_threads)

    def operator_after(self, first_pass: Callable[[], Facts], n_threads: int) -> tuple[RowBlocks, Facts]:
        """A and what is known of it, which comes out of a first pass"""
        passes = Passes()
        with passes.over(0):
            facts = first_pass()
        operator = self.operator_of(facts, n_threads)
        passes.n_rows, operator.passes = facts.shape[0], passes
        return operator, facts

    def facts(self, fit_intercept: bool, n_threads: int, with_gram: bool) -> Facts:
        """What a first pass tells"""
        blocks = gathered(self.blocks(), self.n_features) if with_gram and fit_intercept else self.blocks()
        return first_pass(blocks, fit_intercept, n_threads, with_gram)

    def operator_of(self, facts: Facts, n_threads: int) -> RowBlocks:
        """A, of which a first pass has told `facts`"""
        return RowBlocks(self.blocks, facts, n_threads)

    def marks(self) -> Vector:
        """What tells the blocks of a pass from others, a row for each"""
        return np.array(self._seen, dtype=np.float64)

    def recognise(self, marks: Vector, path: str) -> None:
        """Hold all passes, and the first block now, against what the first pass of an earlier fit marked

        Raises
        ------
        ValueError
            If it differs: the checkpoint at `path` is of other rows.
        """
        self._seen, self._known_from = [tuple(mark) for mark in marks.tolist()], path
        blocks = self.verified()
        next(blocks, None)
        blocks.close()  # type: ignore[attr-defined]

    def read_again(self) -> None:
        """Read all rows for nothing but to see that they are those that were recognised"""
        for _ in self.blocks():
            pass

    def labels_alone(self) -> Counter[float] | None:
        """As `labels`, without reading the features; None where that cannot be"""
        return None

    def labels(self) -> Counter[float]:
        """How often each number occurs in y, of one target; reads all rows where the target cannot be read alone"""
        counts = self.labels_alone()
        if counts is None:
            counts = Counter()
            for block in self.blocks():
                counts.update(count_labels(block.y))
        return counts

    def folds(self, n_folds: int, n_threads: int) -> list[Totals]:
        """Sums about their means of the rows i, i + n_folds, i + 2 n_folds and so on, for every fold i; reads all rows"""
        folds = [Totals(self.n_features, self.n_targets, True, True) for _ in range(n_folds)]
        at = 0
        for block in gathered(self.blocks(), n_folds * self.n_features // 2):
            for i, totals in enumerate(folds):
                add_every(totals, block, (i - at) % n_folds, n_folds, n_threads)
            at += len(block.y)
        return folds

    def summed(self, function: Callable[..., Vector], *arguments: Any) -> Vector:
        """The sum over blocks of function(number of the first row, block, *arguments); reads all rows"""
        return sum_over(0, self.blocks(), function, *arguments)

    def recoded(self, n_targets: int, code: Code) -> RowSource:
        """The same rows with other targets, (m, n_targets), and weights: those that `code` makes of them"""
        return Recoded(self, n_targets, code)

    def _like(self, source: RowSource) -> None:
        """Take over what is known of another source, whose rows these are"""
        self.n_features, self.feature_names, self.categories = source.n_features, source.feature_names, source.categories
        self.has_target, self.n_targets, self.one_target = source.has_target, source.n_targets, source.one_target
        self.names, self.text_target = source.names, source.text_target
        self.dtype, self.repeatable = source.dtype, source.repeatable

    def targets(self) -> tuple[Array, Vector | None]:
        """Return y as it was given, (n,) or (n, k), labels as such, and weights; reads all rows"""
        self.need_target()
        parts = [(block.y.copy(), block.weights) for block in self.blocks()]
        y: Array = np.concatenate([own for own, _ in parts])
        weights = [own.copy() for _, own in parts if own is not None]
        y = y[:, 0] if self.one_target else y
        return y if self.names is None else labels_of(y, self.names), np.concatenate(weights) if weights else None

    def need_target(self) -> None:
        """Raise a ValueError where there is none"""
        if not self.has_target:
            raise ValueError(f"{self!r} has no target, which a fit needs: name it in scan(..., target=)")

    def _checked(self, X: Any, y: Any, weights: Any, where: str) -> Block:
        return checked_block(X, y, weights, where, self.n_features, self.n_targets if not self.one_target else None)

    def __repr__(self) -> str:
        n = "rows not counted yet" if self.n_samples is None else f"{self.n_samples} rows"
        return f"<{self.describe()}: {n}, {self.n_features} features>"


class Recoded(RowSource):
    """The rows of another source, of which `code` makes other targets, (m, n_targets), and weights"""

    def __init__(self, source: RowSource, n_targets: int, code: Code) -> None:
        self._source, self._code = source, code
        self._like(source)
        self.n_targets, self.one_target, self.names, self.text_target = n_targets, False, None, ""

    def describe(self) -> str:
        return self._source.describe()

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        for block in self._source.verified():
            try:
                y, weights = self._code(block.y, block.weights)
            except RuntimeError as error:
                raise RuntimeError(f"{block.where}: {error}") from error
            yield block.X, y, weights, block.where


def checked_block(X: Any, y: Any, weights: Any, where: str, n_features: int, n_targets: int | None) -> Block:
    """A block whose parts are what they should be; `n_targets`: None where y is one column, given as such

    Raises
    ------
    ValueError, TypeError
        If not; the message says where the block comes from.
    """
    try:
        X = validation.check_X(X)
        X = X.tocsr() if getattr(X, "format", "csr") != "csr" else X
        if X.shape[1] != n_features:
            raise ValueError(f"X has {X.shape[1]} features, and should have {n_features}")
        y = validation.check_y(y, X.shape[0])
        if y.shape[1:] != (() if n_targets is None else (n_targets,)):
            raise ValueError(f"y has shape {y.shape}, and other columns in the rows before")
        weights = validation.check_block_weights(weights, X.shape[0])
    except (ValueError, TypeError) as error:
        raise type(error)(f"{where}: {error}") from error
    return Block(X, y.reshape(len(y), -1), weights, where)


def sum_over(at: int, blocks: Iterable[Block], function: Callable[..., Vector], *arguments: Any) -> Vector:
    """The sum over blocks of function(number of the first row, block, *arguments), rows being numbered from `at` on"""
    total = np.zeros(())
    for block in blocks:
        total = total + function(at, block, *arguments)
        at += len(block.y)
    return total


def add_every(totals: Totals, block: Block, first: int, step: int, n_threads: int) -> None:
    """Add the rows first, first + step, first + 2 step and so on of a block, as far as it has them"""
    if first < len(block.y):
        own = slice(first, None, step)
        X: Any = block.X[own]
        X = np.ascontiguousarray(X) if isinstance(X, np.ndarray) else X
        weights = None if block.weights is None else np.ascontiguousarray(block.weights[own])
        totals.add(Block(X, np.ascontiguousarray(block.y[own]), weights, block.where), n_threads)


def count_labels(y: Vector) -> dict[float, int]:
    """How often each number occurs"""
    return dict(zip(*(part.tolist() for part in np.unique(y, return_counts=True)), strict=True))


def names_for(y: Any) -> dict[Any, int] | None:
    """Names for labels like these: those of truth values, none so far of words; None where y is numbers"""
    y = np.asarray(y)
    if y.dtype == bool and y.ndim == 1:
        return dict(TRUTH)
    words = y.dtype.kind in "UT" or (y.dtype == object and any(isinstance(label, str) for label in y.flat))
    return {} if words else None


def numbers_of(y: Any, names: dict[Any, int]) -> Vector:
    """The numbers of labels; those of words that are new are the next ones, which `names` takes up

    Raises
    ------
    ValueError
        If y has several columns, or a label of another type than those before.
    """
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"targets of text must be one column, got shape {y.shape}")
    kind, kinds = (bool, "b") if names == TRUTH else (str, "UT")
    if y.dtype.kind not in kinds:
        for i, label in enumerate(y.tolist()):
            if not isinstance(label, kind):
                others = "text" if kind is str else "true or false"
                raise ValueError(f"y has {label!r} in row {i} of these, and {others} in others: fill or drop such rows before")
        y = y.astype(kind)
    labels, places = np.unique(y, return_inverse=True)
    numbers = [names.setdefault(label, len(names)) for label in labels.tolist()]
    return np.array(numbers, dtype=np.float64)[places]


def labels_of(y: Vector, names: dict[Any, int] | None) -> Array:
    """The labels that numbers stand for: those of `names`, or the numbers themselves, as integers where all are whole"""
    if names is not None:
        return np.array(list(names))[y.astype(np.intp)]
    return y.astype(np.int64) if (y == np.rint(y)).all() else y


def ahead(items: Iterator[Any], n_items: int = 1) -> Iterator[Any]:
    """Yield what an iterator yields, the next `n_items` being made on another thread meanwhile"""
    end = object()
    with ThreadPoolExecutor(1, "fastridge-reader") as pool:
        coming = deque(pool.submit(next, items, end) for _ in range(n_items))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, items, end))
            yield item


def fingerprint(block: Block) -> tuple[float, ...]:
    """What tells a block from another one that took its place: its length, sums of y and weights, and of some rows of X

    Entries of y count by their place: coded classes have the same sum in every row.
    """
    X: Any = block.X
    n, k = block.y.shape
    y = (block.y * (np.arange(1, n + 1) / n)[:, None]).sum(axis=0) * (np.arange(1, k + 1) / k)
    some = np.unique(np.linspace(0, n - 1, min(n, SAMPLED_ROWS)).astype(np.intp))
    weight = n if block.weights is None else block.weights.sum()
    return (float(n), float(y.sum()), float(weight), float(X[some].sum()), float(X[:1].sum()))


def rows_per_block(row_bytes: float) -> int:
    """How many rows of `row_bytes` make a block"""
    return max(1, int(BLOCK_BYTES // max(1.0, row_bytes)))


def n_columns(y: Array) -> int:
    """How many targets y, (n,) or (n, k), has"""
    return 1 if y.ndim == 1 else int(y.shape[1])


def alone(source: RowSource, y: Any, sample_weight: Any) -> RowSource:
    """The source, where nothing is given beside it"""
    if y is not None or sample_weight is not None:
        raise ValueError("y and sample_weight live with the rows of the source: name them in scan(..., target=, weight=)")
    return source
