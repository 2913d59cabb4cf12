# Loops over the lines of a dense matrix M: the rows of C order, or the columns of F order. Compiled once for every SIMD level.
#
# Every line is contiguous; lines may lie apart. Centring is done entry by entry, (x - a_i b_j), in registers: next to the
# cost of fetching x it is free, and it keeps the digits that subtracting n mu mu' afterwards loses. `b` is zero where nothing
# is centred (loops without it were slower); `a` None: ones. Sums run in UNROLL lanes written out by hand, so that the compiler
# can use vectors without permission to reorder anything.

from fastridge._kernels.types cimport filled, offset, pointer, prefetch, real

cdef extern from *:
    """
    typedef double *__restrict fastridge_alone;
    """
    # What it points to is reached by no other argument: the compiler checks that by itself for two results, not for three.
    ctypedef double *alone "fastridge_alone"

cdef enum:
    CACHE_LINE = 64  # bytes
    AHEAD = 8  # lines
    SHORT = 2048  # bytes of a line below which the hardware does not foresee what comes next
    UNROLL = 8  # doubles: two AVX2 vectors, one AVX-512 vector, per line
    GROUP = 4  # lines taken together, so that v and q are loaded once for all of them


cdef inline double reduce(const double *s) noexcept nogil:
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))


cdef inline void dot_group(
    const real *x, Py_ssize_t ld, Py_ssize_t width, const double *a, const double *b, const double *v, double *t
) noexcept nogil:
    """t[:4] += (x[:4] - outer(a[:4], b)) @ v"""
    cdef const real *x0 = x
    cdef const real *x1 = x + ld
    cdef const real *x2 = x + 2 * ld
    cdef const real *x3 = x + 3 * ld
    cdef double a0 = 1, a1 = 1, a2 = 1, a3 = 1
    cdef double[UNROLL] s0
    cdef double[UNROLL] s1
    cdef double[UNROLL] s2
    cdef double[UNROLL] s3
    cdef Py_ssize_t j = 0, u
    if a is not NULL:
        a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
    for u in range(UNROLL):
        s0[u] = 0
        s1[u] = 0
        s2[u] = 0
        s3[u] = 0
    while j + UNROLL <= width:
        for u in range(UNROLL):
            s0[u] += (x0[j + u] - a0 * b[j + u]) * v[j + u]
            s1[u] += (x1[j + u] - a1 * b[j + u]) * v[j + u]
            s2[u] += (x2[j + u] - a2 * b[j + u]) * v[j + u]
            s3[u] += (x3[j + u] - a3 * b[j + u]) * v[j + u]
        j += UNROLL
    while j < width:
        s0[0] += (x0[j] - a0 * b[j]) * v[j]
        s1[0] += (x1[j] - a1 * b[j]) * v[j]
        s2[0] += (x2[j] - a2 * b[j]) * v[j]
        s3[0] += (x3[j] - a3 * b[j]) * v[j]
        j += 1
    t[0] += reduce(s0)
    t[1] += reduce(s1)
    t[2] += reduce(s2)
    t[3] += reduce(s3)


cdef inline double dot_one(
    const real *x, Py_ssize_t width, double a, const double *b, const double *v
) noexcept nogil:
    """(x - a * b) @ v"""
    cdef double[UNROLL] s
    cdef Py_ssize_t j = 0, u
    for u in range(UNROLL):
        s[u] = 0
    while j + UNROLL <= width:
        for u in range(UNROLL):
            s[u] += (x[j + u] - a * b[j + u]) * v[j + u]
        j += UNROLL
    while j < width:
        s[0] += (x[j] - a * b[j]) * v[j]
        j += 1
    return reduce(s)


cdef inline void add_group(
    const real *x, Py_ssize_t ld, Py_ssize_t width, const double *a, const double *b, const double *t, double *q
) noexcept nogil:
    """q += (x[:4] - outer(a[:4], b)).T @ t[:4]"""
    cdef const real *x0 = x
    cdef const real *x1 = x + ld
    cdef const real *x2 = x + 2 * ld
    cdef const real *x3 = x + 3 * ld
    cdef double a0 = 1, a1 = 1, a2 = 1, a3 = 1
    cdef double t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3]
    cdef Py_ssize_t j
    if a is not NULL:
        a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
    for j in range(width):
        q[j] += ((t0 * (x0[j] - a0 * b[j]) + t1 * (x1[j] - a1 * b[j]))
                 + (t2 * (x2[j] - a2 * b[j]) + t3 * (x3[j] - a3 * b[j])))


cdef inline void add_one(
    const real *x, Py_ssize_t width, double a, const double *b, double t, double *q
) noexcept nogil:
    """q += t * (x - a * b)"""
    cdef Py_ssize_t j
    for j in range(width):
        q[j] += t * (x[j] - a * b[j])


cdef inline void prefetch_line(const real *x, Py_ssize_t width) noexcept nogil:
    """Ask for a line that will be read soon, while the processor is busy with others; past the array's end that is harmless"""
    cdef Py_ssize_t j = 0, step = CACHE_LINE // <Py_ssize_t> sizeof(real)
    while j < width:
        prefetch(x + j)
        j += step


cdef inline void dot_lines(
    const real *x, Py_ssize_t ld, Py_ssize_t n_lines, Py_ssize_t width, const double *a, const double *b,
    const double *v, double *t, Py_ssize_t ahead,
) noexcept nogil:
    """t += (x - outer(a, b)) @ v; short lines that lie `ahead` entries on are asked for, none where 0"""
    cdef Py_ssize_t i = 0, u
    while i + GROUP <= n_lines:
        if ahead and width * <Py_ssize_t> sizeof(real) < SHORT:
            for u in range(GROUP):
                prefetch_line(x + (i + u) * ld + ahead, width)
        dot_group(x + i * ld, ld, width, offset(a, i), b, v, t + i)
        i += GROUP
    while i < n_lines:
        t[i] += dot_one(x + i * ld, width, 1.0 if a is NULL else a[i], b, v)
        i += 1


cdef inline void add_lines(
    const real *x, Py_ssize_t ld, Py_ssize_t n_lines, Py_ssize_t width, const double *a, const double *b,
    const double *t, double *q, Py_ssize_t ahead,
) noexcept nogil:
    """q += (x - outer(a, b)).T @ t; short lines that lie `ahead` entries on are asked for, none where 0"""
    cdef Py_ssize_t i = 0, u
    while i + GROUP <= n_lines:
        if ahead and width * <Py_ssize_t> sizeof(real) < SHORT:
            for u in range(GROUP):
                prefetch_line(x + (i + u) * ld + ahead, width)
        add_group(x + i * ld, ld, width, offset(a, i), b, t + i, q)
        i += GROUP
    while i < n_lines:
        add_one(x + i * ld, width, 1.0 if a is NULL else a[i], b, t[i], q)
        i += 1


def dot(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] a, const double[::1] b not None, const double[::1] v,
    double[::1] out,
):
    """out[lo:hi] = (M[lo:hi] - outer(a[lo:hi], b)) @ v"""
    cdef const double *a_p = pointer(a)
    cdef Py_ssize_t i, ld = M.strides[0] // <Py_ssize_t> sizeof(real)
    for i in range(lo, hi):
        out[i] = 0
    if lo >= hi or M.shape[1] == 0:
        return
    with nogil:
        dot_lines(&M[lo, 0], ld, hi - lo, M.shape[1], offset(a_p, lo), pointer(b), &v[0], &out[lo], AHEAD * ld)


def add(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] a, const double[::1] b not None, const double[::1] t,
    double[::1] out,
):
    """out[lo:hi] = (M[:, lo:hi] - outer(a, b[lo:hi])).T @ t"""
    cdef const double *b_p = pointer(b)
    cdef Py_ssize_t j, ld = M.strides[0] // <Py_ssize_t> sizeof(real)
    for j in range(lo, hi):
        out[j] = 0
    if lo >= hi or M.shape[0] == 0:
        return
    with nogil:
        add_lines(&M[0, lo], ld, M.shape[0], hi - lo, pointer(a), offset(b_p, lo), &t[0], &out[lo], AHEAD * ld)


def normal_along(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] a, const double[::1] b not None,
    const double[::1] weights, const double[::1] target, const double[::1] v, double[::1] out, Py_ssize_t n_together,
):
    """A = M[lo:hi] - outer(a[lo:hi], b);  out += A.T @ (w[lo:hi] * (A @ v) - target[lo:hi])

    One pass over M: `n_together` (1 to 64) lines are read for their dot products and added back while they are in cache.
    """
    cdef const double *a_p = pointer(a)
    cdef const double *b_p = pointer(b)
    cdef const double *w = pointer(weights)
    cdef const double *y = pointer(target)
    cdef const double *a_i
    cdef const real *x
    cdef double[64] t
    cdef Py_ssize_t i, u, size, width = M.shape[1], ld = M.strides[0] // <Py_ssize_t> sizeof(real)
    if lo >= hi or width == 0:
        return
    if n_together < 1 or n_together > 64:
        raise ValueError(f"n_together must be 1 to 64, got {n_together}")
    with nogil:
        i = lo
        while i < hi:
            size = n_together if i + n_together <= hi else hi - i
            x = &M[i, 0]
            a_i = offset(a_p, i)
            for u in range(size):
                t[u] = 0
            dot_lines(x, ld, size, width, a_i, b_p, &v[0], t, 0)
            if w is not NULL:
                for u in range(size):
                    t[u] *= w[i + u]
            if y is not NULL:
                for u in range(size):
                    t[u] -= y[i + u]
            add_lines(x, ld, size, width, a_i, b_p, t, &out[0], size * ld)
            i += size


def normal_across(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] a, const double[::1] b not None,
    const double[::1] weights, const double[::1] target, const double[::1] v, double[::1] out, double[::1] work,
):
    """A = M[:, lo:hi] - outer(a, b[lo:hi]);  out += A @ (w[lo:hi] * (A.T @ v) - target[lo:hi])

    One pass over M: the lines are cut into pieces as long as `work`, so that a piece of every line stays in cache.
    """
    cdef const double *a_p = pointer(a)
    cdef const double *b_p = pointer(b)
    cdef const double *b_j
    cdef const double *w = pointer(weights)
    cdef const double *y = pointer(target)
    cdef const real *x
    cdef double *t = &work[0]
    cdef Py_ssize_t j, u, size, piece = work.shape[0], n_lines = M.shape[0]
    cdef Py_ssize_t ld = M.strides[0] // <Py_ssize_t> sizeof(real)
    if lo >= hi or n_lines == 0:
        return
    with nogil:
        j = lo
        while j < hi:
            size = piece if j + piece <= hi else hi - j
            x = &M[0, j]
            b_j = offset(b_p, j)
            for u in range(size):
                t[u] = 0
            add_lines(x, ld, n_lines, size, a_p, b_j, &v[0], t, AHEAD * ld)
            if w is not NULL:
                for u in range(size):
                    t[u] *= w[j + u]
            if y is not NULL:
                for u in range(size):
                    t[u] -= y[j + u]
            dot_lines(x, ld, n_lines, size, a_p, b_j, t, &out[0], size)
            j += size


def fill(
    const real[:, :] M, Py_ssize_t i_lo, Py_ssize_t i_hi, Py_ssize_t j_lo, Py_ssize_t j_hi, const double[::1] a,
    const double[::1] b not None, const double[::1] line_scale, const double[::1] cross_scale, filled[:, :] out,
):
    """out[:] = line_scale[i_lo:i_hi, None] * (M - outer(a, b))[i_lo:i_hi, j_lo:j_hi] * cross_scale[j_lo:j_hi]"""
    cdef const double *a_p = pointer(a)
    cdef const double *b_p = pointer(b)
    cdef const double *s = pointer(line_scale)
    cdef const double *c = pointer(cross_scale)
    cdef const real *x
    cdef filled *y
    cdef double a_i, s_i
    cdef Py_ssize_t i, j, width = j_hi - j_lo
    if i_lo >= i_hi or width <= 0:
        return
    b_p = offset(b_p, j_lo)
    c = offset(c, j_lo)
    with nogil:
        for i in range(i_lo, i_hi):
            x = &M[i, j_lo]
            y = &out[i - i_lo, 0]
            a_i = 1.0 if a_p is NULL else a_p[i]
            s_i = 1.0 if s is NULL else s[i]
            if c is NULL:
                for j in range(width):
                    y[j] = <filled> (s_i * (x[j] - a_i * b_p[j]))
            else:
                for j in range(width):
                    y[j] = <filled> (s_i * (x[j] - a_i * b_p[j]) * c[j])


def fold_along(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t apart, const double[::1] a, const double[::1] b not None,
    const double[::1] line_scale, const double[::1] cross_scale, filled[:, :] out, double[::1] work,
):
    """out[r] = sum over i = lo + r, lo + r + apart, ... < hi of line_scale[i] * (M[i] - a[i] * b) * cross_scale

    work is (width,).
    """
    cdef const double *a_p = pointer(a)
    cdef const double *b_p = pointer(b)
    cdef const double *s = pointer(line_scale)
    cdef const double *c = pointer(cross_scale)
    cdef filled *y
    cdef double[GROUP] a_i
    cdef double[GROUP] t
    cdef Py_ssize_t i, j, r, u, width = M.shape[1], ld = M.strides[0] // <Py_ssize_t> sizeof(real)
    if width == 0:
        return
    with nogil:
        for r in range(out.shape[0]):
            for j in range(width):
                work[j] = 0
            i = lo + r
            while i < hi:
                if i + (GROUP - 1) * apart < hi:
                    for u in range(GROUP):
                        t[u] = 1.0 if s is NULL else s[i + u * apart]
                        a_i[u] = 1.0 if a_p is NULL else a_p[i + u * apart]
                    add_group(&M[i, 0], apart * ld, width, a_i, b_p, t, &work[0])
                    i += GROUP * apart
                else:
                    add_one(
                        &M[i, 0], width, 1.0 if a_p is NULL else a_p[i], b_p, 1.0 if s is NULL else s[i], &work[0]
                    )
                    i += apart
            y = &out[r, 0]
            for j in range(width):
                y[j] = <filled> (work[j] * (1.0 if c is NULL else c[j]))


def fold_across(
    const real[:, :] M, Py_ssize_t i_lo, Py_ssize_t i_hi, Py_ssize_t j_lo, Py_ssize_t j_hi, Py_ssize_t apart,
    const double[::1] a, const double[::1] b not None, const double[::1] line_scale, const double[::1] cross_scale,
    filled[:, :] out, double[::1] work,
):
    """out[i - i_lo, r] = sum over j = j_lo + r, j_lo + r + apart, ... < j_hi of (s (M - outer(a, b)) c)[i, j]

    s: line_scale of i, c: cross_scale of j; work is (out.shape[1],).
    """
    cdef const double *a_p = pointer(a)
    cdef const double *b_p = pointer(b)
    cdef const double *s = pointer(line_scale)
    cdef const double *c = pointer(cross_scale)
    cdef const real *x
    cdef filled *y
    cdef double a_i, s_i
    cdef Py_ssize_t i, j, r, size
    if j_lo >= j_hi or out.shape[1] == 0:
        return
    with nogil:
        for i in range(i_lo, i_hi):
            a_i = 1.0 if a_p is NULL else a_p[i]
            s_i = 1.0 if s is NULL else s[i]
            for r in range(out.shape[1]):
                work[r] = 0
            j = j_lo
            while j < j_hi:
                size = min(apart, j_hi - j)
                x = &M[i, j]
                for r in range(size):
                    work[r] += (x[r] - a_i * b_p[j + r]) * (1.0 if c is NULL else c[j + r])
                j += apart
            y = &out[i - i_lo, 0]
            for r in range(out.shape[1]):
                y[r] = <filled> (s_i * work[r])


def sq_lines(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] a, const double[::1] b not None,
    const double[::1] weights, double[::1] out,
):
    """out[lo:hi] = (M - outer(a, b))[lo:hi]**2 @ w"""
    cdef const double *a_p = pointer(a)
    cdef const double *w = pointer(weights)
    cdef const real *x
    cdef double a_i, d
    cdef double[UNROLL] s
    cdef Py_ssize_t i, j, u, width = M.shape[1]
    if width == 0:
        out[lo:hi] = 0
        return
    with nogil:
        for i in range(lo, hi):
            x = &M[i, 0]
            a_i = 1.0 if a_p is NULL else a_p[i]
            for u in range(UNROLL):
                s[u] = 0
            j = 0
            if w is NULL:
                while j + UNROLL <= width:
                    for u in range(UNROLL):
                        d = x[j + u] - a_i * b[j + u]
                        s[u] += d * d
                    j += UNROLL
            else:
                while j + UNROLL <= width:
                    for u in range(UNROLL):
                        d = x[j + u] - a_i * b[j + u]
                        s[u] += w[j + u] * (d * d)
                    j += UNROLL
            while j < width:
                d = x[j] - a_i * b[j]
                s[0] += (1.0 if w is NULL else w[j]) * (d * d)
                j += 1
            out[i] = reduce(s)


cdef inline void sums_group(
    const real *x0, const real *x1, const real *x2, const real *x3, Py_ssize_t width, const double *s, const double *t,
    const double *c, alone total, alone sq_total, alone mixed,
) noexcept nogil:
    """total += s @ d, sq_total += s @ d**2, mixed += t @ d for d = (x0, x1, x2, x3) - c"""
    cdef double s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3]
    cdef double t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3]
    cdef double d0, d1, d2, d3
    cdef Py_ssize_t j
    for j in range(width):
        d0 = x0[j] - c[j]
        d1 = x1[j] - c[j]
        d2 = x2[j] - c[j]
        d3 = x3[j] - c[j]
        total[j] += (s0 * d0 + s1 * d1) + (s2 * d2 + s3 * d3)
        sq_total[j] += (s0 * (d0 * d0) + s1 * (d1 * d1)) + (s2 * (d2 * d2) + s3 * (d3 * d3))
        mixed[j] += (t0 * d0 + t1 * d1) + (t2 * d2 + t3 * d3)


def sums_across(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] weights, const double[::1] target,
    const double[::1] centre, double[:, ::1] out,
):
    """d = M[lo:hi] - c;  out += w[lo:hi] @ d, w[lo:hi] @ d**2, t[lo:hi] @ d (unless t is None);  out is (3, width)"""
    cdef Py_ssize_t i, j, size, u, width = M.shape[1], ld = M.strides[0] // <Py_ssize_t> sizeof(real)
    cdef const double *w = pointer(weights)
    cdef const double *y = pointer(target)
    cdef const real *x0
    cdef const real *x1
    cdef const real *x2
    cdef const real *x3
    cdef double[GROUP] s
    cdef double[GROUP] t
    if lo >= hi or width == 0:
        return
    with nogil:
        i = lo
        while i < hi:
            size = min(<Py_ssize_t> GROUP, hi - i)
            for u in range(GROUP):
                s[u] = 0.0 if u >= size else 1.0 if w is NULL else w[i + u]
                t[u] = 0.0 if u >= size or y is NULL else y[i + u]
            x0 = &M[i, 0]
            # Lines past the end have the weight zero and stand for the last one.
            x1 = x0 + min(<Py_ssize_t> 1, size - 1) * ld
            x2 = x0 + min(<Py_ssize_t> 2, size - 1) * ld
            x3 = x0 + (size - 1) * ld
            if width * <Py_ssize_t> sizeof(real) < SHORT:
                for u in range(GROUP):
                    prefetch_line(x0 + (AHEAD + u) * ld, width)
            sums_group(x0, x1, x2, x3, width, s, t, &centre[0], &out[0, 0], &out[1, 0], &out[2, 0])
            i += GROUP


def sums_along(
    const real[:, :] M, Py_ssize_t lo, Py_ssize_t hi, const double[::1] weights, const double[::1] target,
    const double[::1] centre, double[:, ::1] out,
):
    """d = M[lo:hi] - c[lo:hi, None];  out[:, lo:hi] = d @ w, d**2 @ w, d @ t (unless t is None)"""
    cdef Py_ssize_t i, j, u, width = M.shape[1]
    cdef const double *w = pointer(weights)
    cdef const double *y = pointer(target)
    cdef const real *x
    cdef double c, d, w_j
    cdef double[UNROLL] s
    cdef double[UNROLL] q
    cdef double[UNROLL] m
    if width == 0:
        return
    with nogil:
        for i in range(lo, hi):
            x = &M[i, 0]
            c = centre[i]
            for u in range(UNROLL):
                s[u] = 0
                q[u] = 0
                m[u] = 0
            j = 0
            if y is not NULL:
                while j + UNROLL <= width:
                    for u in range(UNROLL):
                        d = x[j + u] - c
                        w_j = 1.0 if w is NULL else w[j + u]
                        s[u] += w_j * d
                        q[u] += w_j * (d * d)
                        m[u] += y[j + u] * d
                    j += UNROLL
            elif w is NULL:
                while j + UNROLL <= width:
                    for u in range(UNROLL):
                        d = x[j + u] - c
                        s[u] += d
                        q[u] += d * d
                    j += UNROLL
            else:
                while j + UNROLL <= width:
                    for u in range(UNROLL):
                        d = x[j + u] - c
                        s[u] += w[j + u] * d
                        q[u] += w[j + u] * (d * d)
                    j += UNROLL
            while j < width:
                d = x[j] - c
                w_j = 1.0 if w is NULL else w[j]
                s[0] += w_j * d
                q[0] += w_j * (d * d)
                if y is not NULL:
                    m[0] += y[j] * d
                j += 1
            out[0, i] = reduce(s)
            out[1, i] = reduce(q)
            if y is not NULL:
                out[2, i] = reduce(m)
