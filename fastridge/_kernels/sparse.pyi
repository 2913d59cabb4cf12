from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def dot(
    data: Array,
    indices: Array,
    indptr: Array,
    lo: int,
    hi: int,
    line_shift: Array | None,
    b_v: Array,
    v: Array,
    out: Array,
) -> None: ...
def add(
    data: Array,
    indices: Array,
    indptr: Array,
    lo: int,
    hi: int,
    line_shift: Array | None,
    t: Array,
    out: Array,
    a_t: Array,
) -> None: ...
def normal(
    data: Array,
    indices: Array,
    indptr: Array,
    lo: int,
    hi: int,
    line_shift: Array | None,
    weights: Array | None,
    target: Array | None,
    b_v: Array,
    v: Array,
    both: Array,
    a_t: Array,
) -> None: ...
def gram(data: Array, indices: Array, indptr: Array, lo: int, hi: int, weights: Array | None, out: Array) -> None: ...
def check_lines(indices: Array, indptr: Array, width: int, seen: Array) -> int: ...
