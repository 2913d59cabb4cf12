"""Moments: sums against long double on all rows, whatever was added, merged or taken away; answers against the closed form."""

import copy
import json
import os
import pickle
import signal
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X, make_y
from truth import Exact

from fastridge import Moments, RidgePath, Solution, Status, archive, normal_equations, sums
from fastridge import moments as module
from fastridge._kernels import moments as kernel

EPS = np.finfo(np.float64).eps
ROUNDING = 50 * EPS
"""Of a sum over a block of some hundred rows, relative to the sums of squares: an error per row that does not cancel is more."""
pytestmark = pytest.mark.usefixtures("one_blas_thread")


class Truth:
    """The sums of all rows in long double, about the mean: (q, q) for the columns of [X y]"""

    def __init__(self, X, y, weights=None):
        Z = np.hstack([np.asarray(X), np.reshape(y, (len(X), -1))]).astype(np.longdouble)
        w = np.ones(len(Z), np.longdouble) if weights is None else weights.astype(np.longdouble)
        first = Z[0]  # a constant column is zero after this
        Z = Z - first
        centre = w @ Z / w.sum()
        left = w @ (Z - centre) / w.sum()
        Z = Z - centre - left
        self.mean = (first + centre + left).astype(np.float64)
        self.gram = (Z * w[:, None]).T @ Z
        self.sizes = np.sqrt(np.diag(self.gram)).astype(np.float64)

    def difference(self, moments):
        """Absolute errors (q, q); of products of two targets, which are not summed, 0"""
        p, k = moments.n_features, moments.n_targets
        got = np.array(self.gram)
        got[:p, :p] = moments.gram
        got[:p, p:] = moments.cross.reshape(p, k)
        got[p:, :p] = got[:p, p:].T
        got[range(p, p + k), range(p, p + k)] = np.atleast_1d(moments.sq_y)
        return np.abs(got - self.gram).astype(np.float64)

    def error(self, moments):
        """The largest relative to the sizes of the two columns"""
        difference, sizes = self.difference(moments), np.outer(self.sizes, self.sizes)
        assert (difference[sizes == 0] == 0).all()
        return (difference[sizes > 0] / sizes[sizes > 0]).max(initial=0.0)

    def share_of_doubt(self, moments):
        """The largest relative to what `Sums.doubt` allows"""
        doubt = np.sqrt(moments._sums.doubt())
        allowed, difference = np.outer(doubt, doubt), self.difference(moments)
        assert (difference[allowed == 0] == 0).all()
        return (difference[allowed > 0] / allowed[allowed > 0]).max(initial=0.0)


def sums_of(X, y, weights=None, cut=None):
    """One update for every block of rows: `cut` are index arrays, or None for a single one"""
    moments = Moments()
    for rows in [np.arange(X.shape[0])] if cut is None else cut:
        moments.update(X[rows], y[rows], None if weights is None else weights[rows])
    return moments


def data(n=600, p=6, k=0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) @ rng.standard_normal((p, p))
    y = X @ rng.standard_normal((p, max(1, k))) + rng.standard_normal((n, max(1, k)))
    return X, y if k else y[:, 0]


# The sums


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_of_every_storage(storage, dtype):
    X = make_X(150, 9, seed=1, dtype=dtype)
    for k, weights in ((0, None), (3, make_weights(150, 2, zeros=True))):
        y = make_y(X, 3, k)
        truth = Truth(X, y, weights)
        moments = Moments()
        for lo, hi in ((0, 40), (40, 41), (41, 150)):
            moments.update(STORAGES[storage](X[lo:hi]), y[lo:hi], None if weights is None else weights[lo:hi])
        assert truth.error(moments) <= ROUNDING
        assert moments.n_samples == 150
        assert moments.sum_weights == pytest.approx(150 if weights is None else weights.sum(), rel=4 * EPS)
        np.testing.assert_allclose(moments.x_mean, truth.mean[:9], rtol=8 * EPS, atol=8 * EPS)
        np.testing.assert_allclose(np.atleast_1d(moments.y_mean), truth.mean[9:], rtol=8 * EPS)


@pytest.mark.parametrize("ratio", [0.0, 1e5, 1e8, 1e11])
@pytest.mark.parametrize("order", ["as it comes", "sorted", "first block elsewhere"])
def test_means_far_from_zero_cost_no_digits(ratio, order):
    X, y = data(2000)
    if order == "sorted":
        rows = np.argsort(X[:, 0])
        X, y = X[rows], y[rows]
    X, y = X + ratio * X.std(axis=0), y - ratio * y.std()
    if order == "first block elsewhere":
        X[:20], y[:20] = X[:20] - ratio, y[:20] + ratio
    weights = make_weights(2000, 5)
    truth = Truth(X, y, weights)
    cut = np.array_split(np.arange(2000), 100)
    rng = np.random.default_rng(6)
    apart = [sums_of(X, y, weights, [rows]) for rows in cut]
    one_by_one = apart[0]
    for part in apart[1:]:
        one_by_one = one_by_one + part
    while len(apart) > 1:  # in pairs that chance puts together
        rng.shuffle(apart)
        apart = [sum(pair[1:], pair[0]) for pair in zip(apart[::2], apart[1::2], strict=False)] + apart[len(apart) // 2 * 2 :]
    for moments in (
        sums_of(X, y, weights, cut),
        sums_of(X, y, weights, cut[:1] + cut[:0:-1]),
        sums_of(X, y, weights, [np.arange(300), *np.arange(300, 400)[:, None], np.arange(400, 2000)]),
        one_by_one,
        apart[0],
    ):
        assert truth.error(moments) <= ROUNDING
        assert truth.share_of_doubt(moments) <= 1
        assert moments.n_samples == 2000


@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_array])
def test_sparse_columns_that_are_full_and_far_away(make):
    X = make_X(400, 7, seed=1)
    X[:, 1] = 1e8 + np.random.default_rng(2).standard_normal(400)  # full
    X[:, 2] = X[:, 1]
    X[17, 2] = 0.0  # all but full: its zero is what it varies by
    X[:, 3] = 7.7
    y = make_y(X[:, 4:], 3)
    truth = Truth(X, y)
    moments = Moments()
    for rows in np.array_split(np.arange(400), 4):
        moments.update(make(X[rows]), y[rows])
    assert truth.error(moments) <= ROUNDING
    assert truth.share_of_doubt(moments) <= 1
    assert moments.gram[3, 3] == 0


def test_many_equal_blocks_do_not_add_up_their_roundings():
    X, y = data(50, 3)
    block = sums_of(X, y)
    total, n_blocks = copy.copy(block), 3000
    for _ in range(n_blocks - 1):
        total._sums.add(block._sums)
    error = np.abs(total.gram - n_blocks * block.gram) / (n_blocks * np.abs(block.gram))
    assert error.max() <= 2 * EPS


def test_the_same_bits_for_any_number_of_threads(small_pieces):
    X, y = data(500, 12, k=2)
    one, three = (Moments(n_threads=n).update(X, y).update(X[:77], y[:77]) for n in (1, 3))
    for name, array in one._sums.arrays.items():
        np.testing.assert_array_equal(array, three._sums.arrays[name])


def test_the_kernel_adds_without_rounding():
    rng = np.random.default_rng(0)
    p, m = 37, 5
    gram, low = np.zeros((p, p), order="F"), np.zeros(p)
    rest = np.zeros((2, m))
    exact, exact_rest = {}, [Fraction(0)] * m
    for _ in range(6):
        more = np.asfortranarray(rng.standard_normal((p, p)) * 10.0 ** rng.integers(-12, 12, (p, p)))
        delta, more_rest = rng.standard_normal(p), rng.standard_normal((2, m)) * 10.0 ** rng.integers(-12, 12, (2, m))
        kernel.merge(gram, low, more, None, -1.0, 0.3, delta, rest, more_rest)
        for i, j in zip(*np.tril_indices(p), strict=True):
            added = Fraction(0.3 * (delta[i] * delta[j])) - Fraction(more[i, j])
            exact[i, j] = exact.get((i, j), Fraction(0)) + added
        exact_rest = [total + Fraction(a) + Fraction(b) for total, a, b in zip(exact_rest, *more_rest, strict=True)]
    for (i, j), value in exact.items():
        pair = Fraction(gram[i, j]) + Fraction(low[i] if i == j else gram[j, i])
        assert abs(pair - value) <= 2**-98 * 10**12
        assert gram[i, j] == float(pair)
    for pair, value in zip(rest.T, exact_rest, strict=True):
        assert abs(Fraction(pair[0]) + Fraction(pair[1]) - value) <= 2**-98 * 10**12
    doubled, doubled_low = gram.copy(order="F"), low.copy()
    kernel.merge(doubled, doubled_low, gram, low, 1.0, 0.0, np.zeros(p), rest, np.zeros((2, m)))
    np.testing.assert_array_equal(doubled, 2 * gram)
    np.testing.assert_array_equal(doubled_low, 2 * low)
    with pytest.raises(ValueError, match="disagree"):
        kernel.merge(gram, low[1:].copy(), gram, low, 1.0, 0.0, np.zeros(p), rest, rest)


# Taking rows away


def random_pieces(seed):
    """Rows, and moments of some of them after pieces were added, merged and taken away, cut otherwise; and which rows are left"""
    rng = np.random.default_rng(seed)
    n, p, k = int(rng.integers(5, 300)), int(rng.integers(1, 7)), int(rng.integers(1, 3))
    X, y = rng.standard_normal((n, p)) @ rng.standard_normal((p, p)), rng.standard_normal((n, k)) * 10.0 ** rng.uniform(-5, 5)
    X = (X + rng.choice([0, 1], p) * 10.0 ** rng.uniform(-3, 9, p)) * 10.0 ** rng.uniform(-5, 5, p)
    weights = np.ones(n) if rng.random() < 0.4 else 10.0 ** rng.uniform(-4, 4, n)
    if rng.random() < 0.3:
        X[: n // 10 + 1] *= 10.0 ** rng.uniform(-4, 4)  # a piece whose rows are far away from all others
    storage = rng.choice(["C", "F", "csr_array", "csc_array"])
    if storage.startswith("cs"):
        X *= rng.random((n, p)) < rng.choice([0.2, 0.9, 1.0])
    pieces = np.array_split(rng.permutation(n), int(rng.integers(1, min(n, 12) + 1)))
    moments, within = Moments(), np.zeros(n, dtype=bool)
    for _ in range(int(rng.integers(2, 20))):
        rows = pieces[int(rng.integers(len(pieces)))]
        taken = within[rows[0]]
        if taken and within.sum() == len(rows):
            continue
        rows = rng.permutation(rows)
        block = Moments().update(STORAGES[storage](X[rows]), y[rows], weights[rows])
        moments, within[rows] = moments - block if taken else moments + block, not taken
    return X, y, weights, moments, within


@pytest.mark.parametrize("seed", range(10))
def test_errors_stay_within_the_doubt_whatever_was_taken_away(seed):
    n_lost = 0
    for i in range(40):
        X, y, weights, moments, within = random_pieces(1000 * seed + i)
        truth = Truth(X[within], y[within], weights[within])
        assert moments.n_samples == within.sum()
        assert truth.share_of_doubt(moments) <= 1
        n_lost += moments.digits_lost > 1
    assert n_lost > 0


def test_means_far_apart_are_joined_in_pairs():
    """Rows 3e5 away, then 900 times their weight near the others: the rounding of that mean grew when the heavy ones left"""
    X, y, weights, moments, within = random_pieces(83019)
    assert Truth(X[within], y[within], weights[within]).share_of_doubt(moments) < 0.1


def test_heavy_rows_that_leave_and_come_back_cost_nothing():
    X, y = data(40, 3)
    X += 1e5
    weights = make_weights(40, 0)
    weights[7] = 1e7 / 3
    heavy = Moments().update(X[7:8], y[7:8], weights[7:8])
    rest = np.delete(np.arange(40), 7)
    moments = sums_of(X[rest], y[rest], weights[rest], np.array_split(np.arange(39), 5)) + heavy - heavy + heavy
    assert Truth(X, y, weights).error(moments) <= ROUNDING


def test_what_a_heavy_block_leaves_behind_is_within_the_doubt():
    rng = np.random.default_rng(0)
    X, y = data(420, 3)
    X[20:] += 1e4
    weights = np.where(np.arange(420) < 20, 1.0, 1e8)
    light, order = np.arange(20), 20 + rng.permutation(400)
    moments = sums_of(X, y, weights, [light, np.arange(20, 420)])
    for rows in np.array_split(order, 3)[:2]:
        moments = moments - sums_of(X[rows], y[rows], weights[rows])
    moments = moments - sums_of(X[order[267:]], y[order[267:]], weights[order[267:]])
    assert moments.n_samples == 20
    truth = Truth(X[:20], y[:20])
    assert truth.error(moments) > 1e-9  # it does cost digits
    assert truth.share_of_doubt(moments) <= 1


def test_digits_lost():
    X, y = data(2000, 4)
    whole = sums_of(X, y, cut=np.array_split(np.arange(2000), 20))
    assert whole.digits_lost <= 1e-6
    fold = sums_of(X[:200], y[:200])
    assert (whole - fold).digits_lost <= 0.5
    far = sums_of(X[:200] + 2e3, y[:200])
    left = whole + far - far
    assert 5 <= left.digits_lost <= 8  # of sums of squares that are some (2e3)^2 / 10 times larger
    assert "digits lost" in repr(left)
    truth = Truth(X, y)
    assert truth.share_of_doubt(left) <= 1
    assert left.solve(1.0).report.status is Status.CONVERGED
    with pytest.raises(
        ValueError, match=r"cost \d\.\d digits: the sum of squares of feature \d is known to .* tol=1e-09 at alpha=1"
    ):
        left.solve(1.0, tol=1e-9)
    assert left.solve(1e9, tol=1e-9).report.status is Status.CONVERGED


def test_folds_add_up_to_the_rest():
    X, y = data(500, 5)
    folds = [sums_of(X[rows], y[rows]) for rows in np.array_split(np.arange(500), 5)]
    whole = sum(folds[1:], folds[0])
    for i, rows in enumerate(np.array_split(np.arange(500), 5)):
        rest = np.setdiff1d(np.arange(500), rows)
        training = whole - folds[i]
        assert Truth(X[rest], y[rest]).error(training) <= ROUNDING
        solution = training.solve(0.5)
        assert solution.report.converged
        assert Exact(X[rest], y[rest], 0.5).error(solution.coef) <= solution.report.error_bound


def test_rows_that_cannot_be_taken_away():
    X, y = data(50, 3)
    moments = sums_of(X, y)
    assert (moments - moments).n_samples == 0
    assert repr(moments - sums_of(X[:50], y[:50])) == "Moments of no rows"
    with pytest.raises(ValueError, match="50 rows cannot be taken from 20"):
        sums_of(X[:20], y[:20]) - moments
    with pytest.raises(ValueError, match="3 rows cannot be taken from 0"):
        Moments() - sums_of(X[:3], y[:3])
    with pytest.raises(ValueError, match="not among those summed: the sum of squares of feature 1 would be -"):
        moments - sums_of(X[:20] * [1, 100, 1], y[:20])
    with pytest.raises(ValueError, match="not among those summed: the sum of squares of y would be -"):
        moments - sums_of(X[:20], 100 * y[:20])
    with pytest.raises(ValueError, match="weights of 60 cannot be taken from 50: the rows left would weigh -10"):
        moments - sums_of(X[:20], y[:20], np.full(20, 3.0))
    with pytest.raises(TypeError):
        moments - 1


# Answers


@pytest.mark.parametrize("n", [200, 15])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("storage", ["C", "csr_array"])
def test_answers_and_bounds(n, fit_intercept, k, weighted, storage):
    X = make_X(n, 30, seed=1)
    y = make_y(X, 2, k)
    weights = make_weights(n, 3) if weighted else None
    moments = sums_of(STORAGES[storage](X), y, weights, np.array_split(np.arange(n), 4))
    for alpha in (1e-3, 1.0, 1e3):
        exact = Exact(X, y, alpha, weights, fit_intercept)
        solution = moments.solve(alpha, fit_intercept=fit_intercept)
        assert isinstance(solution, Solution)
        report = solution.report
        assert report.status is Status.CONVERGED
        assert report.error_bound <= 1e-6
        assert exact.error(solution.coef).max() <= report.error_bound
        assert solution.coef.shape == ((k, 30) if k else (30,))
        assert np.shape(solution.intercept) == ((k,) if k else ())
        slack = 1e-6 * exact.size / np.sqrt(alpha) * np.linalg.norm(exact.x_mean) + ROUNDING * np.abs(exact.y_mean)
        assert (np.abs(exact.intercept - solution.intercept) <= slack).all()


@pytest.mark.parametrize("kind", ["near pairs", "factors", "falling off", "scales", "dummies"])
def test_bounds_hold_on_hard_columns(kind):
    n, p = 300, 24
    rng = np.random.default_rng(4)
    X = rng.standard_normal((n, p))
    if kind == "near pairs":
        X[:, 1::2] = X[:, ::2] + 1e-5 * rng.standard_normal((n, p // 2))
    elif kind == "factors":
        X = 1e-3 * X + rng.standard_normal((n, 2)) @ rng.standard_normal((2, p))
    elif kind == "falling off":
        X = X * 10.0 ** -np.linspace(0, 7, p) @ np.linalg.qr(rng.standard_normal((p, p)))[0]
    elif kind == "scales":
        X = X * 10.0 ** np.linspace(-8, 8, p) + 1e3
    else:
        X = (X > 1.5) * 1.0
    y = X @ rng.standard_normal(p) + rng.standard_normal(n)
    moments = sums_of(X, y, cut=np.array_split(np.arange(n), 3))
    alphas = np.trace(moments.gram) * 10.0 ** np.linspace(-16, -2, 40)
    path = moments.solve(alphas)
    n_proven = 0
    for alpha, coef, report in zip(path.alphas, path.coefs, path.reports, strict=True):
        true = Exact(X, y, alpha).error(coef)[0]
        assert true <= report.error_bound
        assert report.converged == (report.error_bound <= 1e-6)
        assert report.status in (Status.CONVERGED, Status.ESTIMATED, Status.STALLED)
        if report.status is Status.ESTIMATED:
            assert report.error <= 1e-6 < report.error_bound
        n_proven += report.converged
    assert n_proven >= 10
    assert {report.solver for report in path.reports} >= {"eigh"}


def weighted_truth(X, y, alpha, d):
    """The minimiser with penalty weights or a penalty matrix, its H and the norm of H, in long double refined from float64"""
    A, b = X - X.mean(axis=0), y - y.mean()
    A, b = A.astype(np.longdouble), b.astype(np.longdouble)
    A, b = A - A.mean(axis=0), b - b.mean()
    H = A.T @ A + np.longdouble(alpha) * (np.diag(d) if d.ndim == 1 else d)
    inverse = np.linalg.inv(H.astype(np.float64))
    w = np.zeros(len(H), np.longdouble)
    for _ in range(6):
        w = w + inverse @ (A.T @ b - H @ w).astype(np.float64)
    return w, lambda v: float(np.sqrt(v @ (H @ v)))


@pytest.mark.parametrize("kind", ["positive", "free", "matrix"])
@pytest.mark.parametrize("n_alphas", [1, 4, 30])
def test_penalty_weights(kind, n_alphas):
    X, y = data(120, 8)
    rng = np.random.default_rng(1)
    d = 10.0 ** rng.uniform(-2, 2, 8)
    if kind == "free":
        d[[1, 4]] = 0
    if kind == "matrix":
        D = np.diff(np.eye(8), axis=0)
        d = D.T @ D
    moments = sums_of(X, y)
    alphas = np.logspace(-2, 3, n_alphas)
    path = moments.solve(alphas, penalty_weights=d)
    assert isinstance(path, RidgePath)
    for alpha, coef, report in zip(alphas, path.coefs, path.reports, strict=True):
        w, norm = weighted_truth(X, y, alpha, d)
        assert report.converged
        assert norm(coef - w) <= report.error_bound * norm(w)
    fixed = np.where(np.arange(8) == 2, np.inf, 1.0)
    coef = moments.solve(1.0, penalty_weights=fixed).coef
    w, norm = weighted_truth(np.delete(X, 2, axis=1), y, 1.0, np.ones(7))
    assert coef[2] == 0
    assert norm(np.delete(coef, 2) - w) <= 1e-6 * norm(w)
    assert not moments.solve(1.0, penalty_weights=np.full(8, np.inf)).coef.any()


@pytest.mark.parametrize("n_alphas", [2, 30])
@pytest.mark.parametrize("d", [np.ones(5), np.array([1.0, 0.0, 1e-3, 1e3, 1.0])])
@pytest.mark.parametrize("level", [1e-5, 1e-3])
def test_no_change_within_the_doubt_moves_an_answer_beyond_its_bound(n_alphas, d, level):
    """The worst that the doubt allows is tried, sign by sign; the bound is not far above it."""
    p = 5
    rng = np.random.default_rng(3)
    A = rng.standard_normal((40, p)) * 10.0 ** np.linspace(-1, 2, p)
    A[:, 1] = A[:, 2] + 0.1 * A[:, 1]
    y = A @ np.ones(p) + rng.standard_normal(40)
    gram, cross = np.asfortranarray(A.T @ A), (A.T @ y)[:, None]
    doubt, target_doubt = level * np.sqrt(gram.diagonal()), level * np.sqrt(y @ y)
    equations = normal_equations.NormalEquations(gram, cross, doubt, np.array([target_doubt]), d)
    alphas = np.logspace(-3, 3, n_alphas)
    answers = normal_equations.solve(equations, alphas, 1e-2)
    assert (answers.error_bound <= 2000 * level).all()
    for alpha, coef, bound in zip(alphas, answers.coefs, answers.error_bound, strict=True):
        largest = 0.0
        for signs in np.ndindex(*(2,) * (p + 1)):
            sign = 2 * np.array(signs) - 1
            change = np.outer(sign[:p] * doubt, sign[:p] * doubt) * sign[p]
            H = gram + change + alpha * np.diag(d)
            for sign_y in (-1, 1):
                w = np.linalg.solve(H, cross[:, 0] + sign_y * sign[:p] * doubt * target_doubt)
                off = coef[0] - w
                largest = max(largest, np.sqrt((off @ H @ off) / (w @ H @ w)))
        assert largest <= bound[0]
        assert bound[0] <= 30 * largest


def test_a_doubt_that_makes_the_matrix_smaller_makes_errors_larger():
    """H_22 may be 0.7 in place of 1, which makes what is doubted of its right-hand side count for more"""
    doubt, target_doubt = np.array([0.0, np.sqrt(0.3)]), 1e-3
    equations = normal_equations.NormalEquations(
        np.asfortranarray(np.eye(2)), np.array([[1.0], [0.0]]), doubt, np.array([target_doubt]), np.ones(2)
    )
    answers = normal_equations.solve(equations, np.array([1e-12]), 1e-2)
    worst = doubt[1] * target_doubt / np.sqrt(0.7)
    assert worst <= answers.error_bound[0, 0] <= 1.5 * worst


def test_rows_that_are_hardly_others_are_not_taken_away():
    """What would be left of one column is negative by a millionth, which no rounding explains"""
    X, y = data(50, 4)
    X[40:, 3] = X[:40, 3].mean()
    others = X[:40].copy()
    others[:, 3] += 1e-6 * (others[:, 3] - others[:, 3].mean())
    whole = Moments().update(X, y)
    assert (whole - Moments().update(X[:40], y[:40])).n_samples == 10
    with pytest.raises(ValueError, match="not among those summed"):
        whole - Moments().update(others, y[:40])


def test_the_normal_equations_without_an_intercept_are_within_their_doubt():
    X, y = data(3000, 3)
    X += 1e4
    cut = np.array_split(np.arange(3000), 3)
    equations, _ = normal_equations.NormalEquations.of(sums_of(X, y, cut=cut)._sums, np.ones(3), False)
    exact = X.T.astype(np.longdouble) @ np.column_stack([X, y])
    lower = np.tril_indices(3)
    assert (np.abs(equations.gram - exact[:, :3])[lower] <= np.outer(equations.doubt, equations.doubt)[lower]).all()
    assert (np.abs(equations.cross[:, 0] - exact[:, 3]) <= equations.doubt * equations.target_doubt).all()
    assert (equations.doubt**2 >= EPS * np.diag(exact)[:3]).all()
    assert (equations.doubt**2 <= 1e-10 * np.diag(exact)[:3]).all()


def test_an_eigendecomposition_serves_columns_of_any_scale_and_penalties_of_many_decades():
    X, y = data(200, 16)
    X *= 10.0 ** np.linspace(-8, 8, 16)
    moments = sums_of(X, y)
    path = moments.solve(np.trace(moments.gram) * np.logspace(2, -14, 60), tol=1e-10)
    assert [report.solver for report in path.reports] == ["eigh"] * 59 + ["cholesky"]
    assert path.converged


@pytest.mark.parametrize("ratio", [1e4, 1e8])
def test_intercepts_have_all_their_digits(ratio):
    X, y = data(100, 3)
    X, w = X + ratio, np.array([1.0, 2.0, -3.0])  # the means cancel
    means = [sum(map(Fraction, column)) / 100 for column in np.column_stack([X, y]).T]
    exact = float(means[3] - sum(mean * Fraction(weight) for mean, weight in zip(means, w, strict=False)))
    intercept = sums_of(X, y, cut=np.array_split(np.arange(100), 7))._sums.intercept(w[:, None])[0]
    # Means are as good as sums over blocks: to some eps of the standard deviations.
    assert abs(intercept - exact) <= ROUNDING * (np.abs(w) @ X.std(axis=0) + y.std())


def test_one_inverse_serves_a_path(monkeypatch):
    X, y = data(400, 10)
    inverted = []
    invert = normal_equations.Inverse.invert
    monkeypatch.setattr(normal_equations.Inverse, "invert", lambda self: inverted.append(1) or invert(self))
    path = sums_of(X, y).solve(np.logspace(3, -3, 5))
    assert path.converged
    assert len(inverted) == 1
    assert path.alphas[0] == 1e3
    assert [report.solver for report in path.reports] == ["cholesky"] * 5
    path = sums_of(X, y).solve(np.logspace(3, -3, 50))
    assert path.converged
    assert [report.solver for report in path.reports] == ["eigh"] * 49 + ["cholesky"]
    assert len(inverted) == 2


def test_least_squares():
    X, y = data(100, 5)
    report = sums_of(X, y).solve(0.0).report
    assert report.status is Status.CONVERGED  # proven: the columns are independent
    X = np.hstack([X, X[:, :1], np.full((100, 1), 3.0)])
    solution = sums_of(X, y).solve(0.0)
    assert solution.report.status is Status.UNCERTIFIED
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(solution.coef, np.linalg.lstsq(centred, y - y.mean(), rcond=1e-12)[0], atol=1e-9)
    path = sums_of(X, y).solve([0.0, 1.0])
    assert [report.status for report in path.reports] == [Status.UNCERTIFIED, Status.CONVERGED]


def test_a_constant_target_and_constant_columns():
    X, y = data(60, 4)
    weights = make_weights(60, 1)
    solution = sums_of(X, np.full(60, 0.1), weights, cut=np.array_split(np.arange(60), 7)).solve(1.0)
    assert not solution.coef.any()
    assert solution.intercept == 0.1
    assert solution.report.error_bound == 0
    X[:, 2] = 0.3
    assert sums_of(X, y, cut=np.array_split(np.arange(60), 7)).solve([0.0, 1.0]).converged
    nothing = sums_of(np.ones((60, 2)), y).solve(1.0)
    assert not nothing.coef.any()
    assert nothing.intercept == pytest.approx(y.mean())


def test_data_whose_squares_leave_float64():
    X, y = data(60, 4)
    truth = Truth(X, y)
    for power in (-500, 500):  # squares are just within
        moments = sums_of(np.ldexp(X, power), y, cut=np.array_split(np.arange(60), 3))
        np.testing.assert_array_equal(
            np.ldexp(moments.gram, -2 * power), sums_of(X, y, cut=np.array_split(np.arange(60), 3)).gram
        )
        assert (
            np.abs(np.ldexp(moments.cross, -power) - truth.gram[:4, 4]).max() <= ROUNDING * truth.sizes[:4].max() * truth.sizes[4]
        )
    tiny = sums_of(np.ldexp(X, -600), y)
    assert not tiny.gram.any()
    assert tiny.solve(1e-300).report.error_bound > 1e-6
    with pytest.raises(ValueError, match="X is too large: the squares of column 0 overflow"):
        sums_of(np.ldexp(X, 600), y)


def test_numbers_whose_squares_underflow_prove_nothing():
    X, y = data(60, 4)
    for scale, of_X in ((1e-155, 1), (1e-170, 1), (1e-170, 2.0**-14), (1e-300, 2.0**-14)):
        solution = sums_of(of_X * X, scale * y).solve(1e-3 * of_X**2)
        true = Exact(X, y, 1e-3).error(solution.coef / scale * of_X)
        assert true <= solution.report.error_bound
        assert not (solution.report.converged and true > 1e-6)
    # Of products that are denormal a few digits are left: w = c / alpha, alpha being much the larger.
    small = np.ldexp(X, -530)
    solution = sums_of(small, np.ldexp(y, -530)).solve(1e-3, fit_intercept=False)
    true = np.abs(np.ldexp(solution.coef, 700) * 1e-3 - np.ldexp(X.T @ y, -360)).max() / np.ldexp(np.abs(X.T @ y).max(), -360)
    assert true > 1e-6
    assert solution.report.error_bound >= true


def test_an_answer_is_no_worse_for_the_number_of_pieces_than_one_fit():
    X, y = data(3000, 8)
    X = X + 1e6
    exact = Exact(X, y, 0.1)
    for n_pieces in (1, 10, 1000):
        solution = sums_of(X, y, cut=np.array_split(np.random.default_rng(0).permutation(3000), n_pieces)).solve(0.1, tol=1e-9)
        assert solution.report.converged
        assert exact.error(solution.coef) <= solution.report.error_bound


# Scores


def test_scores_against_the_rows():
    X, y = data(200, 6, k=2)
    weights = make_weights(200, 1)
    moments = sums_of(X + 1e4, y + 3, weights, np.array_split(np.arange(200), 3))
    rng = np.random.default_rng(0)
    for coef in (np.zeros((2, 6)), rng.standard_normal((2, 6)), moments.solve(1.0).coef):
        for b in (0.0, np.array([1.0, -2.0])):
            left = (y + 3 - (X + 1e4).astype(np.longdouble) @ coef.T - b).astype(np.longdouble)
            score = moments.score(coef, b)
            sq = weights @ left**2
            assert (np.abs(score.sq_residual - sq) <= score.doubt).all()
            assert (score.doubt <= 1e-8 * sq).all()
            np.testing.assert_allclose(score.r2, (1 - sq / Truth(X, y, weights).sizes[6:] ** 2).astype(float), rtol=1e-8)


@pytest.mark.parametrize("noise", [1e-2, 1e-6, 1e-8, 0.0])
def test_the_doubt_of_a_score_near_one(noise):
    X, _ = data(300, 5)
    coef = np.arange(1.0, 6.0)
    y = X @ coef + noise * np.random.default_rng(1).standard_normal(300)
    score = sums_of(X, y, cut=np.array_split(np.arange(300), 3)).score(coef)
    left = y - X.astype(np.longdouble) @ coef
    assert isinstance(score.sq_residual, float)
    assert abs(score.sq_residual - left @ left) <= score.doubt
    assert score.doubt <= 1e-10 * (y @ y)
    assert score.r2 <= 1


def test_scores_of_a_constant_target_and_wrong_shapes():
    X, _ = data(30, 3)
    moments = sums_of(X, np.full(30, 2.0))
    assert moments.score(np.zeros(3), 2.0).r2 == 1
    assert moments.score(np.zeros(3), 1.0).r2 == 0
    for coef, intercept in ((np.zeros(2), 0.0), (np.zeros((2, 3)), 0.0), (np.zeros(3), np.zeros(2))):
        with pytest.raises(ValueError, match=r"coef must be of shape \(1, 3\), or \(3,\) for one target"):
            moments.score(coef, intercept)


# What goes wrong


def state(moments):
    return {name: array.tobytes() for name, array in moments._sums.arrays.items()}


def test_errors_name_what_is_wrong_and_change_nothing():
    X, y = data(30, 3)
    moments = sums_of(X, y)
    before = state(moments)
    with_nan = X.copy()
    with_nan[4, 1] = np.nan
    too_large = X.copy()
    too_large[:, 2] *= 1e200
    for arguments, message in (
        ((X[:, :2], y), "the block has 2 features, these moments have 3"),
        ((X, np.stack([y, y], axis=1)), "the block has 2 targets, these moments have 1"),
        ((X, y[:, None]), r"the block has y of shape \(n_samples, 1\), these moments are of \(n_samples,\); reshape it"),
        ((with_nan, y), "NaN or infinity, first in column 1"),
        ((sp.csr_array(with_nan), y), "NaN or infinity, first in column 1"),
        ((too_large, y), "too large: the squares of column 2 overflow"),
        ((X, np.where(np.arange(30) == 3, np.inf, y)), "y contains NaN or infinity"),
        ((X, y * 1e200), "y is too large: the squares of column 0 overflow"),
        ((X, y, -np.ones(30)), "sample_weight must be finite and not negative"),
        ((X, y, np.zeros(29)), r"sample_weight must be a number or of shape \(30,\), got shape \(29,\)"),
        ((X, y[:-1]), "X has 30 samples, y has 29"),
        ((X[:0], y[:0]), "at least one sample"),
    ):
        with pytest.raises(ValueError, match=message):
            moments.update(*arguments)
        assert state(moments) == before
        assert moments.n_samples == 30
    with pytest.raises(ValueError, match="the other has 2 features, these moments have 3"):
        moments + sums_of(X[:, :2], y)
    with pytest.raises(ValueError, match="the other has 2 features, these moments have 3"):
        moments - sums_of(X[:10, :2], y[:10])
    with pytest.raises(TypeError):
        moments + 1
    with pytest.raises(ValueError, match="alpha must be finite and not negative"):
        moments.solve(-1.0)
    with pytest.raises(ValueError, match="alphas must be finite and not negative"):
        moments.solve([1.0, -1.0])
    with pytest.raises(ValueError, match="tol must lie between 0 and 1"):
        moments.solve(1.0, tol=0)
    with pytest.raises(ValueError, match=r"penalty_weights must be of shape \(3,\)"):
        moments.solve(1.0, penalty_weights=np.ones(4))


def test_sums_that_overflow_change_nothing():
    X, y = data(30, 3)
    half = sums_of(X / np.abs(X).max() * 1e153, y)
    while half.gram.max() < 1e308:
        half = half + half
    before = state(half)
    with pytest.raises(ValueError, match="overflow float64: rescale"):
        half + half
    assert state(half) == before


def test_no_rows():
    moments = Moments()
    assert repr(moments) == "Moments of no rows"
    assert (moments.n_samples, moments.sum_weights, moments.digits_lost) == (0, 0.0, 0.0)
    for call in (lambda: moments.solve(1.0), lambda: moments.gram, lambda: moments.n_features, lambda: moments.save("x")):
        with pytest.raises(ValueError, match="no rows yet: call update first"):
            call()
    X, y = data(30, 3)
    full = sums_of(X, y)
    for same in (full + moments, moments + full, full - moments):
        assert state(same) == state(full)
    with pytest.raises(ValueError, match="NaN"):
        moments.update(X * np.nan, y)
    moments.update(X[:, :2], y)
    assert moments.n_features == 2


def test_blocks_without_weight():
    X, y = data(30, 3)
    moments = Moments().update(X, y, np.zeros(30))
    assert repr(moments) == "Moments of 30 rows with 3 features and 1 target"
    for call in (lambda: moments.solve(1.0), lambda: moments.x_mean, lambda: moments.score(np.zeros(3))):
        with pytest.raises(ValueError, match="all rows of these moments have weight 0"):
            call()
    moments.update(X, y).update(X[:7], y[:7], 0)
    assert moments.n_samples == 67
    assert moments.sum_weights == 30
    assert Truth(X, y).error(moments) <= ROUNDING
    assert moments.digits_lost <= 1e-9


def test_names_of_features():
    pandas = pytest.importorskip("pandas")
    X, y = data(30, 3)
    frame = pandas.DataFrame(X, columns=["height", "weight", "age"])
    moments = Moments().update(frame, y)
    assert moments.feature_names == ("height", "weight", "age")
    with pytest.raises(ValueError, match="feature 1 of the block is named 'age', that of these moments 'weight'"):
        moments.update(frame[["height", "age", "weight"]], y)
    assert moments.update(X, y).n_samples == 60
    other = frame.copy()
    other["age"] *= 100
    with pytest.raises(ValueError, match="sum of squares of feature 'age' would be"):
        moments - Moments().update(other, y)
    assert Moments().update(pandas.DataFrame(X), y).feature_names is None


def test_memory_is_refused_before_any_work(monkeypatch):
    X, y = data(30, 3)
    monkeypatch.setattr(sums, "known_memory", lambda: 8_000_000_000)
    monkeypatch.setattr(module, "sum_block", lambda *arguments: pytest.fail("work has begun"))
    wide = sp.csr_array((30, 20_000))
    with pytest.raises(MemoryError, match=r"20,000 features take 2 Gram .* 6\.4 GB, which is more than 50% .* 8\.0 GB"):
        Moments().update(wide, y)
    monkeypatch.undo()
    monkeypatch.setattr(sums, "known_memory", lambda: 2 * 2 * 8 * 9)
    assert Moments().update(X, y).n_samples == 30
    monkeypatch.setattr(sums, "known_memory", lambda: None)
    assert Moments().update(X, y).n_samples == 30


def test_an_update_holds_two_gram_matrices():
    p = 700
    X = np.random.default_rng(0).standard_normal((300, p))
    y = X[:, 0]
    moments = Moments(n_threads=1).update(X, y)
    tracemalloc.start()
    try:
        moments.update(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 8 * p**2 + 3 * X.nbytes  # that of the block, and the block centred
    held = sum(array.nbytes for array in moments._sums.arrays.values())
    assert held <= 8 * p**2 + 8 * 20 * p


def interrupted_at(step, call):
    """Call and raise KeyboardInterrupt at the step-th line run within the package's sums; True if it got that far"""
    left = [step]

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in (sums.__file__, module.__file__):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_an_interrupt_leaves_all_or_nothing():
    X, y = data(30, 3)
    start, after = sums_of(X, y), sums_of(X, y).update(X[:10], y[:10])
    n_before = step = 0
    while True:
        step += 1
        some = copy.copy(start)
        if not interrupted_at(step, lambda some=some: some.update(X[:10], y[:10])):
            break
        assert state(some) in (state(start), state(after))
        n_before += state(some) == state(start)
        new = Moments()
        interrupted_at(step, lambda new=new: new.update(X, y))
        assert new.n_samples in (0, 30)
        if new.n_samples:
            assert state(new) == state(start)
    assert step > 50
    assert n_before > 50


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_an_interrupt_waits_for_the_merge():
    """Signals are looked at between Python's steps, and merging is one of them."""
    p = 600
    gram, more = np.zeros((p, p), order="F"), np.ones((p, p), order="F")
    rest = np.zeros((2, 3))

    def stop(number, frame):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(20):
            gram[...] = 0
            signal.setitimer(signal.ITIMER_REAL, 2e-4)
            try:
                kernel.merge(gram, np.zeros(p), more, None, 1.0, 0.0, np.zeros(p), rest, np.zeros((2, 3)))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            total = np.tril(gram).sum()
            assert total in (0, p * (p + 1) / 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


# Keeping


def test_copies_share_nothing():
    X, y = data(30, 3)
    moments = sums_of(X, y)
    before = state(moments)
    for other in (copy.copy(moments), copy.deepcopy(moments), pickle.loads(pickle.dumps(moments)), moments + Moments()):
        assert state(other) == before
        other.update(X, y)
        assert other.n_samples == 60
        assert state(other) == state(sums_of(X, y).update(X, y))
        assert state(moments) == before
    for array in (moments.gram, moments.cross, moments.x_mean):
        array[...] = 0
    assert state(moments) == before


@pytest.mark.parametrize("k", [0, 2])
def test_saved_and_loaded(tmp_path, k):
    X, y = data(50, 4, k)
    moments = sums_of(X, y, cut=np.array_split(np.arange(50), 3))
    moments.feature_names = ("a", "b", "c", "ü")
    path = tmp_path / "sums.moments"
    moments.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["sums.moments"]
    loaded = Moments.load(str(path), n_threads=1)
    assert state(loaded) == state(moments)
    assert loaded.feature_names == moments.feature_names
    assert repr(loaded) == repr(moments)
    np.testing.assert_array_equal(loaded.solve(1.0).coef, moments.solve(1.0).coef)
    assert loaded.solve(1.0).coef.shape == ((2, 4) if k else (4,))
    assert loaded.update(X, y).n_samples == 100  # what was read can be written to
    os.link(path, tmp_path / "before")
    loaded.save(path)
    assert state(Moments.load(path)) == state(loaded)
    assert state(Moments.load(tmp_path / "before")) == state(moments)  # a new file, not the old one written over


def test_files_that_are_refused(tmp_path):
    X, y = data(50, 4)
    path = tmp_path / "sums.npz"
    sums_of(X, y).save(path)
    whole = path.read_bytes()
    other = tmp_path / "other.npz"
    for end in range(0, len(whole), 7):
        other.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"other\.npz' (is truncated or damaged|was not written by)"):
            Moments.load(other)
    with np.load(path) as members:
        arrays = dict(members)
    gram = whole.index(arrays["gram"].tobytes("F"))
    for at in (gram, gram + 77):
        other.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"other\.npz' is truncated or damaged: .*CRC"):
            Moments.load(other)
    for content in (b"some text", pickle.dumps(arrays)):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.npz' was not written by fastridge\.Moments\.save"):
            Moments.load(other)
    np.savez(other, a=np.ones(3))
    with pytest.raises(ValueError, match=r"was not written by fastridge\.Moments\.save: it has no header"):
        Moments.load(other)
    np.savez(other, **{**arrays, "gram": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"truncated or damaged: Object arrays cannot be loaded"):
        Moments.load(other)
    header = json.loads(arrays["header"].tobytes())

    def with_header(**changes):
        return {"header": np.frombuffer(json.dumps(header | changes).encode(), dtype=np.uint8)}

    for changes, message in (
        (with_header(kind="other.Thing"), r"not written by fastridge\.Moments\.save: it holds 'other\.Thing'"),
        (with_header(version=2), "has version 2 of the format of fastridge.Moments, this version of fastridge reads 1"),
        (with_header(shape=[3, 1]), "is damaged: gram must be"),
        (with_header(shape=[10**9, 10**9]), "is damaged"),
        (with_header(shape=None), "is damaged"),
        ({"header": np.frombuffer(b"[1]", dtype=np.uint8)}, "it has no header"),
        ({"header": np.frombuffer(b"{", dtype=np.uint8)}, "it has no header"),
        ({"gram": arrays["gram"][:3]}, "is damaged: gram must be"),
        ({"gram": arrays["gram"].astype(np.float32)}, "is damaged: gram must be"),
        ({"rest": arrays["rest"] * np.nan}, "is damaged: rest must be"),
        ({"more": np.ones(2)}, "is damaged"),
    ):
        np.savez(other, **(arrays | changes))
        with pytest.raises(ValueError, match=message):
            Moments.load(other)
    with pytest.raises(FileNotFoundError):
        Moments.load(tmp_path / "nothing")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    X, y = data(50, 4)
    path = tmp_path / "sums.npz"
    first = sums_of(X, y)
    first.save(path)
    for error in (OSError("disk full"), KeyboardInterrupt()):

        def fail(file, error=error, **members):
            file.write(b"half")
            raise error

        monkeypatch.setattr(archive.np, "savez", fail)
        with pytest.raises(type(error)):
            sums_of(X[:20], y[:20]).save(path)
        monkeypatch.undo()
        assert state(Moments.load(path)) == state(first)
        assert len(list(tmp_path.iterdir())) == 1
