"""Products with the lines of a sparse matrix M: the rows of CSR, or the columns of CSC.

Every function works on lines [lo, hi), adds into arrays the caller owns and allocates nothing. Centring is the rank-one term
of M - a b', with `line_shift` a (None: ones) over the lines and the scalars `b_v` = b'V of the product at hand; scaling by
`weights` (None: ones) is per line. Vectors are (length, k) for k targets, C-contiguous.
"""

from fastridge._kernels.types cimport index, pointer, prefetch, real

cdef enum:
    AHEAD = 32  # entries
    GROUP = 4  # targets: their part of v and of the sums fill a cache line


cdef inline double line_dot(
    const real *data, const index *indices, Py_ssize_t size, const double *v, Py_ssize_t stride
) noexcept nogil:
    """data @ v[indices * stride]: four sums hide the latency of the gathers."""
    cdef double s0 = 0, s1 = 0, s2 = 0, s3 = 0
    cdef Py_ssize_t e = 0
    while e + 4 <= size:
        s0 += data[e] * v[indices[e] * stride]
        s1 += data[e + 1] * v[indices[e + 1] * stride]
        s2 += data[e + 2] * v[indices[e + 2] * stride]
        s3 += data[e + 3] * v[indices[e + 3] * stride]
        e += 4
    while e < size:
        s0 += data[e] * v[indices[e] * stride]
        e += 1
    return (s0 + s1) + (s2 + s3)


cdef inline void line_add(
    const real *data, const index *indices, Py_ssize_t size, double t, double *out, Py_ssize_t stride
) noexcept nogil:
    """out[indices * stride] += t * data"""
    cdef Py_ssize_t e
    for e in range(size):
        out[indices[e] * stride] += t * data[e]


cdef inline void group_dot(
    const real *data, const index *indices, Py_ssize_t size, Py_ssize_t n_left, const double *v, Py_ssize_t stride, double *t
) noexcept nogil:
    """t = data @ v[indices, :GROUP], v (.., stride)

    The cache lines of entries AHEAD, of `n_left` >= size, are asked for: without, too few are on their way at a time.
    """
    cdef Py_ssize_t e
    cdef const double *row
    cdef double x, t0 = 0, t1 = 0, t2 = 0, t3 = 0
    for e in range(size):
        if e + AHEAD < n_left:
            prefetch(v + stride * <Py_ssize_t> indices[e + AHEAD])
        x = data[e]
        row = v + stride * <Py_ssize_t> indices[e]
        t0 += x * row[0]
        t1 += x * row[1]
        t2 += x * row[2]
        t3 += x * row[3]
    t[0] = t0
    t[1] = t1
    t[2] = t2
    t[3] = t3


cdef inline void group_add(
    const real *data, const index *indices, Py_ssize_t size, Py_ssize_t n_left, const double *t, double *out,
    Py_ssize_t stride
) noexcept nogil:
    """out[indices, :GROUP] += outer(data, t), out (.., stride); cache lines are asked for as in `group_dot`, if n_left > 0"""
    cdef Py_ssize_t e
    cdef double *row
    cdef double x, t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3]
    for e in range(size):
        if e + AHEAD < n_left:
            prefetch(out + stride * <Py_ssize_t> indices[e + AHEAD])
        x = data[e]
        row = out + stride * <Py_ssize_t> indices[e]
        row[0] += x * t0
        row[1] += x * t1
        row[2] += x * t2
        row[3] += x * t3


def dot(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, Py_ssize_t lo, Py_ssize_t hi,
    const double[::1] line_shift, const double[::1] b_v, const double[:, ::1] v, double[:, :] out,
):
    """out[lo:hi] = M[lo:hi] @ v - outer(a[lo:hi], b_v), v (width, 1); or (width, 4) for the one to four targets of `out`"""
    cdef Py_ssize_t i, l, start, size, n_stored = indptr[hi], k = out.shape[1]
    cdef const double *a = pointer(line_shift)
    cdef const real *x = NULL
    cdef const index *ix = NULL
    cdef double group[GROUP]
    if indices.shape[0]:
        x = &data[0]
        ix = &indices[0]
    with nogil:
        for i in range(lo, hi):
            start = indptr[i]
            size = indptr[i + 1] - start
            for l in range(GROUP):
                group[l] = 0
            if size and v.shape[1] == 1:
                group[0] = line_dot(x + start, ix + start, size, &v[0, 0], 1)
            elif size:
                group_dot(x + start, ix + start, size, n_stored - start, &v[0, 0], GROUP, group)
            for l in range(k):
                out[i, l] = group[l] - b_v[l] * (1.0 if a is NULL else a[i])


def add(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, Py_ssize_t lo, Py_ssize_t hi,
    const double[::1] line_shift, const double[:, :] t, double[:, ::1] out, double[::1] a_t,
):
    """out += M[lo:hi].T @ t[lo:hi];  a_t += a[lo:hi] @ t[lo:hi]: out (width, 1), or (width, 4) for one to four targets"""
    cdef Py_ssize_t i, l, start, size, n_stored = indptr[hi], k = t.shape[1]
    cdef const double *a = pointer(line_shift)
    cdef const real *x = NULL
    cdef const index *ix = NULL
    cdef double group[GROUP]
    if indices.shape[0]:
        x = &data[0]
        ix = &indices[0]
    for l in range(GROUP):
        group[l] = 0
    with nogil:
        for i in range(lo, hi):
            start = indptr[i]
            size = indptr[i + 1] - start
            for l in range(k):
                group[l] = t[i, l]
                a_t[l] += group[l] * (1.0 if a is NULL else a[i])
            if size and out.shape[1] == 1:
                line_add(x + start, ix + start, size, group[0], &out[0, 0], 1)
            elif size:
                group_add(x + start, ix + start, size, n_stored - start, group, &out[0, 0], GROUP)


def normal(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, Py_ssize_t lo, Py_ssize_t hi,
    const double[::1] line_shift, const double[::1] weights, const double[:, :] target, const double[::1] b_v,
    const double[:, :] v, double[:, ::1] both, double[::1] a_t,
):
    """T = w[lo:hi] * (M[lo:hi] @ v - outer(a[lo:hi], b_v)) - target[lo:hi];  both = [v, M[lo:hi].T @ T];  a_t += a[lo:hi] @ T

    One pass over M: a line is read for its dot product and added back while it is in cache. An entry of v and the sum it
    belongs to lie side by side in `both`, so that they share a cache line: (width, 2) for one target; (width, 8) for two to
    four, the columns of v and of sums filled up with zeros to four each. target None: zero.
    """
    cdef Py_ssize_t i, j, l, start, size, n_stored = indptr[hi], k = v.shape[1], half = both.shape[1] // 2
    cdef const double *a = pointer(line_shift)
    cdef const double *w = pointer(weights)
    cdef const real *x = NULL
    cdef const index *ix = NULL
    cdef double *v_out = NULL
    cdef double a_i, w_i, t
    cdef double group[GROUP]
    cdef bint aimed = target is not None
    if indices.shape[0]:
        x = &data[0]
        ix = &indices[0]
        v_out = &both[0, 0]
    with nogil:
        for j in range(v.shape[0]):
            for l in range(half):
                both[j, l] = v[j, l] if l < k else 0.0
                both[j, half + l] = 0
        for i in range(lo, hi):
            start = indptr[i]
            size = indptr[i + 1] - start
            a_i = 1.0 if a is NULL else a[i]
            w_i = 1.0 if w is NULL else w[i]
            if k == 1:
                t = 0.0 if size == 0 else line_dot(x + start, ix + start, size, v_out, 2)
                t = w_i * (t - a_i * b_v[0])
                if aimed:
                    t -= target[i, 0]
                a_t[0] += a_i * t
                if size:
                    line_add(x + start, ix + start, size, t, v_out + 1, 2)
                continue
            group_dot(x + start, ix + start, size, n_stored - start, v_out, 2 * GROUP, group)
            for l in range(k):
                group[l] = w_i * (group[l] - a_i * b_v[l])
                if aimed:
                    group[l] -= target[i, l]
                a_t[l] += a_i * group[l]
            group_add(x + start, ix + start, size, 0, group, v_out + GROUP, 2 * GROUP)


def gram(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, Py_ssize_t lo, Py_ssize_t hi,
    const double[::1] weights, double[:, ::1] out,
):
    """out += np.triu(M[lo:hi].T @ (w[lo:hi, None] * M[lo:hi]))"""
    cdef Py_ssize_t i, e, f, start, end, j, j_other
    cdef const double *w = pointer(weights)
    cdef double t
    with nogil:
        for i in range(lo, hi):
            start = indptr[i]
            end = indptr[i + 1]
            for e in range(start, end):
                t = data[e] * (1.0 if w is NULL else w[i])
                j = indices[e]
                for f in range(e, end):
                    j_other = indices[f]
                    if j <= j_other:
                        out[j, j_other] += t * data[f]
                    else:
                        out[j_other, j] += t * data[f]


def check_lines(const index[::1] indices, const index[::1] indptr, Py_ssize_t width, index[::1] seen):
    """Return 0 for well-formed lines, 1 where an index is repeated, 2 where one is out of range, 3 for a malformed indptr

    indptr must rise from 0 to at most indices.shape[0]. Indices need not ascend; `seen`, (width,), is overwritten where
    they do not.
    """
    cdef Py_ssize_t i, e, j, last, start, end, n_lines = indptr.shape[0] - 1
    cdef int flaw = 0
    cdef bint marked = False, repeated = False
    if n_lines < 0 or indptr[0] != 0 or indptr[n_lines] > indices.shape[0]:
        return 3
    with nogil:
        for i in range(n_lines):
            start = indptr[i]
            end = indptr[i + 1]
            if end < start or end > indptr[n_lines]:
                flaw = 3
                break
            last = -1
            for e in range(start, end):
                j = indices[e]
                if j < 0 or j >= width:
                    flaw = 2
                    break
                last = width if j <= last else j
            if flaw:
                break
            if last < width:
                continue
            # Not ascending: mark the indices of the line to find one that comes twice.
            if not marked:
                for j in range(width):
                    seen[j] = -1
                marked = True
            for e in range(start, end):
                j = indices[e]
                if seen[j] == i:
                    repeated = True
                seen[j] = i
    return flaw if flaw else <int> repeated
