"""Dask collections: the answers of a fit on an array, the same bits on any number of workers and after one was killed."""

import os
import signal
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.model_selection import KFold

import fastridge
from fastridge import checkpoint, sums

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")
pd = pytest.importorskip("pandas")
fd = pytest.importorskip("fastridge.dask")

N, P = 1200, 9


def cluster(n_workers):
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=1, dashboard_address=None, silence_logs=50, host="127.0.0.1"
    )


@pytest.fixture(scope="module")
def client():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with cluster(2) as two, distributed.Client(two) as client:
            yield client


@contextmanager
def no_client():
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="threads"):
        patch.setattr(fd, "_client", lambda: None)
        yield


@pytest.fixture(params=["no client", "two workers"])
def anywhere(request):
    """With chunks computed here, and on a cluster of processes"""
    if request.param == "no client":
        with no_client():
            yield
    else:
        request.getfixturevalue("client")
        yield


@pytest.fixture(autouse=True)
def quiet():
    """Dask warns of large graphs and of what ends with its workers"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def make(sparse=False, n_targets=0, seed=0):
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((N, P)) + 3) * 10.0 ** rng.uniform(-1, 1, P)
    if sparse:
        X *= rng.random((N, P)) < 0.3
    y = X @ rng.standard_normal((P, n_targets or 1)) + rng.standard_normal((N, n_targets or 1))
    return X, y if n_targets else y[:, 0], rng.uniform(0.2, 2, N)


def chunked(x, size=250):
    return da.from_array(x, chunks=(size, *x.shape[1:]))


@pytest.mark.parametrize("solver", ["auto", "cg", "svd"])
@pytest.mark.parametrize("n_targets", [0, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_arrays(anywhere, weighted, n_targets, solver):
    X, y, weights = make(n_targets=n_targets)
    weights = weights if weighted else None
    model = fd.Ridge(0.5, tol=1e-9, solver=solver)
    model.fit(chunked(X), chunked(y), None if weights is None else chunked(weights))
    expected = fastridge.Ridge(0.5, tol=1e-11).fit(X, y, weights)
    assert model.report_.converged
    assert model.report_.error_bound <= 1e-9
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=1e-6)
    lazy = model.predict(chunked(X))
    assert isinstance(lazy, da.Array)
    assert lazy.shape == y.shape
    np.testing.assert_allclose(lazy.compute(), expected.predict(X), rtol=1e-6)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=1e-6)


@pytest.mark.parametrize("solver", ["auto", "cg"])
def test_sparse_chunks(anywhere, solver):
    X, y, _ = make(sparse=True)
    lazy = chunked(X).map_blocks(sp.csr_array)
    model = fd.Ridge(0.5, tol=1e-9, solver=solver).fit(lazy, chunked(y))
    np.testing.assert_allclose(model.coef_, fastridge.Ridge(0.5, tol=1e-11).fit(X, y).coef_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(lazy).compute(), model.predict(X), rtol=1e-9)


def test_data_frames(anywhere):
    X, y, weights = make()
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(P)])
    frame["y"], frame["s"] = y, weights
    lazy = dd.from_pandas(frame, npartitions=5)
    names = [f"x{j}" for j in range(P)]
    model = fd.Ridge(0.5, tol=1e-9).fit(lazy[names], lazy["y"], lazy["s"])
    expected = fastridge.Ridge(0.5, tol=1e-11).fit(frame[names], y, weights)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    assert list(model.feature_names_in_) == names
    np.testing.assert_allclose(model.predict(lazy[names]).compute(), expected.predict(frame[names]), rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_classes(anywhere, class_weight, n_classes):
    X, y, _ = make()
    labels = np.digitize(y, np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1]))
    model = fd.RidgeClassifier(0.5, tol=1e-9, class_weight=class_weight).fit(chunked(X), chunked(labels))
    expected = fastridge.RidgeClassifier(0.5, tol=1e-11, class_weight=class_weight).fit(X, labels)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(model.predict(chunked(X)).compute(), expected.predict(X))


@pytest.mark.parametrize("n_targets", [0, 2])
def test_a_penalty_is_chosen(anywhere, n_targets):
    X, y, weights = make(n_targets=n_targets)
    y = y + 30 * np.random.default_rng(5).standard_normal(y.shape)
    alphas = [0.1, 10.0, 1000.0]
    model = fd.RidgeCV(alphas, tol=1e-9).fit(chunked(X), chunked(y), chunked(weights))
    expected = fastridge.RidgeCV(alphas, tol=1e-9).fit(X, y, weights)
    assert model.alpha_ == expected.alpha_
    np.testing.assert_allclose(model.best_score_, expected.best_score_, rtol=1e-8)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(chunked(X)).compute(), expected.predict(X), rtol=1e-6)
    np.testing.assert_allclose(model.choice_.standard_errors, expected.choice_.standard_errors, rtol=1e-6)
    np.testing.assert_array_equal(model.choice_.indistinguishable, expected.choice_.indistinguishable)


def every(n_folds, n=N):
    """The folds of a source of rows as (train, test) indices"""
    number = np.arange(n)
    return [(number[number % n_folds != i], number[number % n_folds == i]) for i in range(n_folds)]


@pytest.mark.parametrize("store", ["array", "float32", "sparse", "frame"])
@pytest.mark.parametrize("n_targets", [0, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_penalty_is_chosen_by_folds(anywhere, weighted, n_targets, store):
    """Chunks of 250 rows, no multiple of the 4 folds"""
    X, y, weights = make(sparse=store == "sparse", n_targets=n_targets)
    y = y + 30 * np.random.default_rng(5).standard_normal(y.shape)
    weights[250:500] = 0.0  # all of a chunk
    weights = weights if weighted else None
    X = X.astype(np.float32) if store == "float32" else X
    data = [chunked(X), chunked(y), None if weights is None else chunked(weights)]
    if store == "sparse":
        data[0] = data[0].map_blocks(sp.csr_array)
    if store == "frame":
        data[:2] = [x.to_dask_dataframe() for x in data[:2]]
        data[2] = None if weights is None else data[2].to_dask_dataframe()
    alphas, tol = [0.1, 10.0, 1000.0], 1e-7 if store == "float32" else 1e-9  # whose coefficients are rounded to 6e-8
    model = fd.RidgeCV(alphas, cv=4, tol=tol).fit(*data)
    expected = fastridge.RidgeCV(alphas, cv=every(4), tol=tol).fit(X, y, weights)
    assert model.alpha_ == expected.alpha_
    # Squared errors from sums are known to 1e-9, where the fits are exact to 1e-9 or better
    np.testing.assert_allclose(1 - model.scores_, 1 - expected.scores_, rtol=1e-8)
    np.testing.assert_allclose(model.choice_.standard_errors, expected.choice_.standard_errors, rtol=1e-6)
    assert model.report_.error_bound <= tol
    assert model.coef_.dtype == expected.coef_.dtype
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e3 * tol)
    np.testing.assert_allclose(model.predict(data[0]).compute(), expected.predict(X), rtol=1e3 * tol)


def test_empty_partitions_are_skipped(anywhere):
    X, y, _ = make()
    names = [f"x{j}" for j in range(P)]
    frame = pd.DataFrame(X, columns=names)
    frame["y"], frame["part"] = y, np.repeat(np.arange(N // 100), 100)
    lazy = dd.from_pandas(frame, npartitions=N // 100)
    lazy, frame = lazy[lazy["part"] % 3 > 0], frame[frame["part"] % 3 > 0]
    assert 0 in lazy.map_partitions(len).compute().tolist()
    model = fd.Ridge(0.5, tol=1e-9, solver="cg").fit(lazy[names], lazy["y"])
    expected = fastridge.Ridge(0.5, tol=1e-11).fit(frame[names], frame["y"])
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(lazy[names]).compute(), expected.predict(frame[names]), rtol=1e-6)
    high = frame["y"] > frame["y"].mean()
    model = fd.RidgeClassifier(0.5, tol=1e-9).fit(lazy[names], lazy["y"] > frame["y"].mean())
    expected = fastridge.RidgeClassifier(0.5, tol=1e-11).fit(frame[names], high)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    model = fd.RidgeCV([0.5, 50.0], cv=3).fit(lazy[names], lazy["y"])
    expected = fastridge.RidgeCV([0.5, 50.0], cv=every(3, len(frame))).fit(frame[names], frame["y"])
    np.testing.assert_allclose(1 - model.scores_, 1 - expected.scores_, rtol=1e-8)


def test_truth_values(anywhere):
    X, y, _ = make()
    model = fd.RidgeClassifier(0.5).fit(chunked(X), chunked(y > y.mean()))
    assert model.classes_.dtype == bool
    np.testing.assert_array_equal(model.predict(chunked(X)).compute(), model.predict(X))


@pytest.mark.parametrize("choice", [{}, {"scoring": "gcv"}, {"cv": 4}], ids=str)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_penalty_is_chosen_for_classes(anywhere, class_weight, n_classes, choice):
    X, y, weights = make()
    y = y + 30 * np.random.default_rng(5).standard_normal(y.shape)
    labels = np.digitize(y, np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1])) * 2 - 1
    options = {"alphas": [0.1, 10.0, 1e5], "class_weight": class_weight, "tol": 1e-9} | choice
    model = fd.RidgeClassifierCV(**options).fit(chunked(X), chunked(labels), chunked(weights))
    options |= {"cv": every(4)} if "cv" in choice else {}
    expected = fastridge.RidgeClassifierCV(**options).fit(X, labels, weights)
    assert model.alpha_ == expected.alpha_
    np.testing.assert_allclose(model.scores_, expected.scores_, rtol=1e-7)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(model.classes_, expected.classes_)
    lazy = model.predict(chunked(X))
    assert isinstance(lazy, da.Array)
    np.testing.assert_array_equal(lazy.compute(), expected.predict(X))


def test_labels_are_coded_where_the_rows_are(client, monkeypatch):
    """They are loaded once"""
    X, y, _ = make()
    submitted, loaded = client.compute, []
    monkeypatch.setattr(client, "compute", lambda task, **options: loaded.append(0) or submitted(task, **options))
    fd.RidgeClassifierCV([0.1, 10.0]).fit(chunked(X), chunked(y > y.mean()))
    assert len(loaded) == 2  # on two workers


@pytest.mark.filterwarnings("ignore:the best alpha is")
@pytest.mark.parametrize("noise", [30.0, 1e-4])
@pytest.mark.parametrize("name", ["gcv", "evidence"])
def test_a_penalty_is_chosen_by_a_criterion(anywhere, name, noise):
    """With next to no noise what is left of y is read from the rows"""
    X, y, weights = make()
    y = X @ np.ones(X.shape[1]) + noise * np.random.default_rng(6).standard_normal(y.shape)
    alphas = [1e-6, 0.1, 1000.0]
    model = fd.RidgeCV(alphas, scoring=name).fit(chunked(X), chunked(y), chunked(weights))
    expected = fastridge.RidgeCV(alphas, scoring=name).fit(X, y, weights)
    assert model.alpha_ == expected.alpha_
    np.testing.assert_allclose(model.scores_, expected.scores_, rtol=1e-7)


def test_penalty_weights_and_several_chunks_of_columns(anywhere):
    X, y, _ = make()
    d = np.linspace(0.5, 2, P)
    for solver in ("cholesky", "cg"):
        model = fd.Ridge(0.5, tol=1e-9, penalty_weights=d, solver=solver).fit(da.from_array(X, chunks=(300, 4)), chunked(y, 300))
        expected = fastridge.Ridge(0.5, tol=1e-11, penalty_weights=d).fit(X, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)


def test_many_features(client, monkeypatch):
    monkeypatch.setattr("fastridge.request.GRAM_FEATURES", 4)
    X, y, _ = make()
    model = fd.Ridge(0.5, tol=1e-9, solver="cholesky").fit(chunked(X), chunked(y))
    np.testing.assert_allclose(model.coef_, fastridge.Ridge(0.5, tol=1e-11).fit(X, y).coef_, rtol=1e-6)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_the_same_bits_on_other_numbers_of_workers_and_after_a_kill(client, solver, monkeypatch):
    X, y, _ = make(seed=4)
    data = chunked(X, 100), chunked(y, 100)
    options = {"alpha": 1e-3, "tol": 1e-10, "solver": solver}
    expected = fd.Ridge(**options).fit(*data).coef_
    with cluster(3) as three, distributed.Client(three) as others:
        np.testing.assert_array_equal(fd.Ridge(**options).fit(*data).coef_, expected)
        victims = [worker.pid for worker in three.workers.values()] if hasattr(three.workers[0], "pid") else None
        victims = victims or list(others.run(os.getpid).values())
        calls = []
        summed = fd.RemoteRows.over_rows

        def murderous(self, *arguments):
            calls.append(0)
            if len(calls) == (1 if solver == "cholesky" else 3):
                os.kill(victims[0], signal.SIGKILL)
            return summed(self, *arguments)

        monkeypatch.setattr(fd.RemoteRows, "over_rows", murderous)
        model = fd.Ridge(**options).fit(*data)
        assert len(calls) >= (1 if solver == "cholesky" else 3)
        assert victims[0] not in others.run(os.getpid).values()
        assert model.report_.converged
        np.testing.assert_array_equal(model.coef_, expected)


def test_the_same_bits_by_folds_anywhere_and_after_a_kill(client, monkeypatch):
    X, y, weights = make(sparse=True, seed=4)
    y += 30 * np.random.default_rng(5).standard_normal(N)
    data = chunked(X, 70).map_blocks(sp.csr_array), chunked(y, 70), chunked(weights, 70)
    model = fd.RidgeCV([0.1, 10.0, 1000.0], cv=3)
    two = clone(model).fit(*data)

    def same(other):
        np.testing.assert_array_equal(other.scores_, two.scores_)
        np.testing.assert_array_equal(other.choice_.standard_errors, two.choice_.standard_errors)
        return other.coef_

    labels = fd.RidgeClassifierCV([0.1, 10.0, 1000.0], cv=3)
    data_of_classes = data[0], data[1] > y.mean(), data[2]
    accuracy = clone(labels).fit(*data_of_classes).scores_
    with no_client():
        same(clone(model).fit(*data))
        np.testing.assert_array_equal(clone(labels).fit(*data_of_classes).scores_, accuracy)
    with cluster(1) as one, distributed.Client(one):
        np.testing.assert_array_equal(same(clone(model).fit(*data)), two.coef_)
    submitted, rounds = fd._submitted, []

    def murderous(client, parts, function, *arguments):
        futures = submitted(client, parts, function, *arguments)
        if function is fd._nodes and arguments[0] is fd._fold:
            rounds.append(list(client.run(os.getpid).values()) if not rounds else rounds[0])
            if len(rounds) == 2:
                os.kill(rounds[0][0], signal.SIGKILL)
        return futures

    with cluster(4) as four, distributed.Client(four) as others:
        monkeypatch.setattr(fd, "_submitted", murderous)
        np.testing.assert_array_equal(same(clone(model).fit(*data)), two.coef_)
        assert len(rounds) == 3
        assert rounds[0][0] not in others.run(os.getpid).values()
        np.testing.assert_array_equal(clone(labels).fit(*data_of_classes).scores_, accuracy)


def test_a_fit_begins_at_the_last_one(anywhere):
    X, y, _ = make()
    data, options = (chunked(X), chunked(y)), {"solver": "cg", "tol": 1e-9}
    model = fd.Ridge(1.0, warm_start=True, **options).fit(*data).set_params(alpha=1.001).fit(*data)
    cold = fd.Ridge(1.001, **options).fit(*data)
    assert model.report_.error_bound <= 1e-9
    assert model.n_iter_.max() < cold.n_iter_.max()
    np.testing.assert_allclose(model.coef_, cold.coef_, rtol=1e-6)


@pytest.mark.parametrize("fit", [fd.Ridge, fd.RidgeClassifier])
def test_a_fit_goes_on_from_its_checkpoint(anywhere, tmp_path, monkeypatch, fit):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    X, y, _ = make()
    y = y if fit is fd.Ridge else y > y.mean()
    options = {"alpha": 1e-3, "tol": 1e-10, "solver": "cg"}
    expected = fit(**options).fit(chunked(X), chunked(y))
    model = fit(**options, checkpoint=tmp_path / "fit")
    calls, normal = [], checkpoint.KeptRows.normal

    def breaks_off(self, v, target=None):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return normal(self, v, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.KeptRows, "normal", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            model.fit(chunked(X), chunked(y))
    assert len(list((tmp_path / "fit").iterdir())) == (4 if fit is fd.Ridge else 5)
    other = X.copy()
    other[-1] += 1
    with pytest.raises(ValueError, match=r"other rows than .* the checkpoint"):
        model.fit(chunked(other), chunked(y))
    model.fit(chunked(X), chunked(y))
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": np.ones((4, 2))}, TypeError, "dask array or data frame.*fastridge.Ridge takes others"),
        ({"y": np.ones(4)}, TypeError, "y must be a dask collection"),
        ({"y": None}, TypeError, "y must be a dask collection"),
        ({"sample_weight": np.ones(4)}, TypeError, "sample_weight must be a dask collection"),
        ({"y": da.ones(N, chunks=100)}, ValueError, "same chunks of rows, got 5 of X, 12 of y"),
        ({"y": da.ones(N + 50, chunks=250)}, ValueError, "chunk 4: X has 200 samples, y has 250"),
        ({"X": da.full((N, P), np.nan, chunks=(250, P))}, ValueError, r"chunk \d: X contains NaN"),
    ],
)
def test_bad_input(anywhere, change, error, message):
    X, y, _ = make()
    with pytest.raises(error, match=message):
        fd.Ridge().fit(**({"X": chunked(X), "y": chunked(y)} | change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": KFold(3)}, r"cv must be None or a number of folds .* got KFold"),
        ({"cv": every(3)}, "cv must be None or a number of folds"),
        ({"cv": N + 1}, f"dask collection of 5 chunks has {N} rows, fewer than the {N + 1} folds"),
        ({"cv": 3, "scoring": "neg_mean_absolute_error"}, "R2 or"),
        ({"cv": 3, "scoring": "gcv"}, "takes cv=None"),
    ],
    ids=str,
)
def test_what_is_not_chosen_by(anywhere, options, message):
    X, y, _ = make()
    with pytest.raises(ValueError, match=message):
        fd.RidgeCV([1.0], **options).fit(chunked(X), chunked(y))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.linspace(0, 1, N), "classes must be whole numbers"),
        (np.ones(N), "at least two classes, got one"),
        (np.eye(N, 2), "be one column"),
    ],
)
def test_bad_labels(anywhere, labels, message):
    X, _, _ = make()
    with pytest.raises(ValueError, match=message):
        fd.RidgeClassifierCV().fit(chunked(X), chunked(labels))


def test_sums_of_folds_that_do_not_fit_are_said_before_work(anywhere, monkeypatch):
    monkeypatch.setattr(sums, "known_memory", lambda: 8 * P**2 * 20)
    X, y, _ = make()
    lazy = chunked(X).map_blocks(refused, meta=X[:0])
    with pytest.raises(MemoryError, match="take 16 Gram matrices"):
        fd.RidgeCV(cv=9).fit(lazy, chunked(y))


def refused(block):
    raise AssertionError("read")


def test_bad_predictions(anywhere):
    X, y, _ = make()
    model = fd.Ridge().fit(chunked(X), chunked(y))
    with pytest.raises(ValueError, match="4 features, the fit had 9"):
        model.predict(chunked(X[:, :4]))
    with pytest.raises(ValueError, match="bounds need X in memory"):
        fd.Ridge(positive=True).fit(chunked(X), chunked(y))
