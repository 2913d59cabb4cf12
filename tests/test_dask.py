"""Dask collections: the answers of a fit on an array, the same bits on any number of workers and after one was killed."""

import os
import signal
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import fastridge
from fastridge import checkpoint

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


@pytest.fixture(params=["no client", "two workers"])
def anywhere(request):
    """With chunks computed here, and on a cluster of processes"""
    if request.param == "no client":
        fd_client = fd._client
        fd._client = lambda: None
        yield
        fd._client = fd_client
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
    with pytest.raises(ValueError, match="cv must be None"):
        fd.RidgeCV(alphas, cv=3).fit(chunked(X), chunked(y))


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


def test_bad_predictions(anywhere):
    X, y, _ = make()
    model = fd.Ridge().fit(chunked(X), chunked(y))
    with pytest.raises(ValueError, match="4 features, the fit had 9"):
        model.predict(chunked(X[:, :4]))
    with pytest.raises(ValueError, match="bounds need X in memory"):
        fd.Ridge(positive=True).fit(chunked(X), chunked(y))
