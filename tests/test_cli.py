"""The command line: every command on every format, what is saved and read again, and what is said of mistakes."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import dump_svmlight_file
from sklearn.metrics import r2_score

import fastridge
from fastridge import Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV, scan

pa = pytest.importorskip("pyarrow")
pytest.importorskip("typer")
pytest.importorskip("rich")
from pyarrow import feather, parquet  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fastridge import cli, terminal  # noqa: E402
from fastridge.cli import app, main  # noqa: E402
from fastridge.io import one_hot  # noqa: E402

N = 300
NAMES = ["a", "b", "c", "straße"]
COLOURS = ["blue", "green", "red"]
PACKAGE = Path(fastridge.__file__).parent
pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ran(*arguments, status=0):
    """What a command says as JSON"""
    done = run(*arguments, "--json")
    assert done.exit_code == status, done.output
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout, parse_constant=pytest.fail)


def numbers(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, len(NAMES)))
    X[X < -1] = 0
    return X, X @ [1.0, -2.0, 0.0, 3.0] + 0.5 + 0.1 * rng.standard_normal(N)


X, Y = numbers()
COLOUR = np.random.default_rng(1).choice(COLOURS, N)
WEIGHTS = np.random.default_rng(2).random(N)
KINDS = np.where(Y < 0, "cheap", "dear")


def columns(**more):
    return {**dict(zip(NAMES, X.T, strict=True)), "y": Y, **more}


def write_csv(path, table, delimiter=",", change=None):
    rows = [list(table), *zip(*(np.asarray(column).tolist() for column in table.values()), strict=True)]
    rows = [list(row) for row in rows]
    if change is not None:
        change(rows)
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def write(kind, X=X, y=Y):
    """A file of a format; the name of it, and that of its target"""
    path = f"data.{kind}"
    table = dict(zip(NAMES, X.T, strict=True)) | {"y": y}
    if kind.startswith(("csv", "tsv")):
        write_csv(path, table, "\t" if kind.startswith("tsv") else ",")
    elif kind == "parquet":
        parquet.write_table(pa.table(table), path)
    elif kind == "feather":
        feather.write_feather(pa.table(table), path)
    elif kind == "npy":
        np.save(path, X)
        np.save("y.npy", y)
    elif kind == "npz":
        np.savez(path, X=X, y=y)
    elif kind == "sparse.npz":
        rows = sp.csr_array(X)
        np.savez(path, data=rows.data, indices=rows.indices, indptr=rows.indptr, shape=rows.shape, format=b"csr", y=y)
    else:
        dump_svmlight_file(X, y, "data.svmlight")
        if kind.endswith(".gz"):
            Path(path).write_bytes(gzip.compress(Path("data.svmlight").read_bytes()))
    target = {"npy": "y.npy", "svmlight": None, "svmlight.gz": None}.get(kind, "y")
    return path, target, [] if target is None else ["--target", target]


FORMATS = ["csv", "csv.gz", "tsv", "parquet", "feather", "npy", "npz", "sparse.npz", "svmlight", "svmlight.gz"]


def read_predictions(text):
    first, *rest = csv.reader(text.splitlines())
    assert first == ["prediction"]
    return np.array([float(row[0]) for row in rest])


@pytest.mark.parametrize("kind", FORMATS)
def test_fit_and_predict_are_those_of_python(kind):
    path, target, asked = write(kind)
    said = ran("fit", path, *asked, "--alpha", 0.5, "--output", "model")
    model = Ridge(0.5).fit(scan(path, target=target))
    assert (said["rows"], said["features"], said["alpha"]) == (N, 4, 0.5)
    assert said["status"] == "converged"
    assert said["error_bound"] <= 1e-6
    assert said["solver"] == model.solver_
    assert said["reason"] == model.report_.reason
    assert said["output"] == "model"
    assert said["warnings"] == []
    predictions = model.predict(scan(path, target=target))
    assert said["r2"] == pytest.approx(r2_score(Y, predictions), abs=1e-12)
    again = fastridge.load("model")
    np.testing.assert_array_equal(again.coef_, model.coef_)
    assert again.get_params() == model.get_params()
    done = run("predict", "model", path)
    assert done.exit_code == 0
    np.testing.assert_array_equal(read_predictions(done.stdout), predictions)
    assert done.stderr == ""
    np.testing.assert_allclose(predictions, Ridge(0.5).fit(X, Y).predict(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", FORMATS)
def test_path_and_explain_are_those_of_python(kind):
    path, _, asked = write(kind)
    said = ran("path", path, *asked)
    expected = fastridge.ridge_path(X, Y)
    np.testing.assert_allclose(said["alphas"], expected.alphas, rtol=1e-6)
    np.testing.assert_allclose(said["coefs"], expected.coefs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said["intercepts"], expected.intercepts, rtol=1e-5, atol=1e-5)
    assert said["converged"] == 100
    said = ran("explain", path, *asked, "--alpha", 2)
    assert (said["rows"], said["features"]) == (N, 4)
    assert said["solver"] in {option["solver"] for option in said["estimates"]}


def test_files_are_predicted_without_their_target_and_columns_are_found_by_name():
    ran("fit", *_table("csv"), "--output", "model")
    write_csv("new.csv", {name: column for name, column in reversed(columns(z=COLOUR).items()) if name != "y"})
    said = ran("predict", "model", "new.csv")
    np.testing.assert_array_equal(said["predictions"], fastridge.load("model").predict(scan("data.csv", target="y")))


def _table(kind):
    path, _, asked = write(kind)
    return path, *asked


def test_a_model_of_python_predicts_files():
    frame = pytest.importorskip("pandas").DataFrame(dict(zip(NAMES, X.T, strict=True)))
    model = Ridge().fit(frame, Y)
    fastridge.save(model, "model")
    path, *_ = write("parquet")
    np.testing.assert_allclose(ran("predict", "model", path)["predictions"], model.predict(frame), rtol=1e-13)
    fastridge.save(Ridge().fit(X, Y), "model")  # that knows no names
    parquet.write_table(pa.table(dict(zip(NAMES, X.T, strict=True))), "new.parquet")
    np.testing.assert_allclose(ran("predict", "model", "new.parquet")["predictions"], model.predict(frame), rtol=1e-13)


def test_features_and_weights():
    write_csv("data.csv", columns(w=WEIGHTS))
    said = ran("fit", "data.csv", "--target", "y", "--features", "straße, a", "--weight", "w", "--output", "model")
    model = Ridge().fit(X[:, [3, 0]], Y, WEIGHTS)
    again = fastridge.load("model")
    np.testing.assert_allclose(again.coef_, model.coef_, rtol=1e-12)
    assert again.feature_names_in_.tolist() == ["straße", "a"]
    assert said["r2"] == pytest.approx(model.score(X[:, [3, 0]], Y, WEIGHTS), abs=1e-12)
    assert said["r2"] != pytest.approx(model.score(X[:, [3, 0]], Y), abs=1e-4)


@pytest.mark.parametrize("cv", ["loo", 3])
def test_the_penalty_is_chosen_as_in_python(cv):
    said = ran("fit", *_table("parquet"), "--cv", cv, "--output", "model")
    model = RidgeCV(alphas="auto", cv=None if cv == "loo" else cv).fit(X, Y)
    assert said["alpha"] == pytest.approx(model.alpha_, rel=1e-12)
    assert said["choice"].startswith(str(model.choice_).partition("The coefficients")[0])
    assert said["reason"] == model.report_.reason != "asked for"
    again = fastridge.load("model")
    assert type(again) is RidgeCV
    assert again.best_score_ == pytest.approx(model.best_score_, rel=1e-12)
    assert again.feature_names_in_.tolist() == NAMES
    np.testing.assert_allclose(ran("predict", "model", "data.parquet")["predictions"], model.predict(X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("target", ["y", "kind"])
def test_leave_one_out_of_large_data_holds_no_rows(target, monkeypatch):
    parquet.write_table(pa.table(columns(kind=KINDS)), "data.parquet")
    asked = ["--features", "a,b", "--target", target, *(["--classify"] if target == "kind" else []), "--cv", "loo"]
    expected = ran("fit", "data.parquet", *asked)
    monkeypatch.setattr(cli, "LARGE", 0.0)
    monkeypatch.setattr(cli, "_in_memory", pytest.fail)
    said = ran("fit", "data.parquet", *asked, "--output", "model")
    assert said.get("classes") == expected.get("classes")
    for name in ("alpha", "r2" if target == "y" else "accuracy"):
        assert said[name] == pytest.approx(expected[name], rel=1e-6)
    assert len(ran("predict", "model", "data.parquet")["predictions"]) == N


@pytest.mark.parametrize("cv", [None, "loo", 3])
@pytest.mark.parametrize("classes", ["numbers", "words", "three words", "truth values"])
def test_classes(cv, classes):
    y = {"numbers": (Y > 0) * 2 + 5, "words": KINDS, "three words": COLOUR, "truth values": Y > 0}[classes]
    parquet.write_table(pa.table(dict(zip(NAMES, X.T, strict=True)) | {"kind": y}), "data.parquet")
    said = ran(
        "fit", "data.parquet", "--target", "kind", "--classify", "--output", "model", *([] if cv is None else ["--cv", cv])
    )
    model = RidgeClassifier() if cv is None else RidgeClassifierCV(alphas="auto", cv=None if cv == "loo" else cv)
    with pytest.warns() if said["warnings"] else pytest.MonkeyPatch.context():
        model.fit(X, y)
    again = fastridge.load("model")
    assert type(again) is type(model)
    assert said["classes"] == again.classes_.tolist() == model.classes_.tolist()
    assert said["accuracy"] == pytest.approx(model.score(X, y), abs=1e-12)
    np.testing.assert_array_equal(ran("predict", "model", "data.parquet")["predictions"], model.predict(X))
    np.testing.assert_allclose(again.coef_, model.coef_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["csv", "parquet", "dictionary"])
@pytest.mark.parametrize("cv", [None, "loo"])
def test_one_hot(kind, cv):
    if kind == "csv":
        path = write_csv("data.csv", columns(colour=COLOUR))
    else:
        path = "data.parquet"
        colour = pa.array(COLOUR).dictionary_encode() if kind == "dictionary" else COLOUR
        parquet.write_table(pa.table(columns(colour=colour)), path)
    said = ran("fit", path, "--target", "y", "--one-hot", "--output", "model", *([] if cv is None else ["--cv", cv]))
    expanded = np.column_stack([X, *(colour == COLOUR for colour in COLOURS)])
    model = (Ridge() if cv is None else RidgeCV(alphas="auto")).fit(expanded, Y)
    again = fastridge.load("model")
    assert again.feature_names_in_.tolist() == [*NAMES, "colour=blue", "colour=green", "colour=red"]
    assert said["features"] == 7
    np.testing.assert_allclose(again.coef_, model.coef_, rtol=1e-6, atol=1e-9)
    expected = ran("predict", "model", path)["predictions"]
    np.testing.assert_allclose(expected, model.predict(expanded), rtol=1e-6, atol=1e-6)
    write_csv("new.csv", {"colour": COLOUR[:1], **{name: column[:1] for name, column in columns().items()}})  # one category only
    np.testing.assert_array_equal(ran("predict", "model", "new.csv")["predictions"], expected[:1])
    write_csv("other.csv", columns(colour=np.where(np.arange(N) == 17, "purple", COLOUR)))
    done = run("predict", "model", "other.csv")
    assert done.exit_code == 1
    assert (
        f"other.csv, rows 0 to {N - 1}: column 'colour' has 'purple' in row 17 of these, which the fit has not seen"
        in done.stderr
    )
    assert "it has seen 'blue', 'green', 'red'" in done.stderr


def test_a_folder_of_files_whose_categories_differ():
    Path("folder").mkdir()
    order = np.argsort(COLOUR)
    for i, part in enumerate(np.array_split(order, 2)):
        table = {name: np.asarray(column)[part] for name, column in columns(colour=COLOUR).items()}
        parquet.write_table(pa.table(table), f"folder/{i}.parquet")
    said = ran("fit", "folder", "--target", "y", "--one-hot", "--output", "model")
    assert (said["rows"], said["features"]) == (N, 7)
    last = ran("predict", "model", "folder/1.parquet")["predictions"]
    np.testing.assert_array_equal(ran("predict", "model", "folder")["predictions"][-len(last) :], last)


def test_categories_that_look_like_numbers_in_another_file():
    code = np.where(COLOUR == "red", "7", COLOUR)
    write_csv("data.csv", columns(code=code))
    ran("fit", "data.csv", "--target", "y", "--one-hot", "--output", "model")
    write_csv("new.csv", {name: np.asarray(column)[code == "7"] for name, column in columns(code=code).items()})
    expected = np.asarray(ran("predict", "model", "data.csv")["predictions"])[code == "7"]
    np.testing.assert_array_equal(ran("predict", "model", "new.csv")["predictions"], expected)


def test_too_many_categories(monkeypatch):
    monkeypatch.setattr(one_hot, "MOST_CATEGORIES", 50)
    write_csv("data.csv", columns(name=[f"n{i}" for i in range(N)]))
    done = run("fit", "data.csv", "--target", "y", "--one-hot")
    assert done.exit_code == 1
    assert "column 'name' has more than 50 categories" in done.stderr


def test_whole_numbers_of_text_may_be_fractions_later():
    rows = 400_000  # more than the block from which types are guessed
    with open("data.csv", "w") as file:
        file.write("a,y\n" + "1,2\n" * rows + "2.5,3.5\n")
    assert ran("fit", "data.csv", "--target", "y")["rows"] == rows + 1


def test_several_targets():
    np.save("X.npy", X)
    np.save("y.npy", np.column_stack([Y, -Y]))
    said = ran("fit", "X.npy", "--target", "y.npy", "--output", "model")
    assert said["r2"] == pytest.approx(Ridge().fit(X, Y).score(X, Y), abs=1e-12)
    done = run("predict", "model", "X.npy", "--output", "out.csv")
    assert done.exit_code == 0
    first, *rest = csv.reader(Path("out.csv").read_text().splitlines())
    assert first == ["prediction_0", "prediction_1"]
    np.testing.assert_array_equal(np.array(rest, dtype=float), fastridge.load("model").predict(X))


def test_what_people_read():
    path, *asked = _table("csv")
    done = run("fit", path, *asked, "--output", "model")
    assert done.exit_code == 0
    shown = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines())
    assert list(shown) == ["rows", "features", "alpha", "R2", "status", "error bound", "seconds", "solver", "reason", "output"]
    assert shown["status"].strip() == "converged"
    assert done.stderr == ""  # no progress where no one looks
    done = run("explain", path, *asked)
    assert done.stdout.strip() == str(fastridge.explain(scan(path, target="y")))
    assert run("--version").stdout.strip() == fastridge.__version__
    for command in ("fit", "predict", "path", "explain", "bench", "info", "check"):
        assert command in run("--help").stdout
        assert run(command, "--help").exit_code == 0


@pytest.fixture
def progress():
    """A bar that no one looks at, as commands make it"""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*terminal.BAR, console=Console(file=io.StringIO(), force_terminal=True, width=120))


def shown(progress):
    progress.console.print(progress.get_renderable())
    return progress.console.file.getvalue()


def test_progress_of_a_path_is_counted_in_digits(progress):
    steps = []
    hard = X @ np.vander([1.0, 0.5, 0.1, 0.7])
    fastridge.ridge_path(hard, Y, 5, solver="cg", tol=1e-9, callback=steps.append)
    bar = terminal.Steps(progress, 1e-9)
    done = []
    for step in steps:
        bar(step)
        done += [task.completed / task.total for task in progress.tasks]
    assert done[0] == 0
    assert all(0 <= part < 1 for part in done)
    assert max(done) > 0.3
    last = [step for step in steps if step.error > 1e-9][-1]
    text = shown(progress)
    assert f"cg, step {last.step}, " in text
    assert "steps/s" in text
    assert f"error {last.error:.0e}" in text
    assert "%" in text


def test_progress_of_folds_is_what_the_search_says(progress):
    with redirect_stderr(terminal.Lines(progress)):
        RidgeCV("auto", cv=3, verbose=True).fit(X, Y)
    (task,) = progress.tasks
    assert (task.completed, task.total) == (2, 3)
    assert "2/3 folds" in shown(progress)


def test_progress_of_rows(progress):
    write("csv")
    source = terminal.Watched(scan("data.csv", target="y"), progress)
    for _ in range(2):
        assert sum(len(block.y) for block in source.blocks()) == N
    (task,) = progress.tasks
    assert (task.completed, task.total, task.description) == (N, N, "data.csv, pass 2")
    assert "300/300 rows" in shown(progress)


@pytest.mark.parametrize("command", [["path"], ["fit", "--cv", "3"], ["fit"]])
def test_progress_is_shown_on_a_terminal_alone(command):
    """And what was chosen is not made to talk when it is used again"""
    pty = pytest.importorskip("pty")
    path, *asked = _table("csv")
    there, here = pty.openpty()
    name, *options = command
    saved = ["--output", "model"] if name == "fit" else []
    arguments = [sys.executable, "-m", "fastridge", name, path, *asked, *options, *saved]
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "TERM": "xterm"}
    with subprocess.Popen(arguments, stdin=here, stdout=here, stderr=here, env=env) as process:
        os.close(here)
        said = b""
        with suppress(OSError):  # Linux ends a terminal that no one writes to with an error
            while some := os.read(there, 65536):
                said += some
    os.close(there)
    assert process.returncode == 0
    assert b"pass 1" in said
    if saved:
        assert fastridge.load("model").verbose is False
    done = run(name, path, *asked, *options)
    assert done.stderr == ""
    assert "pass 1" not in done.stdout


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_picture_of_a_path(kind):
    pytest.importorskip("matplotlib")
    path, *asked = _table("parquet")
    done = run("path", path, *asked, "--plot", f"path.{kind}")
    assert done.exit_code == 0, done.stderr
    assert f"path.{kind}" in done.stdout
    content = Path(f"path.{kind}").read_bytes()
    assert content[:5] == {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}[kind]


def test_a_fit_that_misses_tol_is_saved_and_says_so():
    path, *asked = _table("csv")
    done = run("fit", path, *asked, "--tol", 1e-18, "--output", "model")
    assert done.exit_code == 3
    assert done.stderr.startswith("warning: ")
    assert done.stderr.count("\n") == 1
    assert fastridge.load("model").report_.status is fastridge.Status.STALLED
    said = ran("fit", path, *asked, "--tol", 1e-18, status=3)
    assert said["status"] == "stalled"
    assert len(said["warnings"]) == 1
    done = run("fit", path, *asked, "--tol", 1e-18, "--cv", "loo")
    for text in (said["warnings"][0], done.stderr):
        assert "where --tol 1e-18 was asked" in text
        assert "give a larger --tol or --alpha" in text
    said = ran("path", path, *asked, "--tol", 1e-18, status=3)
    assert said["converged"] == 0
    assert said["warnings"][0].startswith("100 of 100 answers are not proven to be within --tol 1e-18, the worst within ")
    assert run("path", path, *asked, "--tol", 1e-18).stderr == f"warning: {said['warnings'][0]}\n"


def test_warnings_are_worded_for_the_command_line():
    """No advice names a parameter of Python"""
    for advice in terminal.ADVICE.values():
        text = terminal.worded_for_here(f"cg reached an H-norm error of 1e-5 (bound 1e-4) where tol=1e-06 was asked: {advice}")
        assert "where --tol 1e-06 was asked: " in text
        assert "--tol" in text.partition("asked: ")[2] or "--alpha above 0" in text
        assert not re.search(r"solver=|(?<!--)\b(tol|max_iter|time_limit|X)\b", text)
    with pytest.warns(UserWarning, match="the best alpha") as caught:
        RidgeCV([1e-3, 1e-2]).fit(X, X @ [1.0, 1.0, 1.0, 1.0] + 30 * np.random.default_rng(5).standard_normal(N))
    text = terminal.worded_for_here(str(caught[0].message))
    assert re.fullmatch(r"the best alpha is the largest, 0.01: a larger one may be better still", text)


def test_without_a_penalty_no_bound_is_known():
    path, *asked = _table("csv")
    said = ran("fit", path, *asked, "--alpha", 0)
    assert (said["status"], said["error_bound"]) == ("uncertified", None)


def test_a_constant_target_has_no_r2():
    write("csv", y=np.ones(N))
    assert ran("fit", "data.csv", "--target", "y")["r2"] is None


def test_info_and_check():
    assert ran("info")["fastridge"].startswith(fastridge.__version__)
    assert "BLAS" in run("info").stdout
    done = run("check")
    assert done.exit_code == 0
    assert "All fits are as accurate as they claim." in done.stdout


def set_entry(row, column, value):
    def change(rows):
        rows[row][column] = value

    return change


FIT = ("fit", "data.csv", "--target", "y")
MISTAKES = {
    "no such file": ((("fit", "date.csv", "--target", "y")), 1, "there is no file date.csv"),
    "another ending": (("fit", "data.xlsx", "--target", "y"), 1, "data.xlsx has none of the endings that are known"),
    "no target": (("fit", "data.csv"), 2, "--target is missing: the column to predict, one of 'a', 'b', 'c', 'straße', 'y'"),
    "no target beside npy": (("fit", "X.npy"), 2, "--target is missing: the .npy file"),
    "misspelt target": (("fit", "data.csv", "--target", "Y"), 1, "data.csv has no column 'Y'; its columns are 'a', 'b'"),
    "misspelt feature": ((*FIT, "--features", "a,d"), 1, "data.csv has no column 'd'"),
    "target as feature": ((*FIT, "--features", "a,y"), 1, "--features names 'y', which is the target"),
    "features of arrays": (("fit", "X.npy", "--target", "y.npy", "--features", "a"), 1, "X.npy has no columns with names"),
    "target of svmlight": (("fit", "data.svmlight", "--target", "y"), 1, "an svmlight file holds y itself"),
    "text": (
        ("fit", "words.csv", "--target", "y"),
        1,
        "column 'colour' of words.csv is text, not numbers (row 2 has 'red'): give --one-hot",
    ),
    "text as target": (
        ("fit", "words.csv", "--target", "colour"),
        1,
        "column 'colour' of words.csv, the target, is text, not numbers (row 2 has 'red'): give --classify",
    ),
    "text as weight": ((*FIT[:1], "words.csv", *FIT[2:], "--features", "a", "--weight", "colour"), 1, "the weight, is text"),
    "a word among numbers": (
        ("fit", "stray.csv", "--target", "y"),
        1,
        "column 'b' of stray.csv is text, not numbers (row 8 has 'n.k.')",
    ),
    "a word later": (
        ("fit", "late.csv", "--target", "y"),
        1,
        "late.csv: column 'a': Row #400002: CSV conversion error to double: invalid value 'x'",
    ),
    "a missing value": (
        ("fit", "missing.csv", "--target", "y"),
        1,
        f"missing.csv, rows 0 to {N - 1}: column 'b' has no value in row 6",
    ),
    "infinity": (
        ("fit", "inf.npy", "--target", "y.npy"),
        1,
        f"inf.npy, rows 0 to {N - 1}: X contains NaN or infinity, first in column 2",
    ),
    "nan": (
        ("fit", "nan.parquet", "--target", "y"),
        1,
        f"nan.parquet, rows 0 to {N - 1}: column 'c' has nan in row 3 of these",
    ),
    "a name twice": (
        ("fit", "twice.csv", "--target", "y"),
        1,
        "twice.csv has several columns 'a'; its columns are 'a', 'a', 'y'",
    ),
    "semicolons": (("fit", "semicolons.csv", "--target", "y"), 1, "its columns are 'a;y': columns are separated by commas"),
    "Latin-1": (
        ("fit", "latin.csv", "--target", "y"),
        1,
        "latin.csv cannot be read as csv: 'utf-8' codec can't decode byte 0xdf in position 4: invalid continuation byte: "
        "save the file as UTF-8",
    ),
    "a folder as model": ((*FIT, "--output", "."), 1, "--output . is a folder"),
    "a date": (
        ("fit", "dates.parquet", "--target", "y"),
        1,
        "column 'day' of dates.parquet is date32[day], not numbers: turn it",
    ),
    "a row too long": (
        ("fit", "ragged.csv", "--target", "y"),
        1,
        "ragged.csv cannot be read as csv: CSV parse error: Row #5: Expected 5",
    ),
    "an empty file": (("fit", "empty.csv", "--target", "y"), 1, "empty.csv cannot be read as csv: Empty CSV file"),
    "no rows": (("fit", "head.csv", "--target", "y"), 1, "head.csv, the target, has no value in any of its first rows"),
    "no such tol": ((*FIT, "--tol", 2), 1, "--tol must lie between 0 and 1 (it is a relative error), got 2.0"),
    "alpha that is no number": ((*FIT, "--alpha", "x"), 2, "'--alpha'"),
    "negative weights": ((*FIT, "--weight", "a"), 1, "the column that --weight names must be finite and not negative"),
    "a folder for predictions": (("predict", "model", "data.csv", "--output", "no/x.csv"), 1, "no/x.csv: No such file"),
    "no folder for a picture": (("bench", "--plot", "nowhere/x.png"), 1, "there is no folder nowhere for --plot"),
    "target without its option": (("fit", "data.csv", "y"), 2, "Got unexpected extra argument"),
    "negative alpha": ((*FIT, "--alpha", -1), 1, "--alpha must be finite and not negative, got -1"),
    "alpha and cv": ((*FIT, "--alpha", 1, "--cv", "loo"), 2, "--alpha and --cv do not go together"),
    "one fold": ((*FIT, "--cv", 1), 2, '--cv must be "loo" or a number of folds'),
    "more folds than rows": ((*FIT, "--cv", 1000), 1, "--cv 1000 asks for more folds than the 300 rows"),
    "classes of fractions": ((*FIT, "--classify"), 1, "classes must be whole numbers or words; without --classify"),
    "one class": (("fit", "one.csv", "--target", "kind", "--classify"), 1, "must hold at least two classes, got one class: 'x'"),
    "no folder": ((*FIT, "--output", "nowhere/model"), 1, "there is no folder nowhere for --output"),
    "kind of picture": (("path", *FIT[1:], "--plot", "path.doc"), 1, "--plot path.doc: the name must end in one of"),
    "misspelt option": ((*FIT, "--alhpa", 1), 2, "--alhpa"),
    "misspelt command": (("fti", "data.csv"), 2, "fti"),
    "no model": (("predict", "none", "data.csv"), 1, "none: No such file"),
    "not a model": (("predict", "data.csv", "data.csv"), 1, "'data.csv' was not written by fastridge.save"),
    "truncated model": (("predict", "half", "data.csv"), 1, "'half' is truncated or damaged"),
    "later model": (("predict", "later", "data.csv"), 1, "this version of fastridge reads 1"),
    "columns of a model": (
        ("predict", "model", "fewer.csv"),
        1,
        "fewer.csv has no column 'straße'; its columns are 'a', 'b', 'c'",
    ),
    "text to predict": (("predict", "model", "stray.csv"), 1, "column 'b' of stray.csv is string, not a number: the model was"),
    "features of a model": (("predict", "model", "wide.npy"), 1, "wide.npy has 8 features, and model was fitted to 4"),
}


@pytest.fixture
def spoilt(here):
    """Files with mistakes in them"""
    write("csv")
    write("npy")
    write("svmlight")
    Path("data.npy").rename("X.npy")
    fastridge.save(Ridge().fit(scan("data.csv", target="y")), "model")
    whole = Path("model").read_bytes()
    Path("half").write_bytes(whole[: len(whole) // 2])
    from fastridge import archive

    archive.save("later", {"kind": "fastridge", "version": 2}, {})
    Path("data.xlsx").write_bytes(b"PK")
    write_csv("words.csv", {"a": X[:, 0], "colour": np.where(np.arange(N) == 0, "red", COLOUR), "y": Y})
    write_csv("stray.csv", columns(), change=set_entry(7, 1, "n.k."))
    write_csv("missing.csv", columns(), change=set_entry(7, 1, ""))
    write_csv("ragged.csv", columns(), change=lambda rows: rows[4].append("1"))
    write_csv("fewer.csv", {name: column for name, column in columns().items() if name != "straße"})
    write_csv("one.csv", columns(kind=["x"] * N))
    Path("late.csv").write_text("a,y\n" + "1,2\n" * 400_000 + "x,2\n")
    Path("empty.csv").write_text("")
    Path("head.csv").write_text("a,y\n")
    parquet.write_table(pa.table(columns(day=pa.array(range(N), pa.int32()).cast(pa.date32()))), "dates.parquet")
    Path("twice.csv").write_text("a,a,y\n1,2,3\n2,3,4\n")
    Path("semicolons.csv").write_text("a;y\n1;2\n2;3\n")
    Path("latin.csv").write_bytes("a,straße,y\n1,2,3\n".encode("latin-1"))
    parquet.write_table(pa.table(columns(c=np.where(np.arange(N) == 3, np.nan, X[:, 2]))), "nan.parquet")
    infinite = X.copy()
    infinite[5, 2] = np.inf
    np.save("inf.npy", infinite)
    np.save("wide.npy", np.hstack([X, X]))


@pytest.mark.usefixtures("spoilt")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_in_one_sentence(mistake):
    arguments, status, message = MISTAKES[mistake]
    done = run(*arguments)
    assert done.exit_code == status, done.output
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def process(*arguments, code=None):
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    start = ["-m", "fastridge"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def test_as_a_process():
    path, *asked = _table("csv")
    done = process("fit", path, *asked, "--output", "model", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rows"] == N
    done = process("predict", "model", path)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(read_predictions(done.stdout), fastridge.load("model").predict(scan(path, target="y")))
    assert process("fit", path, *asked, "--tol", 1e-18).returncode == 3
    assert process("fit", path).returncode == 2
    done = process("fit", "none.csv", *asked)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: there is no file none.csv\n")


def test_the_entry_point_is_the_same_program():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["fastridge"].partition(":")
    assert getattr(import_module(module), name) is main


WITHOUT = "import sys; sys.modules['{}'] = None; from fastridge.__main__ import main; sys.exit(main())"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(missing):
    code = WITHOUT.format(missing)
    done = process("fit", "data.csv", code=code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: the command line needs {missing}")
    assert 'pip install "fastridge-solvers[cli]"' in done.stderr
    assert done.stderr.count("\n") == 1
    done = process("info", code=code)
    assert done.returncode == 0
    assert "BLAS" in done.stdout
    assert process("check", code=code).returncode == 0


@pytest.mark.parametrize("missing", ["pyarrow", "matplotlib.figure"])
def test_without_a_package_that_a_command_needs(missing):
    path, *asked = _table("csv")
    done = process("path", path, *asked, "--plot", "path.png", code=WITHOUT.format(missing))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {missing}")
    assert 'pip install "fastridge-solvers[cli]"' in done.stderr
