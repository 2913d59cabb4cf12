"""Fits of data that are read from files, in little memory, beside bare reading of the same files; columns of categories."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_FEATURES = 100
ADDRESS_SPACE = 1 << 30
READ_BYTES = 1 << 24
N_COLUMNS, N_LEVELS, N_REPEATS = 4, 10, 5
IN_A_CHILD = """
import json, resource, sys, time
path, solver, limit, how = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
from bench.streams import arrow_megabytes, bare_seconds, peak_megabytes, products
from fastridge import ridge, scan
rows = scan(path, **json.loads(how))
before = peak_megabytes()
cpu, begin = time.process_time(), time.perf_counter()
report = ridge(rows, solver=solver, tol=1e-8).report
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
peak, arrow = peak_megabytes(), arrow_megabytes()
product, bare = products(rows, path)
passes = int(report.n_iter[0]) + 2
print(json.dumps(dict(solver=report.solver, bound=report.error_bound, passes=passes, seconds=seconds,
                      cpu=cpu, product=product, bare=bare, before=before, peak=peak, arrow=arrow)))
"""


def measure(gigabytes: float) -> str:
    """Write files of so many GB in a temporary folder, fit them, and return a markdown table of what that took."""
    n = int(gigabytes * 1e9 / 8 / N_FEATURES)
    lines = [
        f"{n:,} x {N_FEATURES} float64, {gigabytes:g} GB, address space limited to {ADDRESS_SPACE / 1e9:.1f} GB (Parquet: 3 GB).",
        "",
        "| file | solver | passes | error bound | a pass | a product | bare reading | CPU seconds a pass | peak memory "
        "| Arrow's peak | before the fit |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, target) in write(Path(folder), n).items():
            for solver in ("cholesky", "cg"):
                row = in_a_child(path, solver, ADDRESS_SPACE if path.suffix == ".npy" else 3 * ADDRESS_SPACE, target=str(target))
                lines.append(
                    f"| {name} | {row['solver']} | {row['passes']} | {row['bound']:.0e} | {row['seconds'] / row['passes']:.2f} s "
                    f"| {row['product']:.2f} s | {row['bare']:.2f} s | {row['cpu'] / row['passes']:.2f} | {row['peak']:.0f} MB "
                    f"| {row['arrow']:.0f} MB | {row['before']:.0f} MB |"
                )
    return "\n".join(lines)


def measure_categories(n: int) -> str:
    """Write n rows of `N_COLUMNS` columns of categories as Parquet, fit them one-hot, and return a markdown table."""
    lines = [
        f"{n:,} rows of {N_COLUMNS} columns with {N_LEVELS} categories each, "
        f"address space limited to {2 * ADDRESS_SPACE / 1e9:.1f} GB.",
        "",
        "| solver | passes | error bound | a pass | rows a second | CPU seconds a pass | peak memory | before the fit |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path, names = Path(folder) / "t.parquet", [f"c{j}" for j in range(N_COLUMNS)]
        write_categories(path, n, names)
        for solver in ("cholesky", "cg"):
            row = in_a_child(path, solver, 2 * ADDRESS_SPACE, target="y", categories=names)
            passes, seconds = row["passes"], row["seconds"]
            lines.append(
                f"| {row['solver']} | {passes} | {row['bound']:.0e} | {seconds / passes:.2f} s | {n * passes / seconds:,.0f} "
                f"| {row['cpu'] / passes:.2f} | {row['peak']:.0f} MB | {row['before']:.0f} MB |"
            )
    return "\n".join(lines)


def child(script: str, *arguments: str) -> dict:
    """Return what a script prints in a process of its own, as JSON."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)


def in_a_child(path: Path, solver: str, limit: int, **how) -> dict:
    """Fit a file, scanned as `how` says, in a process whose address space is `limit` bytes at most; return what that took."""
    return child(IN_A_CHILD, str(path), solver, str(limit), json.dumps(how))


def write_categories(path: Path, n: int, names: list[str]) -> None:
    """Write n rows with columns of categories, as words, and y that depends on them."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    w, words = rng.standard_normal((len(names), N_LEVELS)), pa.array([f"level {i}" for i in range(N_LEVELS)])
    schema = pa.schema([*((name, pa.dictionary(pa.int32(), pa.string())) for name in names), ("y", pa.float64())])
    with parquet.ParquetWriter(path, schema) as file:
        for lo in range(0, n, 1_000_000):
            codes = rng.integers(0, N_LEVELS, (len(names), min(1_000_000, n - lo)), dtype=np.int32)
            y = rng.standard_normal(codes.shape[1]) + sum(own[code] for own, code in zip(w, codes, strict=True))
            columns = [pa.DictionaryArray.from_arrays(pa.array(code), words) for code in codes]
            file.write_table(pa.Table.from_arrays([*columns, pa.array(y)], schema=schema))


def write(folder: Path, n: int) -> dict:
    """Write the same rows in every format; return names, paths and what `scan` takes as their target."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(N_FEATURES)
    y = np.empty(n)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float64, (n, N_FEATURES))
    tables = {}
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        parquet = None
    for lo in range(0, n, 100_000):
        part = slice(lo, min(n, lo + 100_000))
        block = rng.standard_normal((part.stop - lo, N_FEATURES))
        y[part] = block @ w + rng.standard_normal(len(block))
        X[part] = block
        if parquet is not None:
            table = pa.table({f"x{j}": block[:, j] for j in range(N_FEATURES)} | {"y": y[part]})
            for packing in ("none", "snappy"):
                if packing not in tables:
                    path = folder / f"{packing}.parquet"
                    tables[packing] = parquet.ParquetWriter(path, table.schema, compression=packing, use_dictionary=False)
                tables[packing].write_table(table)
    for writer in tables.values():
        writer.close()
    np.save(folder / "y.npy", y)
    found = {".npy": (folder / "X.npy", folder / "y.npy")}
    return found | {f"Parquet, {packing}": (folder / f"{packing}.parquet", "y") for packing in tables}


def peak_megabytes() -> float:
    """Return the most memory that this program has had in RAM; what its parent had does not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def arrow_megabytes() -> float:
    """Return the most memory that pyarrow has had at a time, of what it has allocated itself; 0 where it is not at work."""
    pyarrow = sys.modules.get("pyarrow")
    return 0.0 if pyarrow is None else pyarrow.default_memory_pool().max_memory() / 1e6


def products(rows, path: str) -> tuple[float, float]:
    """Return seconds of a pass that is a product and no more, and of bare reading, in turn: medians."""
    operator, _ = rows.operator(True, 2, False)
    v, times, bare = np.ones((operator.shape[1], 1)), [], []
    for _ in range(N_REPEATS):
        begin = time.perf_counter()
        operator.normal(v)
        times.append(time.perf_counter() - begin)
        bare.append(bare_seconds(path))
    return float(np.median(times)), float(np.median(bare))


def bare_seconds(path: str) -> float:
    """Return how long it takes to read a file and do nothing with it: its bytes, or its decoded batches."""
    begin = time.perf_counter()
    if path.endswith(".npy"):
        buffer, at = np.empty(READ_BYTES, dtype=np.uint8), 0
        with open(path, "rb", buffering=0) as file:
            while count := os.preadv(file.fileno(), [buffer], at):
                at += count
    else:
        from pyarrow import parquet

        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:  # the defaults hold the whole file
            for _ in file.iter_batches(READ_BYTES // (8 * N_FEATURES)):
                pass
    return time.perf_counter() - begin
