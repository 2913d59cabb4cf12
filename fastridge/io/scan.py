"""`scan`: from what a user names to a source of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from fastridge import validation
from fastridge.io import tables
from fastridge.io.arrays import Archive, ArrayFile, Blocks, InMemory, members
from fastridge.io.one_hot import categories_of, rows_of
from fastridge.io.text import Spilled, Svmlight
from fastridge.operators.base import Array
from fastridge.rows import RowSource

SVMLIGHT = (".svmlight", ".svm", ".libsvm")


def scan(
    source: Any,
    *,
    target: Any = None,
    features: Sequence[str] | None = None,
    weight: Any = None,
    categories: Any = None,
    n_features: int | None = None,
) -> RowSource:
    """Rows that are read block by block, for `fit` to take in the place of X and y: data need not fit in memory

    Nothing is read but names and shapes. A fit reads all rows two times where a Gram matrix suffices, once a step with conjugate
    gradients, and holds two blocks of 8 MB; answers are those of a fit on an array of the same rows, with the same proof.

    Parameters
    ----------
    source : path, array, table, callable or iterator
        - A path of a Parquet, Feather or Arrow file, or of a CSV or TSV file (plain or gzip); a folder, a pattern (`*.parquet`)
          or a list of such files.
        - A path of a `.npy` file with a two-dimensional array, read by positions, not mapped; or a memory map of one.
        - A path of an `.npz` file with an array `X` in C order, or with a CSR matrix as `scipy.sparse.save_npz` writes it.
        - A path of an svmlight file (`.svmlight`, `.svm`, `.libsvm`, plain, `.gz` or `.bz2`), which holds y.
        - Anything with `__arrow_c_stream__` (tables and data frames of pyarrow, polars, pandas), or a callable that returns it;
          a `pyarrow.dataset.Dataset`, partitioned or not; a lazy frame of polars, computed anew on every pass.
        - A callable that returns an iterator of blocks (X, y) or (X, y, weights).
        - An iterator of such blocks, or a RecordBatchReader: read once. One pass must do, which asks for a Gram matrix.
    target : str, list of str, array or path
        Of tables: the column or columns to predict. Of array files: y, an array, the path of a `.npy` file, or the name of a
        member of the `.npz` file. Classifiers take one target of text, truth values or whole numbers, in blocks as well. None:
        for `predict`, which needs none.
    features : list of str or None
        Of tables: which columns to use, in this order. None: all but target, weight and an index that pandas has written. Of an
        `.npz` file: [name of X].
    weight : str, array, path or None
        Sample weights, as `target`.
    categories : list of str, dict of str to list, or None
        Of tables: the columns, text or not, that become columns `name=category` of zeros and ones. Categories are as the dict
        says, or found by reading those columns once, sorted; `source.categories` has them, to scan other rows in the same way.
    n_features : int or None
        Of svmlight files; None: as many as the text has, which is read once to see.

    Returns
    -------
    RowSource
        To be given to `Ridge.fit`, `ridge`, `predict`. Text is kept in a temporary file from the first pass on.

    Raises
    ------
    ValueError, TypeError
        If something is missing, does not fit together, or is no number; the message names the file and the column. A fit raises
        ValueError where a regression has a target of text, a block holds NaN, has no value or another type than before, or a file
        is truncated, and RuntimeError where a second pass finds other rows; the message names file and rows.

    Examples
    --------
    >>> import numpy as np
    >>> from fastridge import Ridge, scan
    >>> rng = np.random.default_rng(0)
    >>> def blocks():
    ...     rng = np.random.default_rng(0)
    ...     for _ in range(10):
    ...         X = rng.standard_normal((1000, 5))
    ...         yield X, X @ np.arange(5.0) + 3
    >>> model = Ridge(alpha=1e-3).fit(scan(blocks))
    >>> np.round(model.coef_, 3) + 0.0
    array([0., 1., 2., 3., 4.])
    >>> model.report_.converged
    True
    """
    if isinstance(source, RowSource):
        return source
    if isinstance(source, str | os.PathLike | list | tuple):
        return _of_paths(source, target, features, weight, categories, n_features)
    if isinstance(source, np.memmap) and source.ndim == 2 and isinstance(source.filename, str | os.PathLike):
        contiguous = source.flags.c_contiguous or source.flags.f_contiguous
        if contiguous and source.base is not None and not isinstance(source.base, np.memmap):
            return ArrayFile.of_memmap(source, _beside(target), _beside(weight))
    if hasattr(source, "collect_batches"):
        return _of_table(tables.of_lazy_frame(source), _columns(target), features, weight, categories)
    if hasattr(source, "scanner"):
        return _of_table(tables.of_dataset(source), _columns(target), features, weight, categories)
    if hasattr(source, "__arrow_c_stream__"):
        return _of_table(tables.of_stream(source), _columns(target), features, weight, categories)
    if hasattr(source, "shape"):
        return InMemory(validation.check_X(source), _beside(target), _beside(weight))
    if callable(source):
        if target is not None:
            return _of_table(tables.of_stream(source), target, features, weight, categories)
        return Blocks(source)
    if hasattr(source, "__next__"):
        return Blocks(source)
    raise TypeError(
        f"scan takes a path, a list of paths, an array, a table, a callable or an iterator, got {type(source).__name__}"
    )


def _of_paths(
    source: Any, target: Any, features: Any, weight: Any, categories: Any = None, n_features: int | None = None
) -> RowSource:
    paths = files_of(source)
    first = paths[0]
    plain = _plain_name(first)
    if is_table(paths):
        table = _of_table(tables.of_files(paths, categories or ()), _columns(target), features, weight, categories)
        if table.text_target and (word := tables.first_word(first, target)):
            table.text_target += f" ({word})"
        return kept(table, paths)
    if len(paths) > 1:
        raise ValueError("lists of files are taken of tables (Parquet, Feather, CSV)")
    if plain.endswith(".npy"):
        return ArrayFile(str(first), _beside(target), _beside(weight))
    if plain.endswith(".npz"):
        member = features[0] if features else None
        return Archive(str(first), member, _beside(target, first), _beside(weight, first))
    if plain.endswith(SVMLIGHT):
        if target is not None or weight is not None:
            raise ValueError("an svmlight file holds y itself: leave target and weight out")
        return Spilled(Svmlight(str(first), n_features))
    known = ", ".join((*tables.SUFFIXES, ".npy", ".npz", *SVMLIGHT))
    raise ValueError(f"{first} has none of the endings that are known: {known}")


def _of_table(opener: tables.Opener, target: Any, features: Any, weight: Any, categories: Any) -> RowSource:
    if isinstance(categories, str):
        raise TypeError(f"categories must be a list of names of columns, or a dict of their categories, got {categories!r}")
    tables.check_names(list(categories or ()), opener.schema, opener.text)
    known = {}
    if isinstance(categories, Mapping):
        known = {name: [str(one) for one in given] for name, given in categories.items()}
    elif categories:
        if not opener.repeatable:
            raise ValueError(f"{opener.text} can be read once: give its categories as a dict")
        known = categories_of(opener, list(categories))
    return rows_of(opener, target, features, weight, known)


def files_of(source: Any) -> list[Path]:
    """The files that a path, a folder, a pattern (`*.parquet`) or a list of paths names; all of them are there"""
    paths = [Path(path) for path in source] if isinstance(source, list | tuple) else [Path(source)]
    if len(paths) == 1 and not paths[0].exists() and has_magic(str(paths[0])):
        paths = sorted(map(Path, glob(str(paths[0]))))
        if not paths:
            raise FileNotFoundError(f"no file is named like {source}")
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0]
        paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(tables.SUFFIXES))
        if not paths:
            deeper = any(path.is_dir() for path in folder.iterdir())
            hint = "; what is in its folders is read by scan(pyarrow.dataset.dataset(..., partitioning='hive'))" if deeper else ""
            raise ValueError(f"{folder} holds no file that ends in {', '.join(tables.SUFFIXES)}{hint}")
    if not paths:
        raise ValueError("the list of files is empty")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
    return paths


def is_table(paths: list[Path]) -> bool:
    """Whether files have columns with names"""
    return _plain_name(paths[0]).endswith(tables.SUFFIXES)


def kept(table: RowSource, paths: list[Path]) -> RowSource:
    """A table as it is read again and again: rows of text from a temporary file"""
    return Spilled(table) if _plain_name(paths[0]).endswith((".csv", ".tsv")) else table


def rows_to_predict(path: Path, n_features: int) -> RowSource:
    """The rows of a file of arrays or of svmlight, which is read once"""
    return Svmlight(str(path), n_features) if _plain_name(path).endswith(SVMLIGHT) else scan(path)


def _plain_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".bz2")


def _columns(target: Any) -> Any:
    if not (target is None or isinstance(target, str) or (isinstance(target, list | tuple) and target)):
        raise ValueError("target must be the name of the column to predict, or a list of such names")
    return target


def _beside(given: Any, archive: Path | None = None) -> Array | None:
    """An array that belongs to a file of rows: as it is, from a file, or a member of the archive"""
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        if archive is not None and not str(given).endswith(".npy"):
            names = members(str(archive))
            if given not in names:
                raise ValueError(f"{archive} has no member {given!r}; it has {', '.join(names)}")
            with np.load(archive) as parts:
                return _stored(lambda: parts[given], f"{given} of {archive}")
        return _stored(lambda: np.load(given), str(given))
    return np.asarray(given)


def _stored(load: Callable[[], Any], what: str) -> Array:
    try:
        return np.asarray(load())
    except ValueError as error:
        raise ValueError(f"{what}: {error}" + ": save text by y.astype(str)" * ("allow_pickle" in str(error))) from error
