"""The door: what users hand over becomes arrays the inner layers can trust, or one clear error; nothing of theirs is changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dpotrf

from fastridge._kernels import sparse
from fastridge.operators.base import Array, Matrix, Vector
from fastridge.problem import Bounds

MAX_PENALTY_MATRIX = 5000
"""Features up to which a penalty matrix is taken; its eigendecomposition takes half a minute there."""
MIN_WEIGHT = float(np.finfo(np.float64).tiny)
"""Penalty weights d scale columns by 1 / sqrt(d), and 1 / d of a smaller one overflows."""
MATRIX_RANGE = 1e-200, 1e200
"""Range of the largest entry of a penalty matrix, whose squares are summed."""
MAX_ALPHAS = 1_000_000
"""Penalties of a path, at most: a larger number is a mistake, and would not fit into memory."""
MAX_COUNT = 2**31 - 1
"""Steps, sweeps and threads are at most this."""
SolverName = Literal["auto", "cholesky", "svd", "cg", "cd"]
SOLVERS: tuple[str, ...] = get_args(SolverName)
Number = float | np.floating[Any] | np.integer[Any]
Penalties = Number | Sequence[Number] | Array
"""What alpha may be: a number, or one for each target."""
BOUNDED_SOLVERS = ("auto", "cd")
DATES = ("date", "time", "duration", "period")
"""Names begin like this of column types that numpy would count in nanoseconds or days."""
MISSING = ("NAType", "NaTType")
"""What pandas puts where there is no value, beside NaN."""
OURS_FOR = {
    **dict.fromkeys(("sparse_cg", "lsqr", "lsmr", "minres", "sag", "saga", "newton-cg", "conjugate_gradient"), "cg"),
    **dict.fromkeys(("normal", "normal_equations", "ldl", "lu", "newton-cholesky"), "cholesky"),
    **dict.fromkeys(("qr", "lstsq", "gelsd", "pinv", "lapack"), "svd"),
    **dict.fromkeys(("lbfgs", "l-bfgs", "nnls", "bvls", "coordinate_descent"), "cd"),
    **dict.fromkeys(("eigh", "eigen"), "auto"),
}
"""Solvers of other packages, and which of ours does their job."""


def check_X(X: Any) -> Matrix:
    """Return X (n, p) as float32 or float64: a dense array with contiguous rows or columns, or CSR or CSC without
    repeated entries

    Whether entries are finite is seen when the columns are summed, without another pass.

    Raises
    ------
    ValueError, TypeError
        If X is not two-dimensional, is empty, complex, not numeric, masked, or a sparse matrix whose indices are not well formed.
    """
    if sp.issparse(X):
        _check_shape(X)
        return _check_sparse(X, "X")
    look(X, "X")
    given = X
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    X = _as_array(X, "X")
    _check_shape(X)
    X = _as_float(X, "X", given)
    itemsize = X.itemsize
    if not X.flags.aligned or any(stride % itemsize for stride in X.strides):
        X = np.ascontiguousarray(X).copy()  # entries of packed records: no kernel reads them where they lie
    if (itemsize not in X.strides and 1 not in X.shape) or (X.ndim == 2 and 1 in X.shape):
        X = np.ascontiguousarray(X)
    return X


def look(x: Any, name: str) -> None:
    """Raise where numpy, scipy or scikit-learn would read something else out of `x` than is meant, or crash

    Raises
    ------
    ValueError, TypeError
        If `x` is a string or path, has not been computed, has masked entries, is an array of records or of dates.
    """
    if hasattr(x, "collect") and not hasattr(x, "__array__"):
        raise TypeError(f"{name} is a {type(x).__name__}, which holds no data yet; pass {name}.collect(), or scan the frame")
    if name in ("X", "y") and isinstance(x, str | os.PathLike):
        raise ValueError(f"{name} is {os.fspath(x)!r}, not an array; fastridge.scan(path, target=...) reads files")
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        count = int(np.ma.getmaskarray(x).sum())
        raise ValueError(f"{name} has {count} masked entries; fill them, {name}.filled(value), or drop those samples")
    if isinstance(x, np.ndarray) and x.dtype.names is not None:
        raise ValueError(
            f"{name} is a structured array with the fields {', '.join(x.dtype.names)}; "
            f"pass numpy.lib.recfunctions.structured_to_unstructured({name})"
        )
    if hasattr(x, "columns") and hasattr(x, "dtypes"):
        dates = [dtype for dtype in set(x.dtypes) if str(dtype).lower().startswith(DATES)]
        for column, dtype in zip(x.columns, x.dtypes, strict=True) if dates else ():
            if dtype in dates:
                raise ValueError(f"{name} must be numeric: column {column!r} holds {dtype}; turn dates into numbers first")
    elif isinstance(x, np.ndarray) and x.dtype.kind in "mM":
        raise ValueError(f"{name} must be numeric, got dtype {x.dtype}; turn dates into numbers first")


def name_what_is_no_number(x: Any, name: str) -> None:
    """Raise for the first entry of `x`, by columns, that no float64 stands for, where there is one

    To be called when a conversion has failed, whose own message says neither column nor row.

    Raises
    ------
    ValueError, TypeError
    """
    if x is None or sp.issparse(x):
        return
    try:
        values = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    except (ValueError, OverflowError):
        return
    if values.dtype.kind not in "OSU" or values.ndim > 2:
        return
    columns = list(getattr(x, "columns", range(values.shape[-1]))) if values.ndim == 2 else [None]
    for column, entries in zip(columns, values.T if values.ndim == 2 else [values.ravel()], strict=True):
        try:
            entries.astype(np.float64)
        except (ValueError, TypeError, OverflowError):
            for i, entry in enumerate(entries):
                found = _said(entry) if values.ndim == 0 else f"{_said(entry)} at index {i}"
                if values.ndim == 2:
                    found = f"column {column!r} holds {_said(entry)} in row {i}"
                _check_number(entry, f"{name} must be numeric: {found}", name)


def _check_number(entry: Any, found: str, name: str) -> None:
    try:
        if entry is not None:  # NaN, to numpy
            float(entry)
    except OverflowError:
        raise ValueError(f"{found}, which is too large for float64") from None
    except ValueError:
        hints = {"X": "; encode categories as numbers first", "y": "; RidgeClassifier takes labels"}
        raise ValueError(found + hints.get(name, "")) from None
    except TypeError as error:
        hint = "fill in missing values, or drop those samples" if type(entry).__name__ in MISSING else str(error)
        raise TypeError(f"{found}; {hint}") from None


def _float(x: Real) -> float:
    try:
        return float(x)
    except OverflowError:
        return float("inf")


def _said(value: Any) -> str:
    """`value` as an error quotes it: in one short line"""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {int(value.bit_length() * 0.30103) + 1} digits"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # integers of thousands of digits within
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."


def _check_shape(X: Any) -> None:
    if X.ndim != 2:
        raise ValueError(f"X must be two-dimensional, (n_samples, n_features), got {X.ndim} dimension(s); reshape it")
    if 0 in X.shape:
        raise ValueError(f"X must have at least one sample and one feature, got shape {X.shape}")


def _as_array(x: Any, name: str) -> Array:
    """An array of `x`, a number, sequence, array, series or frame"""
    look(x, name)
    if sp.issparse(x):
        raise TypeError(f"{name} must be dense, got a sparse matrix; pass {name}.toarray()")
    try:
        return np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error


def _as_float(x: Array, name: str, given: Any = None) -> Array:
    """`x` as float32 or float64; `given` is what it came from"""
    if x.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {x.dtype}; split real and imaginary parts")
    if x.dtype in (np.float32, np.float64) and x.dtype.isnative:
        return x
    try:
        with np.errstate(over="ignore"):  # of long doubles: infinity is refused by whoever asked
            return x.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        name_what_is_no_number(x if given is None else given, name)
        raise ValueError(f"{name} must be numeric, got dtype {x.dtype} with entries that are not: {error}") from error


def _check_sparse(M: Any, name: str) -> Matrix:
    """M as CSR or CSC of float32 or float64, well formed and without repeated entries"""
    M = well_formed(M, name)
    data = np.ascontiguousarray(_as_float(M.data, name))
    indices, indptr, repeated = _check_lines(M, name)
    make = sp.csr_array if M.format == "csr" else sp.csc_array
    if repeated:  # an entry stored in parts: a copy, summed
        ordered = make((data, indices, indptr), shape=M.shape, copy=True)
        ordered.sum_duplicates()
        return ordered
    return make((data[: indptr[-1]], indices[: indptr[-1]], indptr), shape=M.shape)


def _check_lines(M: Any, name: str) -> tuple[Array, Array, bool]:
    """Indices, indptr and whether an index comes twice in a line, of CSR, CSC or the blocks of BSR"""
    index_type = np.int64 if np.int64 in (M.indices.dtype, M.indptr.dtype) else np.int32
    indices = np.ascontiguousarray(M.indices, dtype=index_type)
    indptr = np.ascontiguousarray(M.indptr, dtype=index_type)
    n_lines, width = M.shape[::-1] if M.format == "csc" else M.shape
    if M.format == "bsr":
        n_lines, width = n_lines // M.blocksize[0], width // M.blocksize[1]
    flaw = 3
    if len(indptr) == n_lines + 1 and len(M.data) == len(indices):
        flaw = sparse.check_lines(indices, indptr, width, np.empty(width, dtype=index_type))
    if flaw == 3:
        raise ValueError(
            f"{name} is not a well-formed {M.format} matrix: indptr must rise from 0 to at most {len(M.data)}, the entries stored"
        )
    if flaw == 2:
        raise ValueError(f"{name} is not a well-formed {M.format} matrix: its indices must lie in [0, {width})")
    return indices, indptr, flaw == 1


def well_formed(M: Any, name: str) -> Any:
    """The sparse `M` as CSR or CSC, its coordinates checked before scipy converts it, which would write outside of its arrays

    CSR and CSC are returned as they are: `_check_lines` checks those.

    Raises
    ------
    ValueError
        If M is not well formed.
    """
    if M.format in ("csr", "csc"):
        return M
    flaw = ""
    if M.format == "coo":
        for kind, index, size in zip(("column", "row"), (M.col, M.row), M.shape[::-1], strict=True):
            if len(index) != len(M.data):
                flaw = f"{len(index)} {kind} indices for {len(M.data)} entries"
            elif len(index) and not 0 <= index.min() <= index.max() < size:
                flaw = f"its {kind} indices must lie in [0, {size})"
    elif M.format == "bsr":
        _check_lines(M, name)
        if any(size % block for size, block in zip(M.shape, M.blocksize, strict=True)):
            flaw = f"blocks of shape {M.blocksize}"
    elif M.format == "lil":
        if not len(M.rows) == len(M.data) == M.shape[0] or any(map(_differ, M.rows, M.data)):
            flaw = "rows and data must have the same lengths"
    elif M.format == "dia" and (M.data.ndim != 2 or M.offsets.shape != M.data.shape[:1]):
        flaw = f"{len(M.offsets)} offsets for data of shape {M.data.shape}"
    if flaw:
        raise ValueError(f"{name} is not a well-formed {M.format} matrix: {flaw}")
    try:
        return M.tocsr()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is not a well-formed {M.format} matrix: {error}") from error


def _differ(row: list[Any], data: list[Any]) -> bool:
    return len(row) != len(data)


def check_y(y: Any, n_samples: int) -> Vector:
    """Return y as float64, (n,) or (n, k), contiguous

    Raises
    ------
    ValueError, TypeError
        If y has the wrong length or dimension, is sparse, masked, not numeric, or not finite.
    """
    given, y = y, _as_array(y, "y")
    if y.ndim not in (1, 2):
        raise ValueError(f"y must have one or two dimensions, (n_samples,) or (n_samples, n_targets), got {y.ndim}")
    if y.shape[0] != n_samples:
        raise ValueError(f"X has {n_samples} samples, y has {y.shape[0]}; they must agree")
    if y.ndim == 2 and y.shape[1] == 0:
        raise ValueError("y must have at least one target, got shape " + str(y.shape))
    values: Vector = np.ascontiguousarray(_as_float(y, "y", given), dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("y contains NaN or infinity: drop those samples before fitting")
    return values


def check_sparse_labels(y: Any, allowed: bool) -> Any:
    """Return the sparse y, which has labels, as CSR or CSC

    Raises
    ------
    TypeError, ValueError
        If it is not `allowed`, has one column, or is not well formed.
    """
    if not allowed:
        raise TypeError("y must be dense, got a sparse matrix; pass y.toarray()")
    if y.ndim != 2 or y.shape[1] == 1:
        raise TypeError("y must be dense where samples have one label each, got a sparse matrix; pass y.toarray().ravel()")
    y = well_formed(y, "y")
    _check_lines(y, "y")
    return y


def check_sample_weight(sample_weight: Any, n_samples: int) -> Vector | None:
    """Return the weights as (n,) float64, None where all are one

    Raises
    ------
    ValueError
        If they are negative, not finite, all zero, or of the wrong shape.
    """
    if sample_weight is None:
        return None
    given = _as_float(_as_array(sample_weight, "sample_weight"), "sample_weight")
    shape = (n_samples,) if given.ndim == 0 else given.shape
    weights: Vector = np.ascontiguousarray(np.broadcast_to(given, shape), dtype=np.float64)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight must be a number or of shape ({n_samples},), got shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight must be finite and not negative; Negative values in data passed as sample_weight")
    if not weights.any():
        raise ValueError("sample_weight must not be zero for every sample")
    return None if (weights == 1).all() else weights


def check_block_weights(sample_weight: Any, n_samples: int) -> Vector | None:
    """As `check_sample_weight` for some of the rows, all of which may have a weight of zero: others have others"""
    if sample_weight is None or np.any(sample_weight):
        return check_sample_weight(sample_weight, n_samples)
    check_sample_weight(np.ones(np.shape(sample_weight)), n_samples)
    return np.zeros(n_samples)


def check_alpha(alpha: Any, n_targets: int) -> Vector:
    """Return the penalty of every target, (k,) float64

    Raises
    ------
    ValueError, TypeError
        If alpha is negative, not finite, or neither a number nor of length n_targets.
    """
    penalty = _numbers(alpha, "alpha", "a number, or one for each target")
    if penalty.shape not in ((), (1,), (n_targets,)):
        raise ValueError(f"alpha must be a number or of shape ({n_targets},), one for each target, got shape {penalty.shape}")
    if not np.isfinite(penalty).all() or (penalty < 0).any():
        raise ValueError(f"alpha must be finite and not negative, got {_said(alpha)}")
    return np.ascontiguousarray(np.broadcast_to(penalty, (n_targets,)))


def _numbers(x: Any, name: str, wanted: str) -> Vector:
    """`x` as float64; of Python's objects, numbers that are real"""
    given = _as_array(x, name)
    real = given.dtype == object and all(isinstance(entry, Real) and not isinstance(entry, bool) for entry in given.flat)
    if given.dtype.kind not in "fiu" and not real:
        raise TypeError(f"{name} must be {wanted}, got {_said(x)}")
    return _as_float(given, name).astype(np.float64)


def check_bounds(positive: Any, bounds: Any, n_features: int, solver: str) -> Bounds | None:
    """Return the bounds of the coefficients, None where there are none

    Raises
    ------
    ValueError, TypeError
        If positive is no truth value or comes with bounds, if bounds are not two numbers or arrays (n_features,), hold NaN or
        cross, or if a solver was asked for that takes none.
    """
    if not isinstance(positive, bool | np.bool_):
        raise TypeError(f"positive must be True or False, got {_said(positive)}")
    if bounds is None and not positive:
        return None
    if bounds is None:
        pair: tuple[Any, Any] = (0.0, np.inf)
    elif positive:
        raise ValueError("positive=True and bounds do not go together; raise the lower of the bounds to 0 instead")
    else:
        try:
            pair = (bounds[0], bounds[1])
            count = len(bounds)
        except (TypeError, IndexError, KeyError):
            count = 0
        if count != 2:
            raise ValueError(f"bounds must be a pair (lower, upper), each a number or one for each feature, got {_said(bounds)}")
    checked = []
    for name, value, nothing in zip(("lower", "upper"), pair, (-np.inf, np.inf), strict=True):
        given = _as_array(value, f"bounds ({name})")
        if given.dtype == object:  # as in scipy, None is no bound
            given = np.array([nothing if entry is None else entry for entry in given.flat], dtype=object).reshape(given.shape)
        if given.shape not in ((), (n_features,)):
            raise ValueError(f"the {name} bounds must be a number or of shape ({n_features},), got shape {given.shape}")
        array = np.array(np.broadcast_to(_as_float(given, f"bounds ({name})").astype(np.float64), (n_features,)))
        if np.isnan(array).any():
            raise ValueError(f"the {name} bounds contain NaN, first for feature {int(np.flatnonzero(np.isnan(array))[0])}")
        checked.append(array + 0.0)  # no negative zeros
    lower, upper = checked
    wrong = (lower > upper) | (lower == np.inf) | (upper == -np.inf)
    if wrong.any():
        j = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"no number lies within the bounds of feature {j}: lower {lower[j]:g}, upper {upper[j]:g}")
    if solver not in BOUNDED_SOLVERS:
        raise ValueError(
            f'solver="{solver}" does not take {"positive=True" if bounds is None else "bounds"}; use solver="auto" or solver="cd"'
        )
    return None if np.isneginf(lower).all() and np.isposinf(upper).all() else Bounds(lower, upper)


def check_penalty_weights(penalty_weights: Any, n_features: int, bounds: Bounds | None) -> Vector | None:
    """Return the weights of the features in the penalty, (p,) float64, or its matrix, (p, p); None where all are one

    Raises
    ------
    ValueError
        If weights are negative, NaN, so small or large that columns cannot be scaled by them, or of the wrong shape; if one is
        infinite where bounds exclude 0; if a matrix is not symmetric, not semi-definite, too large, or comes with bounds.
    """
    if penalty_weights is None:
        return None
    if sp.issparse(penalty_weights) or np.ndim(penalty_weights) == 2:
        if bounds is not None:
            raise ValueError(
                "a penalty matrix does not go with bounds or positive=True; penalty_weights of shape (n_features,) do"
            )
        return _check_penalty_matrix(penalty_weights, n_features)
    given = _as_float(_as_array(penalty_weights, "penalty_weights"), "penalty_weights")
    if given.shape != (n_features,):
        raise ValueError(f"penalty_weights must be of shape ({n_features},), one for each feature, got shape {given.shape}")
    d = np.ascontiguousarray(given, dtype=np.float64)
    if np.isnan(d).any() or (d < 0).any():
        j = int(np.flatnonzero(np.isnan(d) | (d < 0))[0])
        raise ValueError(f"penalty_weights must be >= 0 (0: unpenalised, inf: fixed at 0), got {d[j]:g} for feature {j}")
    extreme = (d > 0) & (d < MIN_WEIGHT)
    if extreme.any():
        j = int(np.flatnonzero(extreme)[0])
        raise ValueError(
            f"penalty_weights must be 0 (unpenalised), inf (fixed at 0) or at least {MIN_WEIGHT:g}, got {d[j]:g} for feature {j}"
        )
    if bounds is not None:
        outside = np.isinf(d) & ((bounds.lower > 0) | (bounds.upper < 0))
        if outside.any():
            j = int(np.flatnonzero(outside)[0])
            raise ValueError(
                f"penalty_weights of inf fixes the coefficient of feature {j} at 0, "
                f"which its bounds, {bounds.lower[j]:g} to {bounds.upper[j]:g}, exclude"
            )
    return None if (d == 1).all() else d


def check_feature_groups(feature_groups: Any, n_features: int) -> tuple[Array, Array]:
    """Return the labels of groups of features in sorted order, (n_groups,), and the group of every feature, (n_features,) int

    Raises
    ------
    ValueError
        If there is not one label for each feature, if one is missing, or if they cannot be sorted.
    """
    given = np.asarray(feature_groups)
    if given.shape != (n_features,):
        raise ValueError(f"feature_groups must have one label for each of the {n_features} features, got shape {given.shape}")
    missing = [label is None or type(label).__name__ in MISSING or label != label for label in given.tolist()]
    if any(missing):
        raise ValueError(f"feature_groups has no label for feature {missing.index(True)}")
    try:
        labels, index = np.unique(given, return_inverse=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in given.tolist()})
        raise ValueError(f"feature_groups must have labels of one kind, which sort, got {', '.join(kinds)}") from None
    return labels, index


def _check_penalty_matrix(D: Any, n_features: int) -> Vector:
    if D.shape != (n_features, n_features):
        raise ValueError(f"penalty_weights must be of shape ({n_features},) or ({n_features}, {n_features}), got shape {D.shape}")
    if n_features > MAX_PENALTY_MATRIX:
        raise ValueError(f"a penalty matrix is taken up to {MAX_PENALTY_MATRIX} features (it is decomposed), got {n_features}")
    if sp.issparse(D):
        D = _check_sparse(D, "penalty_weights").toarray()
    matrix = np.array(_as_float(_as_array(D, "penalty_weights"), "penalty_weights"), dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("a penalty matrix must be finite; for a coefficient fixed at 0 leave the feature out")
    size = float(np.abs(matrix).max(initial=0.0))
    low, high = MATRIX_RANGE
    if size and not low <= size <= high:
        raise ValueError(f"the largest entry of a penalty matrix must be from {low:g} to {high:g}, got {size:g}")
    if np.abs(matrix - matrix.T).max(initial=0.0) > 1e-12 * size:
        raise ValueError("a penalty matrix must be symmetric; (D + D.T) / 2 is, and penalises the same")
    matrix = (matrix + matrix.T) / 2
    # Semi-definite up to rounding means definite a little further on: a Cholesky factor is cheaper than eigenvalues.
    margin = 1e-10 * n_features * size
    if size and dpotrf(matrix + margin * np.eye(n_features), lower=1)[1]:
        smallest = float(np.linalg.eigvalsh(matrix).min())
        raise ValueError(f"a penalty matrix must be positive semi-definite, its smallest eigenvalue is {smallest:g}")
    return matrix


def check_alphas(alphas: Any) -> int | Vector:
    """Return how many penalties a path is to have, or the penalties, (n_alphas,) float64

    Raises
    ------
    ValueError, TypeError
        If it is neither a whole number >= 1 nor penalties >= 0, finite, in one dimension.
    """
    if isinstance(alphas, Integral) and not isinstance(alphas, bool):
        if not 1 <= int(alphas) <= MAX_ALPHAS:
            raise ValueError(f"alphas must be at least 1 and at most {MAX_ALPHAS} where it says how many, got {_said(alphas)}")
        return int(alphas)
    given = _numbers(alphas, "alphas", "a whole number or an array of penalties")
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"alphas must be a whole number or have one dimension, (n_alphas,), got shape {given.shape}")
    if not np.isfinite(given).all() or (given < 0).any():
        raise ValueError(f"alphas must be finite and not negative, got {_said(alphas)}")
    return given


def check_options(
    solver: Any,
    tol: Any,
    max_iter: Any,
    n_threads: Any,
    time_limit: Any = None,
    callback: Any = None,
    checkpoint: Any = None,
    **flags: Any,
) -> None:
    """Raise ValueError or TypeError where an option is not one of the values it can have; `flags` are True or False"""
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(map(repr, SOLVERS))}, got {_said(solver)}{_ours_for(solver)}")
    if not isinstance(tol, Real) or isinstance(tol, bool):
        raise TypeError(f"tol must be a number, got {_said(tol)}")
    if not 0 < _float(tol) < 1:
        raise ValueError(f"tol must lie between 0 and 1 (it is a relative error), got {_said(tol)}")
    for name, value in (("max_iter", max_iter), ("n_threads", n_threads)):
        if value is None:
            continue
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number or None, got {_said(value)}")
        if not 1 <= int(value) <= MAX_COUNT:
            raise ValueError(f"{name} must be at least 1 and at most {MAX_COUNT}, got {_said(value)}")
    if time_limit is not None:
        if not isinstance(time_limit, Real) or isinstance(time_limit, bool):
            raise TypeError(f"time_limit must be a number of seconds or None, got {_said(time_limit)}")
        if not _float(time_limit) > 0:
            raise ValueError(f"time_limit must be more than 0 seconds, got {_said(time_limit)}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of one argument or None, got {_said(callback)}")
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"checkpoint must be the path of a folder or None, got {_said(checkpoint)}")
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {_said(value)}")


def _ours_for(solver: Any) -> str:
    """What to say of a solver that is none of ours"""
    if not isinstance(solver, str):
        return ""
    close = get_close_matches(solver.lower(), (*SOLVERS, *OURS_FOR), n=1, cutoff=0.75)
    if not close:
        return ""
    ours = OURS_FOR.get(close[0])
    if ours is None:
        return f'; did you mean "{close[0]}"?'
    return f'; solver="{ours}" does its job here' + (', "auto" chooses by itself' if ours != "auto" else "")


def check_class_weight(class_weight: Any) -> None:
    """Raise ValueError or TypeError where class_weight is not None, "balanced", or a dict of finite weights >= 0"""
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    if not isinstance(class_weight, dict):
        raise ValueError(f'class_weight must be None, "balanced" or a dict of weights, got {_said(class_weight)}')
    for label, weight in class_weight.items():
        if not isinstance(weight, Real):
            raise TypeError(f"class_weight[{label!r}] must be a number, got {_said(weight)}")
        if not 0 <= _float(weight) < float("inf"):
            raise ValueError(f"class_weight[{label!r}] must be finite and not negative, got {_said(weight)}")
