"""The examples in the docstrings print what they say."""

import doctest
import importlib
import pkgutil
import re
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
        *(f"fastridge.scales.{name}" for name in fastridge.__all__ if name.startswith("alpha_")),
    }


def test_the_code_in_the_readme_runs(capsys):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M):
        exec(block, names)
    assert names["path"].coefs.shape == (100, 10)
    *_, bound, chosen = capsys.readouterr().out.splitlines()
    assert float(bound) <= 1e-6
    assert chosen.startswith("0.01 ")


def test_the_examples_in_the_docs():
    path = Path(__file__).parents[1] / "docs" / "choosing_alpha.md"
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert tried > 5
    assert not failed
