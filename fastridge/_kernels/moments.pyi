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
