"""The command line: `fastridge fit`, `predict`, `path`, `explain`, `bench`, `info`, `check`.

It exits with 0 where all went well, 1 where something given is wrong, 2 where the command itself is, and 3 where a fit did not
converge. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import csv
import sys
import time
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy.sparse as sp
import typer
from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from fastridge import comparison, installation, model_file
from fastridge._version import __version__
from fastridge.classifier import RidgeClassifier
from fastridge.estimators import ADVICE, Ridge
from fastridge.functional import explain as explain_rows
from fastridge.io import one_hot as encoding
from fastridge.io import tables
from fastridge.io.scan import files_of, is_table, kept, rows_to_predict, scan
from fastridge.operators.base import Array, Matrix, Vector
from fastridge.path import ridge_path
from fastridge.planning.costs import GRAM_FEATURES, physical_memory
from fastridge.plots import PathDisplay
from fastridge.ridge_cv import RidgeClassifierCV, RidgeCV
from fastridge.rows import RowSource, labels_of
from fastridge.terminal import Lines, Steps, duration, mistakes, print_facts, quiet, show, times, watched

DID_NOT_CONVERGE = 3
LARGE = 0.05
"""Share of the memory of this machine; files may be packed to a fifth."""
LINES = 10_000
"""That are made at once of predictions."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Ridge regression on files, with answers that are proven. DATA: csv, tsv, parquet, feather (or a folder of these), "
    "npy, npz, svmlight; text may be packed by gzip.",
)

Data = Annotated[str, typer.Argument(metavar="DATA", help="A file, or a folder of tables.", show_default=False)]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column to predict; of npz the array y in it, of npy another file; svmlight files have it.",
        show_default=False,
    ),
]
Features = Annotated[
    str | None, typer.Option(metavar="A,B", help="Columns to use. [default: all but target and weight]", show_default=False)
]
Weight = Annotated[str | None, typer.Option(metavar="NAME", help="The column of sample weights.", show_default=False)]
OneHot = Annotated[bool, typer.Option("--one-hot", help="Make columns of zeros and ones of columns of text.")]
Alpha = Annotated[float, typer.Option(help="The penalty, on scikit-learn's scale.")]
Tol = Annotated[float, typer.Option(help="The relative error to stay below, in the norm of the objective.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status"""
    try:
        app(arguments, prog_name="fastridge")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    pass


@app.command()
def fit(
    data: Data,
    target: Target = None,
    alpha: Annotated[
        float | None, typer.Option(help="The penalty, on scikit-learn's scale. [default: 1]", show_default=False)
    ] = None,
    cv: Annotated[
        str | None,
        typer.Option(metavar="loo|K", help="Choose alpha by leave-one-out or by K folds.", show_default=False),
    ] = None,
    classify: Annotated[bool, typer.Option("--classify", help="The target holds classes.")] = False,
    features: Features = None,
    weight: Weight = None,
    one_hot: OneHot = False,
    tol: Tol = 1e-6,
    output: Annotated[Path | None, typer.Option(metavar="MODEL", help="Save the model here.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Fit a ridge regression, or a classifier.

    Rows are read block by block and need not fit in memory. Folds read them into memory, and so does leave-one-out
    unless DATA are large.
    """
    if alpha is not None and cv is not None:
        raise typer.BadParameter("--alpha and --cv do not go together: --cv chooses alpha")
    folds = None if cv is None else _folds(cv)
    with mistakes(as_json) as said:
        if output is not None and not output.absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {output.parent} for --output")
        if output is not None and output.is_dir():
            raise IsADirectoryError(f"--output {output} is a folder")
        begin = time.perf_counter()
        rows = _open(data, target, features, weight, one_hot, classify)
        with watched(rows.source, as_json) as (source, progress):
            if cv is None:
                model = (RidgeClassifier if classify else Ridge)(1.0 if alpha is None else alpha, tol=tol).fit(source)
            else:
                model = (RidgeClassifierCV if classify else RidgeCV)(alphas="auto", cv=folds, tol=tol)
                if folds is None and source.n_features <= GRAM_FEATURES and _large(data):
                    model.fit(source)
                else:
                    _fit_in_memory(model, source, classify, progress)
            seconds = time.perf_counter() - begin
            score = _score(model, source, classify)
        if output is not None:
            model_file.write(model, output, {"columns": rows.columns, "categories": dict(source.categories)})
    report = model.report_
    chosen = model.alpha if cv is None else model.alpha_
    print_facts(
        {
            "rows": source.n_samples,
            "features": model.n_features_in_,
            **({"classes": model.classes_.tolist()} if classify else {}),
            "alpha": chosen if np.ndim(chosen) == 0 else chosen.tolist(),
            **({} if cv is None else {"choice": str(model.choice_)}),
            "accuracy" if classify else "r2": score,
            "status": str(report.status),
            "error_bound": report.error_bound,
            "seconds": seconds,
            "solver": report.solver,
            "reason": report.reason,
            "output": None if output is None else str(output),
        },
        as_json,
        said,
    )
    raise typer.Exit(DID_NOT_CONVERGE if report.status in ADVICE else 0)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A file that fit has saved.", show_default=False)],
    data: Data,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write here. [default: standard output]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the rows of DATA.

    With --json and without --output the predictions are in the object.
    """
    with mistakes(as_json) as said:
        fitted, notes = model_file.read(model)
        with watched(_open_to_predict(data, fitted, notes), as_json) as (source, _):
            if source.n_features != fitted.n_features_in_:
                raise ValueError(f"{data} has {source.n_features} features, and {model} was fitted to {fitted.n_features_in_}")
            predictions = np.asarray(fitted.predict(source))
        if output is not None:
            with open(output, "w", newline="", encoding="utf-8") as file:
                _write(file, predictions)
    if output is None and not as_json:
        _write(sys.stdout, predictions)
        return
    facts: dict[str, Any] = {"rows": len(predictions), "features": fitted.n_features_in_}
    facts |= {"predictions": predictions.tolist()} if output is None else {"output": str(output)}
    print_facts(facts, as_json, said)


@app.command()
def path(
    data: Data,
    target: Target = None,
    features: Features = None,
    weight: Weight = None,
    one_hot: OneHot = False,
    tol: Tol = 1e-6,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the coefficients: png, svg or pdf.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Solve at 100 penalties that suit the data.

    The rows are read into memory. With --json all coefficients are in the object.
    """
    with mistakes(as_json) as said:
        figure = None if plot is None else _figure(plot)
        rows = _open(data, target, features, weight, one_hot, False)
        with watched(rows.source, as_json) as (source, progress):
            X, y, weights = _in_memory(source)
            found = ridge_path(X, y, sample_weight=weights, tol=tol, callback=Steps(progress, tol))
        missed = [report.error_bound for report in found.reports if not report.converged]
        if missed:
            said.append(
                f"{len(missed)} of {len(found.reports)} answers are not proven to be within --tol {tol:g}, the worst within "
                f"{max(missed):.1e}: give a larger --tol"
            )
        if plot is not None and figure is not None:
            first = None if found.coefs.ndim == 2 else 0
            PathDisplay.from_path(found, target=first, feature_names=source.feature_names).plot(figure.subplots())
            figure.savefig(plot, dpi=150)
    reports = found.reports
    facts = {
        "rows": X.shape[0],
        "features": X.shape[1],
        "alphas": len(reports),
        "largest_alpha": float(found.alphas.max()),
        "smallest_alpha": float(found.alphas.min()),
        "converged": sum(report.converged for report in reports),
        "error_bound": max(report.error_bound for report in reports),
        "seconds": reports[0].seconds,
        "solver": ", ".join(sorted({report.solver for report in reports})),
        "reason": reports[0].reason,
        "plot": None if plot is None else str(plot),
    }
    if as_json:
        facts["alphas"] = found.alphas.tolist()
        facts |= {"coefs": found.coefs.tolist(), "intercepts": found.intercepts.tolist()}
        facts["feature_names"] = source.feature_names
    print_facts(facts, as_json, said)
    raise typer.Exit(0 if found.converged else DID_NOT_CONVERGE)


@app.command()
def explain(
    data: Data,
    target: Target = None,
    alpha: Alpha = 1.0,
    features: Features = None,
    weight: Weight = None,
    one_hot: OneHot = False,
    as_json: Json = False,
) -> None:
    """Say what fit would do, and why.

    The rows are read once, and what every solver is estimated to cost is listed.
    """
    with mistakes(as_json) as said:
        rows = _open(data, target, features, weight, one_hot, False)
        with watched(rows.source, as_json) as (source, _):
            plan = explain_rows(source, alpha=alpha)
    if not as_json:
        typer.echo(str(plan))
        return
    options = [
        {"solver": str(option.step), "seconds": option.seconds, "extra_bytes": option.extra_bytes, "note": option.note}
        for option in plan.options
    ]
    facts: dict[str, Any] = {"rows": plan.shape[0], "features": plan.shape[1], "threads": plan.n_threads, "solver": plan.solver}
    facts |= {"reason": plan.reason, "falls_back_to": [str(step) for step in plan.steps[1:]], "estimates": options}
    print_facts(facts, as_json, said)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller data: under 20 seconds, in place of a minute or two.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the seconds of both sides: png, svg or pdf.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Time fastridge and scikit-learn on this machine.

    Data are made, and both sides fit them in turns. Of scikit-learn's solvers the fastest is taken that comes within 1e-6 of
    the exact coefficients (relative, in the norm of the objective), at the loosest tol that does.
    """
    with mistakes(as_json) as said:
        figure = None if plot is None else _figure(plot)
        rows = []
        console = Console(stderr=True)
        columns = SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True, disable=quiet(console, as_json)) as progress:
            task = progress.add_task("", total=len(comparison.cases()))
            for row in comparison.compare(quick, lambda name: progress.update(task, description=name)):
                rows.append(row)
                progress.advance(task)
        if plot is not None and figure is not None:
            comparison.draw(rows, figure.subplots())
            figure.savefig(plot, dpi=150)
    if as_json:
        facts = {"versions": dict(installation.facts()), "target": comparison.TARGET, "cases": [row.facts() for row in rows]}
        print_facts(facts | {"plot": None if plot is None else str(plot)}, as_json, said)
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "rows", "features", "fastridge", "scikit-learn", "times faster", "its solver"):
        table.add_column(name, justify="left" if name in ("", "its solver") else "right")
    for row in rows:
        n, p = row.shape
        theirs = (
            ("not reached", "", "") if row.theirs is None else (duration(row.theirs.seconds), times(row.ratio), row.theirs.solver)
        )
        table.add_row(row.case, f"{n:,}", f"{p:,}", duration(row.ours.seconds), *theirs)
    show(table)
    drawn = "" if plot is None else f" The picture is in {plot}."
    typer.echo(f"Median times, at an error of {comparison.TARGET:g} or less.{drawn}")


@app.command()
def info(as_json: Json = False) -> None:
    """Print versions, SIMD level, threads and BLAS."""
    if as_json:
        print_facts(dict(installation.facts()), as_json, [])
    else:
        installation.info()


@app.command()
def check() -> None:
    """Try this installation with a few fits.

    Their certificates are held against the closed form.
    """
    raise typer.Exit(installation.check())


@dataclass(frozen=True)
class _Rows:
    """A source, and how the columns of its files become features

    Attributes
    ----------
    source : RowSource
    columns : list of str or None
        Those that features are made of, in order; None where they have no names.
    """

    source: RowSource
    columns: list[str] | None = None


def _open(data: str, target: str | None, features: str | None, weight: str | None, one_hot: bool, classify: bool) -> _Rows:
    """What a command reads; columns that are not numbers are encoded where that is asked, or refused"""
    paths = files_of(data)
    if not is_table(paths):
        if target is None and paths[0].suffix in (".npy", ".npz"):
            what = "the .npy file" if paths[0].suffix == ".npy" else "the name of the array in it"
            raise typer.BadParameter(f"--target is missing: {what} that has y")
        if features is not None or one_hot:
            raise ValueError(f"{data} has no columns with names, so that --features and --one-hot do not apply")
        return _Rows(scan(data, target=target, weight=weight))
    schema = tables.schema_of(paths[0])
    if target is None:
        raise typer.BadParameter(f"--target is missing: the column to predict, one of {tables.listed(schema.names)}")
    if features is None:
        columns = [name for name in schema.names if name not in (target, weight)]
    else:
        columns = [name if name in schema.names else name.strip() for name in features.split(",")]
    tables.check_names((target, *columns, *([] if weight is None else [weight])), schema, str(paths[0]))
    if target in columns:
        raise ValueError(f"--features names {target!r}, which is the target")
    text = []
    for name in (target, *columns, *([] if weight is None else [weight])):
        kind = schema.field(name).type
        if tables.is_text(kind) and (classify if name == target else one_hot and name != weight):
            text.append(name)
        elif not tables.is_number(kind):
            raise ValueError(_no_number(paths[0], name, kind, "target" if name == target else "weight" if name == weight else ""))
    opener = tables.of_files(paths, text)
    categories = encoding.categories_of(opener, [name for name in text if name != target])
    return _Rows(kept(encoding.rows_of(opener, target, columns, weight, categories), paths), columns)


def _no_number(path: Path, name: str, kind: Any, role: str) -> str:
    """What to say of a column that is no number, and what to do"""
    column = f"column {name!r} of {path}" + (f", the {role}," if role else "")
    if str(kind) == "null":
        return f"{column} has no value in any of its first rows, or there are no rows"
    if not tables.is_text(kind):
        return f"{column} is {kind}, not numbers: turn it into numbers before, or leave it out by --features"
    where = tables.first_word(path, name)
    column = f"{column} is text, not numbers" + (f" ({where})" if where else "")
    if role == "weight":
        return column
    if role == "target":
        return f"{column}: give --classify if it holds classes"
    return (
        f"{column}: give --one-hot to make a column of zeros and ones of each of its values, or leave it out by --features, "
        "or turn it into numbers before"
    )


def _open_to_predict(data: str, model: Any, notes: dict[str, Any]) -> RowSource:
    """The rows of a file with the features that a model was fitted to"""
    paths = files_of(data)
    if not is_table(paths):
        return rows_to_predict(paths[0], model.n_features_in_)
    columns, categories = notes.get("columns"), notes.get("categories", {})
    if columns is None:  # fitted in Python, or to a file without names
        names = getattr(model, "feature_names_in_", None)
        columns = tables.schema_of(paths[0]).names if names is None else names.tolist()
    return encoding.rows_of(tables.of_files(paths, categories), None, columns, None, categories)


def _folds(cv: str) -> int | None:
    if cv == "loo":
        return None
    if not cv.isdecimal() or int(cv) < 2:
        raise typer.BadParameter(f'--cv must be "loo" or a number of folds, 2 or more, got {cv!r}')
    return int(cv)


def _fit_in_memory(model: Any, source: RowSource, classify: bool, progress: Progress) -> None:
    X, y, weights = _in_memory(source)
    model.verbose = not progress.disable
    with nullcontext() if progress.disable else redirect_stderr(Lines(progress)):
        model.fit(X, labels_of(y, source.names) if classify else y, sample_weight=weights)
    model.verbose = False
    if source.feature_names is not None:
        model.feature_names_in_ = np.array(source.feature_names, dtype=object)


def _large(data: str) -> bool:
    """Whether rows are better read again and again than held in memory"""
    return sum(path.stat().st_size for path in files_of(data)) > LARGE * physical_memory()


def _in_memory(source: RowSource) -> tuple[Matrix, Vector, Vector | None]:
    """All rows: X, y and the weights"""
    Xs, ys, weights = [], [], []
    for block in source.blocks():
        Xs.append(block.X.copy())  # the source writes over its blocks
        ys.append(block.y.copy())
        if block.weights is not None:
            weights.append(block.weights.copy())
    if not Xs:
        raise ValueError(f"{source.describe()} has no rows")
    X = np.concatenate(Xs) if isinstance(Xs[0], np.ndarray) else sp.vstack(Xs, format="csr")
    y = np.concatenate(ys)
    return X, y[:, 0] if source.one_target else y, np.concatenate(weights) if weights else None


def _score(model: Any, source: RowSource, classify: bool) -> float | None:
    """R2 of the rows of a source, in the mean over targets, or the share of them that a classifier gets right; weighted"""
    coef, intercept = np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_)
    total, mean, spread, lost = 0.0, np.zeros(source.n_targets), np.zeros(source.n_targets), np.zeros(source.n_targets)
    for block in source.blocks():
        weights = np.ones(len(block.y)) if block.weights is None else block.weights
        fits = np.asarray(block.X @ coef + intercept)
        if classify:
            numbers = (fits[:, 0] > 0).astype(int) if fits.shape[1] == 1 else fits.argmax(axis=1)
            lost += weights @ (model.classes_[numbers] != labels_of(block.y[:, 0], source.names))
            total += weights.sum()
            continue
        lost += weights @ np.square(block.y - fits)
        if (weight := float(weights.sum())) > 0:  # means and spreads of two sets of rows become those of both
            own = weights @ block.y / weight
            spread += weights @ np.square(block.y - own) + total * weight / (total + weight) * np.square(own - mean)
            mean += weight / (total + weight) * (own - mean)
            total += weight
    if classify:
        return float(1 - lost[0] / total)
    return float((1 - lost / spread).mean()) if (spread > 0).all() else None


def _figure(file: Path) -> Any:
    """A figure that can be saved to a file, or an error before any work"""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    known = figure.canvas.get_supported_filetypes()
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} for --plot")
    if file.suffix[1:].lower() not in known:
        raise ValueError(f"--plot {file}: the name must end in one of {', '.join(f'.{kind}' for kind in sorted(known))}")
    return figure


def _write(file: Any, predictions: Array) -> None:
    """Predictions as lines of CSV, with the digits that give the same float again"""
    columns = predictions.reshape(len(predictions), -1)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["prediction"] if columns.shape[1] == 1 else [f"prediction_{j}" for j in range(columns.shape[1])])
    for lo in range(0, len(columns), LINES):
        writer.writerows(columns[lo : lo + LINES].tolist())
