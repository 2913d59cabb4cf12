"""Sweeps of coordinate descent over the lines of a sparse or dense matrix, or over a Gram matrix, for one target.

They minimise  1/2 ||B z||^2 + 1/2 penalty sum_l d_l z_l^2 - z'(linear + B'rho0)  over z, one coordinate after the other, where
the columns of B are the centred, scaled lines of M:  B_l = s_l r o (M_l - a_l b)  (r: root of `weights`, o: entry by entry).
What is kept up to date besides z is tau = r o rho with rho = rho0 - B z, so that B_l'rho = s_l (M_l - a_l b)'tau.
`sq_norms` are ||B_l||^2. Coordinates are taken in order, or from last to first where `backward`. A sweep returns the decrease of
the objective times two: sum of delta_l^2 (||B_l||^2 + penalty).

`penalty_weights` are d, None stands for ones. With `lower` and `upper`, both or neither, z stays between them: every coordinate
is moved to its minimiser there. One whose bounds meet is not looked at; z must lie within the bounds to begin with.
"""

from fastridge._kernels.types cimport index, pointer, real


cdef inline double moved(double *z, double newton, double lower, double upper) noexcept nogil:
    """Move z by `newton`, no further than to a bound; return by how much"""
    cdef double before = z[0]
    z[0] = before + newton
    if z[0] <= lower:
        z[0] = lower
    elif z[0] >= upper:
        z[0] = upper
    else:
        return newton
    return z[0] - before


cdef inline void subtract(
    double *t, double step, const double *w, const real *x, double a, const double *b, Py_ssize_t width,
) noexcept nogil:
    """t -= step * w o (x - a b)"""
    cdef Py_ssize_t i
    if w is NULL and b is NULL:
        for i in range(width):
            t[i] -= step * x[i]
    elif w is NULL:
        for i in range(width):
            t[i] -= step * (x[i] - a * b[i])
    elif b is NULL:
        for i in range(width):
            t[i] -= step * w[i] * x[i]
    else:
        for i in range(width):
            t[i] -= step * w[i] * (x[i] - a * b[i])


cdef inline double product(const real *x, double a, const double *b, const double *t, Py_ssize_t width) noexcept nogil:
    """(x - a b)'t, in four lanes"""
    cdef double[4] dots
    cdef Py_ssize_t i = 0, v
    for v in range(4):
        dots[v] = 0
    if b is NULL:
        while i + 4 <= width:
            for v in range(4):
                dots[v] += x[i + v] * t[i + v]
            i += 4
        while i < width:
            dots[0] += x[i] * t[i]
            i += 1
    else:
        while i + 4 <= width:
            for v in range(4):
                dots[v] += (x[i + v] - a * b[i + v]) * t[i + v]
            i += 4
        while i < width:
            dots[0] += (x[i] - a * b[i]) * t[i]
            i += 1
    return (dots[0] + dots[1]) + (dots[2] + dots[3])


def sweep_sparse(
    const real[::1] data, const index[::1] indices, const index[::1] indptr, const double[::1] line_shift,
    const double[::1] line_scale, const double[::1] weights, const double[::1] h, double eta, const double[::1] sq_norms,
    const double[::1] linear, double penalty, double[::1] z, double[::1] u, double[::1] state, bint backward,
    const double[::1] lower=None, const double[::1] upper=None, const double[::1] penalty_weights=None,
):
    """One sweep over a sparse M, centred by scalars: a line costs two visits of its stored entries and nothing else.

    tau = u + kappa (w o b) with state = (kappa, b'tau); h_l = M_l'(w o b), eta = b'(w o b).
    """
    cdef const double *a = pointer(line_shift)
    cdef const double *s = pointer(line_scale)
    cdef const double *w = pointer(weights)
    cdef const double *low = pointer(lower)
    cdef const double *high = pointer(upper)
    cdef const double *d = pointer(penalty_weights)
    cdef bint centred = h is not None
    cdef double kappa = state[0], b_tau = state[1], dot, delta, newton, pull, curvature, step, a_l, s_l, decrease = 0
    cdef Py_ssize_t i, l, e, n_lines = z.shape[0]
    with nogil:
        for i in range(n_lines):
            l = n_lines - 1 - i if backward else i
            pull = penalty if d is NULL else penalty * d[l]
            curvature = sq_norms[l] + pull
            if curvature <= 0 or (low is not NULL and low[l] >= high[l]):
                continue
            a_l = 1.0 if a is NULL else a[l]
            s_l = 1.0 if s is NULL else s[l]
            dot = 0
            for e in range(indptr[l], indptr[l + 1]):
                dot += data[e] * u[indices[e]]
            if centred:
                dot += kappa * h[l] - a_l * b_tau
            newton = (linear[l] + s_l * dot - pull * z[l]) / curvature
            delta = newton
            if low is NULL:
                z[l] += delta
            else:
                delta = moved(&z[l], newton, low[l], high[l])
            if delta == 0:
                continue
            decrease += delta * (2 * newton - delta) * curvature
            step = delta * s_l
            if w is NULL:
                for e in range(indptr[l], indptr[l + 1]):
                    u[indices[e]] -= step * data[e]
            else:
                for e in range(indptr[l], indptr[l + 1]):
                    u[indices[e]] -= step * data[e] * w[indices[e]]
            if centred:
                kappa += step * a_l
                b_tau -= step * (h[l] - a_l * eta)
    state[0] = kappa
    state[1] = b_tau
    return decrease


def sweep_dense(
    const real[:, :] M, const double[::1] line_shift, const double[::1] cross_shift, const double[::1] line_scale,
    const double[::1] weights, const double[::1] sq_norms, const double[::1] linear, double penalty, double[::1] z,
    double[::1] tau, bint backward, const double[::1] lower=None, const double[::1] upper=None,
    const double[::1] penalty_weights=None,
):
    """One sweep over a dense M, centred entry by entry."""
    cdef const double *a = pointer(line_shift)
    cdef const double *b = pointer(cross_shift)
    cdef const double *s = pointer(line_scale)
    cdef const double *w = pointer(weights)
    cdef const real *x
    cdef double *t
    cdef const double *low = pointer(lower)
    cdef const double *high = pointer(upper)
    cdef const double *d = pointer(penalty_weights)
    cdef double delta, newton, pull, curvature, step, a_l, s_l, decrease = 0
    cdef Py_ssize_t line, l, n_lines = M.shape[0], width = M.shape[1]
    if width == 0:
        return 0.0
    t = &tau[0]
    with nogil:
        for line in range(n_lines):
            l = n_lines - 1 - line if backward else line
            pull = penalty if d is NULL else penalty * d[l]
            curvature = sq_norms[l] + pull
            if curvature <= 0 or (low is not NULL and low[l] >= high[l]):
                continue
            x = &M[l, 0]
            a_l = 0.0 if b is NULL else 1.0 if a is NULL else a[l]
            s_l = 1.0 if s is NULL else s[l]
            newton = s_l * product(x, a_l, b, t, width)
            newton = (linear[l] + newton - pull * z[l]) / curvature
            delta = newton
            if low is NULL:
                z[l] += delta
            else:
                delta = moved(&z[l], newton, low[l], high[l])
            if delta == 0:
                continue
            decrease += delta * (2 * newton - delta) * curvature
            step = delta * s_l
            subtract(t, step, w, x, a_l, b, width)
    return decrease


def sweep_gram(
    const double[:, ::1] gram, double penalty, double[::1] z, double[::1] gradient, bint backward,
    const double[::1] lower=None, const double[::1] upper=None, const double[::1] penalty_weights=None,
):
    """One sweep with gram = B'B (symmetric, both triangles); gradient = B'rho0 + linear - (gram + penalty D) z."""
    cdef const double *low = pointer(lower)
    cdef const double *high = pointer(upper)
    cdef const double *d = pointer(penalty_weights)
    cdef double delta, newton, pull, curvature, decrease = 0
    cdef double *g
    cdef Py_ssize_t i, l, p = z.shape[0]
    if p == 0:
        return 0.0
    g = &gradient[0]
    with nogil:
        for i in range(p):
            l = p - 1 - i if backward else i
            pull = penalty if d is NULL else penalty * d[l]
            curvature = gram[l, l] + pull
            if curvature <= 0 or (low is not NULL and low[l] >= high[l]):
                continue
            newton = gradient[l] / curvature
            delta = newton
            if low is NULL:
                z[l] += delta
            else:
                delta = moved(&z[l], newton, low[l], high[l])
            if delta == 0:
                continue
            decrease += delta * (2 * newton - delta) * curvature
            subtract(g, delta, NULL, &gram[l, 0], 0.0, NULL, p)
            gradient[l] -= delta * pull
    return decrease
