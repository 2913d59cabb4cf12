"""Turn the JSON of a run into markdown tables and text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from bench import limits

PLANNER_GOAL = 1.3  # of auto's median over that of the best solver asked for by name
WORDS = """
A row is one contender on one case: a whole fit on data in memory, everything included; the median of at least three after a
warm-up, as many as fit in two seconds. Rows that clearly lose, or take over ten seconds, were timed once: they have no
spread (interquartile range over median). The iterations of a row that was about to take more than six times as long as the
fastest of its side (ours, the others) were cut short: there, "not reached" says no more than that it could not have been the
fastest.

**Error** is `||w - w*||_H / ||w*||_H` with H = A'A + alpha I and A the centred X, the largest over targets, a wrong
intercept included, measured outside the solver in float64. Squared it is the share of the achievable decrease of the
objective still missing; with bounds on the coefficients it is defined by that. Rows above 1e-6 are in bold, "not reached",
and not compared. fastridge runs at its defaults (tol 1e-6); the solvers of others whose tol means other things get the
loosest power of ten that reaches 1e-6 on that case, which is more than a user would know. "default" is what a user gets.

**Proven** is the bound of the error that fastridge reports, and in brackets the steps it took after its estimate had passed: what
the proof costs. A direct solve takes none.

**Extra MB** is the peak of what NumPy allocated during a fit, the answer included; what BLAS keeps is not seen.
"""


class NotARun(ValueError):
    """Say that a file is not one that `run` saved, or holds no row that was asked for."""


@dataclass(frozen=True)
class Row:
    """Hold one contender on one case: `info` as the test stored it, and its timings."""

    info: dict
    median: float
    spread: float | None  # interquartile range over median; None where there was one round

    @property
    def is_ours(self) -> bool:
        """Tell whether this is fastridge."""
        return self.info["contender"].startswith("fastridge")


@dataclass(frozen=True)
class Run:
    """Hold the rows of one run, by case, the limits measured in the same process, and the cases whose data were not there."""

    cases: dict[str, list[Row]]
    machine: dict
    absent: list[str]

    def ours(self, case: str) -> Row | None:
        """Return the row of fastridge at its defaults."""
        return next((row for row in self.cases.get(case, []) if row.info["contender"] == "fastridge"), None)

    def best_peer(self, case: str) -> Row | None:
        """Return the fastest row of another package that reached the target accuracy."""
        return _fastest(row for row in self.cases[case] if not row.is_ours)

    def best_named(self, case: str) -> Row | None:
        """Return the fastest row of a solver of ours asked for by name that reached the target accuracy."""
        return _fastest(row for row in self.cases[case] if row.is_ours and row.info["contender"] != "fastridge")


def _fastest(rows) -> Row | None:
    return min((row for row in rows if row.info["reached"]), key=lambda row: row.median, default=None)


def load(path, *, cases: str = "*") -> Run:
    """Read a file saved by `python -m bench run`; keep the cases that match one of the comma-separated patterns."""
    kept = {}
    try:
        stored = json.loads(Path(path).read_text())
        machine = stored["machine_info"]["limits"]
        for benchmark in stored["benchmarks"]:
            info, stats = benchmark["extra_info"], benchmark["stats"]
            spread = stats["iqr"] / stats["median"] if stats["rounds"] > 1 else None
            if any(fnmatch(info["case"], pattern) for pattern in cases.split(",")):
                # A peer without paths fits a sample of the penalties.
                kept.setdefault(info["case"], []).append(Row(info, stats["median"] * info["times"], spread))
    except (ValueError, KeyError, TypeError):
        raise NotARun(f"{path} is not a file that `python -m bench run` saved") from None
    if not kept:
        there = sorted({benchmark["extra_info"]["case"] for benchmark in stored["benchmarks"]})
        raise NotARun(f"{path} holds no case that matches {cases!r}; it has: {', '.join(there) or 'none'}")
    return Run(kept, machine, stored.get("absent", []))


def text(run: Run) -> str:
    """Return everything as markdown."""
    parts = [
        "# Results",
        "\n".join(_machine_lines(run.machine)),
        "Made by `python -m bench run results.json` and `python -m bench report results.json --output bench/RESULTS.md`. What "
        "the columns mean stands at the end.",
        "## fastridge at its defaults beside the best of the others",
        summary(run),
        *([f"Not run, since their data were not there: {', '.join(run.absent)}."] if run.absent else []),
        "## What `auto` chose",
        planner(run),
        "## Every row",
        "\n".join(_rows(run)),
        "## What the columns mean",
        WORDS.strip(),
        limits.IN_WORDS.strip(),
    ]
    return "\n\n".join(parts)


def summary(run: Run) -> str:
    """Return a short table: a line for each case, ours beside the best of the others, and the goal set beforehand."""
    lines = [
        "| case | fastridge | best of the others | ratio | error, ours | extra memory, ours | goal |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    for case in run.cases:
        row, best = run.ours(case), run.best_peer(case)
        if row is None:
            info = run.cases[case][0].info
            lines.append(
                f"| {_title(info)} | not there yet | {f'{_time(best.median)} {_name(best.info)}' if best else ''} | | | | |"
            )
            continue
        cells = [
            _title(row.info),
            _time(row.median),
            f"{_time(best.median)} {_name(best.info)}" if best else "none reached 1e-6",
            f"{best.median / row.median:.2g}" if best and row.info["reached"] else "",
            _error(row.info),
            f"{_megabytes(row.info)} MB ({row.info['peak_extra_bytes'] / row.info['x_bytes']:.0%} of X)",
            _goal(run, row, best),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _goal(run: Run, row: Row, best: Row | None) -> str:
    """Say what was wanted, and what came where that is not the ratio beside it."""
    goal = row.info["goal"]
    if goal is None:
        return ""
    times, than = goal["times"], goal["than"]
    base = run.ours(than) if than else best
    wanted = f"{times:.3g} times" + (f" our {than}" if than else "")
    if times < 1:
        wanted = f"at most {1 / times:.3g} times our {than}"
    if base is None:
        return wanted
    got = base.median / row.median
    verdict = "met" if got >= times and row.info["reached"] else "missed"
    if not than:
        return f"{wanted}: {verdict}"
    return f"{wanted}: {got if times >= 1 else 1 / got:.2g}, {verdict}"


def planner(run: Run) -> str:
    """Return a table of the cases where solvers of ours were asked for by name: what "auto" took, over the best of them."""
    lines = ["| case | auto ran | median | best asked for by name | median | ratio |", "|---|---|--:|---|--:|--:|"]
    ratios = {}
    for case in run.cases:
        row, best = run.ours(case), run.best_named(case)
        if row is None or best is None:
            continue
        ratio = "not reached"
        if row.info["reached"]:
            ratios[case] = row.median / best.median
            ratio = f"{ratios[case]:.2f}"
        cells = [case, _ran(row.info), _time(row.median), best.info["solver"], _time(best.median), ratio]
        lines.append(f"| {' | '.join(cells)} |")
    if not ratios:
        return "No case has rows of solvers asked for by name."
    worst = max(ratios, key=ratios.get)
    return "\n".join([*lines, "", f"Worst: {ratios[worst]:.2f} on {worst}; the goal is {PLANNER_GOAL} at most."])


def _rows(run: Run) -> Iterator[str]:
    columns = (
        "case",
        "contender",
        "median",
        "spread",
        "error",
        "proven (steps)",
        "extra MB",
        "against the best peer",
        "least time (share)",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for case, rows in run.cases.items():
        best = run.best_peer(case)
        for number, row in enumerate(rows):
            cells = [
                "" if number else _title(row.info),
                _name(row.info),
                _time(row.median),
                "" if row.spread is None else f"{row.spread:.0%}",
                _error(row.info),
                _proof(row.info),
                _megabytes(row.info),
                _ratio(row, best),
                _least(run, row),
            ]
            yield f"| {' | '.join(cells)} |"


def _least(run: Run, row: Row) -> str:
    least = limits.limit(row.info, run.machine) if row.is_ours else None
    return f"{_time(least.seconds)} ({least.seconds / row.median:.0%}, {least.cause})" if least else ""


def _title(info: dict) -> str:
    n, p = info["shape"]
    density = info["n_stored"] / (n * p)
    size = f"{n:,} x {p:,} {info['dtype']}"
    if density < 1:
        size += f", {info['n_stored'] / 1e6:.3g}M stored"
    if info["n_targets"] > 1:
        size += f", {info['n_targets']} targets"
    if info["n_alphas"] > 1:
        size += f", {info['n_alphas']} alphas"
    return f"{info['case']}<br>{size}"


def _ran(info: dict) -> str:
    return info["solver"] + (f" ({info['preconditioner']})" if info["preconditioner"] else "")


def _name(info: dict) -> str:
    details = [_ran(info)] if info["solver"] not in info["contender"] or info["preconditioner"] else []
    details += [f"tol {info['tol']:.0e}"] if info["tol"] is not None else []
    details += [f"{info['n_iter']} steps"] if info["n_iter"] else []
    details += [f"{info['n_alphas'] / info['times']:.0f} fits, times {info['times']:g}"] if info["times"] > 1 else []
    return info["contender"] + (f" ({', '.join(details)})" if details else "")


def _error(info: dict) -> str:
    return f"{info['error']:.0e}" if info["reached"] else f"**{info['error']:.0e}**"


def _proof(info: dict) -> str:
    if info["claimed_bound"] is None:
        return ""
    return f"{info['claimed_bound']:.0e} ({info['proof_steps']})" if "proof_steps" in info else f"{info['claimed_bound']:.0e}"


def _megabytes(info: dict) -> str:
    return f"{info['peak_extra_bytes'] / 1e6:.3g}"


def _ratio(row: Row, best: Row | None) -> str:
    if not row.info["reached"]:
        return "not reached"
    if best is None:
        return "no peer"
    return f"{best.median / row.median:.2g} times as fast" if row is not best else "best peer"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def _machine_lines(machine: dict) -> list[str]:
    rates = machine["flops_per_second"]
    return [
        f"{machine['processor']}, {machine['n_cores']} cores, {machine['n_threads']} threads; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + ".",
        "; ".join(machine["blas"]) + "".join(f"; {name}={value}" for name, value in machine["environment"].items()) + ".",
        f"Measured: {machine['read_bytes_per_second'] / 1e9:.0f} GB/s read from memory, "
        f"{rates['float64'] / 1e9:.0f} / {rates['float32'] / 1e9:.0f} GFLOP/s in float64 / float32 matrix products.",
    ]
