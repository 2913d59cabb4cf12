"""Types that the kernels share: storage in float or double, indices as scipy gives them; sums are always double."""

from libc.stdint cimport int32_t, int64_t

ctypedef fused real:
    float
    double

ctypedef fused filled:
    float
    double

ctypedef fused index:
    int32_t
    int64_t

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define FASTRIDGE_PREFETCH(address) __builtin_prefetch(address, 0, 2)
    #else
    #define FASTRIDGE_PREFETCH(address) ((void) (address))
    #endif
    """
    void prefetch "FASTRIDGE_PREFETCH" (const void *address) noexcept nogil


cdef inline const double *pointer(const double[::1] x) noexcept nogil:
    """Address of x's first entry; NULL where x is None or empty, which stands for "not there"."""
    if x is None or x.shape[0] == 0:
        return NULL
    return &x[0]


cdef inline const double *offset(const double *x, Py_ssize_t i) noexcept nogil:
    """x + i; NULL stays NULL"""
    if x is NULL:
        return NULL
    return x + i
