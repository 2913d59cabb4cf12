"""Weighted sums about a centre, along and across the lines of a sparse matrix.

A result holds (sum of w (x - c), sum of w (x - c)^2, sum of w) over the *stored* entries; what the zeros add follows from the
third. Sums about a value near the mean do not cancel, which is why the centre is an argument.
"""

from fastridge._kernels.types cimport index, pointer, prefetch, real

cdef enum:
    AHEAD = 16  # entries


def sparse_across(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, Py_ssize_t lo, Py_ssize_t hi,
    const double[::1] weights, const double[::1] centre, double[:, ::1] out,
):
    """For the entries stored in lines [lo, hi): d = x - c[j];  out[j] += w[i] d, w[i] d^2, w[i].  out is (width, 3)"""
    cdef Py_ssize_t i, e, n_stored = indptr[hi]
    cdef const double *w = pointer(weights)
    cdef const double *c = pointer(centre)
    cdef double d, w_i
    cdef double *row
    with nogil:
        for i in range(lo, hi):
            w_i = 1.0 if w is NULL else w[i]
            for e in range(indptr[i], indptr[i + 1]):
                if e + AHEAD < n_stored:
                    prefetch(&out[indices[e + AHEAD], 0])
                d = data[e] - c[indices[e]]
                row = &out[indices[e], 0]
                row[0] += w_i * d
                row[1] += w_i * (d * d)
                row[2] += w_i


def sparse_along(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, Py_ssize_t lo, Py_ssize_t hi,
    const double[::1] weights, const double[::1] centre, double[:, ::1] out,
):
    """For the entries stored in line i of [lo, hi): d = x - c[i];  out[i] = sum of w[j] d, w[j] d^2, w[j].  out is (lines, 3)"""
    cdef Py_ssize_t i, e
    cdef const double *w = pointer(weights)
    cdef double d, w_j, total, sq_total, w_sum
    with nogil:
        for i in range(lo, hi):
            total = 0
            sq_total = 0
            w_sum = 0
            for e in range(indptr[i], indptr[i + 1]):
                d = data[e] - centre[i]
                w_j = 1.0 if w is NULL else w[indices[e]]
                total += w_j * d
                sq_total += w_j * (d * d)
                w_sum += w_j
            out[i, 0] = total
            out[i, 1] = sq_total
            out[i, 2] = w_sum
