"""Draw a run: every contender on each case, and how times grow with the size of the data."""

import matplotlib.pyplot as plt

from bench import limits
from bench.report import Row, Run

OURS, OURS_NAMED = "fastridge", "fastridge, solver named"
BEST_PEER, PEERS, PEER_DEFAULT, LIMIT = "best peer", "other peers", "scikit-learn default", "limit: X read once"
LEGEND = [OURS, BEST_PEER, PEER_DEFAULT, OURS_NAMED, PEERS, LIMIT]
AXES = {
    "n": ("samples", lambda info: info["shape"][0]),
    "p": ("features", lambda info: info["shape"][1]),
    "nnz": ("stored entries", lambda info: info["n_stored"]),
}
SHORT = {"sklearn-cholesky": "cholesky", "sklearn-lsqr": "lsqr", "sklearn-sparse_cg": "sparse_cg"}


def save(run: Run, path) -> None:
    """Save a picture: of how times grow where all cases of the run are of several sizes, else of all other cases."""
    single = {case: rows for case, rows in run.cases.items() if rows[0].info["family"] is None}
    figure = _all_contenders(run, single) if single else _growth(run)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _growth(run: Run):
    """Draw, for each family of cases, the time to an error of 1e-6 over its size, with what the machine allows."""
    families: dict[str, list[str]] = {}
    for case, rows in run.cases.items():
        families.setdefault(rows[0].info["family"], []).append(case)
    figure, panels = plt.subplots(1, len(families), figsize=(4.6 * len(families), 4.6), layout="constrained", squeeze=False)
    for axes, (family, cases) in zip(panels[0], families.items(), strict=True):
        infos = [run.cases[case][0].info for case in cases]
        name, size = AXES[infos[0]["axis"]]
        sizes = [size(info) for info in infos]
        best = [run.best_peer(case) for case in cases]
        ours = [run.ours(case) for case in cases]
        _line(axes, sizes, ours, marker="o", color="tab:red", label="fastridge")
        _line(axes, sizes, best, marker="s", color="tab:blue", label="scikit-learn, fastest solver")
        shown = None
        for x, row in zip(sizes, best, strict=True):
            name_of_best = row and SHORT.get(row.info["contender"], row.info["contender"])
            if name_of_best not in (None, shown):  # where it changes
                place = {"xytext": (0, -13), "textcoords": "offset points", "ha": "center"}
                axes.annotate(name_of_best, (x, row.median), fontsize=8, color="tab:blue", **place)
                shown = name_of_best
        reads = [limits.read_seconds(info, run.machine) for info in infos]
        is_dense = all(info["n_stored"] == info["shape"][0] * info["shape"][1] for info in infos)
        flops = limits.gram_flops if is_dense else limits.product_flops
        work = [flops(info) / run.machine["flops_per_second"]["float64"] for info in infos]
        axes.plot(sizes, reads, color="black", label="memory: X read once")
        axes.plot(
            sizes, work, color="black", linestyle="--", label="flops: half a Gram matrix (dense), one product A'Av (sparse)"
        )
        axes.set(xscale="log", yscale="log", xlabel=name, title=family)
        axes.margins(0.08)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("seconds to an error of 1e-6, data in memory")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def _line(axes, sizes, rows, **style) -> None:
    """Draw the times of the rows that reached the target."""
    points = [(x, row.median) for x, row in zip(sizes, rows, strict=True) if row is not None and row.info["reached"]]
    axes.plot(*zip(*points, strict=True), **style) if points else None


def _all_contenders(run: Run, cases: dict[str, list[Row]]):
    """Draw, by case, every contender's time on a log axis, hollow where it missed the target accuracy."""
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.38 * len(cases)), layout="constrained")
    for place, (case, rows) in enumerate(reversed(cases.items())):
        best = run.best_peer(case)
        limit = limits.read_seconds(rows[0].info, run.machine)
        axes.plot([limit, limit], [place - 0.35, place + 0.35], color="black", linewidth=2, label=LIMIT)
        for row in rows:
            label, style = _mark(row, row is best)
            fill = "full" if row.info["reached"] else "none"
            axes.plot(row.median, place, **style, fillstyle=fill, label=label, linestyle="")
    axes.set_xscale("log")
    axes.set_xlabel("seconds, data in memory; hollow: error above 1e-6")
    axes.set_yticks(range(len(cases)), list(reversed(cases)))
    axes.set_ylim(-0.7, len(cases) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    named = dict(sorted(zip(labels, handles, strict=True), key=lambda entry: LEGEND.index(entry[0])))
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=3, frameon=False)
    return figure


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
