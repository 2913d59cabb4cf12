"""Rows of tables: Parquet, Feather and CSV files, and whatever hands out Arrow streams."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fastridge.operators.base import Array
from fastridge.parallel import cut_evenly
from fastridge.rows import TRUTH, RowSource, ahead, count_labels, rows_per_block

READ_BYTES = 1 << 16
"""Of each column of a Parquet file at a time."""
ROWS = 1 << 16
"""That are looked at at once to find labels or categories."""
BATCH_BLOCKS = 2
"""Size of a batch, in blocks of an array file: to hand over a hundred columns takes longer than one array."""
COLUMNS_IN_LANE, MOST_LANES, LANES_AHEAD = 8, 8, 2
"""Columns of Parquet files are decoded in lanes, on a thread each: pyarrow's own threads take a quarter more processor time."""
SUFFIXES = (".parquet", ".pq", ".arrow", ".feather", ".csv", ".csv.gz", ".tsv", ".tsv.gz")


@dataclass(frozen=True)
class Opener:
    """How a table is read

    Attributes
    ----------
    batches : callable
        Takes names of columns and the most rows of a batch; returns an iterator of (RecordBatch, where it comes from).
    schema : pyarrow.Schema
    text : str
        What is read, for messages.
    repeatable : bool
    """

    batches: Callable[[list[str], int], Iterator[tuple[Any, str]]]
    schema: Any
    text: str
    repeatable: bool = True


class Table(RowSource):
    """Columns of record batches, by name

    Parameters
    ----------
    opener : Opener
    target : str, list of str or None
        None: there is none, and y is zeros, for predictions. One column of words becomes the numbers of its labels.
    features : list of str or None
        None: all other columns.
    weight : str or None
    coded : list of str
        Columns that need not be numbers.
    """

    def __init__(
        self,
        opener: Opener,
        target: str | Sequence[str] | None,
        features: Sequence[str] | None,
        weight: str | None,
        coded: Collection[str] = (),
    ) -> None:
        self._opener, self.repeatable = opener, opener.repeatable
        self.one_target = target is None or isinstance(target, str)
        self._targets = [target] if isinstance(target, str) else list(target or ())
        self._weight, self.n_targets, self.has_target = weight, len(self._targets) or 1, bool(self._targets)
        names = features_of(opener.schema, target, features, weight)
        schema, text = opener.schema, opener.text
        self._columns = [*names, *self._targets, *([] if weight is None else [weight])]
        check_names(self._columns, schema, text)
        if not names:
            raise ValueError(f"{text} has no columns beside target and weight")
        for name in self._targets:
            if name in names:
                raise ValueError(f"features has {name!r}, which is the target")
            if name in coded:
                raise ValueError(f"categories has {name!r}, which is the target: classifiers find its classes themselves")
        kind = schema.field(target).type if isinstance(target, str) else None
        if kind is not None and is_text(kind):
            self.text_target, self.names = f"column {target!r} of {text} is text", {}
        elif str(kind) == "bool":
            self.names = dict(TRUTH)
        for name in self._columns:
            if not (name == target and self.text_target) and not (name in names and name in coded):
                check_type(name, schema.field(name).type, text, name in names)
        self.feature_names, self.n_features = tuple(names), len(names)
        kinds = [schema.field(name).type for name in names]
        alike = len(set(kinds)) == 1 and str(kinds[0]) in ("float", "double")
        self._kinds = kinds if alike else []  # of columns that are copied as they are, all in one step
        single = {str(kind) for kind in kinds} <= {"float", "halffloat"}
        self.dtype = np.dtype(np.float32 if single else np.float64)

    def describe(self) -> str:
        return self._opener.text

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        at = 0
        n_rows = rows_per_block(self.dtype.itemsize * self.n_features / BATCH_BLOCKS)
        for batch, file in self._opener.batches(list(dict.fromkeys(self._columns)), n_rows):
            n = batch.num_rows
            if not n:
                continue
            where = f"{file}, rows {at} to {at + n - 1}"
            X = self._features(batch, where)
            ys = [self._numbers(batch, name, where) for name in self._targets]
            y = np.column_stack(ys or [np.zeros(n)])
            weights = None if self._weight is None else self._numbers(batch, self._weight, where)
            yield X, y[:, 0] if self.one_target else y, weights, where
            at += n

    def labels_alone(self) -> Counter[float]:
        counts: Counter[float] = Counter()
        at = 0
        for batch, file in self._opener.batches(self._targets, ROWS):
            where = f"{file}, rows {at} to {at + batch.num_rows - 1}"
            counts.update(count_labels(self._numbers(batch, self._targets[0], where)))
            at += batch.num_rows
        return counts

    def _features(self, batch: Any, where: str) -> Array:
        """The features in F order, (n, p); entries are found to be numbers on the first pass"""
        names: Any = self.feature_names
        given = batch.select(names)
        if self._kinds and given.schema.types == self._kinds and not any(column.null_count for column in given.columns):
            X: Array = given.to_tensor(row_major=False).to_numpy()
            with np.errstate(all="ignore"):
                if self._seen is not None or np.isfinite(X.sum()):
                    return X
        X = np.empty((batch.num_rows, len(names)), dtype=self.dtype, order="F")
        for j, name in enumerate(names):
            X[:, j] = self._numbers(batch, name, where)
        return X

    def _numbers(self, batch: Any, name: str, where: str) -> Array:
        if self.text_target and name in self._targets:
            assert self.names is not None
            kind = batch.schema.field(name).type
            if not is_text(kind):
                raise ValueError(f"{where}: column {name!r} is {kind}, and was text before")
            words, codes = words_of(batch, name, where)
            if "" in words and (codes == words.index("")).any():
                raise _no_value(int(np.argmax(codes == words.index(""))), name, where)
            return np.array([self.names.setdefault(word, len(self.names)) for word in words])[codes]
        return numbers(batch, name, self._opener.schema.field(name).type, where)


def numbers(batch: Any, name: str, kind: Any, where: str) -> Array:
    """A column of numbers of the type `kind`

    Raises
    ------
    ValueError
        If it is of another type, or has no number in some row; the message names the row.
    """
    column = batch.column(batch.schema.get_field_index(name))
    if column.type != kind:
        raise ValueError(f"{where}: column {name!r} is {column.type}, and was {kind} before")
    if column.null_count:
        raise _no_value(int(np.argmax(np.asarray(column.is_null()))), name, where)
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    if values.dtype.kind == "f":
        with np.errstate(all="ignore"):
            finite = np.isfinite(values.sum()) or np.isfinite(values).all()
        if not finite:
            i = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{where}: column {name!r} has {values[i]} in row {i} of these: fill or drop such rows before")
    return values


def words_of(batch: Any, name: str, where: str) -> tuple[list[str], Array]:
    """The different values of a column as text, and which of them stands in every row

    Raises
    ------
    ValueError
        If there is no value in some row; the message names the row.
    """
    import pyarrow as pa

    column = batch.column(batch.schema.get_field_index(name))
    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if column.null_count:
        raise _no_value(int(np.argmax(np.asarray(column.is_null()))), name, where)
    return column.dictionary.cast(pa.string()).to_pylist(), np.asarray(column.indices)


def _no_value(i: int, name: str, where: str) -> ValueError:
    return ValueError(f"{where}: column {name!r} has no value in row {i} of these: fill or drop such rows before")


def check_names(names: Sequence[str], schema: Any, text: str) -> None:
    """Raise a ValueError where a name is not that of one column"""
    for name in names:
        if schema.names.count(name) != 1:
            found = "has no column" if name not in schema.names else "has several columns"
            hint = ": columns are separated by commas, of .tsv files by tabs" if len(schema.names) == 1 else ""
            raise ValueError(f"{text} {found} {name!r}; its columns are {listed(schema.names)}{hint}")


def features_of(schema: Any, target: Any, features: Sequence[str] | None, weight: str | None) -> list[str]:
    """The names of the features: those given, or all columns beside target, weight and what pandas has kept of an index

    Raises
    ------
    ValueError
        If none are given, and a column has no name.
    """
    if features is not None:
        return list(features)
    others = {target} if isinstance(target, str) else {*(target or ())}
    index = (schema.pandas_metadata or {}).get("index_columns", ())
    others |= {weight, *(name for name in index if isinstance(name, str))}
    if "" in schema.names:
        raise ValueError(
            f"column {schema.names.index('')} has no name, as an index that pandas writes: write with index=False, "
            "or say which columns to use by features=[...]"
        )
    return [name for name in schema.names if name not in others]


def of_files(paths: list[Path], words: Iterable[str] = ()) -> Opener:
    """Parquet, Feather or CSV files, one after the other; text is read as the types of the first, and columns `words` as text"""
    schema = schema_of(paths[0])
    if words := set(words):
        import pyarrow as pa

        fields = [field.with_type(pa.string()) if field.name in words else field for field in schema]
        schema = pa.schema(fields, schema.metadata)

    def batches(names: list[str], n_rows: int) -> Iterator[tuple[Any, str]]:
        for path in paths:
            own = schema_of(path)
            for name in names:
                if name not in own.names:
                    raise ValueError(f"{path} has no column {name!r}, which {paths[0]} has")
            try:
                for batch in _batches(path, names, n_rows, schema):
                    yield batch, str(path)
            except OSError as error:
                raise ValueError(f"{path}: {error}") from error

    return Opener(batches, schema, str(paths[0]) if len(paths) == 1 else f"{len(paths)} files, {paths[0]} first")


def of_stream(source: Any) -> Opener:
    """What has `__arrow_c_stream__`, or what a function returns that has it"""
    import pyarrow as pa

    def opened() -> Any:
        given = source() if callable(source) else source
        if isinstance(given, pa.RecordBatchReader):
            return given
        return pa.RecordBatchReader.from_stream(given)

    first: list[Any] = [opened()]
    schema = first[0].schema

    def batches(names: list[str], n_rows: int) -> Iterator[tuple[Any, str]]:
        reader = first.pop() if first else opened()
        for batch in reader:
            for lo in range(0, batch.num_rows, n_rows):
                yield batch.slice(lo, n_rows), "stream"

    return Opener(batches, schema, f"stream of {type(source).__name__}", not isinstance(source, pa.RecordBatchReader))


def of_dataset(source: Any) -> Opener:
    """A dataset of pyarrow"""
    from pyarrow import dataset

    how: dict[str, Any] = {}
    if isinstance(getattr(source, "format", None), dataset.ParquetFileFormat):
        how["fragment_scan_options"] = dataset.ParquetFragmentScanOptions(
            use_buffered_stream=True, buffer_size=READ_BYTES, pre_buffer=False, page_checksum_verification=True
        )

    def batches(names: list[str], n_rows: int) -> Iterator[tuple[Any, str]]:
        import pyarrow as pa

        scanner = source.scanner(columns=names, batch_size=n_rows, batch_readahead=1, fragment_readahead=1, **how)
        try:
            for batch in scanner.to_batches():
                yield batch, "dataset"
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"dataset: {error}") from error

    return Opener(batches, source.schema, "dataset")


def of_lazy_frame(source: Any) -> Opener:
    """A lazy frame of polars, which is computed anew on every pass"""

    def batches(names: list[str], n_rows: int) -> Iterator[tuple[Any, str]]:
        for frame in source.select(names).collect_batches(chunk_size=n_rows, maintain_order=True):
            for batch in frame.to_arrow().to_batches():
                yield batch, "lazy frame"

    return Opener(batches, source.head(0).collect().to_arrow().schema, "lazy frame")


def schema_of(path: Path) -> Any:
    """Names and types of the columns of a file; whole numbers of text are floats, as they may be in later rows"""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if _kind(path) == "parquet":
            return parquet.read_schema(path)
        if _kind(path) == "arrow":
            with pa.OSFile(str(path)) as file:
                return pa.ipc.open_file(file).schema
        fields = [(field.name, field.type) for field in _open_csv(path, None).schema]
        return pa.schema((name, pa.float64() if pa.types.is_integer(kind) else kind) for name, kind in fields)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as {_kind(path)}: {_why(path, None, error)}") from error


def _batches(path: Path, names: list[str], n_rows: int, schema: Any) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    types = {name: schema.field(name).type for name in names}
    try:
        if _kind(path) == "parquet":
            # The defaults hold the whole file: all row groups are asked for at once, and each of their columns in one piece.
            sparing = {"pre_buffer": False, "buffer_size": READ_BYTES}
            coded = [name for name, kind in types.items() if str(kind) == "string"]  # as numbers of words, as they are stored

            def decoded(columns: list[str]) -> Iterator[Any]:
                with parquet.ParquetFile(path, page_checksum_verification=True, read_dictionary=coded, **sparing) as file:
                    yield from file.iter_batches(n_rows, columns=columns, use_threads=False)

            n_lanes = max(1, min(pa.cpu_count(), MOST_LANES, len(names) // COLUMNS_IN_LANE))
            ends = cut_evenly(len(names), n_lanes)
            yield from _side_by_side([ahead(decoded(names[lo:hi]), LANES_AHEAD) for lo, hi in pairwise(ends)])
        elif _kind(path) == "arrow":
            with pa.memory_map(str(path)) as file:
                reader = pa.ipc.open_file(file)
                for i in range(reader.num_record_batches):
                    batch = reader.get_batch(i).select(names)
                    for lo in range(0, batch.num_rows, n_rows):
                        yield batch.slice(lo, n_rows)
        else:
            yield from _open_csv(path, types)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: {_why(path, types, error)}") from error


def _side_by_side(parts: list[Iterator[Any]]) -> Iterator[Any]:
    """Batches with the columns of all `parts`, which yield the same rows, in batches of different lengths maybe"""
    import pyarrow as pa

    batches: list[Any] = [next(part, None) for part in parts]
    while batches[0] is not None:
        n = min(batch.num_rows for batch in batches)
        heads = [batch.slice(0, n) for batch in batches]
        columns = [column for head in heads for column in head.columns]
        yield pa.RecordBatch.from_arrays(columns, names=[name for head in heads for name in head.schema.names])
        rests = [batch.slice(n) for batch in batches]
        batches = [rest if rest.num_rows else next(part, None) for rest, part in zip(rests, parts, strict=True)]


def _open_csv(path: Path, types: dict[str, Any] | None, one_thread: bool = False) -> Any:
    """Open a reader of text; `types` are those of the columns that are wanted, guessed from the first block where None"""
    from pyarrow import csv

    convert = csv.ConvertOptions(column_types=types, include_columns=None if types is None else list(types))
    parse = csv.ParseOptions(delimiter="\t" if ".tsv" in path.suffixes else ",")
    read = csv.ReadOptions(use_threads=not one_thread)
    return csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def _why(path: Path, types: dict[str, Any] | None, error: Exception) -> str:
    """What is wrong in a file, text with row and column, which a reader on one thread knows"""
    import pyarrow as pa

    if _kind(path) == "csv":
        try:
            for _ in _open_csv(path, types, one_thread=True):
                pass
        except (pa.ArrowException, OSError, UnicodeDecodeError) as same:
            error = same
    return re.sub(r"In CSV column #(\d+)", lambda found: f"column {_header(path)[int(found[1])]!r}", str(error))


def _header(path: Path) -> list[str]:
    return list(_open_csv(path, None).schema.names)


def first_word(path: Path, name: str) -> str:
    """Where a column of text is no number first, and what is there: "row 7 has 'x'", the header being row 1; "" if not known"""
    import pyarrow as pa

    if _kind(path) != "csv":
        return ""
    found = re.search(r"Row #(\d+): .*invalid value ('.*')", _why(path, {name: pa.float64()}, ValueError()))
    return "" if found is None else f"row {found[1]} has {found[2]}"


def _kind(path: Path) -> str:
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return {".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow"}.get(suffix, "csv")


def is_number(kind: Any) -> bool:
    """Whether a type of Arrow is one of numbers, booleans included"""
    import pyarrow as pa

    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def is_text(kind: Any) -> bool:
    """Whether a type of Arrow is text, dictionaries of text included"""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def check_type(name: str, kind: Any, text: str, feature: bool) -> None:
    """Raise a ValueError where a column is no numbers"""
    if is_number(kind):
        return
    said = f"column {name!r} of {text} is {kind}, not a number"
    if not feature:
        raise ValueError(f"{said}: targets and weights must be numbers; one target alone may be text")
    one_hot = f"name it in categories=[{name!r}] (one-hot)" if is_text(kind) else "turn it into numbers (days since a date)"
    raise ValueError(f"{said}: leave it out by features=[...], or {one_hot}")


def listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
