from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def dot(M: Array, lo: int, hi: int, a: Array | None, b: Array, v: Array, out: Array) -> None: ...
def add(M: Array, lo: int, hi: int, a: Array | None, b: Array, t: Array, out: Array) -> None: ...
def normal_along(
    M: Array,
    lo: int,
    hi: int,
    a: Array | None,
    b: Array,
    weights: Array | None,
    target: Array | None,
    v: Array,
    out: Array,
    n_together: int,
) -> None: ...
def normal_across(
    M: Array,
    lo: int,
    hi: int,
    a: Array | None,
    b: Array,
    weights: Array | None,
    target: Array | None,
    v: Array,
    out: Array,
    work: Array,
) -> None: ...
def fill(
    M: Array,
    i_lo: int,
    i_hi: int,
    j_lo: int,
    j_hi: int,
    a: Array | None,
    b: Array,
    line_scale: Array | None,
    cross_scale: Array | None,
    out: Array,
) -> None: ...
def fold_along(
    M: Array,
    lo: int,
    hi: int,
    apart: int,
    a: Array | None,
    b: Array,
    line_scale: Array | None,
    cross_scale: Array | None,
    out: Array,
    work: Array,
) -> None: ...
def fold_across(
    M: Array,
    i_lo: int,
    i_hi: int,
    j_lo: int,
    j_hi: int,
    apart: int,
    a: Array | None,
    b: Array,
    line_scale: Array | None,
    cross_scale: Array | None,
    out: Array,
    work: Array,
) -> None: ...
def sums_across(M: Array, lo: int, hi: int, weights: Array | None, target: Array | None, centre: Array, out: Array) -> None: ...
def sums_along(M: Array, lo: int, hi: int, weights: Array | None, target: Array | None, centre: Array, out: Array) -> None: ...
def sq_lines(M: Array, lo: int, hi: int, a: Array | None, b: Array, weights: Array | None, out: Array) -> None: ...
