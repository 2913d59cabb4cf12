"""Each compiled loop against the NumPy line in its docstring: both precisions, both index types, ranges of lines, empty ones."""

import inspect
import os
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp

from fastridge import _kernels
from fastridge._kernels import blas, dense_base, descent, moments, sparse, vectors

DTYPES = (np.float32, np.float64)
INDEX_TYPES = (np.int32, np.int64)
# (lines, width): one, fewer than a group or an unrolled step, just past, and empty.
SIZES = ((1, 1), (3, 5), (9, 17), (21, 8), (5, 0), (0, 4))


def levels():
    """The dense modules that are built and that this processor can run"""
    yield dense_base
    for name, level in (("dense_v3", 3), ("dense_v4", 4)):
        if dense_base.simd_level() >= level:
            try:
                yield import_module(f"fastridge._kernels.{name}")
            except ImportError:  # built on x86-64 alone
                continue


LEVELS = list(levels())


def level_name(module):
    return module.__name__.rpartition(".")[2]


class Lines:
    """Random arguments for one matrix, all read-only"""

    def __init__(self, n_lines, width, dtype, seed, *, share=0.5):
        self.rng = np.random.default_rng(seed)
        M = self.rng.standard_normal((n_lines, width)) * (self.rng.random((n_lines, width)) < share)
        if n_lines > 2 and width > 2:
            M[1], M[:, 2] = 0, 0
        self.M = fixed(M.astype(dtype))
        self.a, self.b = self.vector(n_lines), self.vector(width)
        self.line_weights, self.cross_weights = fixed(self.vector(n_lines) ** 2), fixed(self.vector(width) ** 2)

    def vector(self, *shape):
        return fixed(self.rng.standard_normal(shape))

    def csr(self, index_type):
        """Arrays of the sparse storage: an entry of value zero is stored too"""
        matrix = sp.csr_array(self.M)
        if matrix.nnz:
            matrix.data[0] = 0
        self.M = fixed(matrix.toarray())
        return tuple(fixed(x) for x in (matrix.data, matrix.indices.astype(index_type), matrix.indptr.astype(index_type)))

    def lying_apart(self):
        """M with every line contiguous and other numbers between the lines"""
        n_lines, width = self.M.shape
        large = np.full((max(1, 2 * n_lines), width + 3), 7, dtype=self.M.dtype)
        large[: 2 * n_lines : 2, 1 : width + 1] = self.M
        return fixed(large)[: 2 * n_lines : 2, 1 : width + 1]


def fixed(x):
    x.flags.writeable = False
    return x


def ranges(length):
    return sorted({(0, length), (0, length // 2), (length // 3, length), (length, length)})


def check(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


dense_cases = pytest.mark.parametrize(
    ("module", "dtype", "size", "shifted"),
    list(product(LEVELS, DTYPES, SIZES, ("not centred", "b", "a and b"))),
    ids=lambda value: level_name(value) if inspect.ismodule(value) else None,
)
sparse_cases = pytest.mark.parametrize(("dtype", "index_type", "size"), list(product(DTYPES, INDEX_TYPES, SIZES)))


def shifts(lines, shifted):
    """The arguments a and b, and the matrix that they take off"""
    a = lines.a if shifted == "a and b" else None
    b = fixed(np.zeros(len(lines.b))) if shifted == "not centred" else lines.b
    off = np.outer(np.ones(len(lines.a)) if a is None else a, b)
    return a, b, lines.M.astype(np.float64) - off


@dense_cases
def test_dense_dot(module, dtype, size, shifted):
    lines = Lines(*size, dtype, 1)
    a, b, A = shifts(lines, shifted)
    v = lines.vector(size[1])
    for lo, hi in ranges(size[0]):
        out = np.full(size[0], 5.0)
        module.dot(lines.lying_apart(), lo, hi, a, b, v, out)
        wanted = np.full(size[0], 5.0)
        wanted[lo:hi] = A[lo:hi] @ v
        check(out, wanted)


@dense_cases
def test_dense_add(module, dtype, size, shifted):
    lines = Lines(*size, dtype, 2)
    a, b, A = shifts(lines, shifted)
    t = lines.vector(size[0])
    for lo, hi in ranges(size[1]):
        out = np.full(size[1], 5.0)
        module.add(lines.lying_apart(), lo, hi, a, b, t, out)
        wanted = np.full(size[1], 5.0)
        wanted[lo:hi] = A[:, lo:hi].T @ t
        check(out, wanted)


@pytest.mark.parametrize("extra", ["nothing", "weights", "target", "weights and target"])
@dense_cases
def test_dense_normal_along(module, dtype, size, shifted, extra):
    lines = Lines(*size, dtype, 3)
    a, b, A = shifts(lines, shifted)
    v = lines.vector(size[1])
    w = lines.line_weights if "weights" in extra else None
    target = lines.vector(size[0]) if "target" in extra else None
    for (lo, hi), n_together in product(ranges(size[0]), (1, 4, 6, 64)):
        out = np.ones(size[1])
        module.normal_along(lines.lying_apart(), lo, hi, a, b, w, target, v, out, n_together)
        t = (1 if w is None else w[lo:hi]) * (A[lo:hi] @ v) - (0 if target is None else target[lo:hi])
        check(out, 1 + A[lo:hi].T @ t)


@pytest.mark.parametrize("extra", ["nothing", "weights", "target", "weights and target"])
@dense_cases
def test_dense_normal_across(module, dtype, size, shifted, extra):
    lines = Lines(*size, dtype, 4)
    a, b, A = shifts(lines, shifted)
    v = lines.vector(size[0])
    w = lines.cross_weights if "weights" in extra else None
    target = lines.vector(size[1]) if "target" in extra else None
    for (lo, hi), piece in product(ranges(size[1]), (1, 5, 64)):
        out = np.ones(size[0])
        module.normal_across(lines.lying_apart(), lo, hi, a, b, w, target, v, out, np.empty(piece))
        t = (1 if w is None else w[lo:hi]) * (A[:, lo:hi].T @ v) - (0 if target is None else target[lo:hi])
        check(out, 1 + A[:, lo:hi] @ t)


@pytest.mark.parametrize("n_together", [0, 65])
def test_dense_normal_along_refuses_more_lines_than_it_has_room_for(n_together):
    with pytest.raises(ValueError, match="n_together"):
        dense_base.normal_along(np.ones((2, 2)), 0, 2, None, np.zeros(2), None, None, np.ones(2), np.zeros(2), n_together)


@pytest.mark.parametrize("scaled", [False, True])
@dense_cases
def test_dense_fill(module, dtype, size, shifted, scaled):
    lines = Lines(*size, dtype, 5)
    a, b, A = shifts(lines, shifted)
    s, c = (lines.line_weights, lines.cross_weights) if scaled else (None, None)
    wanted = np.outer(s, c) * A if scaled else A
    for (i_lo, i_hi), (j_lo, j_hi) in product(ranges(size[0]), ranges(size[1])):
        out = np.full((i_hi - i_lo, j_hi - j_lo), np.nan)
        module.fill(lines.lying_apart(), i_lo, i_hi, j_lo, j_hi, a, b, s, c, out)
        check(out, wanted[i_lo:i_hi, j_lo:j_hi])
        rough = out.astype(np.float32)
        module.fill(lines.lying_apart(), i_lo, i_hi, j_lo, j_hi, a, b, s, c, rough)
        np.testing.assert_allclose(rough, out, rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
@dense_cases
def test_dense_fold(module, dtype, size, shifted, scaled):
    lines = Lines(*size, dtype, 14)
    a, b, A = shifts(lines, shifted)
    s, c = (lines.line_weights, lines.cross_weights) if scaled else (None, None)
    scaled_A = np.outer(s, c) * A if scaled else A
    n_lines, width = size
    for fold, (lo, hi) in product((2, 5), ranges(n_lines)):
        apart = -((lo - hi) // fold)
        part = slice(apart // 3, apart)
        out = np.full((apart, width), np.nan)
        if apart:
            module.fold_along(lines.lying_apart(), lo + part.start, hi, apart, a, b, s, c, out[part], np.empty(width))
        wanted = np.array([scaled_A[lo + r : hi : apart].sum(axis=0) for r in range(apart)]).reshape(apart, width)
        check(out[part], wanted[part])
    for fold, (i_lo, i_hi), (lo, hi) in product((2, 5), ranges(n_lines), ranges(width)):
        apart = -((lo - hi) // fold)
        out = np.full((i_hi - i_lo, apart), np.nan, dtype=np.float32)
        module.fold_across(lines.lying_apart(), i_lo, i_hi, lo, hi, apart, a, b, s, c, out, np.empty(apart))
        wanted = np.array([scaled_A[i_lo:i_hi, lo + r : hi : apart].sum(axis=1) for r in range(apart)])
        np.testing.assert_allclose(out, wanted.reshape(apart, i_hi - i_lo).T, rtol=1e-5, atol=1e-5)


def packed(v):
    """One column as it is; two to four with columns of zeros to four"""
    return v if v.shape[1] == 1 else np.ascontiguousarray(np.pad(v, ((0, 0), (0, 4 - v.shape[1]))))


@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("shifted", [False, True])
@sparse_cases
def test_sparse_dot(dtype, index_type, size, shifted, k):
    lines = Lines(*size, dtype, 6)
    arrays = lines.csr(index_type)
    v, b_v = lines.vector(size[1], k), lines.vector(k)
    a = lines.a if shifted else None
    for lo, hi in ranges(size[0]):
        out = np.full((size[0], k + 1), 5.0)[:, 1:]
        sparse.dot(*arrays, lo, hi, a, b_v, packed(v), out)
        wanted = np.full((size[0], k), 5.0)
        wanted[lo:hi] = (lines.M @ v - np.outer(lines.a if shifted else np.ones(size[0]), b_v))[lo:hi]
        check(out, wanted)


@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("shifted", [False, True])
@sparse_cases
def test_sparse_add(dtype, index_type, size, shifted, k):
    lines = Lines(*size, dtype, 7)
    arrays = lines.csr(index_type)
    t, a = lines.vector(size[0], k), lines.a if shifted else np.ones(size[0])
    for lo, hi in ranges(size[0]):
        out, a_t = np.ones((size[1], 1 if k == 1 else 4)), np.ones(k)
        sparse.add(*arrays, lo, hi, a if shifted else None, t, out, a_t)
        check(out[:, :k], 1 + lines.M[lo:hi].T @ t[lo:hi])
        assert (out[:, k:] == 1).all()
        check(a_t, 1 + a[lo:hi] @ t[lo:hi])


@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("extra", ["nothing", "shift", "shift, weights and target"])
@sparse_cases
def test_sparse_normal(dtype, index_type, size, extra, k):
    lines = Lines(*size, dtype, 8)
    arrays = lines.csr(index_type)
    half = 1 if k == 1 else 4
    v, b_v = lines.vector(size[1], k), lines.vector(k)
    a = lines.a if "shift" in extra else None
    w = lines.line_weights if "weights" in extra else None
    target = lines.vector(size[0], k) if "target" in extra else None
    ones = np.ones(size[0])
    for lo, hi in ranges(size[0]):
        both, a_t = np.full((size[1], 2 * half), np.nan), np.ones(k)
        sparse.normal(*arrays, lo, hi, a, w, target, b_v, v, both, a_t)
        t = lines.M @ v - np.outer(ones if a is None else a, b_v)
        t = t * (ones if w is None else w)[:, None] - (0 if target is None else target)
        check(both[:, :k], v)
        check(both[:, half : half + k], lines.M[lo:hi].T @ t[lo:hi])
        check(a_t, 1 + (ones if a is None else a)[lo:hi] @ t[lo:hi])


@pytest.mark.parametrize("weighted", [False, True])
@sparse_cases
def test_sparse_gram(dtype, index_type, size, weighted):
    lines = Lines(*size, dtype, 9)
    arrays = lines.csr(index_type)
    w = lines.line_weights if weighted else None
    for lo, hi in ranges(size[0]):
        out = np.ones((size[1], size[1]))
        sparse.gram(*arrays, lo, hi, w, out)
        M = lines.M[lo:hi].astype(np.float64)
        check(out, 1 + np.triu(M.T @ (M * (1 if w is None else w[lo:hi, None]))))


@pytest.mark.parametrize("index_type", INDEX_TYPES)
@pytest.mark.parametrize(
    ("indices", "indptr", "flaw"),
    [
        ([0, 2, 1], [0, 2, 2, 3], 0),
        ([], [0, 0], 0),
        ([0, 1, 9], [0, 1, 2], 0),  # entries past the end of the last line do not count
        ([2, 0, 1], [0, 2, 3], 0),  # indices need not ascend
        ([1, 1], [0, 2], 1),
        ([2, 0, 2], [0, 3], 1),
        ([1, 1, 3], [0, 2, 3], 2),
        ([0, 3], [0, 2], 2),
        ([-1, 0], [0, 2], 2),
        ([0, 1], [1, 2], 3),
        ([0, 1], [0, 3], 3),
        ([0, 1, 2], [0, 3, 1, 3], 3),
        ([0, 1, 2], [0, 9, 3], 3),
        ([0, 1, 2], [0, -5, 3], 3),
    ],
)
def test_sparse_check_lines(indices, indptr, flaw, index_type):
    assert (
        sparse.check_lines(fixed(np.array(indices, index_type)), fixed(np.array(indptr, index_type)), 3, np.empty(3, index_type))
        == flaw
    )


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("module", "dtype", "size"), list(product(LEVELS, DTYPES, SIZES)))
def test_moments_dense(module, dtype, size, weighted, aimed):
    lines = Lines(*size, dtype, 10)
    n_lines, width = size
    for lo, hi in ranges(n_lines):
        d = lines.M[lo:hi] - lines.b
        w = lines.line_weights[lo:hi] if weighted else np.ones(hi - lo)
        t = lines.a if aimed else None
        out = np.ones((3, width))
        if width:
            module.sums_across(lines.lying_apart(), lo, hi, lines.line_weights if weighted else None, t, lines.b, out)
        check(out, 1 + np.stack([w @ d, w @ d**2, lines.a[lo:hi] @ d if aimed else np.zeros(width)]))

        d = lines.M[lo:hi] - lines.a[lo:hi, None]
        w = lines.cross_weights if weighted else np.ones(width)
        t = lines.b if aimed else None
        out = np.zeros((3, n_lines))
        module.sums_along(lines.lying_apart(), lo, hi, lines.cross_weights if weighted else None, t, lines.a, out)
        wanted = np.zeros((3, n_lines))
        wanted[:, lo:hi] = np.stack([d @ w, d**2 @ w, d @ lines.b if aimed else np.zeros(hi - lo)])
        check(out, wanted)


@pytest.mark.parametrize(("weighted", "shifted"), list(product((False, True), (False, True))))
@pytest.mark.parametrize(("module", "dtype", "size"), list(product(LEVELS, DTYPES, SIZES)))
def test_sq_lines(module, dtype, size, weighted, shifted):
    lines = Lines(*size, dtype, 13)
    n_lines, width = size
    a, w = (lines.a if shifted else np.ones(n_lines)), (lines.cross_weights if weighted else np.ones(width))
    for lo, hi in ranges(n_lines):
        out, wanted = np.ones(n_lines), np.ones(n_lines)
        module.sq_lines(
            lines.lying_apart(), lo, hi, a if shifted else None, lines.b, lines.cross_weights if weighted else None, out
        )
        wanted[lo:hi] = (lines.M - np.outer(a, lines.b))[lo:hi] ** 2 @ w
        check(out, wanted)


@pytest.mark.parametrize("weighted", [False, True])
@sparse_cases
def test_moments_sparse(dtype, index_type, size, weighted):
    lines = Lines(*size, dtype, 11)
    arrays = lines.csr(index_type)
    n_lines, width = size
    stored = sp.csr_array((np.ones(len(arrays[0])), *arrays[1:]), shape=size).toarray()
    for lo, hi in ranges(n_lines):
        d = (lines.M - lines.b)[lo:hi] * stored[lo:hi]
        w = lines.line_weights[lo:hi] if weighted else np.ones(hi - lo)
        out = np.ones((width, 3))
        moments.sparse_across(*arrays, lo, hi, lines.line_weights if weighted else None, lines.b, out)
        check(out, 1 + np.stack([w @ d, w @ d**2, w @ stored[lo:hi]], axis=1))

        d = (lines.M - lines.a[:, None])[lo:hi] * stored[lo:hi]
        w = lines.cross_weights if weighted else np.ones(width)
        out, wanted = np.zeros((n_lines, 3)), np.zeros((n_lines, 3))
        moments.sparse_along(*arrays, lo, hi, lines.cross_weights if weighted else None, lines.a, out)
        wanted[lo:hi] = np.stack([d @ w, d**2 @ w, stored[lo:hi] @ w], axis=1)
        check(out, wanted)


def test_moments_keep_the_digits_that_the_centre_brings():
    X = 1e9 + np.arange(40.0).reshape(10, 4)
    out = np.zeros((3, 4))
    dense_base.sums_across(X, 0, 10, None, None, np.full(4, 1e9), out)
    assert (out[1] == ((X - 1e9) ** 2).sum(axis=0)).all()


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 11])
def test_vectors(n, k):
    rng = np.random.default_rng(12)
    x, y, p, q = (rng.standard_normal((n, k)) for _ in range(4))
    gamma, b, out = fixed(rng.standard_normal(k)), fixed(rng.standard_normal(n)), np.full(k, 3.0)
    vectors.dots(fixed(x.copy()), fixed(y.copy()), out)
    check(out, (x * y).sum(axis=0))
    vectors.weighted_sums(b, fixed(x.copy()), out)
    check(out, b @ x)
    projected = x.copy()
    vectors.project(projected, b, out)
    check(out, b @ x)
    check(projected, x - np.outer(b, b @ x))
    sizes, f = np.full(k, 3.0), x - y - gamma * p
    vectors.wide_sizes(fixed(x), fixed(y), fixed(p), gamma, sizes)
    check(sizes, (f**2).sum(axis=0) + gamma * (p * f).sum(axis=0))
    x_new = x.copy()
    vectors.add(x_new, fixed(p), gamma)
    check(x_new, x + gamma * p)
    x_new, r_new = x.copy(), y.copy()
    vectors.step(x_new, r_new, fixed(p), fixed(q), gamma)
    check(x_new, x + gamma * p)
    check(r_new, y - gamma * q)
    p_new = p.copy()
    vectors.direction(p_new, fixed(x.copy()), gamma)
    check(p_new, x + gamma * p)


@pytest.mark.parametrize("paired", [True, False])
def test_merged_sums_keep_what_rounding_takes(paired):
    """High and low parts together are exact to twice the digits, in tiles that are full and in those at the edge"""
    rng = np.random.default_rng(32)
    p = 70
    gram, more = (np.asfortranarray(np.tril(rng.standard_normal((p, p)))) for _ in range(2))
    low, more_low, delta = np.zeros(p), 1e-17 * rng.standard_normal(p), rng.standard_normal(p)
    rest, more_rest = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[1e-17, 0.3], [1e-30, 0.0]])
    expected = {(i, j): Fraction(gram[i, j]) - Fraction(more[i, j]) for i in (0, 33, 69) for j in (0, 33, 69) if j <= i}
    weight = -0.75
    for i, j in expected:
        expected[i, j] += Fraction(weight * (delta[i] * delta[j]))
        if paired and i == j:
            expected[i, j] -= Fraction(more_low[i])
    moments.merge(gram, low, more, more_low if paired else None, -1.0, weight, delta, rest, more_rest)
    for (i, j), value in expected.items():
        found = Fraction(gram[i, j]) + Fraction(low[i] if i == j else gram[j, i])
        assert abs(found - value) <= 10 * Fraction(np.finfo(float).eps) ** 2
    for j, value in enumerate((Fraction(1) + Fraction(1e-17) + Fraction(1e-30), Fraction(2) + Fraction(0.3))):
        assert abs(Fraction(rest[0, j]) + Fraction(rest[1, j]) - value) <= Fraction(np.finfo(float).eps) ** 2


@pytest.mark.parametrize("k", [1, 3])
def test_sums_with_twice_the_digits(k):
    rng = np.random.default_rng(31)
    b, x, out = rng.standard_normal(41), rng.standard_normal((41, k)), np.empty((2, k))
    # What the first forty rows add up to is taken off by the last: all the digits of float64 cancel.
    b[-1], x[-1] = -1.0, b[:-1] @ x[:-1]
    vectors.accurate_sums(b, x, out)
    for target in range(k):
        exact = sum((Fraction(v) * Fraction(w) for v, w in zip(b.tolist(), x[:, target].tolist(), strict=True)), Fraction(0))
        eps = np.finfo(float).eps
        assert abs(Fraction(out[0, target]) + Fraction(out[1, target]) - exact) <= (41 * eps) ** 2 * float(
            np.abs(b) @ np.abs(x[:, target])
        )
        assert exact != 0


def swept(B, linear, penalty, z, residual, backward):
    """One sweep in plain NumPy: z and rho = rho0 - B z after it, and twice the decrease of the objective"""
    z, residual, decrease = z.copy(), residual.copy(), 0.0
    order = range(B.shape[1])
    for j in reversed(order) if backward else order:
        curvature = B[:, j] @ B[:, j] + penalty
        if curvature > 0:
            delta = (linear[j] + B[:, j] @ residual - penalty * z[j]) / curvature
            z[j] += delta
            residual -= delta * B[:, j]
            decrease += delta**2 * curvature
    return z, residual, decrease


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("terms", ["nothing", "shift", "both shifts, scale and weights"])
@pytest.mark.parametrize(("dtype", "index_type"), list(product(DTYPES, INDEX_TYPES)))
def test_descent_sweeps_over_lines(dtype, index_type, terms, backward):
    n_lines, width, penalty = 9, 14, 0.3
    lines = Lines(n_lines, width, dtype, 13)
    arrays = lines.csr(index_type)
    a = lines.a if "both" in terms else None
    b = None if terms == "nothing" else lines.b
    s = fixed(np.sqrt(lines.line_weights)) if "scale" in terms else None
    w = lines.cross_weights if "weights" in terms else None
    off = 0 if b is None else np.outer(np.ones(n_lines) if a is None else a, b)
    r = np.ones(width) if w is None else np.sqrt(w)
    B = ((lines.M - off) * r * (1 if s is None else s[:, None])).T
    sq_norms = fixed((B**2).sum(axis=0))
    z, rho, linear = lines.vector(n_lines), lines.vector(width), lines.vector(n_lines)
    z_wanted, rho_wanted, decrease = swept(B, linear, penalty, z, rho, backward)

    got, tau = z.copy(), r * rho
    found = descent.sweep_dense(lines.lying_apart(), a, b, s, w, sq_norms, linear, penalty, got, tau, backward)
    check(got, z_wanted)
    check(tau, r * rho_wanted)
    check(found, decrease)

    # tau = u + kappa (w o b)
    w_b = None if b is None else b * r**2
    h, eta = (None, 0.0) if b is None else (fixed(lines.M @ w_b), float(b @ w_b))
    got, u = z.copy(), r * rho
    state = np.array([0.0, 0.0 if b is None else b @ u])
    found = descent.sweep_sparse(*arrays, a, s, w, h, eta, sq_norms, linear, penalty, got, u, state, backward)
    tau = u if b is None else u + state[0] * w_b
    check(got, z_wanted)
    check(tau, r * rho_wanted)
    check(found, decrease)
    if b is not None:
        check(state[1], b @ tau)


@pytest.mark.parametrize("backward", [False, True])
def test_descent_sweep_over_a_gram_matrix(backward):
    rng = np.random.default_rng(14)
    B, z, rho, linear = rng.standard_normal((8, 5)), *(rng.standard_normal(m) for m in (5, 8, 5))
    z_wanted, rho_wanted, decrease = swept(B, linear, 0.7, z, rho, backward)
    gradient = B.T @ rho + linear - 0.7 * z
    found = descent.sweep_gram(fixed(B.T @ B), 0.7, z, gradient, backward)
    check(z, z_wanted)
    check(gradient, B.T @ rho_wanted + linear - 0.7 * z_wanted)
    check(found, decrease)


@pytest.mark.parametrize("backward", [False, True])
def test_descent_sweeps_within_bounds(backward):
    rng = np.random.default_rng(15)
    M, penalty, d = rng.standard_normal((6, 9)), 0.4, fixed(rng.uniform(0, 2, 6))
    lower, upper, linear = fixed(np.full(6, -0.1)), fixed(np.array([0.1, 0.2, 0.3, -0.1, np.inf, 0.1])), np.zeros(6)
    start, rho = np.clip(rng.standard_normal(6), lower, upper), rng.standard_normal(9)
    wanted, left, sq_norms = start.copy(), rho.copy(), fixed((M**2).sum(axis=1))

    def objective(z, residual):
        return residual @ residual + penalty * d @ z**2

    for j in reversed(range(6)) if backward else range(6):
        best = wanted[j] + (M[j] @ left - penalty * d[j] * wanted[j]) / (sq_norms[j] + penalty * d[j])
        best = min(max(best, lower[j]), upper[j])
        left -= (best - wanted[j]) * M[j]
        wanted[j] = best
    decrease = objective(start, rho) - objective(wanted, left)
    z, tau, box = start.copy(), rho.copy(), (lower, upper, d)
    check(descent.sweep_dense(M, None, None, None, None, sq_norms, linear, penalty, z, tau, backward, *box), decrease)
    check(z, wanted)
    check(tau, left)
    z, u, matrix, none = start.copy(), rho.copy(), sp.csr_array(M), (None,) * 4
    arrays = (matrix.data, matrix.indices, matrix.indptr, *none[:3], None, 0.0, sq_norms, linear, penalty)
    check(descent.sweep_sparse(*arrays, z, u, np.zeros(2), backward, *box), decrease)
    check(z, wanted)
    z, gradient = start.copy(), M @ rho - penalty * d * start
    check(descent.sweep_gram(fixed(M @ M.T), penalty, z, gradient, backward, *box), decrease)
    check(z, wanted)
    check(gradient, M @ left - penalty * d * wanted)


@pytest.mark.parametrize("backward", [False, True])
def test_descent_leaves_empty_lines_alone_without_a_penalty(backward):
    M = np.array([[1.0, 2.0], [0.0, 0.0]])
    sq_norms, z, tau = np.array([5.0, 0.0]), np.array([0.0, 4.0]), np.array([1.0, 1.0])
    descent.sweep_dense(M, None, None, None, None, sq_norms, np.zeros(2), 0.0, z, tau, backward)
    check(z, [0.6, 4.0])
    z, u, matrix = np.array([0.0, 4.0]), np.array([1.0, 1.0]), sp.csr_array(M)
    descent.sweep_sparse(
        matrix.data,
        matrix.indices,
        matrix.indptr,
        None,
        None,
        None,
        None,
        0.0,
        sq_norms,
        np.zeros(2),
        0.0,
        z,
        u,
        np.zeros(2),
        backward,
    )
    check(z, [0.6, 4.0])
    z = np.array([0.0, 4.0])
    descent.sweep_gram(M @ M.T, 0.0, z, np.array([3.0, 0.0]), backward)
    check(z, [0.6, 4.0])


def test_every_kernel_is_tested_here():
    text = inspect.getsource(sys.modules[__name__])
    for module, name_here in ((sparse, "sparse"), (moments, "moments"), (vectors, "vectors"), (descent, "descent")):
        for name in _functions(module):
            assert f"{name_here}.{name}(" in text
    for module in LEVELS:
        assert _functions(module) - {"simd_level"} == {
            *(
                "dot",
                "add",
                "normal_along",
                "normal_across",
                "fill",
                "fold_along",
                "fold_across",
                "sums_along",
                "sums_across",
                "sq_lines",
            )
        }


def _functions(module):
    return {name for name in dir(module) if not name.startswith("_") and callable(getattr(module, name))}


@pytest.mark.parametrize("module", LEVELS, ids=level_name)
def test_the_environment_names_the_simd_level(module):
    name = level_name(module)
    script = "from fastridge import _kernels; print(_kernels.dense.__name__)"
    environment = {**os.environ, "FASTRIDGE_SIMD": name.removeprefix("dense_")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"fastridge._kernels.{name}"]


def test_without_a_name_the_widest_level_is_taken():
    assert _kernels._choose_dense(dense_base.simd_level()) is LEVELS[-1]
    assert _kernels._choose_dense(1) is dense_base


@pytest.mark.parametrize(
    ("level", "wanted", "message"),
    [
        (4, "avx2", "FASTRIDGE_SIMD must be one of v4, v3, base, got 'avx2'"),
        (3, "v4", "FASTRIDGE_SIMD=v4, but this processor does not have x86-64-v4"),
        (1, "v3", "FASTRIDGE_SIMD=v3, but this processor does not have x86-64-v3"),
    ],
)
def test_a_simd_level_that_is_not_to_be_had(level, wanted, message):
    with pytest.raises(ImportError, match=message):
        _kernels._choose_dense(level, wanted)


def test_a_simd_level_that_was_not_built(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(_kernels, "import_module", missing)
    assert _kernels._choose_dense(4) is dense_base
    with pytest.raises(ImportError, match="FASTRIDGE_SIMD=v3, but the kernels for it were not built"):
        _kernels._choose_dense(4, "v3")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (5, 3, 2), (9, 17, 4)])
def test_tiles_of_a_factorisation(m, n, k, dtype):
    """Tiles are blocks of a larger array in F order, of which nothing else is touched"""
    rng = np.random.default_rng(m)
    doubt = 8 * (k + n) * np.finfo(dtype).eps

    def tile(rows, columns):
        large = np.asfortranarray(rng.standard_normal((rows + 3, columns + 2)).astype(dtype))
        return large[1 : rows + 1, 1 : columns + 1]

    a, b, c, square = tile(m, k), tile(n, k), tile(m, n), tile(n, n)
    large, before = c.base, c.base.copy()
    wanted = before[1 : m + 1, 1 : n + 1] - a @ b.T
    blas.subtract_product(a, b, c)
    np.testing.assert_allclose(c, wanted, rtol=0, atol=doubt * (np.abs(a) @ np.abs(b.T) + np.abs(wanted)).max())
    c[...] = before[1 : m + 1, 1 : n + 1]
    np.testing.assert_array_equal(large, before)
    wanted, upper = square - b @ b.T, np.triu(square, 1)
    blas.subtract_gram(b, square)
    np.testing.assert_allclose(np.tril(square), np.tril(wanted), rtol=0, atol=doubt * np.abs(b @ b.T).max() + doubt)
    np.testing.assert_array_equal(np.triu(square, 1), upper)
    square[...] = np.eye(n) * n + 0.1 * np.ones((n, n))
    L = np.linalg.cholesky(square.astype(np.float64))
    assert blas.factor(square) == 0
    np.testing.assert_allclose(np.tril(square), L, rtol=0, atol=doubt * np.abs(L).max())
    wanted = np.linalg.solve(L, c.T).T
    blas.solve_right(square, c)
    np.testing.assert_allclose(c, wanted, rtol=0, atol=doubt * np.abs(wanted).max())
    square[0, 0] = -1
    assert blas.factor(square) == 1


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (blas.factor, [(3, 2)]),
        (blas.factor, [(0, 0)]),
        (blas.solve_right, [(2, 2), (4, 3)]),
        (blas.subtract_gram, [(3, 2), (2, 2)]),
        (blas.subtract_product, [(3, 2), (4, 3), (3, 4)]),
        (blas.subtract_product, [(3, 2), (4, 2), (4, 3)]),
    ],
)
def test_tiles_that_do_not_fit_are_refused(function, shapes):
    with pytest.raises(ValueError, match=r"disagree|square|no matrix"):
        function(*(np.zeros(shape, order="F") for shape in shapes))
    with pytest.raises(ValueError, match="contiguous"):
        blas.factor(np.zeros((3, 3)))
