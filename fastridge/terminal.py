"""What someone at a terminal sees: progress, tables, and messages in the words of the command line."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fastridge.estimators import ADVICE
from fastridge.monitor import Progress as Solving
from fastridge.rows import RowSource
from fastridge.solution import Status

WRONG = 1
"""The status where something given is wrong."""
WIDTH = 120
"""Of what is printed where there is no terminal."""
ADVICE_HERE = {
    Status.TIME_LIMIT: "give a larger --tol",
    Status.MAX_ITER: "give a larger --tol or --alpha",
    Status.ESTIMATED: "that error is an estimate; give a larger --tol or --alpha",
    Status.FAILED: "without a penalty the digits of the answer are lost; give an --alpha above 0",
    Status.STALLED: "rounding errors are in the way: give a larger --tol or --alpha, or columns of more equal scale",
}
IN_PYTHON = (
    *((re.escape(ADVICE[status]), there) for status, there in ADVICE_HERE.items()),
    (r"\btol=(\S+) was asked", r"--tol \1 was asked"),
    (r"loosen tol, or leave out the smallest alphas", "give a larger --tol"),
    (r'\. Try more of them, or alphas="auto"', ""),
    (r"^(alpha|tol) must", r"--\1 must"),
    (r"\bsample_weight must", "the column that --weight names must"),
    (r"leave it out by features=\[...\], or .*", "the model was fitted to numbers there"),
    (r"Cannot have number of splits n_splits=(\d+) greater.*n_samples=(\d+)\.", r"--cv \1 asks for more folds than the \2 rows"),
    (r"(can't decode byte .*)", r"\1: save the file as UTF-8"),
    (r"(: classes must be whole numbers)", r"\1 or words; without --classify numbers are predicted"),
)
"""What messages say to a program, and what they are to say to someone at the command line."""
FOLD = re.compile(r"fold (\d+) of (\d+)")


class Watched(RowSource):
    """The rows of another source, counted as they are read"""

    def __init__(self, source: RowSource, progress: Progress) -> None:
        self._source, self._progress, self._n_passes = source, progress, 0
        self._like(source)
        self._task = progress.add_task("", total=None)

    def describe(self) -> str:
        return self._source.describe()

    def read(self) -> Iterator[tuple[Any, Any, Any, str]]:
        self._n_passes += 1
        name = f"{self.describe()}, pass {self._n_passes}"
        self._progress.reset(self._task, total=self.n_samples, description=name)
        for block in self._source.read():
            yield block
            self._progress.advance(self._task, block[0].shape[0])

    def labels_alone(self) -> Counter[float] | None:
        return self._source.labels_alone()


class Steps:
    """A callback: digits of the error won so far, of those that `tol` asks for, and steps a second"""

    def __init__(self, progress: Progress, tol: float) -> None:
        self._progress, self._tol, self._first = progress, tol, 0.0
        self._task: TaskID | None = None

    def __call__(self, step: Solving) -> None:
        if not (math.isfinite(step.error) and step.error > self._tol):
            return
        if self._task is None:
            self._first = step.error
            self._task = self._progress.add_task("", total=math.log(self._first / self._tol), unit="digits")
        won = max(0.0, math.log(self._first / step.error))
        name = f"{step.solver}, step {step.step}, {step.step / step.seconds:,.0f} steps/s, error {step.error:.0e}"
        self._progress.update(self._task, completed=won, description=name)


class Lines(io.TextIOBase):
    """Standard error of a search: its lines become what the bar says, and folds are counted"""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("choosing alpha", total=None, unit="folds")

    def write(self, text: str) -> int:
        if fold := FOLD.search(text):
            self._progress.update(self._task, completed=int(fold[1]) - 1, total=int(fold[2]))
        elif text.strip():
            self._progress.update(self._task, description=text.strip().splitlines()[0][:60])
        return len(text)


class Amount(ProgressColumn):
    """How much is done, of how much, and how much a second"""

    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "rows")
        if unit == "digits":
            return Text("" if task.percentage is None else f"{task.percentage:.0f} %")
        of = "" if task.total is None else f"/{task.total:,.0f}"
        speed = "" if task.speed is None or unit != "rows" else f"  {task.speed:,.0f} rows/s"
        return Text(f"{task.completed:,.0f}{of} {unit}{speed}")


BAR = (TextColumn("{task.description}", markup=False), BarColumn(), Amount(), TimeRemainingColumn())


@contextmanager
def watched(source: RowSource, as_json: bool) -> Iterator[tuple[RowSource, Progress]]:
    """The source, and what shows progress on standard error where someone looks"""
    console = Console(stderr=True)
    with Progress(*BAR, console=console, transient=True, disable=quiet(console, as_json)) as progress:
        yield Watched(source, progress), progress


def quiet(console: Console, as_json: bool) -> bool:
    """Whether no one looks"""
    return as_json or not (console.is_terminal and sys.stdout.isatty())


@contextmanager
def mistakes(as_json: bool) -> Iterator[list[str]]:
    """Turn what a user did wrong into a sentence and status 1; gather warnings, which are printed unless they go into JSON"""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            yield said
        except (typer.BadParameter, BrokenPipeError, NotImplementedError, RecursionError):
            raise
        except (ValueError, TypeError, OSError, ImportError, MemoryError, OverflowError, RuntimeError) as error:
            typer.echo(f"error: {sentence(error)}", err=True)
            raise typer.Exit(WRONG) from None
        finally:
            said += [worded_for_here(str(warning.message)) for warning in caught]
            for text in () if as_json else said:
                typer.echo(f"warning: {text}", err=True)


def sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        return f'{error.name} is missing: pip install "fastridge-solvers[cli]"'
    return worded_for_here(" ".join(str(error).split())) or type(error).__name__


def worded_for_here(text: str) -> str:
    for pattern, there in IN_PYTHON:
        text = re.sub(pattern, there, text)
    return text


def print_facts(facts: dict[str, Any], as_json: bool, said: list[str]) -> None:
    """The result of a command: a table, or one JSON object with the warnings in it"""
    if as_json:
        typer.echo(json.dumps({name: _finite(value) for name, value in (facts | {"warnings": said}).items()}, allow_nan=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        if value is not None:
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value
            shown = ", ".join(map(str, shown)) if isinstance(shown, list) else str(shown)
            table.add_row(Text(name.replace("_", " ").replace("r2", "R2")), Text(shown, overflow="fold"))
    show(table)


def show(table: Table) -> None:
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.2g} ms" if seconds < 0.01 else f"{1e3 * seconds:.0f} ms"


def _finite(value: Any) -> Any:
    """Floats that JSON has not as null"""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
