"""Rows of svmlight (LIBSVM) files, and a copy on disk of what takes long to read."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastridge.rows import RowSource

CHUNK_BYTES = 1 << 24
"""Of text that is parsed at once."""
MOST_FEATURES = np.iinfo(np.int32).max


class Svmlight(RowSource):
    """A file of lines  y index:value index:value ...; plain, or packed by gzip or bzip2

    Indices begin at zero if one of them is zero, else at one.
    """

    def __init__(self, path: str, n_features: int | None) -> None:
        self.path = path
        self._packed = path.endswith((".gz", ".bz2"))
        width, self._first = 0, 1
        for X, _ in self._chunks(MOST_FEATURES):  # how wide it is, and whether indices begin at zero or one
            width = max(width, int(X.indices.max(initial=-1)) + 1)
            if (X.indices == 0).any():
                self._first = 0
        width -= self._first
        if n_features is not None and n_features < width:
            raise ValueError(f"n_features is {n_features}, and {path} has indices up to feature {width}")
        self.n_features = width if n_features is None else n_features
        if width <= 0:
            raise ValueError(f"{path} has no features")

    def describe(self) -> str:
        return self.path

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        at = 0
        for X, y in self._chunks(self.n_features + self._first):
            yield X[:, self._first :], y, None, f"{self.path}, rows {at} to {at + len(y) - 1}"
            at += len(y)

    def _chunks(self, width: int) -> Iterator[tuple[Any, Any]]:
        from sklearn.datasets import load_svmlight_file

        # What is packed cannot be read from the middle.
        starts = [0] if self._packed else range(0, os.path.getsize(self.path), CHUNK_BYTES)
        length = -1 if self._packed else CHUNK_BYTES
        for offset in starts:
            try:
                X, y = load_svmlight_file(self.path, n_features=width, zero_based=True, offset=offset, length=length)
            except (ValueError, OSError, EOFError) as error:
                raise ValueError(f"{self.path}, from byte {offset} on: {error}") from error
            if X.shape[0]:
                yield sp.csr_array(X), y


class Spilled(RowSource):
    """What another source yields, kept in a temporary file on the first pass, from which all later ones read"""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._like(source)
        self._file: Any = None
        self._wheres: list[str] = []

    def describe(self) -> str:
        return self._source.describe()

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        if self._file is None:
            yield from self._spill()
            return
        self._file.seek(0)
        for where in self._wheres:
            parts = [np.load(self._file) for _ in range(int(np.load(self._file)))]
            y, weights = parts[0], parts[1] if parts[1].size else None
            dense = len(parts) == 3
            X = parts[2] if dense else sp.csr_array(tuple(parts[2:5]), shape=(len(y), self.n_features))
            yield X, y, weights, where

    def _spill(self) -> Iterator[tuple[Any, Any, Any, str]]:
        file = tempfile.TemporaryFile(prefix="fastridge-")  # noqa: SIM115 -- it lives as long as this source
        wheres = []
        try:
            for X, y, weights, where in self._source.read():
                arrays = [X] if isinstance(X, np.ndarray) else [X.data, X.indices, X.indptr]
                parts = [np.asarray(y), np.empty(0) if weights is None else np.asarray(weights), *arrays]
                np.save(file, np.array(len(parts)))
                for part in parts:
                    np.save(file, part)
                wheres.append(where)
                yield X, y, weights, where
        except BaseException:  # the end of a reader that reads no further included
            file.close()
            raise
        self._file, self._wheres = file, wheres
        weakref.finalize(self, file.close)
