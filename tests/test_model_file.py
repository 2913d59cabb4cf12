"""Models that are saved and loaded: the same parameters, attributes and bits; files that are not what they should be."""

import json
import zipfile
from dataclasses import fields

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import KFold

import fastridge
from fastridge import Choice, FitReport, Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV, archive, model_file

pandas = pytest.importorskip("pandas")


def data(n=60, p=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ np.arange(1.0, p + 1) + rng.standard_normal(n)


X, Y = data()
NAMED = pandas.DataFrame(X, columns=["a", "b", "c", "d", "straße"])
WORDS = np.array(["low", "middle", "high"], dtype=object)[np.digitize(Y, [-3, 3])]
MODELS = {
    "plain": lambda: Ridge(0.5).fit(X, Y),
    "named": lambda: Ridge(0.5).fit(NAMED, Y),
    "float32": lambda: Ridge(0.5).fit(X.astype(np.float32), Y),
    "no intercept": lambda: Ridge(0.5, fit_intercept=False).fit(X, Y),
    "targets": lambda: Ridge(np.array([0.5, 2.0])).fit(X, np.column_stack([Y, -Y])),
    "list of alphas": lambda: Ridge([0.5, 2.0]).fit(X, np.column_stack([Y, -Y])),
    "bounds": lambda: Ridge(bounds=(-np.inf, np.full(5, 2.0))).fit(X, Y),
    "weights": lambda: Ridge(penalty_weights=np.array([0, 1, np.inf, 1, 2])).fit(X, Y),
    "matrix": lambda: Ridge(penalty_weights=sp.csc_array(np.eye(5))).fit(X, Y),
    "wide, warm": lambda: Ridge(solver="cg", warm_start=True).fit(X[:4], Y[:4]),
    "no penalty": lambda: Ridge(0.0).fit(X, Y),
    "two classes": lambda: RidgeClassifier().fit(X, Y > 0),
    "words": lambda: RidgeClassifier(class_weight={"low": 2.0, "high": 0.5}).fit(NAMED, WORDS),
    "numbered": lambda: RidgeClassifier(class_weight={np.int64(3): 2.0}).fit(X, np.digitize(Y, [-3, 3]) + 2),
    "labels": lambda: RidgeClassifier().fit(X, np.column_stack([Y > 0, X[:, 0] > 0]).astype(int)),
    "sparse labels": lambda: RidgeClassifier().fit(X, sp.csr_array(np.column_stack([Y > 0, X[:, 0] > 0]).astype(int))),
    "leave one out": lambda: RidgeCV(alphas="auto", store_cv_results=True).fit(NAMED, Y),
    "folds": lambda: RidgeCV(alphas=[1e-3, 0.1, 1.0, 100.0], cv=3, scoring="r2").fit(X, Y),
    "criterion": lambda: RidgeCV(alphas="auto", scoring="evidence").fit(X, Y),
    "one standard error": lambda: RidgeCV(alphas="auto", rule="one_standard_error").fit(X, Y),
    "per target": lambda: RidgeCV(alphas="auto", alpha_per_target=True).fit(X, np.column_stack([Y, -Y])),
    "classes": lambda: RidgeClassifierCV(alphas="auto", cv=3).fit(X, WORDS),
}


def same(a, b):
    """Whether two values are the same to the last bit, types and dtypes included"""
    assert type(a) is type(b)
    if isinstance(a, FitReport | Choice):
        assert all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    elif sp.issparse(a):
        assert a.format == b.format
        assert same(a.toarray(), b.toarray())
    elif isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        assert all(map(same, a, b))
    elif isinstance(a, dict):
        assert same(list(a.items()), list(b.items()))
    elif hasattr(a, "get_params"):
        assert same(*(dict(sorted((vars(one) | {"_moments": None}).items())) for one in (a, b)))
    else:
        assert a == b or (a != a and b != b)
    return True


@pytest.mark.filterwarnings("ignore:the best alpha")
@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_one_that_was_saved(name, tmp_path):
    model = MODELS[name]()
    fastridge.save(model, tmp_path / "model")
    again = fastridge.load(tmp_path / "model")
    assert same(model, again)
    assert same(model.get_params(), again.get_params())
    rows = NAMED if hasattr(model, "feature_names_in_") else X
    assert same(model.predict(rows), again.predict(rows))
    if hasattr(model, "classes_"):
        assert same(model.decision_function(rows), again.decision_function(rows))


def test_a_loaded_model_goes_on_where_the_other_ended(tmp_path):
    model = Ridge(solver="cg", warm_start=True).fit(X[:4], Y[:4])
    fastridge.save(model, tmp_path / "model")
    again, cold = fastridge.load(tmp_path / "model"), Ridge(solver="cg")
    assert same(again._small_side, model._small_side)
    assert again.fit(X[:4], Y[:4]).n_iter_ == model.fit(X[:4], Y[:4]).n_iter_ < cold.fit(X[:4], Y[:4]).n_iter_
    assert same(again.coef_, model.coef_)


def test_sums_of_partial_fit_are_not_kept(tmp_path):
    model = Ridge().partial_fit(X, Y)
    fastridge.save(model, tmp_path / "model")
    again = fastridge.load(tmp_path / "model")
    assert same(model.predict(X), again.predict(X))
    with pytest.warns(UserWarning, match="kept no sums"):
        again.partial_fit(X, Y)


def test_a_model_that_did_not_converge_says_so_still(tmp_path):
    with pytest.warns(ConvergenceWarning):
        model = Ridge(1e-9, solver="cg", max_iter=1).fit(X, Y)
    fastridge.save(model, tmp_path / "model")
    assert fastridge.load(tmp_path / "model").report_.status is fastridge.Status.MAX_ITER


def test_nothing_is_pickled_and_the_header_is_strict_json(tmp_path):
    fastridge.save(MODELS["bounds"](), tmp_path / "model")
    with np.load(tmp_path / "model", allow_pickle=False) as members:
        assert all(members[name].dtype != object for name in members.files)
        text = members["header"].tobytes().decode()
    json.loads(text, parse_constant=pytest.fail)


class Sub(Ridge):
    pass


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: Ridge(), NotFittedError, "not fitted"),
        (lambda: KFold(), TypeError, r"models that can be saved are Ridge, .*got sklearn\..*KFold"),
        (lambda: Sub().fit(X, Y), TypeError, r"got .*\.Sub"),
        (lambda: RidgeCV(cv=KFold(3)).fit(X, Y), TypeError, "cv is KFold"),
        (lambda: Ridge(random_state=np.random.RandomState(0)).fit(X, Y), TypeError, "random_state is RandomState"),
    ],
)
@pytest.mark.filterwarnings("ignore:the best alpha")
def test_what_cannot_be_saved(model, error, message, tmp_path):
    with pytest.raises(error, match=message):
        fastridge.save(model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_truncated_files(tmp_path):
    path = tmp_path / "model"
    fastridge.save(MODELS["words"](), path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model' (is truncated or damaged|was not written by fastridge\.save)"):
            fastridge.load(path)


def test_a_flipped_bit(tmp_path):
    path = tmp_path / "model"
    fastridge.save(MODELS["plain"](), path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as members:
        info = next(one for one in members.infolist() if one.filename.startswith("coef_"))
    content[info.header_offset + 30 + len(info.filename) + 140] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"damaged.*CRC"):
        fastridge.load(path)


def rewritten(path, change):
    """The file, its header changed"""
    with np.load(path) as members:
        arrays = {name: members[name] for name in members.files}
    header = json.loads(arrays.pop("header").tobytes())
    change(header)
    archive.save(path, header, arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.update(version=2), "has version 2 of the format of fastridge, this version of fastridge reads 1"),
        (lambda header: header.update(kind="other"), "was not written by fastridge.save: it holds 'other'"),
        (lambda header: header.update({"class": "Lasso"}), "damaged.*Lasso"),
        (lambda header: header.pop("fitted"), "damaged.*fitted"),
        (lambda header: header["fitted"].pop("coef_"), "damaged.*coef_"),
        (lambda header: header["fitted"].update(n_features_in_=4), r"damaged: coef_ has shape \(5,\) for 4 features"),
        (lambda header: header["fitted"].update(predict=1), "damaged: it has an attribute 'predict'"),
        (lambda header: header["fitted"].update(coef_={"call": "x"}), "damaged: it has a value of kind 'call'"),
        (lambda header: header["parameters"].update(beta=1), "damaged: Ridge has no parameter 'beta'"),
    ],
)
def test_headers_that_are_not_ours(change, message, tmp_path):
    fastridge.save(MODELS["plain"](), tmp_path / "model")
    rewritten(tmp_path / "model", change)
    with pytest.raises(ValueError, match=message):
        fastridge.load(tmp_path / "model")


def test_foreign_files(tmp_path):
    (tmp_path / "text").write_text("alpha,1")
    np.savez(tmp_path / "arrays.npz", X=X)
    moments = fastridge.Moments()
    moments.update(X, Y)
    moments.save(tmp_path / "moments")
    for name, why in (("text", "beginning"), ("arrays.npz", "no header"), ("moments", "it holds 'fastridge.Moments'")):
        with pytest.raises(ValueError, match=f"{name}' was not written by fastridge.save.*{why}"):
            fastridge.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        fastridge.load(tmp_path / "nothing")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "nowhere" / "model"
    with pytest.raises(FileNotFoundError) as caught:
        fastridge.save(MODELS["plain"](), path)
    assert caught.value.filename == str(path)


def test_notes_come_back(tmp_path):
    notes = {"columns": ["a", "ü"], "categories": {"a": ["x"]}}
    model_file.write(MODELS["plain"](), tmp_path / "model", notes)
    assert model_file.read(tmp_path / "model")[1] == notes
