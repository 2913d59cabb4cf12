"""Columns of categories in tables as columns of zeros and ones, one for each category: sparse rows, made as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastridge.io.tables import ROWS, Opener, Table, listed, words_of
from fastridge.operators.base import Array
from fastridge.rows import rows_per_block

MOST_CATEGORIES = 1_000_000
"""Of one column: what has more is a name or a number of a row."""
SPARSE_SHARE = 0.25
"""Of the entries that are not zero, up to which blocks are sparse."""


def categories_of(opener: Opener, names: Sequence[str]) -> dict[str, list[str]]:
    """The categories of columns, as text, sorted; reads these columns of all rows

    Raises
    ------
    ValueError
        If a column has more than `MOST_CATEGORIES`, or no value in some row; the message names file, column and rows.
    """
    found: dict[str, set[str]] = {name: set() for name in names}
    at = 0
    for batch, file in opener.batches(list(names), ROWS) if names else ():
        where = f"{file}, rows {at} to {at + batch.num_rows - 1}"
        at += batch.num_rows
        for name, known in found.items():
            words, codes = words_of(batch, name, where)
            known.update(words[i] for i in np.flatnonzero(np.bincount(codes, minlength=len(words))))
            if len(known) > MOST_CATEGORIES:
                raise ValueError(
                    f"{where}: column {name!r} has more than {MOST_CATEGORIES:,} categories by now: leave it out if it names "
                    "rows, else encode it before"
                )
    return {name: sorted(known) for name, known in found.items()}


class OneHot(Table):
    """Columns of record batches, by name; `categories` of some of them become columns `name=category` of zeros and ones

    Rows with other categories raise a ValueError that names file, rows, column and value. Blocks are CSR where most entries are
    zero: a row then costs what its columns in the table do.

    Parameters
    ----------
    opener, target, features, weight
        As of `tables.Table`.
    categories : dict of str to list of str
        Of the columns that are no numbers, or are not to be taken for such.
    """

    def __init__(
        self,
        opener: Opener,
        target: str | Sequence[str] | None,
        features: Sequence[str] | None,
        weight: str | None,
        categories: dict[str, list[str]],
    ) -> None:
        super().__init__(opener, target, features, weight, categories)
        assert self.feature_names is not None
        self._made_of, self.categories, self.dtype = self.feature_names, categories, np.dtype(np.float64)
        parts = [[f"{name}={one}" for one in categories[name]] if name in categories else [name] for name in self._made_of]
        self._starts = np.cumsum([0, *map(len, parts)])[:-1].astype(np.int32)
        self.feature_names = tuple(name for part in parts for name in part)
        self.n_features = len(self.feature_names)
        self._sparse = len(parts) <= SPARSE_SHARE * self.n_features
        self._known_ones = np.empty(0, dtype=np.float32)
        self._all_coded = all(name in categories for name in self._made_of)

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        at, row_bytes = 0, 16 * len(self._columns) if self._sparse else 8 * self.n_features
        for batch, file in self._opener.batches(list(dict.fromkeys(self._columns)), rows_per_block(row_bytes)):
            n = batch.num_rows
            if not n:
                continue
            where = f"{file}, rows {at} to {at + n - 1}"
            ys = [self._numbers(batch, name, where) for name in self._targets]
            y = np.column_stack(ys or [np.zeros(n)])
            weights = None if self._weight is None else self._numbers(batch, self._weight, where)
            yield self._rows(batch, where), y[:, 0] if self.one_target else y, weights, where
            at += n

    def _rows(self, batch: Any, where: str) -> Any:
        n, width = batch.num_rows, len(self._made_of)
        places = np.empty((n, width), dtype=np.int32)
        data = self._ones(n * width).reshape(n, width) if self._all_coded else np.ones((n, width))
        for j, (name, start) in enumerate(zip(self._made_of, self._starts, strict=True)):
            if name in self.categories:
                place_of, codes = self._coded(batch, name, where)
                places[:, j] = (place_of + start)[codes]
            else:
                places[:, j] = start
                data[:, j] = self._numbers(batch, name, where)
        shape = n, self.n_features
        if self._sparse:
            return sp.csr_array((data.ravel(), places.ravel(), np.arange(0, n * width + 1, width, dtype=np.int32)), shape=shape)
        X = np.zeros(shape)
        np.put_along_axis(X, places, data, axis=1)
        return X

    def _ones(self, size: int) -> Array:
        """The same ones for all blocks"""
        if self._known_ones.size < size:
            self._known_ones = np.ones(size, dtype=np.float32)
        return self._known_ones[:size]

    def _coded(self, batch: Any, name: str, where: str) -> tuple[Array, Array]:
        """The numbers of the categories that a batch lists, int32, and which of them stands in every row"""
        import pyarrow as pa
        from pyarrow import compute

        words, codes = words_of(batch, name, where)
        known = compute.index_in(pa.array(words, pa.string()), value_set=pa.array(self.categories[name], pa.string()))
        place_of = np.asarray(known.fill_null(-1), dtype=np.int32)
        unknown: Array = np.flatnonzero(place_of[codes] < 0) if known.null_count else np.empty(0)
        if len(unknown):
            i = int(unknown[0])
            raise ValueError(
                f"{where}: column {name!r} has {words[codes[i]]!r} in row {i} of these, which the fit has not seen; "
                f"it has seen {listed(self.categories[name])}"
            )
        return place_of, codes


def rows_of(
    opener: Opener,
    target: str | Sequence[str] | None,
    features: Sequence[str] | None,
    weight: str | None,
    categories: dict[str, list[str]],
) -> Table | OneHot:
    """The rows of a table, with categories of some columns or of none"""
    if not categories:
        return Table(opener, target, features, weight)
    return OneHot(opener, target, features, weight, categories)
