"""Turn the JSON of a run into a markdown table and a picture."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

DIRECT = ("cholesky", "svd")
OURS, OURS_NAMED = "fastridge", "fastridge, solver named"
BEST_PEER, PEERS, PEER_DEFAULT, LIMIT = "best peer", "other peers", "scikit-learn default", "limit: X read once"
LEGEND = [OURS, BEST_PEER, PEER_DEFAULT, OURS_NAMED, PEERS, LIMIT]


@dataclass(frozen=True)
class Row:
    """Hold one contender on one case: `info` as the test stored it, and its timings."""

    info: dict
    median: float
    spread: float  # interquartile range over median

    @property
    def is_ours(self) -> bool:
        """Tell whether this is fastridge."""
        return self.info["contender"].startswith("fastridge")


@dataclass(frozen=True)
class Run:
    """Hold the rows of one run, by case, and the limits measured in the same process."""

    cases: dict[str, list[Row]]
    limits: dict

    def best_peer(self, case: str) -> Row | None:
        """Return the fastest row of another package that reached the target accuracy."""
        rows = [row for row in self.cases[case] if row.info["reached"] and not row.is_ours]
        return min(rows, key=lambda row: row.median, default=None)

    def read_seconds(self, row: Row) -> float:
        """Return the time it takes to read the X of this row from memory once: the limit of any solver."""
        return row.info["x_bytes"] / self.limits["read_bytes_per_second"]

    def limit_seconds(self, row: Row) -> float:
        """Return the time that the row's algorithm would take at the machine's measured rates and with no other cost.

        A direct solver forms half of a symmetric Gram matrix; an iterative one reads X once for A'y and once a step.
        """
        if row.info["solver"] in DIRECT:
            n, p = row.info["shape"]
            flops = row.info["n_stored"] * min(n, p)
            return max(flops / self.limits["flops_per_second"][row.info["dtype"]], self.read_seconds(row))
        return (1 + (row.info["n_iter"] or 0)) * self.read_seconds(row)


def load(path, *, cases: str = "*") -> Run:
    """Read a file saved by `python -m bench run`; keep the cases that match one of the comma-separated patterns."""
    stored = json.loads(Path(path).read_text())
    kept = {}
    for benchmark in stored["benchmarks"]:
        stats = benchmark["stats"]
        row = Row(benchmark["extra_info"], stats["median"], stats["iqr"] / stats["median"])
        if any(fnmatch(row.info["case"], pattern) for pattern in cases.split(",")):
            kept.setdefault(row.info["case"], []).append(row)
    return Run(kept, stored["machine_info"]["limits"])


def table(run: Run) -> str:
    """Return the markdown table, the machine above it."""
    head = "| case | contender | median | spread | error | extra MB | against the best peer | of the limit |"
    lines = [*_machine_lines(run.limits), "", head, "|---|---|--:|--:|--:|--:|--:|--:|", *_table_lines(run)]
    return "\n".join(lines)


def _table_lines(run: Run) -> Iterator[str]:
    for case, rows in run.cases.items():
        best = run.best_peer(case)
        for number, row in enumerate(rows):
            info = row.info
            cells = [
                "" if number else _title(info),
                info["contender"] + _details(info),
                _time(row.median),
                f"{row.spread:.0%}",
                f"{info['error']:.0e}" if info["reached"] else f"**{info['error']:.0e}**",
                f"{info['peak_extra_bytes'] / 1e6:.3g}",
                _ratio(row, best),
                f"{run.limit_seconds(row) / row.median:.0%}" if row.is_ours else "",
            ]
            yield f"| {' | '.join(cells)} |"


def _title(info: dict) -> str:
    n, p = info["shape"]
    density = info["n_stored"] / (n * p)
    size = f"{n:,} x {p:,} {info['dtype']}"
    if density < 1:
        size += f", {info['n_stored'] / 1e6:.3g}M stored"
    if info["n_targets"] > 1:
        size += f", {info['n_targets']} targets"
    return f"{info['case']}<br>{size}"


def _details(info: dict) -> str:
    details = [info["solver"]] if info["solver"] not in info["contender"] else []
    details += [f"tol {info['tol']:.0e}"] if info["tol"] is not None else []
    details += [f"{info['n_iter']} steps"] if info["n_iter"] else []
    return f" ({', '.join(details)})" if details else ""


def _ratio(row: Row, best: Row | None) -> str:
    if not row.info["reached"]:
        return "not reached"
    if best is None:
        return "no peer"
    return f"{best.median / row.median:.2g} times as fast" if row is not best else "best peer"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def _machine_lines(limits: dict) -> list[str]:
    rates = limits["flops_per_second"]
    return [
        f"{limits['processor']}, {limits['n_cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in limits["versions"].items())
        + ".",
        "; ".join(limits["blas"]) + "".join(f"; {name}={value}" for name, value in limits["environment"].items()) + ".",
        f"Measured limits: {limits['read_bytes_per_second'] / 1e9:.0f} GB/s read from memory, "
        f"{rates['float64'] / 1e9:.0f} / {rates['float32'] / 1e9:.0f} GFLOP/s in float64 / float32 matrix products.",
    ]


def plot(run: Run, path) -> None:
    """Save a picture: by case, every contender's time on a log axis, hollow where it missed the target accuracy."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.38 * len(run.cases)), layout="constrained")
    for place, (case, rows) in enumerate(reversed(run.cases.items())):
        best = run.best_peer(case)
        limit = run.read_seconds(rows[0])
        axes.plot([limit, limit], [place - 0.35, place + 0.35], color="black", linewidth=2, label=LIMIT)
        for row in rows:
            label, style = _mark(row, row is best)
            fill = "full" if row.info["reached"] else "none"
            axes.plot(row.median, place, **style, fillstyle=fill, label=label, linestyle="")
    axes.set_xscale("log")
    axes.set_xlabel("seconds to fit, data in memory")
    axes.set_yticks(range(len(run.cases)), list(reversed(run.cases)))
    axes.set_ylim(-0.7, len(run.cases) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    named = dict(sorted(zip(labels, handles, strict=True), key=lambda entry: LEGEND.index(entry[0])))
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _mark(row: Row, is_best_peer: bool) -> tuple[str, dict]:
    if row.info["contender"] == "fastridge":
        return OURS, {"marker": "o", "color": "tab:red", "markersize": 10, "zorder": 4}
    if row.is_ours:
        return OURS_NAMED, {"marker": "o", "color": "tab:red", "markersize": 4, "zorder": 3}
    if row.info["contender"] == "sklearn-default":
        return PEER_DEFAULT, {"marker": "D", "color": "tab:gray", "markersize": 6, "zorder": 2}
    if is_best_peer:
        return BEST_PEER, {"marker": "s", "color": "tab:blue", "markersize": 9, "zorder": 3}
    return PEERS, {"marker": "s", "color": "tab:blue", "markersize": 4, "zorder": 2}
