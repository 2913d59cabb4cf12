"""The design operator against toarray(): every storage, centring, weights, both ways round, one target and several."""

from itertools import product

import numpy as np
import pytest
from helpers import STORAGES, make_weights, make_X

from fastridge.operators.composed import Projected
from fastridge.operators.dense import DenseLines
from fastridge.operators.design import centred_design
from fastridge.operators.sparse import SparseLines
from fastridge.validation import check_X

SHAPES = ((30, 11), (11, 30), (1, 5), (5, 1))
TERMS = tuple(product((False, True), (False, True)))  # weights, centred


def make(storage, shape, weighted, centred, dtype, n_threads=2):
    """Return the operator and the same matrix as a dense float64 array"""
    X = make_X(*shape, seed=21, dtype=dtype)
    weights = make_weights(shape[0], 22, zeros=True) if weighted else None
    target = np.linspace(-1, 2, shape[0])
    made = centred_design(check_X(STORAGES[storage](X)), weights, centred, n_threads, target)
    design, image = made.design, made.image
    expected_mean = np.average(X.astype(np.float64), axis=0, weights=weights) if centred else np.zeros(shape[1])
    np.testing.assert_allclose(made.mean[0], expected_mean, rtol=1e-13, atol=1e-13)
    root = 1 if weights is None else np.sqrt(weights)[:, None]
    A = root * (X - expected_mean)
    if image is not None:
        close(image, A.T @ target)
    return design, A


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11 * max(1, np.abs(wanted).max(initial=0)))


def check(design, A, seed):
    """Compare every operation of `design` with that of the array A"""
    m, c = A.shape
    assert design.shape == (m, c)
    rng = np.random.default_rng(seed)
    for k in (1, 3, 4, 6):
        v, u = rng.standard_normal((c, k)), rng.standard_normal((m, k))
        close(design.matvec(v), A @ v)
        close(design.rmatvec(u), A.T @ u)
        close(design.normal(v), A.T @ (A @ v))
        close(design.normal(v, u), A.T @ (A @ v - u))
        close(np.vdot(u, design.matvec(v)), np.vdot(design.rmatvec(u), v))
    close(design.sq_norms, (A**2).sum(axis=0))
    if c < 1000:
        gram = design.gram()
        assert gram.flags.f_contiguous
        close(np.tril(gram), np.tril(A.T @ A))
    rows, end = np.full((m, c), np.nan), 0
    for lo, hi, block in design.blocks():
        assert lo == end
        rows[lo:hi], end = block, hi
    assert end == m
    close(rows, A)
    v, products = rng.standard_normal((c, 3)), np.full((m, 3), np.nan)

    def work(lo, hi, product):
        assert np.isnan(products[lo:hi]).all()
        products[lo:hi] = product
        product[...] = np.nan

    design.product_blocks(v, work)
    close(products, A @ v)


@pytest.mark.parametrize("cut", ["whole", "small pieces"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("weighted", "centred"), TERMS)
@pytest.mark.parametrize("storage", STORAGES)
def test_operator_and_its_transpose(storage, weighted, centred, shape, cut, request):
    if cut == "small pieces":
        request.getfixturevalue("small_pieces")
    dtype = np.float32 if cut == "whole" else np.float64
    design, A = make(storage, shape, weighted, centred, dtype)
    check(design, A, 23)
    check(design.T, A.T, 24)


@pytest.mark.parametrize(("weighted", "centred"), TERMS)
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array", "csc_array int64"])
def test_some_of_the_columns(storage, weighted, centred):
    design, A = make(storage, (30, 11), weighted, centred, np.float32)
    chosen = np.arange(11) % 3 == 1
    columns = design.columns()
    some = columns.take(chosen)
    check(some, A[:, chosen], 27)
    assert some.extra_bytes > columns.extra_bytes
    close(columns.take(np.arange(11) == 4).full_gram(), A[:, 4:5].T @ A[:, 4:5])


@pytest.mark.parametrize("along", [True, False])
@pytest.mark.parametrize(("weighted", "centred"), TERMS)
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array int64"])
def test_lines_laid_the_other_way(storage, weighted, centred, along):
    design, A = make(storage, (30, 11), weighted, centred, np.float32)
    for one, dense in ((design, A), (design.T, A.T)):
        turned = one.relaid(along)
        assert turned.along == along
        assert (turned is one) == (one.along == along)
        assert (turned.extra_bytes > one.extra_bytes) == (one.along != along)
        check(turned, dense, 25)
        check(turned.T, dense.T, 26)


@pytest.mark.parametrize("terms", list(product((False, True), repeat=4)))
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_lines_with_any_shifts_and_scales(kind, terms):
    rng = np.random.default_rng(27)
    X = make_X(9, 14, seed=28)
    a, b, s, c = rng.standard_normal(9), rng.standard_normal(14), rng.uniform(0, 2, 9), rng.uniform(0, 2, 14)
    with_a, with_b, with_s, with_c = terms
    plain = check_X(STORAGES["csr_array" if kind == "sparse" else "C"](X))
    lines = SparseLines(plain.data, plain.indices, plain.indptr, 14, 2) if kind == "sparse" else DenseLines(plain, 2)
    lines = lines.with_terms(a if with_a else None, b if with_b else None, s if with_s else None, c if with_c else None)
    A = X - np.outer(a if with_a else np.ones(9), b) if with_b else X
    A = A * np.sqrt(s)[:, None] if with_s else A
    A = A * np.sqrt(c) if with_c else A
    v, t = rng.standard_normal((14, 2)), rng.standard_normal((9, 2))
    close(lines.dot(v), A @ v)
    close(lines.add(t), A.T @ t)
    close(lines.normal_along(v, t), A.T @ (A @ v - t))
    close(lines.normal_across(t, v), A @ (A.T @ t - v))
    close(lines.sq_norms_along(), (A**2).sum(axis=0))
    close(lines.sq_norms_across(), (A**2).sum(axis=1))
    close(np.tril(lines.gram_along()), np.tril(A.T @ A))
    close(np.tril(lines.gram_across()), np.tril(A @ A.T))


@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
def test_operator_keeps_no_copy_of_the_data(storage):
    X = STORAGES[storage](make_X(50, 7, seed=29))
    design = centred_design(check_X(X), None, True, 1).design
    assert design.extra_bytes == 0
    held = design.lines.M if storage in "CF" else design.lines.data
    assert np.shares_memory(held, X if storage in "CF" else X.data)


@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("shape", [(6000, 60), (60, 6000)])
def test_operator_on_several_lanes(storage, shape):
    design, A = make(storage, shape, True, True, np.float64)
    check(design, A, 30)
    check(design.T, A.T, 31)


@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
def test_centring_keeps_the_digits_of_columns_far_from_zero(storage):
    rng = np.random.default_rng(32)
    centred = rng.standard_normal((200, 3))
    X = centred + np.array([0.0, 1e8, -1e10])
    made = centred_design(check_X(STORAGES[storage](X)), None, True, 1)
    design, mean = made.design, made.mean[0]
    exact = X.astype(np.longdouble)
    A = (exact - exact.mean(axis=0)).astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0).astype(np.float64), rtol=1e-15, atol=1e-15)
    for j, v in enumerate(np.eye(3)):  # the mean itself is a float64
        got = design.matvec(v[:, None])[:, 0]
        np.testing.assert_allclose(got, A[:, j], rtol=1e-13, atol=1e-15 + np.finfo(float).eps * abs(mean[j]))
    np.testing.assert_allclose(design.sq_norms, (A**2).sum(axis=0), rtol=1e-10)


@pytest.mark.parametrize(("weighted", "centred"), TERMS)
@pytest.mark.parametrize("storage", ["C", "csr_array"])
def test_directions_of_the_rows_that_hold_nothing(storage, weighted, centred):
    """Of a projected design: what is projected out, and what centring takes"""
    design, A = make(storage, (30, 6), weighted, centred, np.float64)
    given = np.empty((30, 0)) if design.left_null is None else design.left_null
    assert given.shape[1] == centred
    columns = np.random.default_rng(33).standard_normal((30, 2))
    basis = np.linalg.qr(columns - given @ (given.T @ columns))[0]
    projected = Projected(design, basis, rows=True)
    null = projected.left_null
    assert null.shape == (30, 2 + centred)
    close(null.T @ null, np.eye(2 + centred))
    close(projected.rmatvec(null), np.zeros((6, 2 + centred)))
    close(projected.matvec(np.eye(6)), A - basis @ (basis.T @ A))
    assert projected.T.left_null is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("storage", ["C", "csr_array", "csc_array"])
def test_norms_of_columns_as_they_are_read(storage, weighted):
    """Sparse columns are read as they are, and centred by scalars"""
    X = make_X(40, 5, seed=36, share=0.8)
    X[:, 1] += 2 * (X[:, 1] != 0)
    weights = make_weights(40, 37) if weighted else None
    s = np.ones(40) if weights is None else weights
    design = centred_design(check_X(STORAGES[storage](X)), weights, True, 1).design
    centred = s @ (X - np.average(X, axis=0, weights=weights)) ** 2
    assert (X == 0).any(axis=0).all()
    close(design.sq_norms, centred)
    # What scalars take off a column is the root of every weight times the mean.
    read = centred + s.sum() * np.average(X, axis=0, weights=weights) ** 2
    close(design.sq_read_norms, centred if storage == "C" else read)
    close(design.sq_raw_norms, s @ X**2)
