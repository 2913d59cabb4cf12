"""What a fit holds beside the data, as NumPy allocates it and as the system sees it: a few per cent of X, p^2, vectors; and the
report says so.
"""

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from fastridge import ridge
from fastridge._kernels import sparse


def measure(X, y, **options):
    """Peak of traced allocations of a fit in bytes, and its report"""
    ridge(X, y, **options)  # once before: threads, imports and caches are not the fit's
    gc.collect()
    tracemalloc.start()
    try:
        report = ridge(X, y, **options).report
        return tracemalloc.get_traced_memory()[1], report
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("solver", ["auto", "cholesky", "cg"])
def test_dense_tall(solver, layout, dtype):
    n, p = 100_000, 100
    rng = np.random.default_rng(70)
    X = np.asarray(rng.standard_normal((n, p), dtype=np.float32), dtype=dtype, order=layout)
    y = X[:, 0] + rng.standard_normal(n)
    peak, report = measure(X, y, solver=solver)
    vectors = 3 * y.nbytes  # y centred, and the checks of y
    assert peak <= 0.05 * X.nbytes + 4 * 8 * p**2 + vectors + 2**20
    assert report.extra_bytes <= 2 * peak
    assert peak <= 0.05 * X.nbytes + 2**20 + 4 * report.extra_bytes


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sparse_tall(dtype):
    n, p = 60_000, 20_000
    rng = np.random.default_rng(71)
    X = sp.random_array((n, p), density=1e-3, rng=rng, dtype=dtype, format="csr")
    y = rng.standard_normal(n)
    peak, report = measure(X, y)
    assert report.solver == "cg"
    # Vectors of the iteration, the lanes' sums (a 12th of the data each way at most) and y.
    assert peak <= 16 * 8 * p + 4 * y.nbytes + X.data.nbytes // 4 + 2**20
    assert peak <= 4 * report.extra_bytes + 2**20


def test_the_copy_of_wide_sparse_data_is_in_the_report():
    n, p = 5000, 40_000
    rng = np.random.default_rng(72)
    X = sp.random_array((n, p), density=5e-3, rng=rng, format="csr")
    y = rng.standard_normal((n, 2))
    peak, report = measure(X, y, solver="cg")
    stored = X.data.nbytes + X.indices.nbytes
    assert "copied" in report.reason
    assert stored <= report.extra_bytes <= peak
    # As CSC it is read as it is, and for one target as CSR as well.
    for as_it_is, targets in ((X.tocsc(), y), (X, y[:, 0])):
        peak, report = measure(as_it_is, targets, solver="cg")
        assert "copied" not in report.reason
        assert peak < stored / 2


def test_indices_that_do_not_ascend_cost_no_copy():
    rng = np.random.default_rng(73)
    X = sp.random_array((4000, 300), density=0.05, rng=rng, format="csr")
    for lo, hi in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        X.indices[lo:hi], X.data[lo:hi] = X.indices[lo:hi][::-1].copy(), X.data[lo:hi][::-1].copy()
    assert sparse.check_lines(X.indices, X.indptr, 300, np.empty(300, dtype=X.indices.dtype)) == 0
    peak, _ = measure(X, rng.standard_normal(4000), solver="cg")
    assert peak < X.data.nbytes


IN_A_CHILD = """
import sys
from pathlib import Path
import numpy as np
from fastridge import ridge

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])

n, p, dtype, layout = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
rng = np.random.default_rng(74)
X = np.empty((n, p), dtype=dtype, order=layout)
for j in range(p):
    X[:, j] = rng.standard_normal(n, dtype=np.float32)
y = X[:, 0] + rng.standard_normal(n)
ridge(np.asarray(X[: n // 50], order=layout), y[: n // 50])  # threads, imports, the buffers of BLAS
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
assert ridge(X, y).report.converged
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell the peak of a process")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_dense_tall_as_the_system_sees_it(layout, dtype):
    n, p = 300_000, 100
    child = [sys.executable, "-c", IN_A_CHILD, str(n), str(p), dtype, layout]
    peak = int(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
    size = n * p * np.dtype(dtype).itemsize
    assert peak <= 0.05 * size + 2**22
