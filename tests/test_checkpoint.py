"""Checkpoints: a fit that was killed goes on with the pass it was in, to the same bits; what does not belong to it is refused."""

import json
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from pyarrow import parquet
from sklearn.exceptions import ConvergenceWarning

from fastridge import Ridge, RidgeClassifier, checkpoint, ridge, scan
from fastridge.operators.row_blocks import RowBlocks

N, P, TOL = 600, 60, 1e-9


class Killed(Exception):
    """In the middle of a pass"""


@pytest.fixture(autouse=True)
def every_pass_is_written(monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


def make(seed=0, n=N, p=P):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * 10.0 ** rng.uniform(-0.6, 0.6, p) @ np.linalg.qr(rng.standard_normal((p, p)))[0] + 3
    return X, X @ rng.standard_normal(p) + rng.standard_normal(n)


class Counted:
    """Blocks of rows, their passes counted from 0, which break off in the middle of pass number `last`"""

    def __init__(self, X, y, last=np.inf):
        self.data, self.last, self.n_passes = (X, y), last, -1

    def __call__(self):
        self.n_passes += 1
        return self.blocks(self.n_passes)

    def blocks(self, number):
        X, y = self.data
        for lo in range(0, X.shape[0], 100):
            if number == self.last and lo == 300:
                raise Killed
            yield X[lo : lo + 100], y[lo : lo + 100]


def fitted(blocks, **options):
    return ridge(scan(blocks), **({"alpha": 1e-2, "solver": "cg", "tol": TOL} | options))


@pytest.mark.parametrize("last", [0, 1, 2, 3, 9, 30])
@pytest.mark.parametrize("penalty_weights", [None, np.linspace(0.5, 2, P)], ids=["plain", "scaled"])
def test_no_pass_is_lost_but_the_one_at_work(tmp_path, last, penalty_weights):
    X, y = make()
    options = {"penalty_weights": penalty_weights}
    whole = Counted(X, y)
    expected = fitted(whole, **options)
    assert last < whole.n_passes
    options["checkpoint"] = tmp_path / "fit"
    with pytest.raises(Killed):
        fitted(Counted(X, y, last), **options)
    again = Counted(X, y)
    found = fitted(again, **options)
    np.testing.assert_array_equal(found.coef, expected.coef)
    assert (found.report.error_bound, found.report.n_iter) == (expected.report.error_bound, expected.report.n_iter)
    # A look at the first block counts as one more.
    assert again.n_passes == whole.n_passes - last + (last > 0)
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_fit_that_is_killed_again_and_again(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(checkpoint, "SECONDS", seconds)  # an exception writes in any case
    X, y = make(1)
    expected, found, n_tries = fitted(Counted(X, y)), None, 0
    while found is None:
        n_tries += 1
        with suppress(Killed):
            found = fitted(Counted(X, y, 4), checkpoint=tmp_path / "fit")
    assert n_tries > 5
    np.testing.assert_array_equal(found.coef, expected.coef)


IN_A_CHILD = """
import os, signal, sys
import numpy as np
from fastridge import checkpoint, ridge, scan
checkpoint.SECONDS = 0.0
folder, last = sys.argv[1], int(sys.argv[2])
X, y = np.load(folder + "/X.npy"), np.load(folder + "/y.npy")
n_passes = -1
def blocks():
    global n_passes
    n_passes += 1
    for lo in range(0, len(y), 100):
        if n_passes == last and lo == 300:
            os.kill(os.getpid(), signal.SIGKILL)
        yield X[lo : lo + 100], y[lo : lo + 100]
solution = ridge(scan(blocks), alpha=1e-2, solver="cg", tol=1e-9, checkpoint=folder + "/fit")
np.save(folder + "/coef.npy", solution.coef)
print(n_passes)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_after_sigkill(tmp_path):
    X, y = make(2)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    whole = Counted(X, y)
    expected = fitted(whole)

    def run(last):
        command = [sys.executable, "-c", IN_A_CHILD, str(tmp_path), str(last)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1])

    assert run(12).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "fit").iterdir())) == 12
    done = run(-1)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == whole.n_passes - 12 + 1
    np.testing.assert_array_equal(np.load(tmp_path / "coef.npy"), expected.coef)
    assert not (tmp_path / "fit").exists()


def test_the_first_pass_of_a_direct_solve(tmp_path):
    X, y = make()
    options = {"solver": "cholesky", "checkpoint": tmp_path / "fit"}
    expected = fitted(Counted(X, y), solver="cholesky").coef
    with pytest.raises(Killed):
        fitted(Counted(X, y, 1), **options)
    again = Counted(X, y)
    np.testing.assert_array_equal(fitted(again, **options).coef, expected)
    assert again.n_passes == 1  # and the look


def test_more_directions_and_several_targets(tmp_path):
    """Columns that share factors: CG changes its preconditioner on the way"""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((700, 12)) @ rng.standard_normal((12, 260)) * 30 + rng.standard_normal((700, 260))
    Y = X[:, :3] + rng.standard_normal((700, 3))
    expected = fitted(Counted(X, Y), alpha=1e-3)
    assert "directions taken out" in expected.report.reason
    for last in (5, 7, 20):
        with pytest.raises(Killed):
            fitted(Counted(X, Y, last), alpha=1e-3, checkpoint=tmp_path / "fit")
    found = fitted(Counted(X, Y), alpha=1e-3, checkpoint=tmp_path / "fit")
    np.testing.assert_array_equal(found.coef, expected.coef)
    np.testing.assert_array_equal(found.report.n_iter, expected.report.n_iter)


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize(("last", "n_classes"), [(1, 3), (2, 2), (5, 3)])
def test_classes(tmp_path, last, n_classes, words):
    X, y = make()
    labels = np.digitize(y, np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1]))
    labels = np.array(["wasp", "ant", "bee"])[labels] if words else labels
    options = {"alpha": 1e-2, "solver": "cg", "tol": TOL}
    whole = Counted(sp.csr_array(X), labels)
    expected = RidgeClassifier(**options).fit(scan(whole))
    options["checkpoint"] = tmp_path / "fit"
    with pytest.raises(Killed):
        RidgeClassifier(**options).fit(scan(Counted(sp.csr_array(X), labels, last)))
    again = Counted(sp.csr_array(X), labels)
    found = RidgeClassifier(**options).fit(scan(again))
    np.testing.assert_array_equal(found.coef_, expected.coef_)
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    assert again.n_passes <= whole.n_passes - (last - 1) + 2  # two looks at the first block


@pytest.mark.parametrize("first", [{"max_iter": 7}, {"tol": 1e-3}, {"time_limit": 1e-9}])
def test_a_fit_that_was_limited_goes_on(tmp_path, first):
    X, y = make()
    whole = Counted(X, y)
    expected = fitted(whole)
    found = fitted(Counted(X, y), checkpoint=tmp_path / "fit", **first)
    if found.report.converged:
        assert not (tmp_path / "fit").exists()
        return
    again = Counted(X, y)
    found = fitted(again, checkpoint=tmp_path / "fit")
    assert found.report.error_bound <= TOL
    np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-6)
    assert again.n_passes <= whole.n_passes + 1 - (7 if "max_iter" in first else 0)
    assert not (tmp_path / "fit").exists()


def test_what_was_recalled_in_full_is_held_against_the_data(tmp_path):
    X, y = make()
    fitted(Counted(X, y), max_iter=20, checkpoint=tmp_path / "fit")
    other = X.copy()
    other[-100:] += 1
    with pytest.raises(ValueError, match=r"block 5, rows 500 to 599: other rows than .* checkpoint"):
        fitted(Counted(other, y), max_iter=20, checkpoint=tmp_path / "fit")


def begun(folder, X, y, **options):
    with pytest.raises(Killed):
        fitted(Counted(X, y, 6), checkpoint=folder, **options)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("change", ["first block", "last block", "fewer", "y"])
def test_other_rows_are_refused(tmp_path, change):
    X, y = make()
    begun(tmp_path / "fit", X, y)
    X, y = X.copy(), y.copy()
    if change == "first block":
        X[:100] = X[99::-1]
    elif change == "last block":
        X[-100:] += 1
    elif change == "y":
        y += 1
    else:
        X, y = X[:-100], y[:-100]
    with pytest.raises(ValueError, match=r"the checkpoint '.*fit': remove that"):
        fitted(Counted(X, y), checkpoint=tmp_path / "fit")
    assert (tmp_path / "fit" / "000000.npz").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alpha": 0.5}, r"alpha was \[0\.01\], and is \[0\.5\]"),
        ({"fit_intercept": False}, "fit_intercept was True, and is False"),
        ({"solver": "cholesky"}, "solver was cg, and is cholesky"),
        ({"penalty_weights": np.linspace(1, 2, P)}, r"penalty_weights was None, and is an array \(60,\) with the digest .*"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, said):
    X, y = make()
    files = begun(tmp_path / "fit", X, y)
    with pytest.raises(ValueError, match=f"is of another fit: {said}; remove it, or fit as before"):
        fitted(Counted(X, y), checkpoint=tmp_path / "fit", **change)
    with pytest.raises(ValueError, match="n_features was 60, and is 59"):
        fitted(Counted(X[:, :-1], y), checkpoint=tmp_path / "fit")
    assert sorted((tmp_path / "fit").iterdir()) == files
    assert fitted(Counted(X, y), checkpoint=tmp_path / "fit", n_threads=1).report.converged


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "version", "foreign", "missing"])
def test_damaged_files_are_refused(tmp_path, damage, number):
    X, y = make()
    path = begun(tmp_path / "fit", X, y)[number]
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:200] + bytes([content[200] ^ 0x40]) + content[201:])
    elif damage == "foreign":
        np.savez(path, a=np.ones(3))
    elif damage == "missing":
        path.unlink()
    else:
        with np.load(path) as members:
            arrays = dict(members)
        header = json.loads(arrays.pop("header").tobytes()) | {"version": checkpoint.VERSION + 1}
        np.savez(path, header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays)
    said = {
        "truncated": "truncated or damaged",
        "flipped": "truncated or damaged",
        "version": "has version 2",
        "foreign": "no header of ours",
        "missing": "is no checkpoint, or parts of it are missing",
    }
    with pytest.raises(ValueError, match=said[damage]):
        fitted(Counted(X, y), checkpoint=tmp_path / "fit")


def test_what_a_write_left_half_done_is_cleared_away(tmp_path):
    X, y = make()
    begun(tmp_path / "fit", X, y)
    (tmp_path / "fit" / ".000005.npz.0a1b.draft").write_bytes(b"half")
    assert fitted(Counted(X, y), checkpoint=tmp_path / "fit").report.converged
    assert not (tmp_path / "fit").exists()


def test_products_that_differ_in_their_last_bits_are_made_anew(tmp_path, monkeypatch):
    """As on another machine, whose rounding takes CG elsewhere: the rest of the checkpoint is dropped, and the answer is right"""
    X, y = make()
    expected = fitted(Counted(X, y))
    monkeypatch.setattr(checkpoint, "SECONDS", 1e9)  # all in one file
    files = begun(tmp_path / "fit", X, y)
    assert len(files) == 1
    with np.load(files[0]) as members:
        arrays = dict(members)
    arrays["2."] = np.nextafter(arrays["2."], 0)
    np.savez(files[0], **arrays)
    again = Counted(X, y, 2)
    with pytest.raises(Killed):
        fitted(again, checkpoint=tmp_path / "fit")
    header = json.loads(zipfile.ZipFile(files[0]).read("header.npy").split(b"\n", 1)[1])
    assert len(header["keys"]) == 4  # the facts, two products that were recalled, and a new one
    found = fitted(Counted(X, y), checkpoint=tmp_path / "fit")
    assert found.report.error_bound <= TOL
    np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-6)
    assert not (tmp_path / "fit").exists()


def test_what_cannot_be_kept(tmp_path):
    X, y = make()
    with pytest.raises(ValueError, match=r"give scan\(X, target=y\)"):
        ridge(X, y, checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match=r"give scan\(X, target=y\)"):
        Ridge(checkpoint=tmp_path / "fit").fit(X, y)
    with pytest.raises(ValueError, match="can be read once"):
        ridge(scan(iter([(X, y)])), checkpoint=tmp_path / "fit")
    with pytest.raises(TypeError, match="checkpoint must be the path of a folder or None, got 5"):
        ridge(scan(X, target=y), checkpoint=5)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"must name a folder, and '.*file' is a file"):
        ridge(scan(X, target=y), checkpoint=tmp_path / "file")
    with pytest.raises(ValueError, match=r"is no checkpoint.* it has file"):
        ridge(scan(X, target=y), checkpoint=tmp_path)
    assert not (tmp_path / "fit").exists()


def test_a_fit_that_fails_before_anything_is_kept_leaves_nothing(tmp_path):
    X, y = make()
    X[5, 5] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        ridge(scan(X, target=y), checkpoint=tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


def test_a_partial_sum_is_not_kept(tmp_path):
    """A sum that the time limit cut short is no product"""
    kept = checkpoint.Checkpoint(tmp_path / "fit")
    part = kept.once("gram", (), lambda: {"": np.ones(3)}, lambda: False)
    assert part[""].sum() == 3
    kept.write()
    assert not list((tmp_path / "fit").iterdir())


def test_every_product_is_kept():
    """A pass that `RowBlocks` learns to make must be kept too"""
    own = {name for name in vars(checkpoint.KeptRows) if not name.startswith("_")}
    passes = {"normal", "sq_image", "gram_about_high", "triangle", "blocks", "rows"}
    others = {"traits", "weight", "target", "with_columns_scaled", "matvec", "rmatvec", "sq_target", "take_targets", "gram"}
    others |= {"n_weighted", "log_weights"}
    norms = {"sq_norms", "mean_error", "sq_read_norms", "sq_raw_norms", "over_rows"}
    assert {name for name in vars(RowBlocks) if not name.startswith("_")} == passes | others | norms
    assert passes <= own


def test_classes_of_a_table_go_on(tmp_path):
    X, _ = make()
    columns = {f"x{j}": X[:, j] for j in range(P)} | {"y": np.array(["wasp", "ant", "bee"])[np.arange(N) % 3]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    options = {"alpha": 1e-2, "solver": "cg", "tol": TOL}
    expected = RidgeClassifier(**options).fit(scan(tmp_path / "t.parquet", target="y"))
    options["checkpoint"] = tmp_path / "fit"
    with pytest.warns(ConvergenceWarning):
        RidgeClassifier(max_iter=3, **options).fit(scan(tmp_path / "t.parquet", target="y"))
    found = RidgeClassifier(**options).fit(scan(tmp_path / "t.parquet", target="y"))
    np.testing.assert_array_equal(found.coef_, expected.coef_)
    np.testing.assert_array_equal(found.classes_, ["ant", "bee", "wasp"])
    with pytest.warns(ConvergenceWarning):
        RidgeClassifier(max_iter=3, **options).fit(scan(tmp_path / "t.parquet", target="y"))
    columns["y"] = columns["y"][::-1]
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"other rows than .* checkpoint"):
        RidgeClassifier(**options).fit(scan(tmp_path / "t.parquet", target="y"))
