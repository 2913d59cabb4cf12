from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def sweep_sparse(
    data: Array,
    indices: Array,
    indptr: Array,
    line_shift: Array | None,
    line_scale: Array | None,
    weights: Array | None,
    h: Array | None,
    eta: float,
    sq_norms: Array,
    linear: Array,
    penalty: float,
    z: Array,
    u: Array,
    state: Array,
    backward: bool,
    lower: Array | None = None,
    upper: Array | None = None,
    penalty_weights: Array | None = None,
) -> float: ...
def sweep_dense(
    M: Array,
    line_shift: Array | None,
    cross_shift: Array | None,
    line_scale: Array | None,
    weights: Array | None,
    sq_norms: Array,
    linear: Array,
    penalty: float,
    z: Array,
    tau: Array,
    backward: bool,
    lower: Array | None = None,
    upper: Array | None = None,
    penalty_weights: Array | None = None,
) -> float: ...
def sweep_gram(
    gram: Array,
    penalty: float,
    z: Array,
    gradient: Array,
    backward: bool,
    lower: Array | None = None,
    upper: Array | None = None,
    penalty_weights: Array | None = None,
) -> float: ...
