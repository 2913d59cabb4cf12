"""Rows of `.npy` and `.npz` files, of arrays on disk or in memory, and of functions that yield blocks."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np
import scipy.sparse as sp

from fastridge import validation
from fastridge.operators.base import Array
from fastridge.rows import RowSource, count_labels, n_columns, names_for, numbers_of, rows_per_block

BUFFERS = 2
"""Blocks that are alive at once: the one that is computed with, and the one that is read ahead."""


class WithArrays(RowSource):
    """Rows whose targets and weights are arrays in memory; y is None for predictions, and zeros are yielded then"""

    def _set(self, y: Array | None, weights: Array | None, n: int, rows: str) -> None:
        """Take them for `n` rows of what is called `rows`"""
        self.has_target = y is not None
        y = np.zeros(n) if y is None else y
        for name, given in (("y", y), ("weight", weights)):
            if given is not None and (given.ndim not in (1, 2) or len(given) != n):
                raise ValueError(f"{name} has shape {given.shape}, and {rows} has {n} rows")
        self.one_target, self.n_targets = y.ndim == 1, n_columns(y)
        self.names = names_for(y)
        if self.names is not None:
            self.text_target = "" if self.names else f"y of {rows} is text"
            y = numbers_of(y, self.names)
        self.y, self.weights = y, weights

    def labels_alone(self) -> Counter[float]:
        return Counter(count_labels(validation.check_y(self.y, len(self.y))))


class ArrayFile(WithArrays):
    """A two-dimensional `.npy` file, read by positions into buffers that are used again; y and weights beside it

    A memory map of it would grow to the size of the file, and page faults read several times slower.
    """

    def __init__(self, path: str, y: Array | None, weights: Array | None) -> None:
        with open(path, "rb") as file:
            self.shape, self.fortran, stored = _npy_header(file, path)
            self.offset = file.tell()
        if len(self.shape) != 2:
            raise ValueError(f"{path} holds an array of shape {self.shape}; X must have two dimensions")
        self._init(path, stored, y, weights)

    @classmethod
    def of_memmap(cls, X: np.memmap, y: Array | None, weights: Array | None) -> ArrayFile:
        """The file behind a memory map of contiguous rows or columns"""
        new = cls.__new__(cls)
        new.shape, new.fortran, new.offset = X.shape, not X.flags.c_contiguous, X.offset
        new._init(str(X.filename), X.dtype, y, weights)
        return new

    def _init(self, path: str, stored: np.dtype[Any], y: Array | None, weights: Array | None) -> None:
        self.path, self.stored = path, stored
        if stored.kind not in "fiub":
            raise ValueError(f"{path} holds {stored}, which is no kind of number that ridge regression takes")
        n, self.n_features = self.shape
        size = os.path.getsize(path)
        if size < self.offset + n * self.n_features * stored.itemsize:
            raise ValueError(f"{path} is truncated: {size:,} bytes where {n:,} rows x {self.n_features} need more")
        self._set(y, weights, n, path)
        self.dtype = np.dtype(np.float32 if stored == np.float32 else np.float64)

    def describe(self) -> str:
        return self.path

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        n, p = self.shape
        itemsize = self.stored.itemsize
        size = min(n, rows_per_block(p * itemsize))
        buffers = [np.empty(size * p, dtype=self.stored) for _ in range(BUFFERS)]
        with open(self.path, "rb", buffering=0) as file:
            for i, lo in enumerate(range(0, n, size)):
                hi = min(n, lo + size)
                where = f"{self.path}, rows {lo} to {hi - 1}"
                flat = buffers[i % BUFFERS][: (hi - lo) * p]
                if self.fortran:
                    X = flat.reshape(p, hi - lo)
                    for j in range(p):
                        _read_at(file, X[j], self.offset + (j * n + lo) * itemsize, where)
                    X = X.T
                else:
                    X = flat.reshape(hi - lo, p)
                    _read_at(file, flat, self.offset + lo * p * itemsize, where)
                yield X, self.y[lo:hi], None if self.weights is None else self.weights[lo:hi], where


class Archive(WithArrays):
    """An `.npz` file with a dense array of rows, or with the parts of a CSR matrix as scipy saves them, read as it is unpacked"""

    def __init__(self, path: str, member: str | None, y: Array | None, weights: Array | None) -> None:
        self.path = path
        names = members(path)
        self.member = member or ("X" if "X" in names else None)
        self.sparse = self.member is None and {"data", "indices", "indptr", "shape"} <= set(names)
        if not self.sparse and self.member not in names:
            raise ValueError(f"{path} has no array {self.member or 'X'!r} and no CSR matrix; it has {', '.join(names)}")
        if self.sparse:
            with np.load(path) as parts:
                if "format" in names and parts["format"].item() not in (b"csr", "csr"):
                    raise ValueError(f"{path} holds a sparse matrix that is not CSR: save X.tocsr()")
                self.indptr = parts["indptr"]
                n, self.n_features = (int(size) for size in parts["shape"])
                self.stored = self._header("data")[2]
        else:
            assert self.member is not None
            shape, fortran, self.stored = self._header(self.member)
            if len(shape) != 2 or fortran:
                raise ValueError(f"{self.member} of {path} must have two dimensions, its rows contiguous (C order)")
            n, self.n_features = shape
        self._set(y, weights, n, path)
        self.n = n
        self.dtype = np.dtype(np.float32 if self.stored == np.float32 else np.float64)

    def _header(self, member: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{member}.npy") as file:
            return _npy_header(file, self.path)

    def describe(self) -> str:
        return self.path

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        for lo, hi, X in self._sparse_rows() if self.sparse else self._dense_rows():
            y, weights = self.y[lo:hi], None if self.weights is None else self.weights[lo:hi]
            yield X, y, weights, f"{self.path}, rows {lo} to {hi - 1}"

    def _dense_rows(self) -> Iterator[tuple[int, int, Any]]:
        p = self.n_features
        size = rows_per_block(p * self.stored.itemsize)
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.member}.npy") as file:
            _npy_header(file, self.path)
            for lo in range(0, self.n, size):
                hi = min(self.n, lo + size)
                yield lo, hi, _take(file, self.stored, (hi - lo) * p, f"{self.path}, rows {lo} to {hi - 1}").reshape(-1, p)

    def _sparse_rows(self) -> Iterator[tuple[int, int, Any]]:
        indptr, p = self.indptr, self.n_features
        index = self._header("indices")[2]
        entries = rows_per_block(self.stored.itemsize + index.itemsize)
        with (
            zipfile.ZipFile(self.path) as archive,
            archive.open("data.npy") as of_data,
            archive.open("indices.npy") as of_indices,
        ):
            _npy_header(of_data, self.path)
            _npy_header(of_indices, self.path)
            lo = 0
            while lo < self.n:
                hi = max(lo + 1, int(np.searchsorted(indptr, indptr[lo] + entries, side="right")) - 1)
                count, where = int(indptr[hi] - indptr[lo]), f"{self.path}, rows {lo} to {hi - 1}"
                data, indices = _take(of_data, self.stored, count, where), _take(of_indices, index, count, where)
                yield lo, hi, sp.csr_array((data, indices, indptr[lo : hi + 1] - indptr[lo]), shape=(hi - lo, p))
                lo = hi


class InMemory(WithArrays):
    """An array or CSR matrix that is there, in blocks of rows"""

    def __init__(self, X: Any, y: Array | None, weights: Array | None) -> None:
        self.X, self.n_features = X, X.shape[1]
        self._set(y, weights, X.shape[0], "X")
        self.dtype = np.dtype(np.float32 if X.dtype == np.float32 else np.float64)

    def describe(self) -> str:
        return f"array of shape {self.X.shape}"

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        n, p = self.X.shape
        size = rows_per_block(8 * p)
        for lo in range(0, n, size):
            hi = min(n, lo + size)
            weights = None if self.weights is None else self.weights[lo:hi]
            yield self.X[lo:hi], self.y[lo:hi], weights, f"rows {lo} to {hi - 1}"


class Blocks(RowSource):
    """What a function yields when it is called: (X, y) or (X, y, weights), block after block; or an iterator, once"""

    def __init__(self, source: Callable[[], Iterable[Any]] | Iterator[Any]) -> None:
        self.repeatable = callable(source)
        self._open: Callable[[], Iterable[Any]] = source if callable(source) else lambda: source
        self._first: tuple[Any, Iterator[Any]] | None = None
        items = iter(self._open())
        first = next(items, None)
        if first is None:
            raise ValueError("the source yields no block")
        X, y, _ = _parts(first, 0)
        shape = X.shape if hasattr(X, "shape") else np.shape(X)
        if len(shape) != 2:
            raise ValueError(f"block 0: X must have two dimensions, got shape {tuple(shape)}")
        self.n_features = int(shape[1])
        self.one_target, self.n_targets, self.names = np.ndim(y) == 1, n_columns(np.asarray(y)), names_for(y)
        self.text_target = f"y of {self.describe()} is text" if self.names == {} else ""
        self.dtype = np.dtype(np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64)
        self._first = first, items  # of a stream that can be read once the first block is not to be lost

    def describe(self) -> str:
        return "blocks of a function" if self.repeatable else "blocks of an iterator"

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        items: Iterator[Any]
        if self._first is not None:
            first, rest = self._first
            self._first = None
            items = _chain(first, rest)
        else:
            items = iter(self._open())
        at = 0
        for i, item in enumerate(items):
            X, y, weights = _parts(item, i)
            n = X.shape[0] if hasattr(X, "shape") else len(X)
            where = f"block {i}, rows {at} to {at + n - 1}"
            if n and self.names is not None:
                try:
                    y = numbers_of(y, self.names)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from error
            if n:
                yield X, y, weights, where
            at += n


def members(path: str) -> list[str]:
    """Names of the arrays of an `.npz` file"""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not an .npz file, or is truncated: {error}") from error


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _parts(item: Any, i: int) -> tuple[Any, Any, Any]:
    if not (isinstance(item, tuple) and len(item) in (2, 3)):
        raise TypeError(f"block {i} must be a tuple (X, y) or (X, y, weights), got {type(item).__name__}")
    return item if len(item) == 3 else (*item, None)


def _npy_header(file: IO[bytes], path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of an array file, which is then at its first entry"""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not an array file of numpy, or is truncated: {error}") from error
    if dtype.hasobject:
        raise ValueError(f"{path} holds Python objects: save numbers")
    return shape, bool(fortran), dtype


def _read_at(file: IO[bytes], out: Array, offset: int, where: str) -> None:
    """Fill `out` from a position of a file"""
    view, done = memoryview(out).cast("B"), 0
    while done < len(view):
        count = os.preadv(file.fileno(), [view[done:]], offset + done)
        if not count:
            raise ValueError(f"{where}: the file ends in the middle of these rows")
        done += count


def _take(file: IO[bytes], dtype: np.dtype[Any], count: int, where: str) -> Array:
    """The next entries of an array file that is being unpacked"""
    out = np.empty(count, dtype=dtype)
    view, done = memoryview(out).cast("B"), 0
    try:
        while done < len(view):
            read = file.readinto(view[done : done + (1 << 24)])  # type: ignore[attr-defined]
            if not read:
                raise EOFError("it ends in the middle of these rows")
            done += read
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{where}: the file is damaged: {error}") from error
    return out
