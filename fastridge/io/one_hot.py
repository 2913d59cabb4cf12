"""Text columns of tables as columns of zeros and ones, one for each category."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastridge.io.tables import Table, described, listed, opened, schema_of
from fastridge.operators.base import Array

MOST_CATEGORIES = 10_000
"""Of one column: they are columns of dense blocks, and what has more is a name or a number of a row."""
ROWS = 1 << 16
"""That are looked at at once to find categories."""


def is_text(kind: Any) -> bool:
    """Whether a type of Arrow is text, dictionaries of text included"""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def categories_of(paths: list[Path], names: Sequence[str]) -> dict[str, list[str]]:
    """The categories of text columns, sorted; reads these columns of all rows

    Raises
    ------
    ValueError
        If a column has more than `MOST_CATEGORIES`, or no value in some row; the message names file, column and rows.
    """
    found: dict[str, set[str]] = {name: set() for name in names}
    at = 0
    for batch, file in opened(paths, _as_text(schema_of(paths[0]), names))(list(names), ROWS) if names else ():
        where = f"{file}, rows {at} to {at + batch.num_rows - 1}"
        at += batch.num_rows
        for name, known in found.items():
            known.update(_words(batch, name, where).unique().to_pylist())
            if len(known) > MOST_CATEGORIES:
                raise ValueError(
                    f"{where}: column {name!r} has more than {MOST_CATEGORIES:,} categories by now: leave it out if it names "
                    "rows, else encode it before"
                )
    return {name: sorted(known) for name, known in found.items()}


def of_files(
    paths: list[Path], target: str | None, features: Sequence[str], weight: str | None, categories: Mapping[str, Sequence[str]]
) -> Table:
    """The rows of files, `categories` of text columns being columns `name=category` of zeros and ones

    The target, if it is one of these columns, becomes the number of its category. Rows with other categories raise a ValueError
    that names file, rows, column and value.
    """
    import pyarrow as pa

    schema = _as_text(schema_of(paths[0]), categories)
    parts = {name: [f"{name}={category}" for category in categories[name]] if name in categories else [name] for name in features}
    fields, origin = [], {}
    for field in schema:
        coded = field.name in categories
        for part in parts.get(field.name, [field.name]):
            fields.append(pa.field(part, pa.float64() if coded else field.type))
            origin[part] = field.name
    read = opened(paths, schema)

    def open_batches(names: list[str], n_rows: int) -> Iterator[tuple[Any, str]]:
        at = 0
        for batch, file in read(list(dict.fromkeys(origin[name] for name in names)), n_rows):
            where = f"{file}, rows {at} to {at + batch.num_rows - 1}"
            at += batch.num_rows
            columns: dict[str, Any] = {}
            for column, name in zip(batch.columns, batch.schema.names, strict=True):
                if name not in categories:
                    columns[name] = column
                    continue
                codes = _codes(_words(batch, name, where), categories[name], name, where)
                if name not in parts:
                    columns[name] = pa.array(codes.astype(np.float64))
                    continue
                for i, part in enumerate(parts[name]):
                    columns[part] = pa.array((codes == i).astype(np.float64))
            yield pa.RecordBatch.from_arrays([columns[name] for name in names], names=names), file

    every = [part for name in features for part in parts[name]]
    return Table(open_batches, pa.schema(fields), target, every, weight, described(paths))


def _as_text(schema: Any, names: Any) -> Any:
    import pyarrow as pa

    return pa.schema(field.with_type(pa.string()) if field.name in names else field for field in schema)


def _words(batch: Any, name: str, where: str) -> Any:
    """A column as an array of strings, none of them missing"""
    import pyarrow as pa

    column = batch.column(batch.schema.get_field_index(name))
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if column.null_count:
        i = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise ValueError(f"{where}: column {name!r} has no value in row {i} of these: fill or drop such rows before")
    return column.cast(pa.string())


def _codes(words: Any, categories: Sequence[str], name: str, where: str) -> Array:
    """The numbers of categories"""
    import pyarrow as pa
    from pyarrow import compute

    codes = compute.index_in(words, value_set=pa.array(categories, pa.string()))
    if codes.null_count:
        i = int(np.flatnonzero(np.asarray(codes.is_null()))[0])
        raise ValueError(
            f"{where}: column {name!r} has {words[i].as_py()!r} in row {i} of these, which the fit has not seen; "
            f"it has seen {listed(categories)}"
        )
    return np.asarray(codes.to_numpy(zero_copy_only=False))
