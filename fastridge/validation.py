"""The door: what users hand over becomes arrays the inner layers can trust, or one clear error; nothing of theirs is changed."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dpotrf

from fastridge._kernels import sparse
from fastridge.lines import Array, Matrix, Vector
from fastridge.problem import Bounds

MAX_PENALTY_MATRIX = 5000
"""Features; the eigendecomposition takes half a minute there."""
SOLVERS = ("auto", "cholesky", "svd", "cg", "cd")
BOUNDED_SOLVERS = ("auto", "cd")


def check_X(X: Any) -> Matrix:
    """Return X (n, p) as float32 or float64: a dense array with contiguous rows or columns, or CSR or CSC without
    repeated entries

    Whether entries are finite is seen when the columns are summed, without another pass.

    Raises
    ------
    ValueError, TypeError
        If X is not two-dimensional, is empty, complex, not numeric, or a sparse matrix whose indices are not well formed.
    """
    if sp.issparse(X):
        return _check_sparse(X)
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    X = np.asarray(X)
    _check_shape(X)
    X = _as_float(X, "X")
    itemsize = X.itemsize
    if not X.flags.aligned or any(stride % itemsize for stride in X.strides):
        X = np.ascontiguousarray(X).copy()  # entries of packed records: no kernel reads them where they lie
    if (itemsize not in X.strides and 1 not in X.shape) or (X.ndim == 2 and 1 in X.shape):
        X = np.ascontiguousarray(X)
    return X


def _check_shape(X: Any) -> None:
    if X.ndim != 2:
        raise ValueError(f"X must be two-dimensional, (n_samples, n_features), got {X.ndim} dimension(s); reshape it")
    if 0 in X.shape:
        raise ValueError(f"X must have at least one sample and one feature, got shape {X.shape}")


def _as_float(x: Array, name: str) -> Array:
    if x.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {x.dtype}; split real and imaginary parts")
    if x.dtype in (np.float32, np.float64) and x.dtype.isnative:
        return x
    if x.dtype.kind in "SUmM":
        raise ValueError(f"{name} must be numeric, got dtype {x.dtype}; encode it first")
    try:
        return x.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numeric, got dtype {x.dtype} with entries that are not: {error}") from error


def _check_sparse(X: Any) -> Matrix:
    _check_shape(X)
    if X.format not in ("csr", "csc"):
        X = X.tocsr()
    data = np.ascontiguousarray(_as_float(X.data, "X"))
    index_type = np.int64 if np.int64 in (X.indices.dtype, X.indptr.dtype) else np.int32
    indices = np.ascontiguousarray(X.indices, dtype=index_type)
    indptr = np.ascontiguousarray(X.indptr, dtype=index_type)
    n_lines, width = X.shape if X.format == "csr" else X.shape[::-1]
    flaw = 3
    if len(indptr) == n_lines + 1 and len(data) == len(indices):
        flaw = sparse.check_lines(indices, indptr, width, np.empty(width, dtype=index_type))
    if flaw == 3:
        raise ValueError(
            f"X is not a well-formed {X.format} matrix: indptr must rise from 0 to at most {len(data)}, the entries stored"
        )
    if flaw == 2:
        raise ValueError(f"X is not a well-formed {X.format} matrix: its indices must lie in [0, {width})")
    make = sp.csr_array if X.format == "csr" else sp.csc_array
    if flaw == 1:  # an entry stored in parts: a copy, summed
        ordered = make((data, indices, indptr), shape=X.shape, copy=True)
        ordered.sum_duplicates()
        return ordered
    return make((data[: indptr[-1]], indices[: indptr[-1]], indptr), shape=X.shape)


def check_y(y: Any, n_samples: int) -> Vector:
    """Return y as float64, (n,) or (n, k), contiguous

    Raises
    ------
    ValueError
        If y has the wrong length or dimension, is not numeric, or not finite.
    """
    if hasattr(y, "to_numpy"):
        y = y.to_numpy()
    y = np.asarray(y)
    if y.ndim not in (1, 2):
        raise ValueError(f"y must have one or two dimensions, (n_samples,) or (n_samples, n_targets), got {y.ndim}")
    if y.shape[0] != n_samples:
        raise ValueError(f"X has {n_samples} samples, y has {y.shape[0]}; they must agree")
    if y.ndim == 2 and y.shape[1] == 0:
        raise ValueError("y must have at least one target, got shape " + str(y.shape))
    values: Vector = np.ascontiguousarray(_as_float(y, "y"), dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("y contains NaN or infinity: drop those samples before fitting")
    return values


def check_sample_weight(sample_weight: Any, n_samples: int) -> Vector | None:
    """Return the weights as (n,) float64, None where all are one

    Raises
    ------
    ValueError
        If they are negative, not finite, all zero, or of the wrong shape.
    """
    if sample_weight is None:
        return None
    given = _as_float(np.asarray(sample_weight), "sample_weight")
    shape = (n_samples,) if given.ndim == 0 else given.shape
    weights: Vector = np.ascontiguousarray(np.broadcast_to(given, shape), dtype=np.float64)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight must be a number or of shape ({n_samples},), got shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight must be finite and not negative; Negative values in data passed as sample_weight")
    if not weights.any():
        raise ValueError("sample_weight must not be zero for every sample")
    return None if (weights == 1).all() else weights


def check_alpha(alpha: Any, n_targets: int) -> Vector:
    """Return the penalty of every target, (k,) float64

    Raises
    ------
    ValueError, TypeError
        If alpha is negative, not finite, or neither a number nor of length n_targets.
    """
    penalty = np.asarray(alpha)
    if penalty.dtype.kind not in "fiu":
        raise TypeError(f"alpha must be a number, or one for each target, got {alpha!r}")
    if penalty.shape not in ((), (1,), (n_targets,)):
        raise ValueError(f"alpha must be a number or of shape ({n_targets},), one for each target, got shape {penalty.shape}")
    if not np.isfinite(penalty).all() or (penalty < 0).any():
        raise ValueError(f"alpha must be finite and not negative, got {alpha!r}")
    return np.ascontiguousarray(np.broadcast_to(penalty.astype(np.float64), (n_targets,)))


def check_bounds(positive: Any, bounds: Any, n_features: int, solver: str) -> Bounds | None:
    """Return the bounds of the coefficients, None where there are none

    Raises
    ------
    ValueError, TypeError
        If positive is no truth value or comes with bounds, if bounds are not two numbers or arrays (n_features,), hold NaN or
        cross, or if a solver was asked for that takes none.
    """
    if not isinstance(positive, bool | np.bool_):
        raise TypeError(f"positive must be True or False, got {positive!r}")
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
            raise ValueError(f"bounds must be a pair (lower, upper), got {bounds!r}")
    checked = []
    for name, value in zip(("lower", "upper"), pair, strict=True):
        given = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
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


def check_penalty_weights(penalty_weights: Any, n_features: int, bounded: bool) -> Vector | None:
    """Return the weights of the features in the penalty, (p,) float64, or its matrix, (p, p); None where all are one

    Raises
    ------
    ValueError
        If weights are negative, NaN, or of the wrong shape; if a matrix is not symmetric, not semi-definite, too large, or comes
        with bounds.
    """
    if penalty_weights is None:
        return None
    if sp.issparse(penalty_weights) or np.ndim(penalty_weights) == 2:
        if bounded:
            raise ValueError(
                "a penalty matrix does not go with bounds or positive=True; penalty_weights of shape (n_features,) do"
            )
        return _check_penalty_matrix(penalty_weights, n_features)
    if hasattr(penalty_weights, "to_numpy"):
        penalty_weights = penalty_weights.to_numpy()
    given = _as_float(np.asarray(penalty_weights), "penalty_weights")
    if given.shape != (n_features,):
        raise ValueError(f"penalty_weights must be of shape ({n_features},), one for each feature, got shape {given.shape}")
    d = np.ascontiguousarray(given, dtype=np.float64)
    if np.isnan(d).any() or (d < 0).any():
        j = int(np.flatnonzero(np.isnan(d) | (d < 0))[0])
        raise ValueError(f"penalty_weights must be >= 0 (0: unpenalised, inf: fixed at 0), got {d[j]:g} for feature {j}")
    return None if (d == 1).all() else d


def _check_penalty_matrix(D: Any, n_features: int) -> Vector:
    if D.shape != (n_features, n_features):
        raise ValueError(f"penalty_weights must be of shape ({n_features},) or ({n_features}, {n_features}), got shape {D.shape}")
    if n_features > MAX_PENALTY_MATRIX:
        raise ValueError(f"a penalty matrix is taken up to {MAX_PENALTY_MATRIX} features (it is decomposed), got {n_features}")
    matrix = np.array(_as_float(D.toarray() if sp.issparse(D) else np.asarray(D), "penalty_weights"), dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("a penalty matrix must be finite; for a coefficient fixed at 0 leave the feature out")
    size = np.abs(matrix).max(initial=0.0)
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
        if int(alphas) < 1:
            raise ValueError(f"alphas must be at least 1 where it says how many, got {alphas!r}")
        return int(alphas)
    given = np.asarray(alphas)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"alphas must be a whole number or an array of penalties, got {alphas!r}")
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"alphas must be a whole number or have one dimension, (n_alphas,), got shape {given.shape}")
    if not np.isfinite(given).all() or (given < 0).any():
        raise ValueError(f"alphas must be finite and not negative, got {alphas!r}")
    return given.astype(np.float64)


def check_options(solver: Any, tol: Any, max_iter: Any, n_threads: Any) -> None:
    """Raise ValueError or TypeError where an option is not one of the values it can have"""
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(map(repr, SOLVERS))}, got {solver!r}")
    if not isinstance(tol, Real) or isinstance(tol, bool):
        raise TypeError(f"tol must be a number, got {tol!r}")
    if not 0 < float(tol) < 1:
        raise ValueError(f"tol must lie between 0 and 1 (it is a relative error), got {tol!r}")
    for name, value in (("max_iter", max_iter), ("n_threads", n_threads)):
        if value is None:
            continue
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number or None, got {value!r}")
        if int(value) < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")


def check_class_weight(class_weight: Any) -> None:
    """Raise ValueError or TypeError where class_weight is not None, "balanced", or a dict of finite weights >= 0"""
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    if not isinstance(class_weight, dict):
        raise ValueError(f'class_weight must be None, "balanced" or a dict of weights, got {class_weight!r}')
    for label, weight in class_weight.items():
        if not isinstance(weight, Real):
            raise TypeError(f"class_weight[{label!r}] must be a number, got {weight!r}")
        if not 0 <= float(weight) < float("inf"):
            raise ValueError(f"class_weight[{label!r}] must be finite and not negative, got {weight!r}")
