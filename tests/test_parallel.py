"""The thread pool: every line once, the same bits for any number of threads, exceptions, interrupts, forks, limits."""

import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X

from fastridge import parallel, ridge

SOLVERS = ("cholesky", "svd", "cg", "cd", "auto")
SECONDS = 300
"""Far more than a script needs, on a busy machine too: what runs into it hangs."""
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


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


@needs_signals
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


@needs_signals
def test_a_fit_can_be_interrupted_and_the_next_one_works():
    assert run_script(INTERRUPTED_FIT) == ["interrupted", "converged"]


BLAS_THREADS = """
import sys
import fastridge  # and with it the libraries
from threadpoolctl import ThreadpoolController
libraries = ThreadpoolController().select(user_api="blas").lib_controllers
def blas_threads():
    return [library.num_threads for library in libraries]
before = blas_threads()
assert before or sys.platform == "darwin"  # threadpoolctl does not know Apple's own
"""

AT_EVERY_STEP = (
    BLAS_THREADS
    + """
import threading
from fastridge import parallel

def use():
    with parallel.single_threaded_blas():
        parallel.run({task}, 6, 3)

def interrupted(step):
    steps = iter(range(step))
    def trace(frame, event, arg):
        frame.f_trace_opcodes = True
        if next(steps, None) is None:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace
    sys.settrace(trace)
    try:
        use()
    except KeyboardInterrupt:
        return True
    except ZeroDivisionError:
        pass
    finally:
        sys.settrace(None)
    return False

with parallel.single_threaded_blas():  # what is done once is done
    parallel.run(int, 3, 3)
step = n_finished = 0
meeting = threading.Barrier(3)
while n_finished < 5:  # how many steps there are depends on what the helpers do
    n_finished = 0 if interrupted(step) else n_finished + 1
    assert blas_threads() == before, (step, blas_threads())
    parallel.run(lambda _: meeting.wait(60), 3, 3)  # passes where both helpers are there
    assert blas_threads() == before, (step, blas_threads())
    step += 1
print("steps", step > 100)
"""
)


@pytest.mark.parametrize("task", ["int", "lambda i: 1 // (i - 4)"], ids=["passes", "fails"])
def test_an_interrupt_at_every_step_leaves_the_pool_and_the_limits_in_order(task):
    assert run_script(AT_EVERY_STEP.format(task=task), OPENBLAS_NUM_THREADS="2") == ["steps", "True"]


AT_ANY_MOMENT = (
    BLAS_THREADS
    + """
import random, signal, time
import numpy as np, scipy.sparse as sp
from fastridge import factor, parallel, ridge, ridge_path

class Interrupt(BaseException):
    pass

def interrupt(*_):
    raise {error}

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((4000, 150)), rng.standard_normal((4000, 3))
S = sp.random(5000, 1500, 0.01, random_state=rng).tocsr()

def use():
    for _ in range(20):
        with parallel.single_threaded_blas():
            parallel.run(int, 6, 3)
    return np.zeros(0)

uses = [
    use,
    lambda: ridge(X, Y[:, 0]).coef,
    lambda: ridge(X, Y).coef,
    lambda: ridge(X[:, :1].T @ X[:, 1:] + S[:100, :149], Y[:100, 0]).coef,
    lambda: ridge(S, S @ np.ones(1500)).coef,
    lambda: ridge_path(X, Y[:, 0], [1.0, 10.0, 100.0]).coefs,
    lambda: ridge(X, Y[:, 0], solver="cd").coef,
    lambda: ridge(X, Y[:, 0], positive=True).coef,
    lambda: ridge(X[:300], Y[:300, 0], 1e-2, solver="cholesky").coef,  # by tiles
]
factor.PANEL, factor.ROWS, factor.COLUMNS, parallel.SMALL_FACTOR = 16, 64, 32, 100
wanted, seconds = [], []
for work in uses:
    work()
    start = time.perf_counter()
    wanted.append(work())
    seconds.append(time.perf_counter() - start)
signal.signal(signal.SIGALRM, interrupt)
choose, n_interrupts = random.Random(1), 0
for trial in range({n_trials}):
    i = 0 if trial % 2 else choose.randrange(len(uses))
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, 1.2 * choose.random() * seconds[i]))
        uses[i]()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except {error}:
        n_interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert blas_threads() == before, (trial, blas_threads())
    if trial % 20 == 0:
        assert [work().tobytes() for work in uses] == [coef.tobytes() for coef in wanted], trial
print(n_interrupts > {n_trials} // 10)
"""
)


@needs_signals
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "TimeoutError"])
def test_interrupts_at_any_moment_leave_the_pool_and_the_limits_in_order(error):
    assert run_script(AT_ANY_MOMENT.format(error=error, n_trials=400), OPENBLAS_NUM_THREADS="2") == ["True"]


WHILE_A_HELPER_IS_AT_A_TASK = """
import os, signal, threading, time
from fastridge import parallel

caller, at_task, interrupted = threading.get_ident(), threading.Event(), threading.Event()
def task(i):
    if threading.get_ident() == caller:
        at_task.wait()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        at_task.set()
        print(interrupted.wait(60), flush=True)
        time.sleep(0.5)
        print("ended", flush=True)
try:
    parallel.run(task, 2, 2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    interrupted.set()
"""


@needs_signals
def test_an_interrupt_does_not_wait_for_tasks_but_the_exit_does():
    assert run_script(WHILE_A_HELPER_IS_AT_A_TASK) == ["interrupted", "True", "ended"]


def test_no_array_is_kept_once_it_is_worked_on():
    array = np.zeros(10)
    kept = weakref.ref(array)

    def task(i, array=array):
        array.sum()

    for _ in range(20):
        parallel.run(task, 3, 3)
    del array, task
    end = time.monotonic() + SECONDS
    while kept() is not None and time.monotonic() < end:  # until helpers that came late have seen that nothing is left
        time.sleep(0.001)
    assert kept() is None


def test_without_helpers_the_calling_thread_does_all(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "_crew", ({}, parallel.SimpleQueue()))
    monkeypatch.setattr(parallel, "start_new_thread", refuse)
    done = []
    parallel.run(done.append, 10, 4)
    assert done == list(range(10))
    assert parallel._crew[1].empty()


def test_a_property_is_computed_without_a_lock():
    meeting = threading.Barrier(2)

    class Once:
        @parallel.cached_property
        def value(self):
            meeting.wait(SECONDS)  # in two threads at once
            return object()

    first, second = Once(), Once()
    thread = threading.Thread(target=lambda: first.value)
    thread.start()
    assert second.value is second.value
    thread.join()
    assert first.value is not second.value


LIMITS_THAT_OVERLAP = (
    BLAS_THREADS
    + """
import threading
from fastridge import parallel
first_in, second_in, first_out, end = (threading.Event() for _ in range(4))
def first():
    with parallel.single_threaded_blas():
        first_in.set()
        second_in.wait()
    first_out.set()
    end.wait()
thread = threading.Thread(target=first)
thread.start()
first_in.wait()
with parallel.single_threaded_blas():
    second_in.set()
    first_out.wait()
    within = blas_threads()
print(within == [1] * len(before), blas_threads() == before)
end.set()
"""
)


def test_limits_of_two_threads_that_overlap():
    assert run_script(LIMITS_THAT_OVERLAP, OPENBLAS_NUM_THREADS="2") == ["True", "True"]


NUMBERS_BY_THREAD = """
import ctypes, threading
from threading import get_ident
from fastridge import parallel
from fastridge._kernels import blas
numbers = {}
get = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: numbers.get(get_ident(), 8))
set_ = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: numbers.update({get_ident(): number}))
blas.add_library(*(ctypes.cast(f, ctypes.c_void_p).value for f in (get, set_)), True)
meeting = threading.Barrier(3)
seen = []
with parallel.single_threaded_blas():
    parallel.run(lambda i: (meeting.wait(), seen.append(get())), 3, 3)
    other = threading.Thread(target=lambda: seen.append(get()))
    other.start()
    other.join()
print(seen, get())
"""


def test_limits_of_libraries_with_a_number_for_every_thread():
    assert run_script(NUMBERS_BY_THREAD) == ["[1,", "1,", "1,", "8]", "8"]


FORK = """
import os, warnings
import numpy as np
from fastridge import parallel, ridge
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own: this process has threads (BLAS's)
X = np.random.default_rng(0).standard_normal((60_000, 30))
first = ridge(X, X[:, 0], solver="cg", n_threads=2).coef
assert parallel._crew[0]
child = os.fork()
if child == 0:
    same = (ridge(X, X[:, 0], solver="cg", n_threads=2).coef == first).all()
    os._exit(0 if same else 1)
print(os.waitpid(child, 0)[1], (ridge(X, X[:, 0], solver="cg", n_threads=2).coef == first).all())
"""


@needs_fork
def test_fork_after_a_parallel_fit():
    assert run_script(FORK) == ["0", "True"]


FORKS_WHILE_FITTING = (
    BLAS_THREADS
    + """
import os, signal, threading, time
import numpy as np
from fastridge import ridge
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((10_000, 60)), rng.standard_normal((10_000, 4))
fits = [lambda: ridge(X, Y).coef, lambda: ridge(X, Y[:, 0]).coef]
wanted = [fit() for fit in fits]
counts = [0, 0]
def fit_on(i):
    while counts[i] >= 0:
        for fit in fits:
            fit()
        counts[i] += 1
threads = [threading.Thread(target=fit_on, args=(i,), daemon=True) for i in range(2)]
for thread in threads:
    thread.start()
for fork in range(20):
    time.sleep(0.002 * (fork % 7))
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        same = all(np.allclose(fit(), coef) for fit, coef in zip(fits, wanted))
        os._exit(0 if same and blas_threads() == before else 1)
    assert os.waitpid(child, 0)[1] == 0, fork
reached = sum(counts)
while sum(counts) < reached + 4:
    time.sleep(0.01)
for i in range(2):
    counts[i] = -9
for thread in threads:
    thread.join()
print(blas_threads() == before)
"""
)


@needs_fork
def test_forks_while_other_threads_fit():
    assert run_script(FORKS_WHILE_FITTING, OPENBLAS_NUM_THREADS="2") == ["True"]


FORK_WITHIN_LIMIT = (
    BLAS_THREADS
    + """
import os, threading
from fastridge import parallel
def fork():
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    return None
ready, end = threading.Event(), threading.Event()
def hold():
    with parallel.single_threaded_blas():
        ready.set()
        end.wait()
thread = threading.Thread(target=hold)
thread.start()
ready.wait()
with parallel.single_threaded_blas():
    child_was_right = fork()
    within = blas_threads()
if child_was_right is None:
    with parallel.single_threaded_blas():
        again = blas_threads()
    os._exit(0 if within == blas_threads() == before and again == [1] * len(before) else 1)
end.set()
thread.join()
print(child_was_right, within == [1] * len(before), blas_threads() == before)
"""
)


@needs_fork
def test_a_child_forked_within_limits_has_none():
    assert run_script(FORK_WITHIN_LIMIT, OPENBLAS_NUM_THREADS="2") == ["True"] * 3


FORK_DURING_A_CALL = """
import os, threading, time
from fastridge import parallel
ready, ended = threading.Event(), []
def call():
    with parallel.threaded_blas():
        ready.set()
        time.sleep(0.5)
        ended.append(True)
thread = threading.Thread(target=call)
thread.start()
ready.wait()
with parallel.threaded_blas():  # waits for the other thread alone
    child = os.fork()
if child == 0:
    os._exit(0 if ended else 1)
print(os.waitpid(child, 0)[1])
"""


@needs_fork
def test_a_fork_waits_for_threaded_calls_of_other_threads():
    assert run_script(FORK_DURING_A_CALL) == ["0"]


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
        "print(parallel._crew[0])"
    )
    assert run_script(script) == ["{}"]
