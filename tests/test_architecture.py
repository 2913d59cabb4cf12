"""The walls: imports point down the layers, no solver knows another, and importing the package stays cheap."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fastridge

ROOT = Path(__file__).parents[1] / "fastridge"

LAYERS = {
    "_version": 0,
    "_kernels": 0,
    "parallel": 1,
    "operators": 1,
    "sums": 1,
    "archive": 1,
    "units": 1,
    "problem": 2,
    "normal_equations": 2,
    "standard_form": 2,
    "formulation": 2,
    "least_squares": 2,
    "preconditioners": 2,
    "factor": 2,
    "krylov": 2,
    "monitor": 2,
    "solution": 2,
    "solvers": 3,
    "planning": 4,
    "validation": 4,
    "request": 4,
    "rows": 4,
    "checkpoint": 4,
    "io": 4,
    "functional": 4,
    "path": 4,
    "penalty_range": 4,
    "moments": 4,
    "selection": 4,
    "inference": 4,
    "scales": 4,
    "estimators": 5,
    "classifier": 5,
    "penalty_search": 5,
    "ridge_cv": 5,
    "model_file": 5,
    "installation": 6,
    "comparison": 6,
    "terminal": 6,
    "cli": 6,
    "dask": 6,
    "plots": 6,
    "__init__": 7,
    "__main__": 7,
}
"""Of modules and subpackages; those not written yet included."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if "__pycache__" not in path.parts
}


def layer(module):
    return LAYERS[module.split(".")[0]]


def imports(path, nodes=None):
    """Yield the modules of the package that a file imports, without the package's own name"""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "fastridge":
                yield _module(name)


def _module(name):
    """The module that `fastridge.a.b` names or lies in"""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES and ".".join([*parts, "__init__"]) not in MODULES:
        if len(parts) == 2 and parts[0] == "_kernels":
            break  # compiled
        parts.pop()
    return ".".join(parts) or "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_layer(module):
    assert module.split(".")[0] in LAYERS, "say in LAYERS (and in the design notes) where it belongs"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for imported in imports(MODULES[module]):
        assert layer(imported) <= layer(module), f"{module} imports {imported}"


def solver_of(module):
    """The file or folder of `solvers` that a module is or lies in; None elsewhere"""
    parts = module.split(".")
    return parts[1] if parts[0] == "solvers" and len(parts) > 1 else None


def test_no_solver_imports_another():
    solvers = [module for module in MODULES if solver_of(module)]
    assert len({solver_of(module) for module in solvers}) >= 4
    for module in solvers:
        assert {solver_of(imported) for imported in imports(MODULES[module])} <= {None, solver_of(module)}


def test_there_is_no_cycle():
    graph = {module: set(imports(path)) - {module} for module, path in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_within_a_function_dodges_a_cycle(module):
    for function in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            assert not list(imports(MODULES[module], ast.walk(function)))


CLASSES_OF_OPERATORS = {
    node.name
    for module, path in MODULES.items()
    if module.startswith("operators.") and module != "operators.base"
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
}
TAKE_THE_DATA = {"comparison", "validation", "estimators", "classifier", "model_file", "installation"}
"""Modules that are handed the user's X, and may ask what it is."""


def looks_through(path):
    """Yield what in a file depends on how an operator stores its matrix: attributes and tests of types, not words"""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("lines", "along"):
            yield f"line {node.lineno}: .{node.attr}"
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("isinstance", "issubclass"):
            named = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            if named & CLASSES_OF_OPERATORS:
                yield f"line {node.lineno}: isinstance"


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("operators")])
def test_nothing_above_the_operators_looks_at_how_they_store(module):
    assert len(CLASSES_OF_OPERATORS) >= 7
    assert not list(looks_through(MODULES[module]))
    if module not in TAKE_THE_DATA:
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if getattr(node, "attr", getattr(node, "id", "")) == "issparse"]


def test_kernels_know_nothing_above_them():
    sources = [path for suffix in ("pyx", "pxd", "pxi") for path in (ROOT / "_kernels").glob(f"*.{suffix}")]
    assert len(sources) >= 8
    known = r"fastridge\._kernels|itertools|libc|cpython|cython|scipy\.linalg\.cython_(blas|lapack)"
    allowed = re.compile(rf"(from|cimport|import) ({known})\b")
    for path in sources:
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"\s*(from|cimport|import)\s", line):
                assert allowed.match(line.strip()), f"{path.name}: {line}"


def loaded_after(script):
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


HEAVY = {"sklearn", "matplotlib", "pandas", "polars", "pyarrow", "dask", "joblib"}


@pytest.mark.parametrize(
    "script",
    [
        "import fastridge",
        "import fastridge; fastridge.ridge([[1.0], [2.0]], [1.0, 2.0]); str(fastridge.explain([[1.0], [2.0]]))",
    ],
    ids=["import", "ridge and explain"],
)
def test_numpy_and_scipy_are_all_that_is_loaded(script):
    loaded = loaded_after(script)
    assert {"numpy", "scipy"} <= loaded
    assert not loaded & HEAVY


def test_the_estimator_brings_scikit_learn():
    assert "sklearn" in loaded_after("import fastridge; fastridge.Ridge")


def test_public_names():
    assert sorted(fastridge.__all__) == fastridge.__all__
    assert dir(fastridge) == fastridge.__all__
    for name in fastridge.__all__:
        assert name == "__version__" or getattr(fastridge, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fastridge.nothing  # noqa: B018
