"""Weighted sums about a centre, along and across the lines of a sparse matrix; and sums of sums that do not round.

A result holds (sum of w (x - c), sum of w (x - c)^2, sum of w) over the *stored* entries; what the zeros add follows from the
third. Sums about a value near the mean do not cancel, which is why the centre is an argument.
"""

from fastridge._kernels.types cimport index, pointer, prefetch, real

cdef enum:
    AHEAD = 16  # entries
    TILE = 16  # columns whose triangles of high and low parts stay in cache together


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


cdef inline void add_exactly(double *high, double *low, double more) noexcept nogil:
    """high + low += more, without rounding; |low| stays within half a unit in the last place of high (Knuth's two-sum)"""
    cdef double total = high[0] + more
    cdef double part = total - high[0]
    low[0] += (high[0] - (total - part)) + (more - part)
    high[0] = total + low[0]
    low[0] -= high[0] - total


def merge(
    double[::1, :] gram, double[::1] low_diagonal, const double[::1, :] more, const double[::1] more_low_diagonal,
    double sign, double weight, const double[::1] delta, double[:, ::1] rest, const double[:, ::1] more_rest,
):
    """gram += sign * more + weight * outer(delta, delta);  rest += more_rest

    Both sums are kept as pairs (high, low). Of `gram`, (p, p), the lower triangle is high, the upper one low, transposed, but for
    the diagonal, whose low parts are `low_diagonal`. `more` is kept alike, or has a lower triangle alone where
    `more_low_diagonal` is None. `rest` is (2, m): high, low. One call: an interrupt finds all of it done, or nothing.
    """
    cdef Py_ssize_t i, j, i_tile, j_tile, p = gram.shape[0], n_tiles = (p + TILE - 1) // TILE
    cdef double *low
    cdef bint paired = more_low_diagonal is not None
    if (
        gram.shape[1] != p or low_diagonal.shape[0] != p or more.shape[0] != p or more.shape[1] != p or delta.shape[0] != p
        or (paired and more_low_diagonal.shape[0] != p)
        or rest.shape[0] != 2 or more_rest.shape[0] != 2 or rest.shape[1] != more_rest.shape[1]
    ):
        raise ValueError("the shapes of the sums disagree")
    with nogil:
        for j_tile in range(n_tiles):
            for i_tile in range(j_tile, n_tiles):
                for i in range(i_tile * TILE, min(p, (i_tile + 1) * TILE)):
                    for j in range(j_tile * TILE, min((j_tile + 1) * TILE, i + 1)):
                        low = &low_diagonal[i] if i == j else &gram[j, i]
                        add_exactly(&gram[i, j], low, sign * more[i, j])
                        add_exactly(&gram[i, j], low, weight * (delta[i] * delta[j]))
                        if paired:
                            add_exactly(&gram[i, j], low, sign * (more_low_diagonal[i] if i == j else more[j, i]))
        for i in range(rest.shape[1]):
            add_exactly(&rest[0, i], &rest[1, i], more_rest[0, i])
            add_exactly(&rest[0, i], &rest[1, i], more_rest[1, i])
