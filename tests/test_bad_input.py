"""What is wrong with the input is said before any work, by the name of the argument; what was fitted before stays."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_X, make_y
from truth import Exact

import fastridge
from fastridge import Ridge, RidgeClassifier

X = make_X(12, 4, seed=111)
Y = make_y(X, 112)


def fit(X=X, y=Y, alpha=1.0, sample_weight=None, **options):
    """Fit through the function and through the estimator: both must refuse"""
    return fastridge.ridge(X, y, alpha, sample_weight=sample_weight, **options)


def fit_model(X=X, y=Y, alpha=1.0, sample_weight=None, **options):
    return Ridge(alpha, **options).fit(X, y, sample_weight)


def coefficients(fitted):
    return fitted.coef if isinstance(fitted, fastridge.Solution) else fitted.coef_


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


def records():
    """Columns: numbers, cities, numbers; and rows"""
    return {"size": X[:, 0], "city": np.array(["Oslo", "Rome", "Bonn"] * 4, dtype=object), "age": X[:, 1]}


FRAMES = {
    "pandas": pd.DataFrame(records()),
    "pandas categories": pd.DataFrame(records()).astype({"city": "category"}),
    "polars": pl.DataFrame(records()),
    "polars categories": pl.DataFrame(records()).with_columns(pl.col("city").cast(pl.Categorical)),
}


def mixed(value, row=5, column=2):
    changed = X.astype(object)
    changed[row, column] = value
    return changed


@pytest.mark.parametrize("frame", FRAMES)
@both
def test_a_column_of_text_is_named(fit, frame):
    with pytest.raises(ValueError, match=r"X must be numeric: column 'city' holds 'Oslo' in row 0; encode categories as numbers"):
        fit(X=FRAMES[frame])


@pytest.mark.parametrize(
    "make", [np.asarray, np.ndarray.tolist, lambda a: a.astype(str), pd.DataFrame], ids=["object", "list", "str", "pandas"]
)
@both
def test_an_entry_of_text_is_named(fit, make):
    with pytest.raises(ValueError, match=r"X must be numeric: column 2 holds 'red' in row 5; encode"):
        fit(X=make(mixed("red")))


def test_text_is_named_where_a_fitted_model_predicts_and_where_classes_are_fitted():
    model = Ridge().fit(X, Y)
    with pytest.raises(ValueError, match=r"column 2 holds 'red' in row 5"):
        model.predict(mixed("red"))
    with pytest.raises(ValueError, match=r"column 'city' holds 'Oslo'"):
        RidgeClassifier().fit(FRAMES["pandas"], Y > 0)


@both
def test_an_object_that_is_no_number_is_named(fit):
    with pytest.raises(TypeError, match=r"X must be numeric: column 2 holds \{'a': 1\} in row 5; .*argument must be .* string"):
        fit(X=mixed({"a": 1}))


@both
def test_objects_that_are_numbers_are_taken(fit):
    truth = mixed(True)
    for one in (X.astype(object), X.astype(str), pd.DataFrame(X.astype(str)), truth):
        numbers = np.asarray(truth, dtype=np.float64) if one is truth else X
        np.testing.assert_allclose(coefficients(fit(X=one)), coefficients(fit(X=numbers)), rtol=1e-9, atol=1e-12)


@both
def test_a_missing_value_of_pandas(fit):
    frame = pd.DataFrame({"a": pd.array([1, 2, None] * 4, dtype="Int64"), "b": X[:, 0]})
    with pytest.raises(
        (ValueError, TypeError), match=r"column 'a' holds <NA> in row 2; fill in|X contains NaN.* first in column 0"
    ):
        fit(X=frame)


@pytest.mark.parametrize("labels", [["a", "b"] * 6, pd.Series(["a", "b"] * 6), np.array(["a", "b"] * 6, dtype=object)])
@both
def test_y_of_labels_names_the_classifier(fit, labels):
    with pytest.raises(ValueError, match=r"y must be numeric: 'a' at index 0; RidgeClassifier takes labels"):
        fit(y=labels)


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        (np.full((12, 4), np.datetime64("2020-01-01")), r"got dtype datetime64\[D\]"),
        (np.full((12, 4), np.timedelta64(3, "D")), r"got dtype timedelta64\[D\]"),
        (pd.DataFrame({"when": pd.date_range("2020-01-01", periods=12)}), "column 'when' holds datetime64"),
        (
            pd.DataFrame({"a": X[:, 0], "when": pd.date_range("2020-01-01", periods=12, tz="UTC")}),
            "column 'when' holds datetime64",
        ),
        (pl.DataFrame({"a": X[:, 0], "when": [datetime.date(2020, 1, 1)] * 12}), "column 'when' holds Date"),
    ],
    ids=["array", "differences", "pandas", "zone", "polars"],
)
@both
def test_dates(fit, dates, said):
    with pytest.raises(ValueError, match=f"X must be numeric.*{said}.*; turn dates into numbers first"):
        fit(X=dates)


@both
def test_a_lazy_frame(fit):
    with pytest.raises(TypeError, match=r"X is a LazyFrame, which holds no data yet; pass X\.collect\(\)"):
        fit(X=pl.DataFrame(X).lazy())
    with pytest.raises(TypeError, match=r"y is a LazyFrame, which holds no data yet; pass y\.collect\(\)"):
        fit(y=pl.DataFrame({"y": Y}).lazy())


@both
def test_masked_arrays(fit):
    for masked, name in ({"X": np.ma.masked_greater(X, 1)}, "X"), ({"y": np.ma.masked_greater(Y, 1)}, "y"):
        with pytest.raises(ValueError, match=rf"{name} has \d+ masked entries; fill them, {name}\.filled\(value\), or drop"):
            fit(**masked)
    with pytest.raises(ValueError, match="sample_weight has 6 masked entries"):
        fit(sample_weight=np.ma.masked_greater(np.arange(12.0), 5))
    fit(X=np.ma.array(X), y=np.ma.array(Y))  # nothing is masked


@both
def test_structured_arrays(fit):
    both_fields = np.array([(1.0, 2.0)] * 12, dtype=[("age", float), ("size", float)])
    for arguments, name in ({"X": both_fields}, "X"), ({"X": both_fields.view(np.recarray)}, "X"), ({"y": both_fields}, "y"):
        with pytest.raises(
            ValueError, match=rf"{name} is a structured array with the fields age, size; pass .*to_unstructured\({name}\)"
        ):
            fit(**arguments)


@pytest.mark.parametrize("make", [sp.csr_array, sp.coo_matrix, sp.lil_array])
@both
def test_sparse_y(fit, make):
    for y in (make(Y[:, None]), make(np.column_stack([Y, Y]))):
        with pytest.raises(TypeError, match=r"y must be dense, got a sparse matrix; pass y\.toarray\(\)"):
            fit(y=y)
    with pytest.raises(TypeError, match=r"sample_weight must be dense.*sample_weight\.toarray\(\)"):
        fit(sample_weight=make(np.ones((12, 1))))


HUGE = 10**400


@both
def test_integers_of_400_digits(fit):
    too_large = "an integer of 401 digits.*too large for float64"
    for arguments, said in (
        ({"alpha": HUGE}, f"alpha must be numeric: {too_large}"),
        ({"alpha": [HUGE]}, f"alpha must be numeric: {too_large}"),
        ({"y": [*range(11), HUGE]}, "y must be numeric: an integer of 401 digits at index 11, .*float64"),
        ({"y": np.array([*range(11), -HUGE], dtype=object)}, "y must be numeric: an integer of 401 digits at index 11"),
        ({"X": mixed(HUGE)}, "X must be numeric: column 2 holds an integer of 401 digits in row 5, which is too large"),
        ({"sample_weight": [HUGE] * 12}, f"sample_weight must be numeric: {too_large}"),
        ({"penalty_weights": [HUGE] * 4}, f"penalty_weights must be numeric: {too_large}"),
        ({"bounds": (0, HUGE)}, rf"bounds \(upper\) must be numeric: {too_large}"),
        ({"tol": HUGE}, "tol must lie between 0 and 1 .*, got an integer of 401 digits"),
        ({"max_iter": HUGE}, "max_iter must be at least 1 and at most .*, got an integer of 401 digits"),
        ({"n_threads": HUGE}, "n_threads must be at least 1 and at most .*, got an integer of 401 digits"),
        ({"alpha": 10**5000}, "alpha must be numeric: an integer of 5001 digits"),  # more than Python writes out
    ):
        with pytest.raises(ValueError, match=said):
            fit(**arguments)


@both
def test_numbers_of_python_and_long_doubles(fit):
    fit(alpha=10**25, y=[10**25] * 12)
    with pytest.raises(ValueError, match="alpha must be finite"):
        fit(alpha=np.longdouble("1e4000"))
    with pytest.raises(ValueError, match=r"y contains (NaN|infinity)"):
        fit(y=np.full(12, np.longdouble("1e4000")))
    with pytest.raises(ValueError, match="X contains NaN or infinity"):
        fit(X=np.full((12, 4), np.longdouble("1e4000")))


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


@pytest.mark.parametrize(
    ("solver", "said"),
    [
        *((name, 'solver="cg" does its job here, "auto" chooses') for name in ("lsqr", "sparse_cg", "sag", "saga")),
        ("lbfgs", 'solver="cd" does its job here'),
        ("normal", 'solver="cholesky" does its job here'),
        ("qr", 'solver="svd" does its job here'),
        ("eigen", 'solver="auto" does its job here'),
        ("CG", 'did you mean "cg"'),
        ("choleski", 'did you mean "cholesky"'),
        ("nonsense", "'nonsense'$"),
        (["cg"], r"\['cg'\]$"),
    ],
)
@both
def test_an_unknown_solver_is_told_which_of_ours_does_its_job(fit, solver, said):
    with pytest.raises(ValueError, match=f"solver must be one of 'auto', 'cholesky', 'svd', 'cg', 'cd', got .*{said}"):
        fit(solver=solver)


@pytest.mark.parametrize("value", [None, 0, 1, "no", "True", np.ones(2)])
@both
def test_fit_intercept_is_true_or_false(fit, value):
    with pytest.raises(TypeError, match="fit_intercept must be True or False, got"):
        fit(fit_intercept=value)
    for truth in (np.bool_(True), False):
        fit(fit_intercept=truth)
    for option in ("copy_X", "warm_start"):
        with pytest.raises(TypeError, match=f"{option} must be True or False, got"):
            Ridge(**{option: value}).fit(X, Y)


@both
def test_none_is_no_bound(fit):
    def coef(bounds):
        result = fit(bounds=bounds)
        return result.coef_ if isinstance(result, Ridge) else result.coef

    for given, meant in (
        ((0, None), (0, np.inf)),
        ((None, 1), (-np.inf, 1)),
        ((None, None), None),
        (([0, None, 0, None], None), ([0, -np.inf, 0, -np.inf], np.inf)),
        ([None, [None, 0.5, 1, None]], (-np.inf, [np.inf, 0.5, 1, np.inf])),
    ):
        np.testing.assert_array_equal(coef(given), coef(meant))


@pytest.mark.parametrize("bounds", [((0, 1),) * 4, (0, 1, 2), 3.0, "ab c"])
@both
def test_bounds_that_are_no_pair(fit, bounds):
    with pytest.raises(ValueError, match=r"bounds must be a pair \(lower, upper\), each a number or one for each feature, got"):
        fit(bounds=bounds)


@pytest.mark.parametrize(("bounds", "said"), [((1, 2), "1 to 2"), (([0, 0, 0, -3], [1, 1, 1, -1]), "-3 to -1")])
@both
def test_bounds_that_an_infinite_penalty_weight_violates(fit, bounds, said):
    d = [1, 1, 1, np.inf]
    said = f"penalty_weights of inf fixes the coefficient of feature 3 at 0, which its bounds, {said}, exclude"
    with pytest.raises(ValueError, match=said):
        fit(penalty_weights=d, bounds=bounds)
    for alphas in ([1.0], 3):
        with pytest.raises(ValueError, match=said):
            fastridge.ridge_path(X, Y, alphas, penalty_weights=d, bounds=bounds)
    result = fit(penalty_weights=d, bounds=(0, 2))
    assert (result.coef_ if isinstance(result, Ridge) else result.coef)[3] == 0


@pytest.mark.parametrize("weight", [5e-324, 1e-310])
@both
def test_penalty_weights_that_columns_cannot_be_scaled_by(fit, weight):
    with pytest.raises(
        ValueError, match=r"penalty_weights must be 0 \(unpenalised\), inf .* or at least 2.2\d*e-308, got .* for feature 2"
    ):
        fit(penalty_weights=[1, 0, weight, np.inf])


@pytest.mark.parametrize("weight", [5e-324, 1e-201, 1e201, 1e308])
@both
def test_penalty_matrices_whose_squares_leave_float64(fit, weight):
    with pytest.raises(ValueError, match=r"largest entry of a penalty matrix must be from 1e-200 to 1e\+200, got"):
        fit(penalty_weights=weight * np.eye(4))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("solver", ["auto", "cholesky", "svd", "cg", "cd"])
def test_penalty_weights_at_the_ends_are_taken_without_a_warning(solver):
    """As if the first feature were not penalised, the second fixed at zero; or the answer is not said to have converged"""
    solution = fastridge.ridge(X, Y, penalty_weights=[1e-200, 1e200, 1, 1], solver=solver)
    limit = fastridge.ridge(X, Y, penalty_weights=[0, np.inf, 1, 1], solver="cholesky").coef
    if solution.report.converged or solver != "svd":
        np.testing.assert_allclose(solution.coef, limit, atol=1e-5 * np.abs(limit).max())


@both
def test_options_may_be_numpy_numbers(fit):
    found = fit(max_iter=np.int32(100), n_threads=np.int64(2), tol=np.float32(1e-4), alpha=np.float32(0.1))
    same = fit(max_iter=100, n_threads=2, tol=float(np.float32(1e-4)), alpha=float(np.float32(0.1)))
    np.testing.assert_array_equal(coefficients(found), coefficients(same))


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


def change(name, index, value):
    def changed(matrix):
        getattr(matrix, name)[index] = value

    return changed


def cut(name):
    return lambda matrix: setattr(matrix, name, getattr(matrix, name)[:-2])


BROKEN = {
    "row": (sp.coo_array, lambda m: m.row.__setitem__(2, 99), r"its row indices must lie in \[0, 12\)"),
    "row of a matrix": (sp.coo_matrix, lambda m: m.row.__setitem__(2, 12), r"its row indices must lie in \[0, 12\)"),
    "row < 0": (sp.coo_array, lambda m: m.row.__setitem__(2, -1), r"its row indices must lie in \[0, 12\)"),
    "column": (sp.coo_array, lambda m: m.col.__setitem__(2, 4), r"its column indices must lie in \[0, 4\)"),
    "column < 0": (sp.coo_array, lambda m: m.col.__setitem__(2, -4), r"its column indices must lie in \[0, 4\)"),
    "entries": (sp.coo_array, cut("data"), r"\d+ row indices for \d+ entries"),
    "list of columns": (sp.lil_array, lambda m: m.rows[2].append(3), "rows and data must have the same lengths"),
    "list of entries": (sp.lil_array, lambda m: m.data[2].extend([3.0] * 1000), "rows and data must have the same lengths"),
    "lists": (sp.lil_array, cut("rows"), "rows and data must have the same lengths"),
    "list, column": (sp.lil_array, lambda m: (m.rows[2].append(99), m.data[2].append(1.0)), r"must lie in \[0, 4\)"),
    "list, text": (sp.lil_array, lambda m: (m.rows[2].append("a"), m.data[2].append(1.0)), "integer"),
    "key": (sp.dok_array, lambda m: m._dict.__setitem__((99, 1), 1.0), "axis 0 index 99"),
    "key < 0": (sp.dok_array, lambda m: m._dict.__setitem__((-1, 1), 1.0), "negative axis 0 index"),
    "block": (sp.bsr_array, change("indices", 1, 99), r"must lie in \[0, \d\)"),
    "block < 0": (sp.bsr_array, change("indices", 1, -9), r"must lie in \[0, \d\)"),
    "rows of blocks": (sp.bsr_array, change("indptr", 1, 99_999), "indptr must rise"),
    "last block": (sp.bsr_array, change("indptr", -1, 9_999), "indptr must rise"),
    "blocks": (sp.bsr_array, cut("data"), "indptr must rise"),
    "offsets": (sp.dia_array, cut("offsets"), "offsets for data of shape"),
    "diagonals": (sp.dia_array, cut("data"), "offsets for data of shape"),
}


@pytest.mark.parametrize("case", BROKEN)
@both
def test_sparse_formats_that_are_converted_are_checked_before(fit, case):
    make, breaks, said = BROKEN[case]
    matrix = make(sp.csr_array(X), blocksize=(2, 2)) if make is sp.bsr_array else make(X)
    breaks(matrix)
    with pytest.raises(ValueError, match=f"X is not a well-formed (coo|lil|dok|bsr|dia|csr) matrix.*{said}"):
        fit(X=matrix)
    with pytest.raises(ValueError, match=said):
        Ridge().fit(X, Y).predict(matrix)


@pytest.mark.parametrize(
    "make", [sp.coo_array, sp.lil_array, sp.dok_array, sp.bsr_array, sp.dia_array, sp.csr_array, sp.csc_array]
)
@both
def test_every_sparse_format_is_taken(fit, make):
    result = fit(X=make(X))
    coef = result.coef_ if isinstance(result, Ridge) else result.coef
    assert Exact(X, Y, 1.0).error(coef) <= 1e-6
    np.testing.assert_allclose(Ridge().fit(X, Y).predict(make(X)), Ridge().fit(X, Y).predict(X), rtol=1e-12, atol=1e-12)


def test_malformed_rows_are_not_read_where_a_model_predicts():
    matrix = malformed(sp.csr_array, indices=put((2, 99)))
    with pytest.raises(ValueError, match=r"X is not a well-formed csr matrix: its indices must lie in \[0, 4\)"):
        Ridge().fit(X, Y).predict(matrix)


@pytest.mark.parametrize("make", [sp.coo_array, sp.csr_array])
@both
def test_a_sparse_penalty_matrix_is_checked(fit, make):
    D = make(2.0 * np.eye(4))
    (D.row if make is sp.coo_array else D.indices)[1] = 99
    with pytest.raises(
        ValueError, match=r"penalty_weights is not a well-formed (coo|csr) matrix: its (row )?indices must lie in \[0, 4\)"
    ):
        fit(penalty_weights=D)


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


@pytest.mark.parametrize(
    "parameter",
    [
        {"alpha": -1.0},
        {"solver": "x"},
        {"tol": 0.0},
        {"max_iter": 0},
        {"fit_intercept": None},
        {"alpha": HUGE},
        {"bounds": (0, 1, 2)},
        {"penalty_weights": [1e-310, 1]},
    ],
)
def test_a_refit_with_a_bad_parameter_leaves_what_was_fitted(parameter):
    model = Ridge().fit(X, Y)
    coef = model.coef_
    model.set_params(**parameter)
    with pytest.raises((ValueError, TypeError), match=next(iter(parameter))):
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


def test_paths_and_plans_refuse_what_a_fit_refuses():
    for call in (fastridge.ridge_path, fastridge.explain):
        for arguments, error, said in (
            ({"fit_intercept": None}, TypeError, "fit_intercept must be True or False, got None"),
            ({"bounds": (0, 1, 2)}, ValueError, "bounds must be a pair"),
            ({"X": FRAMES["pandas"]}, ValueError, "column 'city' holds 'Oslo' in row 0"),
            ({"X": pl.DataFrame(X).lazy()}, TypeError, r"X\.collect\(\)"),
            ({"y": sp.csr_array(Y[:, None])}, TypeError, r"y\.toarray\(\)"),
            ({"y": np.ma.masked_greater(Y, 1)}, ValueError, "masked entries"),
            ({"penalty_weights": [1, 1, 1, 1e-310]}, ValueError, "got 1e-310 for feature 3"),
            ({"solver": "lsqr"}, ValueError, 'solver="cg" does its job'),
        ):
            given = {"X": X, "y": Y, **arguments}
            with pytest.raises(error, match=said):
                call(given.pop("X"), given.pop("y"), **given)
    for alphas, said in ((HUGE, "at most 1000000 .*401 digits"), ([1, HUGE], "401 digits at index 1, which is too large")):
        with pytest.raises(ValueError, match=f"alphas must be .*{said}"):
            fastridge.ridge_path(X, Y, alphas)


def test_explain_refuses_what_a_fit_refuses():
    for arguments in ({"alpha": -1.0}, {"solver": "x"}, {"sample_weight": np.zeros(12)}, {"y": np.ones(3)}, {"n_threads": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            fastridge.explain(X, **arguments)
