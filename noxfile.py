"""Sessions for `nox -s NAME`: each runs in an environment of its own. `-- ...` hands arguments to pytest."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
PROJECT = nox.project.load_toml("pyproject.toml")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session):
    """Run the test suite against the installed package"""
    _test(session)


@nox.session
def debug(session):
    """Run the suite with the bounds checks of a debug build"""
    session.env["FASTRIDGE_DEBUG"] = "1"
    _test(session)


@nox.session
def sanitize(session):
    """Run the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer"""
    session.run("bash", ".ci/sanitize", external=True)


@nox.session
def lint(session):
    """Check style, kernels and workflows"""
    session.install(*PROJECT["project"]["optional-dependencies"]["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("bash", "-c", "cython-lint fastridge/_kernels/*.py[xd] fastridge/_kernels/*.pxi", external=True)
    session.run("zizmor", "--offline", "--quiet", ".github")


@nox.session
def types(session):
    """Check types"""
    session.install(*PROJECT["project"]["optional-dependencies"]["lint"], *PROJECT["project"]["dependencies"])
    session.run("mypy")


@nox.session
def docs(session):
    """Build the site in build/docs, where a warning is an error"""
    session.install(".", *PROJECT["dependency-groups"]["docs"])
    session.run("sphinx-build", "-W", "--keep-going", "docs", "build/docs")


@nox.session
def wheels(session):
    """Make the sdist and a wheel from it, in dist/, and try the wheel"""
    session.run("bash", ".ci/wheel", "dist", external=True)


@nox.session
def bench(session):
    """Try the benchmarks in their small versions"""
    session.install("-e", ".[test,plot]")
    session.run("python", "-m", "bench", "run", f"{session.create_tmp()}/rows.json", "--quick", *session.posargs)
    session.run("python", "-m", "bench", "report", f"{session.create_tmp()}/rows.json", "--summary")


def _test(session):
    session.install(".[test]")
    arguments = session.posargs or ["tests"]
    session.run("python", "-P", "-m", "pytest", "-p", "no:cacheprovider", *arguments)  # -P: not this folder's fastridge
