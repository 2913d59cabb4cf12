"""Arrays and what they mean in one file: an npz whose member `header` is JSON; nothing in it is ever run."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastridge.operators.base import Array


def save(path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write `arrays` and `header` to `path`, as it is named; a file that is there is replaced once all is written

    Raises
    ------
    OSError
        If it cannot be written; what was there stays.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.draft")
    members = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays}
    try:
        with open(draft, "xb") as file:
            np.savez(file, **members)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename, error.filename2 = os.fspath(path), None  # nobody knows the draft
        raise


def load(path: str | os.PathLike[str], kind: str, version: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read header and arrays of a file whose header says `kind` and `version`

    Raises
    ------
    ValueError
        If the file is truncated or damaged, of another kind, or of another version.
    OSError
        If it cannot be read.
    """
    name = os.fspath(path)
    foreign = f"{name!r} was not written by {kind}.save"
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise ValueError(f"{foreign}, or its beginning is lost")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as members:
                arrays = {member: members[member] for member in members.files}
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, NotImplementedError) as error:
            raise ValueError(f"{name!r} is truncated or damaged: {error}") from error
    try:
        header = json.loads(arrays.pop("header").tobytes())
        given = header["kind"], header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{foreign}: it has no header of ours") from error
    if given[0] != kind:
        raise ValueError(f"{foreign}: it holds {given[0]!r}")
    if given[1] != version:
        raise ValueError(f"{name!r} has version {given[1]!r} of the format of {kind}, this version of fastridge reads {version}")
    return header, arrays
