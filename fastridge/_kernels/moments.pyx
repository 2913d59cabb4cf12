"""Weighted sums about a centre, along and across the lines of a dense or sparse matrix.

A result holds (sum of w (x - c), sum of w (x - c)^2, sum of w) over the *stored* entries; what the zeros of a sparse matrix
add follows from the third. Sums about a value near the mean do not cancel, which is why the centre is an argument. These
functions must not be compiled with reassociation: it may pull the centre out of the sum.
"""

from fastridge._kernels.types cimport index, pointer, real


def dense_across(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] weights, const double[::1] centre,
    double[:, ::1] out,
):
    """d = M[lo:hi] - c;  out[0] += w[lo:hi] @ d;  out[1] += w[lo:hi] @ d**2;  out[2] += sum(w[lo:hi])

    out is (3, width); the lines of M are contiguous (stride of one entry).
    """
    cdef Py_ssize_t i, j, width = M.shape[1]
    cdef const double *w = pointer(weights)
    cdef const double *c = pointer(centre)
    cdef const real *x0
    cdef const real *x1
    cdef double *total = &out[0, 0]
    cdef double *sq_total = &out[1, 0]
    cdef double w0, w1, d0, d1, w_sum = 0
    if lo >= hi or width == 0:
        return
    with nogil:
        i = lo
        while i < hi:
            x0 = &M[i, 0]
            w0 = 1.0 if w is NULL else w[i]
            x1 = x0
            w1 = 0.0
            if i + 1 < hi:
                x1 = &M[i + 1, 0]
                w1 = 1.0 if w is NULL else w[i + 1]
            w_sum += w0 + w1
            if i + 1 < hi:
                for j in range(width):
                    d0 = x0[j] - c[j]
                    d1 = x1[j] - c[j]
                    total[j] += w0 * d0 + w1 * d1
                    sq_total[j] += w0 * (d0 * d0) + w1 * (d1 * d1)
            else:
                for j in range(width):
                    d0 = x0[j] - c[j]
                    total[j] += w0 * d0
                    sq_total[j] += w0 * (d0 * d0)
            i += 2
        for j in range(width):
            out[2, j] += w_sum


def dense_along(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] weights, const double[::1] centre,
    double[:, ::1] out,
):
    """d = M[lo:hi] - c[lo:hi, None];  out[:, lo:hi] = d @ w, d**2 @ w, sum(w)"""
    cdef Py_ssize_t i, j, u, width = M.shape[1]
    cdef const double *w = pointer(weights)
    cdef const real *x
    cdef double c, d, w_j, w_sum
    cdef double[4] s
    cdef double[4] q
    if width == 0:
        return
    with nogil:
        for i in range(lo, hi):
            x = &M[i, 0]
            c = centre[i]
            w_sum = 0
            for u in range(4):
                s[u] = 0
                q[u] = 0
            j = 0
            while j + 4 <= width:
                for u in range(4):
                    d = x[j + u] - c
                    w_j = 1.0 if w is NULL else w[j + u]
                    s[u] += w_j * d
                    q[u] += w_j * (d * d)
                    w_sum += w_j
                j += 4
            while j < width:
                d = x[j] - c
                w_j = 1.0 if w is NULL else w[j]
                s[0] += w_j * d
                q[0] += w_j * (d * d)
                w_sum += w_j
                j += 1
            out[0, i] = (s[0] + s[1]) + (s[2] + s[3])
            out[1, i] = (q[0] + q[1]) + (q[2] + q[3])
            out[2, i] = w_sum


def sparse_across(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, Py_ssize_t lo, Py_ssize_t hi,
    const double[::1] weights, const double[::1] centre, double[:, ::1] out,
):
    """For the entries stored in lines [lo, hi): d = x - c[j];  out[j] += w[i] d, w[i] d^2, w[i].  out is (width, 3)"""
    cdef Py_ssize_t i, e
    cdef const double *w = pointer(weights)
    cdef const double *c = pointer(centre)
    cdef double d, w_i
    cdef double *row
    with nogil:
        for i in range(lo, hi):
            w_i = 1.0 if w is NULL else w[i]
            for e in range(indptr[i], indptr[i + 1]):
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
