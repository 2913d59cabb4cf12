"""Vector updates of conjugate gradients for k targets at once: (length, k) arrays, one scalar for each target."""

from libc.math cimport fma


def dots(const double[:, ::1] x, const double[:, ::1] y, double[::1] out):
    """out = (x * y).sum(axis=0)"""
    cdef Py_ssize_t i, l, n = x.shape[0], k = x.shape[1]
    cdef const double *xs
    cdef const double *ys
    cdef double s0 = 0, s1 = 0, s2 = 0, s3 = 0
    for l in range(k):
        out[l] = 0
    if n == 0 or k == 0:
        return
    xs = &x[0, 0]
    ys = &y[0, 0]
    with nogil:
        if k == 1:
            i = 0
            while i + 4 <= n:
                s0 += xs[i] * ys[i]
                s1 += xs[i + 1] * ys[i + 1]
                s2 += xs[i + 2] * ys[i + 2]
                s3 += xs[i + 3] * ys[i + 3]
                i += 4
            while i < n:
                s0 += xs[i] * ys[i]
                i += 1
            out[0] = (s0 + s1) + (s2 + s3)
        else:
            for i in range(n):
                for l in range(k):
                    out[l] += xs[i * k + l] * ys[i * k + l]


def weighted_sums(const double[::1] b, const double[:, ::1] x, double[::1] out):
    """out = b @ x"""
    cdef Py_ssize_t i, l, n = x.shape[0], k = x.shape[1]
    cdef double s0 = 0, s1 = 0, s2 = 0, s3 = 0
    for l in range(k):
        out[l] = 0
    with nogil:
        if k == 1:
            i = 0
            while i + 4 <= n:
                s0 += b[i] * x[i, 0]
                s1 += b[i + 1] * x[i + 1, 0]
                s2 += b[i + 2] * x[i + 2, 0]
                s3 += b[i + 3] * x[i + 3, 0]
                i += 4
            while i < n:
                s0 += b[i] * x[i, 0]
                i += 1
            out[0] = (s0 + s1) + (s2 + s3)
        else:
            for i in range(n):
                for l in range(k):
                    out[l] += b[i] * x[i, l]


def accurate_sums(const double[::1] b, const double[:, ::1] x, double[:, ::1] out):
    """out[0] + out[1] = b @ x, as if computed with twice the digits: what rounding takes from products and sums is summed too

    Ogita, Rump & Oishi (2005), Accurate sum and dot product, DOI 10.1137/030601818 (Dot2).
    """
    cdef Py_ssize_t i, l, n = x.shape[0], k = x.shape[1]
    cdef double product, total, part
    for l in range(k):
        out[0, l] = 0
        out[1, l] = 0
    with nogil:
        for i in range(n):
            for l in range(k):
                product = b[i] * x[i, l]
                total = out[0, l] + product
                part = total - out[0, l]
                out[1, l] += ((out[0, l] - (total - part)) + (product - part)) + fma(b[i], x[i, l], -product)
                out[0, l] = total


def step(
    double[:, ::1] x, double[:, ::1] r, const double[:, ::1] p, const double[:, ::1] q, const double[::1] gamma,
):
    """x += gamma * p;  r -= gamma * q"""
    cdef Py_ssize_t i, l, n = x.shape[0], k = x.shape[1]
    with nogil:
        for i in range(n):
            for l in range(k):
                x[i, l] += gamma[l] * p[i, l]
                r[i, l] -= gamma[l] * q[i, l]


def direction(double[:, ::1] p, const double[:, ::1] z, const double[::1] delta):
    """p = z + delta * p"""
    cdef Py_ssize_t i, l, n = p.shape[0], k = p.shape[1]
    with nogil:
        for i in range(n):
            for l in range(k):
                p[i, l] = z[i, l] + delta[l] * p[i, l]


def project(double[:, ::1] x, const double[::1] u, double[::1] along):
    """along = u @ x;  x -= outer(u, along)"""
    cdef Py_ssize_t i, l, n = x.shape[0], k = x.shape[1]
    weighted_sums(u, x, along)
    with nogil:
        for i in range(n):
            for l in range(k):
                x[i, l] -= u[i] * along[l]


def add(double[:, ::1] out, const double[:, ::1] x, const double[::1] scale):
    """out += scale * x"""
    cdef Py_ssize_t i, l, n = x.shape[0], k = x.shape[1]
    with nogil:
        for i in range(n):
            for l in range(k):
                out[i, l] += scale[l] * x[i, l]


def wide_sizes(
    const double[:, ::1] b, const double[:, ::1] r, const double[:, ::1] x, const double[::1] penalty, double[::1] out,
):
    """out = ||f||^2 + penalty x'f with f = b - r - penalty x, A w of w = A'x: ||w||_H^2, or 0 where rounding leaves none of f"""
    cdef Py_ssize_t i, l, n = x.shape[0], k = x.shape[1]
    cdef double f
    for l in range(k):
        out[l] = 0
    with nogil:
        for i in range(n):
            for l in range(k):
                f = b[i, l] - r[i, l] - penalty[l] * x[i, l]
                out[l] += f * (f + penalty[l] * x[i, l])
    for l in range(k):
        out[l] = max(out[l], 0.0)
