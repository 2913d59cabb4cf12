"""`save` and `load`: fitted models in files of arrays and JSON; nothing in such a file is ever run."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from fastridge import archive
from fastridge.classifier import RidgeClassifier
from fastridge.estimators import Ridge, RidgeBase
from fastridge.operators.base import Array
from fastridge.ridge_cv import RidgeClassifierCV, RidgeCV
from fastridge.selection.choice import Choice
from fastridge.solution import FitReport, Status

KIND, VERSION = "fastridge", 1
CLASSES: dict[str, type[RidgeBase]] = {
    "Ridge": Ridge,
    "RidgeClassifier": RidgeClassifier,
    "RidgeCV": RidgeCV,
    "RidgeClassifierCV": RidgeClassifierCV,
}
PRIVATE = {"_binarizer", "_small_side"}
"""Attributes that are kept beside those whose names end with an underscore."""
LEFT_OUT = {"_moments", "_metadata_request"}
OF_BINARIZER = ("y_type_", "sparse_input_", "classes_")


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted model to a file: parameters, fitted attributes and report, in an npz with a header in JSON, never a pickle

    The file has exactly the name that is given, and replaces another one only when all of it is written. The sums of
    `partial_fit` are not kept: `Moments.save` keeps those. Nor are requests of scikit-learn's metadata routing.

    Parameters
    ----------
    model : Ridge, RidgeClassifier, RidgeCV or RidgeClassifierCV
    path : str or path

    Raises
    ------
    TypeError
        If the model is of another class, or a parameter is something that numbers, strings and arrays do not describe: a
        splitter, a function that scores, a random state.
    sklearn.exceptions.NotFittedError
        If `fit` has not run.
    OSError
        If it cannot be written; a file that was there stays.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastridge
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> model = fastridge.Ridge(alpha=0.5).fit(X, [0.0, 1.0, 3.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     fastridge.save(model, path)
    ...     again = fastridge.load(path)
    >>> bool((again.predict(X) == model.predict(X)).all())
    True
    >>> again.get_params() == model.get_params()
    True
    """
    write(model, path, {})


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that `save` or the command line has written; it predicts the same bits

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Ridge, RidgeClassifier, RidgeCV or RidgeClassifierCV
        Of the class that was saved.

    Raises
    ------
    ValueError
        If the file is truncated or damaged, was written by something else, or has another version of the format.
    OSError
        If it cannot be read.

    Examples
    --------
    See `save`.
    """
    return read(path)[0]


def write(model: Any, path: str | os.PathLike[str], notes: dict[str, Any]) -> None:
    """As `save`, with `notes`, which are JSON, beside the model"""
    if CLASSES.get(type(model).__name__) is not type(model):
        given = f"{type(model).__module__}.{type(model).__qualname__}"
        raise TypeError(f"models that can be saved are {', '.join(CLASSES)} of fastridge, got {given}")
    check_is_fitted(model)
    parameters = model.get_params(deep=False)
    fitted = {name: value for name, value in vars(model).items() if name not in parameters and name not in LEFT_OUT}
    arrays: dict[str, Array] = {}
    header = {"kind": KIND, "version": VERSION, "class": type(model).__name__, "notes": notes}
    for part, values in (("parameters", parameters), ("fitted", fitted)):
        header[part] = {name: _packed(value, name, arrays) for name, value in values.items()}
    archive.save(path, header, arrays)


def read(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """As `load`, with the notes that were written beside the model"""
    header, arrays = archive.load(path, KIND, VERSION)
    try:
        parameters, fitted = (
            {name: _unpacked(value, arrays) for name, value in header[part].items()} for part in ("parameters", "fitted")
        )
        model = CLASSES[header["class"]](**parameters)
        strange = [name for name in fitted if name not in PRIVATE and (name.startswith("_") or not name.endswith("_"))]
        if strange:
            raise ValueError(f"it has an attribute {strange[0]!r}")
        for name, value in fitted.items():
            setattr(model, name, value)
        if model.coef_.shape[-1] != model.n_features_in_:
            raise ValueError(f"coef_ has shape {model.coef_.shape} for {model.n_features_in_} features")
        notes = dict(header["notes"])
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged: {error}") from error
    return model, notes


def _packed(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """A value as JSON; arrays in it go to `arrays` and leave their key. `name` is for messages"""

    def keep(array: Array) -> str:
        key = f"{name}-{len(arrays)}"
        arrays[key] = array
        return key

    def packed(value: Any) -> Any:
        if isinstance(value, np.generic):
            return {"scalar": keep(np.asarray(value))}
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                return {"objects": [packed(item) for item in value.ravel().tolist()], "shape": value.shape}
            return {"array": keep(np.asarray(value))}
        if sp.issparse(value):
            rows = value.tocsr()
            parts = [keep(part) for part in (rows.data, rows.indices, rows.indptr)]
            return {"sparse": parts, "shape": value.shape, "format": value.format, "matrix": isinstance(value, sp.spmatrix)}
        if isinstance(value, list):
            return [packed(item) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [packed(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": [[packed(key), packed(item)] for key, item in value.items()]}
        if isinstance(value, FitReport | Choice):
            kind = "report" if isinstance(value, FitReport) else "choice"
            return {kind: {field.name: packed(getattr(value, field.name)) for field in fields(value)}}
        if type(value) is LabelBinarizer:
            return {"binarizer": {of: packed(getattr(value, of)) for of in OF_BINARIZER}}
        raise TypeError(f"{name} is {value!r}: a model file holds numbers, strings, arrays, and lists and dicts of these")

    return packed(value)


def _unpacked(value: Any, arrays: dict[str, Array]) -> Any:
    """What `_packed` made JSON of"""

    def unpacked(value: Any) -> Any:
        if isinstance(value, list):
            return [unpacked(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind, content = next(iter(value.items()))
        match kind:
            case "scalar":
                return arrays[content][()]
            case "float":
                return float(content)
            case "array":
                return arrays[content]
            case "objects":
                objects = np.empty(len(content), dtype=object)
                objects[:] = [unpacked(item) for item in content]
                return objects.reshape(value["shape"])
            case "sparse":
                of = sp.csr_matrix if value["matrix"] else sp.csr_array
                return of(tuple(arrays[key] for key in content), shape=tuple(value["shape"])).asformat(value["format"])
            case "tuple":
                return tuple(unpacked(item) for item in content)
            case "dict":
                return {unpacked(key): unpacked(item) for key, item in content}
            case "report":
                parts = {name: unpacked(item) for name, item in content.items()}
                return FitReport(**parts | {"status": Status(parts["status"])})
            case "choice":
                return Choice(**{name: unpacked(item) for name, item in content.items()})
            case "binarizer":
                binarizer = LabelBinarizer(neg_label=-1, pos_label=1)
                vars(binarizer).update({name: unpacked(content[name]) for name in OF_BINARIZER})
                return binarizer
        raise ValueError(f"it has a value of kind {kind!r}")

    return unpacked(value)
