"""Checkpoints: what passes over rows gave, kept on disk, so that a fit that was killed goes on with the pass that it was in.

Solvers are deterministic, and rows reach them through products alone. A fit that is begun anew is therefore given the products
that are on disk, as long as it asks for the same ones, and then goes on from the data: the answer has the same bits, whatever
solver is at work, and no solver knows of it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from fastridge import archive
from fastridge.operators.base import Array, GoOn, Target, Vector
from fastridge.operators.row_blocks import Block, Facts, RowBlocks
from fastridge.rows import Code, RowSource
from fastridge.solution import Status

VERSION = 1
SECONDS = 30.0
"""Between two files: a pass that takes longer is written as soon as it has ended."""
HELD_BYTES = 1 << 26
"""Of products that are not written yet, at most."""
MOST_SHOWN = 4
"""Numbers of a setting that stand in a checkpoint as they are."""
UNFINISHED = (Status.TIME_LIMIT, Status.MAX_ITER)
"""A fit that ended so can go on from its checkpoint."""


class Checkpoint:
    """Products in their order, in the numbered files of a folder: those that are there are recalled, others are made and added

    Files are written beside and renamed: one that has its name is whole. Vectors of one number a feature and target are kept for
    every pass, and once what the first pass tells.

    Parameters
    ----------
    path : str or path
        Of the folder, which is made where it is not there.

    Raises
    ------
    ValueError
        If there is something else at `path`, or a file is damaged or of another version.
    OSError
        If the folder cannot be made.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"checkpoint must name a folder, and {str(self.path)!r} is a file")
        self.path.mkdir(exist_ok=True)
        drafts: list[Path] = []
        files: list[Path] = []
        for file in sorted(self.path.iterdir()):
            if file.name.endswith(".draft"):
                drafts.append(file)  # of a write that was cut short
            elif file.name == f"{len(files):06d}.npz":
                files.append(file)
            else:
                raise ValueError(
                    f"the folder {str(self.path)!r} is no checkpoint, or parts of it are missing: it has {file.name}"
                )
        for draft in drafts:
            draft.unlink()
        self.n_files, self.n_read, self.n_recalled, self.n_made = len(files), 0, 0, 0
        self._settings: dict[str, Any] = {}
        self._found: dict[str, Any] = {}
        self._coming: deque[tuple[str, dict[str, Array]]] = deque()
        self._held: list[tuple[str, dict[str, Array]]] = []
        self._written = self.clock()
        self._fill()

    def agree(self, settings: dict[str, Any]) -> None:
        """Take note of the settings of a fit

        Raises
        ------
        ValueError
            If those that the checkpoint was begun with differ; the message names them.
        """
        self._settings = {name: _mark(value) for name, value in settings.items()}
        self._compare()

    def once(
        self, name: str, inputs: tuple[Any, ...], make: Callable[[], dict[str, Array]], whole: GoOn | None = None
    ) -> dict[str, Array]:
        """What `make()` gives, or gave when `name` was last asked for with these inputs at this place

        Where something else was asked for, what is on disk from here on is of no use (another tolerance, other rounding on
        another machine) and is dropped. `whole`, asked afterwards, says whether what was made is all of it.
        """
        key = _digest(name, inputs)
        if self._fill() and self._coming[0][0] == key:
            known = self._coming.popleft()
            self.n_recalled += 1
            self._hold(*known)
            if not self._coming:  # the file stays as it is
                self._held.clear()
            return known[1]
        if self._coming:
            self._drop_rest()
        made = make()
        self.n_made += 1
        if whole is None or whole():
            self._hold(key, made)
            held = sum(array.nbytes for _, arrays in self._held for array in arrays.values())
            if self.clock() >= self._written + SECONDS or held >= HELD_BYTES:
                self.write()
        return made

    def write(self) -> None:
        """Write what is not on disk yet"""
        if not self._held or self._coming:
            return
        header = {
            "kind": type(self).__name__,
            "version": VERSION,
            "settings": self._settings,
            "keys": [key for key, _ in self._held],
        }
        members = {f"{i}.{name}": array for i, (_, arrays) in enumerate(self._held) for name, array in arrays.items()}
        archive.save(self._file(self.n_files), header, members)
        self.n_files += 1
        self.n_read = self.n_files
        self._held.clear()
        self._written = self.clock()

    def leave(self) -> None:
        """Write what is not on disk yet, of a fit that did not end; no folder stays where there is nothing"""
        self.write()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def remove(self) -> None:
        """Remove the files, the last one first, and the folder"""
        for file in sorted(self.path.glob("*.npz"), reverse=True):
            file.unlink()
        self.path.rmdir()

    def _hold(self, key: str, arrays: dict[str, Array]) -> None:
        self._held.append((key, {name: array.copy(order="K") for name, array in arrays.items()}))  # solvers change them in place

    def _file(self, i: int) -> Path:
        return self.path / f"{i:06d}.npz"

    def _fill(self) -> bool:
        """Read the next file where all that was read has been recalled; whether there is something to recall"""
        while not self._coming and self.n_read < self.n_files:
            header, members = archive.load(self._file(self.n_read), type(self).__name__, VERSION)
            self.n_read += 1
            self._found = header["settings"]
            self._compare()
            parts: list[dict[str, Array]] = [{} for _ in header["keys"]]
            for name, array in members.items():
                i, _, part = name.partition(".")
                parts[int(i)][part] = array
            self._coming.extend(zip(header["keys"], parts, strict=True))
        return bool(self._coming)

    def _compare(self) -> None:
        for name, before in self._found.items() if self._settings else ():
            if before != (now := self._settings[name]):
                raise ValueError(
                    f"checkpoint {str(self.path)!r} is of another fit: {name} was {before}, and is {now}; "
                    "remove it, or fit as before"
                )

    def _drop_rest(self) -> None:
        """Forget what has not been recalled; what has been of the file at hand is written again in its place"""
        for i in reversed(range(self.n_read, self.n_files)):
            self._file(i).unlink()
        self.n_files = self.n_read = self.n_read - 1
        self._coming.clear()


class Kept(RowSource):
    """The rows of another source, what passes over them give being kept"""

    def __init__(self, source: RowSource, checkpoint: Checkpoint) -> None:
        self.source, self.checkpoint = source, checkpoint
        self._like(source)

    @classmethod
    def of(cls, source: RowSource, path: str | os.PathLike[str] | None) -> RowSource:
        """The source itself where it is kept already, or there is no path

        Raises
        ------
        ValueError
            If its rows can be read once only.
        """
        if path is None or isinstance(source, Kept):
            return source
        if not source.repeatable:
            raise ValueError(f"{source!r} can be read once, so that there is nothing to go on from: leave checkpoint out")
        return cls(source, Checkpoint(path))

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        return self.source.read()

    def verified(self) -> Iterator[Block]:
        return self.source.verified()

    def blocks(self) -> Iterator[Block]:
        return self.source.blocks()

    def describe(self) -> str:
        return self.source.describe()

    @property
    def n_samples(self) -> int | None:
        return self.source.n_samples

    def recoded(self, n_targets: int, code: Code) -> RowSource:
        return Kept(self.source.recoded(n_targets, code), self.checkpoint)

    def labels(self) -> Counter[float]:
        counts = self.source.labels_alone()
        if counts is not None:  # what costs no pass is not kept
            return counts

        def make() -> dict[str, Array]:
            counts = self.source.labels()
            found = {"labels": np.array(list(counts)), "counts": np.array(list(counts.values())), "marks": self.source.marks()}
            return found if self.names is None else found | {"names": np.array(list(self.names))}

        known = self.checkpoint.once("labels", (), make)
        if self.names is not None:  # of the source as well
            self.names |= {name: i for i, name in enumerate(known["names"].tolist())}
        known = self._recognised(known)
        return Counter(dict(zip(known["labels"].tolist(), known["counts"].tolist(), strict=True)))

    def operator(self, fit_intercept: bool, n_threads: int, with_gram: bool) -> tuple[RowBlocks, Facts]:
        def make() -> dict[str, Array]:
            facts = self.source.facts(fit_intercept, n_threads, with_gram)
            told = {field.name: getattr(facts, field.name) for field in fields(Facts)}
            return {name: np.asarray(value) for name, value in told.items() if value is not None} | {"marks": self.source.marks()}

        known = self._recognised(self.checkpoint.once("facts", (fit_intercept, with_gram), make))
        values = {field.name: known.get(field.name) for field in fields(Facts)}
        told: dict[str, Any] = {name: v.item() if v is not None and v.ndim == 0 else v for name, v in values.items()}
        facts = Facts(**told | {"shape": tuple(known["shape"].tolist())})
        return KeptRows(self.source.operator_of(facts, n_threads), facts, self.checkpoint), facts

    def end(self, status: Status) -> None:
        """Write the rest of a fit that can go on later; remove the checkpoint of one that is done

        Raises
        ------
        ValueError
            If the data, which a fit that recalled everything has not read, are others.
        """
        if self.checkpoint.n_recalled and not self.checkpoint.n_made:
            self.source.read_again()
        if status in UNFINISHED:
            self.checkpoint.leave()
        else:
            self.checkpoint.remove()

    def _recognised(self, known: dict[str, Array]) -> dict[str, Array]:
        """What is known of all rows; where it was recalled the source is held against it"""
        if not self.checkpoint.n_made:
            self.source.recognise(known["marks"], str(self.checkpoint.path))
        return known


class KeptRows(RowBlocks):
    """The operator of rows whose products are kept"""

    def __init__(self, inner: RowBlocks, facts: Facts, checkpoint: Checkpoint) -> None:
        super().__init__(tuple, facts, 1)
        self._inner, self._checkpoint, self._traits, self.passes = inner, checkpoint, inner.traits, inner.passes

    def with_columns_scaled(self, sq_scale: Vector) -> KeptRows:
        new = super().with_columns_scaled(sq_scale)
        assert isinstance(new, KeptRows)
        new._inner = self._inner.with_columns_scaled(sq_scale)
        return new

    def normal(self, v: Vector, target: Target = None) -> Vector:
        return self._once("normal", (v, target), lambda: self._inner.normal(v, target))

    def sq_image(self, v: Vector) -> Vector:
        return self._once("sq_image", (v,), lambda: self._inner.sq_image(v))

    def gram_about_high(self, go_on: GoOn | None = None) -> Vector:
        return self._once("gram", (), lambda: self._inner.gram_about_high(go_on), go_on)

    def triangle(self, target: Target = None, go_on: GoOn | None = None) -> Vector:
        return self._once("triangle", (target,), lambda: self._inner.triangle(target, go_on), go_on)

    def blocks(self) -> Iterator[tuple[int, int, Vector]]:
        return self._inner.blocks()

    def rows(self) -> Iterator[tuple[int, Vector, Vector, Vector]]:
        return self._inner.rows()

    def _once(self, name: str, inputs: tuple[Any, ...], make: Callable[[], Vector], whole: GoOn | None = None) -> Vector:
        return self._checkpoint.once(name, (*inputs, self._sq_scale), lambda: {"": make()}, whole)[""]


def _mark(value: Any) -> Any:
    """A setting as JSON holds it: numbers and words as they are, of longer arrays a digest"""
    array = np.asarray(value)
    return array.tolist() if array.size <= MOST_SHOWN else f"an array {array.shape} with the digest {_digest('', (array,))[:8]}"


def _digest(name: str, inputs: tuple[Any, ...]) -> str:
    """What tells one question from others: its name, and every bit of what it was about"""
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for value in inputs:
        own = getattr(value, "columns", value)  # targets that live with their rows
        if isinstance(own, np.ndarray):
            digest.update(f"{own.dtype} {own.shape}".encode())
            digest.update(np.ascontiguousarray(own).data)
        else:
            digest.update(repr(own).encode())
    return digest.hexdigest()
