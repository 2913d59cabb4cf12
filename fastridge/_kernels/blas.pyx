"""BLAS for lanes (scipy's Python wrappers hold the GIL, so that lanes that call them wait for one another), and its threads."""

import itertools

cimport scipy.linalg.cython_blas as cython_blas
cimport scipy.linalg.cython_lapack as cython_lapack
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
    PyThread_type_lock,
    WAIT_LOCK,
)
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


cdef int leading(filled[:, :] a) except -1:
    """The distance of two columns of `a`, whose columns are contiguous"""
    cdef Py_ssize_t ld = a.strides[1] // <Py_ssize_t> sizeof(filled) if a.shape[1] > 1 else a.shape[0]
    if a.strides[0] != <Py_ssize_t> sizeof(filled) and a.shape[0] > 1:
        raise ValueError("columns must be contiguous")
    if ld != <int> ld or ld < a.shape[0] or a.shape[0] < 1 or a.shape[1] < 1:
        raise ValueError(f"no matrix for BLAS: {a.shape[0]} x {a.shape[1]}, columns {ld} apart")
    return <int> ld


def factor(filled[:, :] a):
    """Put the Cholesky factor L, a = L L', in the place of the lower triangle of `a`; return LAPACK's info"""
    cdef int ld = leading(a), n = <int> a.shape[0], info = 0
    cdef char lower = b"L"
    if a.shape[1] != a.shape[0]:
        raise ValueError("a must be square")
    with nogil:
        if filled is float:
            cython_lapack.spotrf(&lower, &n, &a[0, 0], &ld, &info)
        else:
            cython_lapack.dpotrf(&lower, &n, &a[0, 0], &ld, &info)
    return info


def solve_right(filled[:, :] factor, filled[:, :] a):
    """a[:] = a @ inv(tril(factor)).T"""
    cdef int ld = leading(a), ld_f = leading(factor), m = <int> a.shape[0], n = <int> a.shape[1]
    cdef char right = b"R", lower = b"L", transposed = b"T", not_unit = b"N"
    cdef filled one = 1
    if factor.shape[0] != a.shape[1] or factor.shape[1] != a.shape[1]:
        raise ValueError("factor and a disagree")
    with nogil:
        if filled is float:
            cython_blas.strsm(&right, &lower, &transposed, &not_unit, &m, &n, &one, &factor[0, 0], &ld_f, &a[0, 0], &ld)
        else:
            cython_blas.dtrsm(&right, &lower, &transposed, &not_unit, &m, &n, &one, &factor[0, 0], &ld_f, &a[0, 0], &ld)


def subtract_gram(filled[:, :] a, filled[:, :] c):
    """c -= a @ a.T, the lower triangle of `c`"""
    cdef int ld_a = leading(a), ld_c = leading(c), n = <int> a.shape[0], k = <int> a.shape[1]
    cdef char lower = b"L", plain = b"N"
    cdef filled one = 1, minus = -1
    if c.shape[0] != a.shape[0] or c.shape[1] != a.shape[0]:
        raise ValueError("a and c disagree")
    with nogil:
        if filled is float:
            cython_blas.ssyrk(&lower, &plain, &n, &k, &minus, &a[0, 0], &ld_a, &one, &c[0, 0], &ld_c)
        else:
            cython_blas.dsyrk(&lower, &plain, &n, &k, &minus, &a[0, 0], &ld_a, &one, &c[0, 0], &ld_c)


def subtract_product(filled[:, :] a, filled[:, :] b, filled[:, :] c):
    """c -= a @ b.T"""
    cdef int ld_a = leading(a), ld_b = leading(b), ld_c = leading(c)
    cdef int m = <int> a.shape[0], n = <int> b.shape[0], k = <int> a.shape[1]
    cdef char no = b"N", yes = b"T"
    cdef filled one = 1, minus = -1
    if b.shape[1] != a.shape[1] or c.shape[0] != a.shape[0] or c.shape[1] != b.shape[0]:
        raise ValueError("a, b and c disagree")
    with nogil:
        if filled is float:
            cython_blas.sgemm(&no, &yes, &m, &n, &k, &minus, &a[0, 0], &ld_a, &b[0, 0], &ld_b, &one, &c[0, 0], &ld_c)
        else:
            cython_blas.dgemm(&no, &yes, &m, &n, &k, &minus, &a[0, 0], &ld_a, &b[0, 0], &ld_b, &one, &c[0, 0], &ld_c)


# SingleThreaded is compiled because an interrupt must not cut it in two: Python runs the handlers of signals between the steps
# of its own code, never within a call of C code. Nothing below allocates or calls Python while it holds the lock.

ctypedef int (*Get)() noexcept nogil
ctypedef void (*Set)(int) noexcept nogil

cdef enum:
    MAX_LIBRARIES = 8

cdef struct Library:
    Get get
    Set set
    bint by_thread  # every thread has a number of its own

cdef Library libraries[MAX_LIBRARIES]
cdef int before[MAX_LIBRARIES]
cdef int n_libraries = 0
cdef Py_ssize_t n_inside = 0
cdef Py_ssize_t n_forks = 0
cdef PyThread_type_lock lock = PyThread_allocate_lock()  # matters where there is no GIL


cdef void limit(bint by_thread, int *old) noexcept nogil:
    """Set libraries to one thread, those with one number for the process or those with a number for every thread"""
    cdef int i
    for i in range(n_libraries):
        if libraries[i].by_thread == by_thread:
            old[i] = libraries[i].get()
            if old[i] > 1:
                libraries[i].set(1)


cdef void restore(bint by_thread, const int *old) noexcept nogil:
    """Set such libraries back, but those that somebody else has set meanwhile"""
    cdef int i
    for i in range(n_libraries):
        if libraries[i].by_thread == by_thread and old[i] > 1 and libraries[i].get() == 1:
            libraries[i].set(old[i])


cdef class SingleThreaded:
    """A context within which BLAS calls run on the threads that make them

    The first that enters sets the process's number of BLAS threads to one, the last that leaves sets it back. A context that an
    exception kept from being left is left when it is deleted. Where each thread has a number of its own, the context sets that
    of the thread that enters.
    """

    cdef bint inside
    cdef Py_ssize_t forks
    cdef unsigned long thread
    cdef int own[MAX_LIBRARIES]

    def __enter__(self):
        global n_inside
        if self.inside:
            raise RuntimeError("this context is entered already")
        self.inside = True
        self.forks = n_forks
        self.thread = PyThread_get_thread_ident()
        limit(True, self.own)
        PyThread_acquire_lock(lock, WAIT_LOCK)
        if n_inside == 0:
            limit(False, before)
        n_inside += 1
        PyThread_release_lock(lock)

    def __exit__(self, *_):
        self.leave()

    def __dealloc__(self):
        self.leave()

    cdef void leave(self) noexcept:
        global n_inside
        if not self.inside:
            return
        self.inside = False
        if self.thread == PyThread_get_thread_ident():
            restore(True, self.own)
        if self.forks == n_forks:  # a forked child has left what it was forked in
            PyThread_acquire_lock(lock, WAIT_LOCK)
            n_inside -= 1
            if n_inside == 0:
                restore(False, before)
            PyThread_release_lock(lock)


cdef dict threaded = {}
cdef object numbers = itertools.count()


cdef class Threaded:
    """A context for long BLAS calls on BLAS's own threads: `threaded_elsewhere` tells of it while it is entered"""

    cdef object number

    def __enter__(self):
        self.number = next(numbers)
        threaded[self.number] = PyThread_get_thread_ident()

    def __exit__(self, *_):
        threaded.pop(self.number, None)

    def __dealloc__(self):
        threaded.pop(self.number, None)


def threaded_elsewhere():
    """The numbers of the `Threaded` contexts that other threads are within"""
    cdef unsigned long here = PyThread_get_thread_ident()
    return {number for number, thread in list(threaded.items()) if thread != here}


def add_library(size_t get, size_t set, bint by_thread):
    """Let `SingleThreaded` limit one more library, by the addresses of its `int get(void)` and `void set(int)`"""
    global n_libraries
    if n_libraries == MAX_LIBRARIES:
        raise ValueError(f"more than {MAX_LIBRARIES} BLAS libraries")
    libraries[n_libraries] = Library(<Get> get, <Set> set, by_thread)
    n_libraries += 1


def limit_thread():
    """Set the calling thread to one BLAS thread for good, where each thread has a number of its own"""
    cdef int old[MAX_LIBRARIES]
    limit(True, old)


def leave_all_in_child():
    """Leave the contexts that a forked child inherits: those of threads that it does not have, and its own"""
    global n_inside, n_forks
    threaded.clear()
    n_forks += 1
    if n_inside > 0:
        n_inside = 0
        restore(False, before)
