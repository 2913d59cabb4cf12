from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def sparse_across(
    data: Array,
    indices: Array,
    indptr: Array,
    lo: int,
    hi: int,
    weights: Array | None,
    centre: Array,
    out: Array,
) -> None: ...
def sparse_along(
    data: Array,
    indices: Array,
    indptr: Array,
    lo: int,
    hi: int,
    weights: Array | None,
    centre: Array,
    out: Array,
) -> None: ...
def merge(
    gram: Array,
    low_diagonal: Array,
    more: Array,
    more_low_diagonal: Array | None,
    sign: float,
    weight: float,
    delta: Array,
    rest: Array,
    more_rest: Array,
) -> None: ...
