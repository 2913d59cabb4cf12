"""BLAS where lanes need it: scipy's Python wrappers hold the GIL, so that lanes that call them wait for one another."""

cimport scipy.linalg.cython_blas as cython_blas
from fastridge._kernels.types cimport filled


def add_gram(const filled[:, :] rows, filled[::1, :] gram):
    """Add rows.T @ rows, (c, c), to the lower triangle of `gram`; `rows` (m, c) is C- or F-contiguous"""
    cdef int m = rows.shape[0], c = rows.shape[1], ld
    cdef filled one = 1
    cdef char lower = b"L"
    cdef char trans
    cdef filled *x
    if rows.shape[0] != m or rows.shape[1] != c or gram.shape[0] != c or gram.shape[1] != c:
        raise ValueError(f"rows and gram disagree, or are too large for BLAS: {rows.shape[0]} x {rows.shape[1]}, {gram.shape[0]}")
    if m == 0 or c == 0:
        return
    x = <filled *> &rows[0, 0]
    if rows.strides[1] == <Py_ssize_t> sizeof(filled):
        trans = b"N"  # BLAS sees the transposed array
        ld = <int> (rows.strides[0] // <Py_ssize_t> sizeof(filled)) if m > 1 else c
    else:
        trans = b"T"
        ld = <int> (rows.strides[1] // <Py_ssize_t> sizeof(filled)) if c > 1 else m
    with nogil:
        if filled is float:
            cython_blas.ssyrk(&lower, &trans, &c, &m, &one, x, &ld, &one, &gram[0, 0], &c)
        else:
            cython_blas.dsyrk(&lower, &trans, &c, &m, &one, x, &ld, &one, &gram[0, 0], &c)
