"""The examples in the docstrings print what they say."""

import doctest
import importlib
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest

import fastridge

MODULES = [
    name
    for name in ("fastridge", *(info.name for info in pkgutil.walk_packages(fastridge.__path__, "fastridge.")))
    if "_kernels.dense_v" not in name  # not every processor can load them
]


def examples(name):
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    runner = doctest.DocTestRunner()
    for test in examples(name):
        assert runner.run(test).failed == 0


def test_the_public_functions_have_examples():
    found = {test.name for name in MODULES for test in examples(name)}
    assert found >= {
        "fastridge",
        "fastridge.functional.ridge",
        "fastridge.functional.explain",
        "fastridge.path.ridge_path",
        "fastridge.moments.Moments",
        "fastridge.estimators.Ridge",
        "fastridge.classifier.RidgeClassifier",
        "fastridge.ridge_cv.RidgeCV",
        "fastridge.ridge_cv.RidgeClassifierCV",
        *(f"fastridge.plots.{name}Display" for name in ("Path", "Score", "Convergence", "Coefficient")),
        *(f"fastridge.scales.{name}" for name in fastridge.__all__ if name.startswith("alpha_")),
    }


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def code_of(page):
    return [block for block in blocks_of(page) if not block.startswith(">>>")]


def prompts_of(page):
    return [block for block in blocks_of(page) if block.startswith(">>>")]


@pytest.fixture
def pictures(monkeypatch):
    """Pages draw without a screen, and no figure stays open"""
    monkeypatch.setenv("MPLBACKEND", "agg")
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)], ids=lambda page: page.name)
def test_the_code_of_the_documentation_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in code_of(page):
        exec(block, names)
    if page.name == "README.md":
        assert names["path"].coefs.shape == (100, 10)
        status, bound, chosen = capsys.readouterr().out.splitlines()
        assert status == "converged"
        assert float(bound) <= 1e-6
        assert 0 < float(chosen.split()[0]) < 1
        assert chosen.endswith(" (100, 10)")


@pytest.mark.parametrize("page", [page for page in PAGES if prompts_of(page)], ids=lambda page: page.name)
def test_the_examples_of_the_documentation(page):
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried
    assert not failed


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda path: path.stem)
def test_the_examples_of_the_gallery_run(example):
    runpy.run_path(str(example))
    assert sys.modules["matplotlib.pyplot"].get_fignums()
