"""The thread pool: every line once, the same bits for any number of threads, exceptions, interrupts, fork, limits."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X

from fastridge import parallel, ridge

SOLVERS = ("cholesky", "svd", "cg", "cd", "auto")
SECONDS = 60
"""Far more than a script needs: what runs into it hangs."""


def run_script(text, **environment):
    """Run a Python script in a process of its own and return what it printed"""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("length", [0, 1, 7, 1000])
@pytest.mark.parametrize("n_lanes", [1, 2, 7, 16])
def test_even_cuts_cover_every_line_once(length, n_lanes):
    bounds = parallel.cut_evenly(length, n_lanes)
    assert len(bounds) == n_lanes + 1
    assert (bounds[0], bounds[-1]) == (0, length)
    sizes = np.diff(bounds)
    assert sizes.min() >= 0
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    "weights",
    [[3], [0, 0, 0], [0, 5, 0, 5, 0], [1000, 1, 1, 1], [1, 1, 1, 1000], [0] * 5 + [7] + [0] * 5, list(range(200))],
    ids=str,
)
@pytest.mark.parametrize("n_lanes", [1, 2, 5, 16])
def test_cuts_by_weight_cover_every_line_once(weights, n_lanes, dtype):
    cumulative = np.concatenate([[0], np.cumsum(weights)]).astype(dtype)
    bounds = parallel.cut_by_weight(cumulative, n_lanes)
    assert len(bounds) == n_lanes + 1
    assert (bounds[0], bounds[-1]) == (0, len(weights))
    assert (np.diff(bounds) >= 0).all()
    lanes = np.diff(cumulative[bounds])
    assert lanes.max() <= sum(weights) / n_lanes + max(weights)


def test_a_lane_reads_much_more_than_its_sums_cost():
    assert parallel.count_lanes(0) == 1
    assert parallel.count_lanes(parallel.LANE_BYTES - 1) == 1
    assert parallel.count_lanes(5 * parallel.LANE_BYTES) == 5
    assert parallel.count_lanes(10**12) == parallel.MAX_LANES
    assert parallel.count_lanes(10**8, out_bytes=10**8) == 1


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_tasks", [0, 1, 2, 40])
def test_every_task_runs_once(n_tasks, n_threads):
    done = []
    parallel.run(done.append, n_tasks, n_threads)
    assert sorted(done) == list(range(n_tasks))


def test_tasks_run_on_several_threads_at_once():
    meeting = threading.Barrier(3)  # each of three tasks waits for the others
    parallel.run(lambda _: meeting.wait(SECONDS), 3, 3)
    assert not meeting.broken


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_an_exception_of_a_task_is_raised_and_the_pool_lives_on(n_threads):
    def task(i):
        if i == 3:
            raise ZeroDivisionError("task 3")

    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="task 3"):
            parallel.run(task, 10, n_threads)
    done = []
    parallel.run(done.append, 10, n_threads)
    assert len(done) == 10


@pytest.mark.parametrize("failing", ["calling thread", "helper"])
def test_an_exception_drops_tasks_not_begun_and_waits_for_those_that_run(failing):
    caller, meeting, finished, begun = threading.current_thread(), threading.Barrier(2), threading.Event(), []

    def task(i):
        begun.append(i)
        meeting.wait(SECONDS)
        if (threading.current_thread() is caller) == (failing == "calling thread"):
            raise ZeroDivisionError
        time.sleep(0.2)  # its arrays are still in use
        finished.set()

    with pytest.raises(ZeroDivisionError):
        parallel.run(task, 100, 2)
    assert finished.is_set()
    assert len(begun) <= 3


def test_run_within_run():
    done = []

    def outer(i):
        parallel.run(lambda j: done.append((i, j)), 5, 3)

    parallel.run(outer, 4, 2)
    assert sorted(done) == [(i, j) for i in range(4) for j in range(5)]


def test_fits_in_several_threads_at_once():
    X = make_X(40_000, 30, seed=61)
    y = np.random.default_rng(62).standard_normal((4, 40_000))
    alone = [ridge(X, target, solver="cg", n_threads=1).coef for target in y]
    together = [None] * 4

    def fit(i):
        together[i] = ridge(X, y[i], solver="cg", n_threads=2 + i).coef

    threads = [threading.Thread(target=fit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert [coef.tobytes() for coef in together] == [coef.tobytes() for coef in alone]


def bits(solution):
    report = solution.report
    return solution.coef.tobytes(), np.float64(solution.intercept).tobytes(), report.error, report.error_bound


@pytest.mark.usefixtures("one_blas_thread")
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("shape", [(40_000, 30), (30, 40_000)], ids=["tall", "wide"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_same_bits_for_any_number_of_threads(solver, shape, storage):
    X = STORAGES[storage](make_X(*shape, seed=46, share=0.4 if storage.startswith("cs") else 1))
    y, weights = np.random.default_rng(47).standard_normal(shape[0]), make_weights(shape[0], 48)
    # Several lanes, or there is nothing to see.
    assert (X.nbytes if isinstance(X, np.ndarray) else X.data.nbytes + X.indices.nbytes) > 4 * 2**20
    one, *more = (ridge(X, y, 1.0, sample_weight=weights, solver=solver, n_threads=n) for n in (1, 2, 3))
    assert [bits(solution) for solution in more] == [bits(one)] * 2


@pytest.mark.usefixtures("one_blas_thread")
@pytest.mark.parametrize("solver", SOLVERS)
def test_same_bits_for_any_number_of_threads_and_several_targets(solver):
    X = sp.csr_array(make_X(40_000, 30, seed=46, share=0.4))
    Y = np.random.default_rng(47).standard_normal((40_000, 3))
    one, *more = (ridge(X, Y, 1.0, solver=solver, n_threads=n).coef.tobytes() for n in (1, 2, 3))
    assert more == [one, one]


INTERRUPTED = """
import os, signal, threading, time
from fastridge import parallel
done = []
def task(i):
    done.append(i)
    time.sleep(0.05)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    parallel.run(task, 500, {n_threads})
    print("finished")
except KeyboardInterrupt:
    print("interrupted", len(done) < 100)
again = []
parallel.run(again.append, 10, {n_threads})
print(sorted(again) == list(range(10)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill does not interrupt on Windows")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_an_interrupt_is_raised_while_tasks_are_left(n_threads):
    assert run_script(INTERRUPTED.format(n_threads=n_threads)) == ["interrupted", "True", "True"]


INTERRUPTED_FIT = """
import os, signal, threading
import numpy as np
from fastridge import ridge
rng = np.random.default_rng(0)
X = rng.standard_normal((100_000, 40)) * 10.0 ** rng.uniform(-9, 0, 40) @ rng.standard_normal((40, 40))
y = rng.standard_normal(100_000)
interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
try:
    interrupt.start()
    while True:
        ridge(X, y, 1e-9, solver="cg", tol=1e-12, n_threads=2)
except KeyboardInterrupt:
    print("interrupted")
print(ridge(X, y, 1e9, n_threads=2).report.status)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill does not interrupt on Windows")
def test_a_fit_can_be_interrupted_and_the_next_one_works():
    assert run_script(INTERRUPTED_FIT) == ["interrupted", "converged"]


FORK = """
import os, warnings
import numpy as np
from fastridge import parallel, ridge
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own: this process has threads (BLAS's)
X = np.random.default_rng(0).standard_normal((60_000, 30))
first = ridge(X, X[:, 0], solver="cg", n_threads=2).coef
assert parallel._executor is not None
child = os.fork()
if child == 0:
    same = (ridge(X, X[:, 0], solver="cg", n_threads=2).coef == first).all()
    os._exit(0 if same else 1)
print(os.waitpid(child, 0)[1], (ridge(X, X[:, 0], solver="cg", n_threads=2).coef == first).all())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_fork_after_a_parallel_fit():
    assert run_script(FORK) == ["0", "True"]


@pytest.mark.parametrize(("value", "wanted"), [("1", 1), ("1,4", 1), (" 1 ", 1), ("1000000", None), ("", None), ("x", None)])
def test_omp_num_threads_is_the_upper_bound(value, wanted):
    script = "from fastridge import parallel; print(parallel.resolve_threads(None))"
    limit = int(run_script(script, OMP_NUM_THREADS="")[0])
    assert 1 <= limit <= os.cpu_count()
    assert int(run_script(script, OMP_NUM_THREADS=value)[0]) == (wanted or limit)


def test_small_problems_stay_on_the_calling_thread():
    script = (
        "import numpy as np; from fastridge import parallel, ridge; "
        "[ridge(np.eye(200, 20), np.arange(200.0), solver=s, n_threads=4) for s in ('cholesky', 'svd', 'cg', 'cd')]; "
        "print(parallel._executor)"
    )
    assert run_script(script) == ["None"]
