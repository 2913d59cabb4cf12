"""What is wrong with the input is said before any work, by the name of the argument; what was fitted before stays."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import STORAGES, Exact, make_X, make_y

import fastridge
from fastridge import Ridge

X = make_X(12, 4, seed=111)
Y = make_y(X, 112)


def fit(X=X, y=Y, alpha=1.0, sample_weight=None, **options):
    """Fit through the function and through the estimator: both must refuse"""
    return fastridge.ridge(X, y, alpha, sample_weight=sample_weight, **options)


def fit_model(X=X, y=Y, alpha=1.0, sample_weight=None, **options):
    return Ridge(alpha, **options).fit(X, y, sample_weight)


both = pytest.mark.parametrize("fit", [fit, fit_model], ids=["ridge", "Ridge"])


def with_entry(value, dtype=np.float64):
    changed = X.astype(dtype)
    changed[3, 1] = value
    return changed


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", STORAGES)
@both
def test_X_not_finite(fit, storage, value, dtype):
    for intercept in (True, False):
        with pytest.raises(ValueError, match=r"X contains NaN|Input X contains"):
            fit(X=STORAGES[storage](with_entry(value, dtype)), fit_intercept=intercept)


@both
def test_X_not_finite_in_the_last_of_many_rows(fit):
    large = np.ones((30_000, 20))
    large[-1, -1] = np.nan
    for one in (large, np.asfortranarray(large), sp.csr_array(large)):
        with pytest.raises(ValueError, match=r"X contains NaN or infinity, first in column 19"):
            fit(X=one, y=np.zeros(30_000))


@both
def test_X_not_finite_under_weight_zero(fit):
    weights = np.ones(12)
    weights[3] = 0
    with pytest.raises(ValueError, match="X contains NaN"):
        fit(X=with_entry(np.nan), sample_weight=weights)


@both
def test_X_too_large(fit):
    with pytest.raises(ValueError, match=r"X is too large.* column 1 overflow"):
        fit(X=with_entry(1e200))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@both
def test_y_not_finite(fit, value):
    for y in (np.where(np.arange(12) == 5, value, Y), np.full((12, 2), value)):
        with pytest.raises(ValueError, match=r"y contains (NaN|infinity)"):
            fit(y=y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@both
def test_weights_not_finite_or_negative(fit, value):
    weights = np.ones(12)
    weights[7] = value
    with pytest.raises(ValueError, match="sample_weight"):
        fit(sample_weight=weights)


@pytest.mark.parametrize("weights", [np.zeros(12), np.ones(11), np.ones((12, 1)), np.ones((12, 2)), 0.0, -1.0, "x", ["a"] * 12])
@both
def test_weights_that_do_not_fit(fit, weights):
    with pytest.raises(ValueError, match="sample_weight"):
        fit(sample_weight=weights)


@both
def test_weights_complex(fit):
    with pytest.raises(ValueError, match=r"[Cc]omplex.*sample_weight|sample_weight.*[Cc]omplex"):
        fit(sample_weight=np.ones(12) + 1j)


@pytest.mark.parametrize("y", [Y[:-1], np.ones((11, 2)), np.ones(13)])
@both
def test_lengths_that_differ(fit, y):
    with pytest.raises(ValueError, match=r"12.*1[13]|1[13].*12"):
        fit(y=y)


@pytest.mark.parametrize("y", [np.ones((12, 2, 2)), np.ones((12, 0)), np.float64(3), None])
@both
def test_y_of_the_wrong_shape(fit, y):
    with pytest.raises((ValueError, TypeError), match=r"\by\b|dim <= 2|0 feature|at least 1 dimension"):
        fit(y=y)


@pytest.mark.parametrize("shape", [(0, 4), (12, 0), (0, 0)])
@pytest.mark.parametrize("make", [np.zeros, sp.csr_array, sp.csc_array, sp.coo_array])
@both
def test_empty(fit, make, shape):
    with pytest.raises(ValueError, match=r"at least one|minimum of 1 is required"):
        fit(X=make(shape), y=np.zeros(shape[0]))


@pytest.mark.parametrize("shape", [(12,), (12, 2, 2), ()])
@both
def test_X_of_the_wrong_dimension(fit, shape):
    with pytest.raises(ValueError, match=r"X must be two-dimensional|Expected 2D array|expected <= 2|dim 3"):
        fit(X=np.ones(shape))


@both
def test_complex(fit):
    for one in (X + 1j, sp.csr_array(X + 1j)):
        with pytest.raises(ValueError, match="Complex data not supported"):
            fit(X=one)
    with pytest.raises(ValueError, match="Complex data not supported"):
        fit(y=Y + 1j)


@pytest.mark.parametrize("words", [np.full((12, 4), "word"), np.full((12, 4), "word", dtype=object), [["a", "b"]] * 12])
@both
def test_X_of_words(fit, words):
    with pytest.raises(ValueError, match=r"X must be numeric|could not convert string|not compatible"):
        fit(X=words)


@both
def test_y_of_words(fit):
    for y in (np.full(12, "word"), np.full(12, "word", dtype=object)):
        with pytest.raises(ValueError, match=r"y must be numeric|could not convert string|not compatible"):
            fit(y=y)


def test_X_of_dates():
    with pytest.raises(ValueError, match=r"X must be numeric, got dtype datetime64"):
        fit(X=np.full((12, 4), np.datetime64("2020-01-01")))


@pytest.mark.parametrize("alpha", [-1.0, np.nan, np.inf, [1.0, 2.0], [], [[1.0]], [-1.0]])
@both
def test_alpha_of_a_wrong_value(fit, alpha):
    with pytest.raises(ValueError, match="alpha must be"):
        fit(alpha=alpha)


@pytest.mark.parametrize("alpha", ["1", None, 1j, [1 + 1j], True])
@both
def test_alpha_of_a_wrong_type(fit, alpha):
    with pytest.raises((ValueError, TypeError), match="alpha must be"):
        fit(alpha=alpha)


@pytest.mark.parametrize("alpha", [[1.0, 2.0], [1.0] * 4, np.ones((3, 1))])
@both
def test_alpha_that_does_not_fit_the_targets(fit, alpha):
    with pytest.raises(ValueError, match=r"alpha must be .*\(3,\)"):
        fit(y=np.ones((12, 3)), alpha=alpha)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("solver", "lsqr", ValueError),
        ("solver", "CG", ValueError),
        ("solver", None, ValueError),
        ("solver", 3, ValueError),
        ("tol", 0.0, ValueError),
        ("tol", -1e-3, ValueError),
        ("tol", 1.0, ValueError),
        ("tol", np.nan, ValueError),
        ("tol", "1e-3", TypeError),
        ("tol", None, TypeError),
        ("tol", True, TypeError),
        ("max_iter", 0, ValueError),
        ("max_iter", -5, ValueError),
        ("max_iter", 2.5, TypeError),
        ("max_iter", "many", TypeError),
        ("max_iter", True, TypeError),
        ("n_threads", 0, ValueError),
        ("n_threads", -1, ValueError),
        ("n_threads", 1.0, TypeError),
        ("n_threads", "all", TypeError),
    ],
)
@both
def test_options(fit, option, value, error):
    with pytest.raises(error, match=f"{option} must .*{value}"):
        fit(**{option: value})


def test_an_unknown_solver_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"'auto', 'cholesky', 'svd', 'cg', 'cd', got 'lsqr'"):
        fit(solver="lsqr")


@both
def test_options_may_be_numpy_numbers(fit):
    fit(max_iter=np.int32(100), n_threads=np.int64(2), tol=np.float32(1e-4), alpha=np.float32(2))


def malformed(make, **changes):
    """A sparse matrix whose arrays were changed behind scipy's back"""
    matrix = make(X)
    for name, change in changes.items():
        change(getattr(matrix, name))
    return matrix


def put(*entries):
    def change(array):
        for position, value in entries:
            array[position] = value

    return change


@pytest.mark.parametrize("solver", ["auto", "cg"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"indices": put((2, 99))}, "ind"),
        ({"indices": put((2, -1))}, "ind"),
        ({"indptr": put((2, 9999))}, "indptr"),
        ({"indptr": put((2, -3))}, "indptr"),
        ({"indptr": put((2, 20), (3, 5))}, "indptr"),
        ({"indptr": put((0, 1))}, "indptr|start with 0"),
        ({"indptr": put((-1, 10_000))}, "indptr|[Ll]ast value of index pointer"),
    ],
)
@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_array, sp.csr_matrix, sp.csc_matrix])
@both
def test_malformed_sparse(fit, make, changes, said, solver):
    with pytest.raises(ValueError, match=said):
        fit(X=malformed(make, **changes), solver=solver)


@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_array])
@both
def test_arrays_of_the_wrong_length(fit, make):
    matrix = make(X)
    matrix.data = matrix.data[:-2]
    with pytest.raises(ValueError, match=r"indptr|length|size|indices"):
        fit(X=matrix)


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_array, sp.csr_matrix])
@both
def test_unsorted_and_repeated_indices_are_right_and_left_alone(fit, make, index_type):
    once = make(X)
    order = np.concatenate([np.arange(lo, hi)[::-1] for lo, hi in zip(once.indptr[:-1], once.indptr[1:], strict=True)])
    # Every entry twice, half of it each time, the indices descending.
    data, indices = np.repeat(once.data[order] / 2, 2), np.repeat(once.indices[order], 2).astype(index_type)
    matrix = make((data.copy(), indices.copy(), (2 * once.indptr).astype(index_type)), shape=X.shape)
    result = fit(X=matrix)
    coef = result.coef_ if isinstance(result, Ridge) else result.coef
    assert Exact(X, Y, 1.0).error(coef) <= 1e-6
    np.testing.assert_array_equal(matrix.data, data)
    np.testing.assert_array_equal(matrix.indices, indices)


@both
def test_repeated_coordinates_are_summed(fit):
    once = sp.coo_array(X)
    rows, columns = (np.tile(indices, 2) for indices in once.coords)
    result = fit(X=sp.coo_array((np.tile(once.data / 2, 2), (rows, columns)), shape=X.shape))
    coef = result.coef_ if isinstance(result, Ridge) else result.coef
    assert Exact(X, Y, 1.0).error(coef) <= 1e-6


@both
def test_entries_past_the_end_are_ignored(fit):
    matrix = sp.csr_array(X)
    nan = np.full(5, np.nan)
    longer = sp.csr_array(X)
    longer.data = np.concatenate([matrix.data, nan])
    longer.indices = np.concatenate([matrix.indices, np.full(5, 77, dtype=matrix.indices.dtype)])
    result = fit(X=longer)
    coef = result.coef_ if isinstance(result, Ridge) else result.coef
    assert Exact(X, Y, 1.0).error(coef) <= 1e-6


@pytest.mark.parametrize(
    "bad",
    [
        {"X": with_entry(np.nan)[:, :3]},
        {"X": X[:, :2], "y": np.full(12, np.nan)},
        {"X": X[:, :3], "sample_weight": -np.ones(12)},
        {"X": X[:-1]},
        {"X": malformed(sp.csr_array, indices=put((2, 99)))},
        {"X": pd.DataFrame(X, columns=list("abcd")), "y": np.full(12, np.nan)},
    ],
    ids=["other width, NaN", "other width, bad y", "other width, bad weights", "lengths", "malformed", "names"],
)
def test_a_refit_that_fails_leaves_what_was_fitted(bad):
    model = Ridge().fit(X, Y)
    before = dict(vars(model))
    prediction = model.predict(X)
    arguments = {"X": X, "y": Y, **bad}
    with pytest.raises(ValueError, match=r".+"):
        model.fit(**arguments)
    assert vars(model).keys() == before.keys()
    assert all(getattr(model, name) is value for name, value in before.items())
    np.testing.assert_array_equal(model.predict(X), prediction)


@pytest.mark.parametrize("parameter", [{"alpha": -1.0}, {"solver": "x"}, {"tol": 0.0}, {"max_iter": 0}])
def test_a_refit_with_a_bad_parameter_leaves_what_was_fitted(parameter):
    model = Ridge().fit(X, Y)
    coef = model.coef_
    model.set_params(**parameter)
    with pytest.raises(ValueError, match=next(iter(parameter))):
        model.fit(X[:, :2], Y)
    assert model.coef_ is coef
    assert model.n_features_in_ == 4


@pytest.mark.parametrize("make", [np.ascontiguousarray, sp.csr_array, sp.coo_array])
def test_predict_refuses_other_data(make):
    model = Ridge().fit(X, Y)
    with pytest.raises(ValueError, match="X has 3 features, but Ridge is expecting 4"):
        model.predict(make(X[:, :3]))
    with pytest.raises(ValueError, match="NaN"):
        model.predict(make(with_entry(np.nan)))


def test_explain_refuses_what_a_fit_refuses():
    for arguments in ({"alpha": -1.0}, {"solver": "x"}, {"sample_weight": np.zeros(12)}, {"y": np.ones(3)}, {"n_threads": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            fastridge.explain(X, **arguments)
