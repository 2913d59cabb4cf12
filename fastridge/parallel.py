"""How many threads a fit may use, how work is cut into lanes, and the pool that runs them.

The cut depends on the data alone, never on the number of threads, and every lane adds into arrays of its own that are summed
in a fixed order: a result has the same bits for any number of threads. Kernels release the GIL, so plain Python threads do.

An interrupt may cut a calling thread between any two steps of Python code, and a fork may copy the process while other threads
are anywhere. So no lock is held here while Python code runs: what threads share are queues, sets and dictionaries, each change
of which is one call of C code, and after each of those changes the pool is in order.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import time
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from fastridge._kernels import blas

LANE_BYTES = 1 << 20
"""A lane should read at least this much: about 0.1 ms, a few times what handing it to a thread costs."""
MAX_LANES = 16
"""More lanes than this cost more in their separate sums than they balance."""

TINY_FACTOR, SMALL_FACTOR = 64, 2048
"""A Cholesky factor of this size takes one AVX2 core 60 ms in float64."""

AT_FORK_SECONDS = 0.1
"""A fork waits no longer than this for helpers that are at a task."""

BLAS_FUNCTIONS = {
    "openblas": [
        (f"{prefix}openblas_get_num_threads{suffix}", f"{prefix}openblas_set_num_threads{suffix}")
        for prefix in ("", "scipy_")
        for suffix in ("", "64_", "_64")
    ],
    "openblas on openmp": [("omp_get_max_threads", "omp_set_num_threads")],
    "mkl": [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads_Local")],
    "blis": [("bli_thread_get_num_threads", "bli_thread_set_num_threads")],
    "flexiblas": [("flexiblas_get_num_threads", "flexiblas_set_num_threads")],
}
"""The functions that get and set the number of threads, by the library's name in threadpoolctl; the first pair that is there."""
BY_THREAD = ("openblas on openmp", "mkl")
"""Here every thread has a number of its own."""

T = TypeVar("T")


class cached_property(functools.cached_property[T]):
    """functools' cached_property without the lock that Python 3.11 holds while it computes: a forked child would inherit it"""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        super().__init__(compute)
        self.lock = nullcontext()


def available_threads() -> int:
    """Return how many threads this process may use: affinity, cgroup quota, and OMP_NUM_THREADS as the upper bound"""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    # A list such as "4,2" bounds nested levels; the first is ours.
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if limit.isdigit() and int(limit) > 0:
        count = min(count, int(limit))
    return max(1, count)


_default_threads = 0


def resolve_threads(n_threads: int | None) -> int:
    """Return `n_threads`, or what the process may use (looked up once) where it is None"""
    global _default_threads
    if n_threads is not None:
        return n_threads
    if not _default_threads:
        _default_threads = available_threads()
    return _default_threads


def count_lanes(read_bytes: int, out_bytes: int = 0) -> int:
    """Return how many lanes to cut work into that reads `read_bytes`, where every lane owns sums of `out_bytes`"""
    # Zeroing and summing a lane's own array moves it three times; keep that below an eighth of the reading.
    return max(1, min(MAX_LANES, read_bytes // max(LANE_BYTES, 24 * out_bytes)))


def cut_evenly(length: int, n_lanes: int) -> list[int]:
    """Return n_lanes + 1 bounds that cut range(length) into lanes of equal length"""
    return [length * i // n_lanes for i in range(n_lanes + 1)]


def cut_by_weight(cumulative: np.ndarray, n_lanes: int) -> list[int]:
    """Return n_lanes + 1 bounds that cut lines into lanes of equal weight, given `indptr`-like cumulative weights"""
    wanted = cut_evenly(int(cumulative[-1]), n_lanes)[1:-1]
    return [0, *np.searchsorted(cumulative, wanted).tolist(), len(cumulative) - 1]


def run(task: Callable[[int], None], n_tasks: int, n_threads: int) -> None:
    """Call task(i) for every i in range(n_tasks) on up to `n_threads` threads, the calling one among them

    The first exception of a task is raised here once the tasks that run have ended; those not yet begun are dropped. An
    interrupt in the calling thread is raised at once.
    """
    n_helpers = min(n_threads, n_tasks) - 1
    if n_helpers < 1:
        for i in range(n_tasks):
            task(i)
        return
    # With the task in `pending`, a job that a helper finds too late keeps no array alive.
    pending = deque((task, i) for i in range(n_tasks))
    helping: set[int] = set()
    errors: deque[BaseException] = deque()
    bell: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        while True:
            try:
                task, i = pending.popleft()
            except IndexError:
                return
            task(i)

    def help_out() -> None:
        helping.add(get_ident())  # before it takes a task: once `pending` is empty, `helping` has all who are at one
        try:
            work()
        except BaseException as error:
            pending.clear()
            errors.append(error)
        helping.discard(get_ident())
        bell.put(None)

    def wait() -> None:
        while helping:  # each of them is yet to ring
            bell.get()

    try:
        _call_helpers(help_out, n_helpers)
        work()
        wait()  # for tasks that run; a helper that has not begun has nothing left to do
        if errors:
            raise errors.popleft()
    except Exception:
        pending.clear()
        wait()  # their arrays are still in use
        raise
    finally:  # an interrupt does not wait; tasks that run end within milliseconds
        pending.clear()
        errors.clear()  # their tracebacks refer to this frame


def single_threaded_blas() -> AbstractContextManager[None]:
    """Keep BLAS calls on the threads that make them, for lanes that call BLAS: no two pools of threads compete

    BLAS's own threads wait for one another many times within one Gram matrix, by spinning; where another process has one of
    the cores, every wait is a slice of the scheduler's time. The limit holds for the whole process while any fit is within.
    """
    return blas.SingleThreaded()


def threaded_blas() -> AbstractContextManager[None]:
    """Let long BLAS calls use BLAS's own threads; a fork waits for them

    A fork stops the threads of OpenBLAS in the midst of a call of another thread, which then waits for them for ever.
    """
    return blas.Threaded()


def blas_for(size: int) -> AbstractContextManager[None]:
    """One BLAS thread for factorisations that take milliseconds; BLAS's own number for large ones, and for tiny ones (one)"""
    if size <= TINY_FACTOR:
        return nullcontext()
    return single_threaded_blas() if size <= SMALL_FACTOR else threaded_blas()


Helpers = dict[int, object]
Jobs = SimpleQueue[Callable[[], None] | None]
_crew: tuple[Helpers, Jobs] = {}, SimpleQueue()
"""The helpers that there are, by slot, and where they wait for jobs."""


def _call_helpers(job: Callable[[], None], n_helpers: int) -> None:
    """Have `job` called by up to `n_helpers` helpers, as soon as they are free"""
    helpers, jobs = _crew
    for slot in range(n_helpers):
        if slot not in helpers:
            try:
                start_new_thread(_help, (slot, helpers, jobs))
            except RuntimeError:  # the system has no more threads
                n_helpers = slot
                break
    for _ in range(n_helpers):
        jobs.put(job)


def _help(slot: int, helpers: Helpers, jobs: Jobs) -> None:
    """Do one job after the other, as the only helper of this slot, until None comes"""
    me = object()
    if helpers.setdefault(slot, me) is not me:  # two calling threads saw that the slot was free
        return
    try:
        blas.limit_thread()
        while (job := jobs.get()) is not None:
            job()
            del job  # a helper that waits must not keep what its last job refers to
        jobs.put(None)  # for the next helper
    finally:
        helpers.pop(slot)


def _dismiss_helpers(seconds: float = float("inf")) -> None:
    """Send all helpers home and wait for them, some seconds at most"""
    global _crew
    helpers, jobs = _crew
    _crew = {}, SimpleQueue()
    jobs.put(None)
    end = time.monotonic() + seconds
    while helpers and time.monotonic() < end:
        time.sleep(1e-4)


_limits_at_fork: list[AbstractContextManager[None]] = []


def _prepare_fork() -> None:
    """Send idle helpers home, or Python warns that the process has threads; wait for BLAS calls that the fork would cut"""
    _dismiss_helpers(AT_FORK_SECONDS)
    cut = blas.threaded_elsewhere()
    if cut:
        _limits_at_fork.append(single_threaded_blas())
        _limits_at_fork[-1].__enter__()  # calls that begin from now on need not end
    while cut & blas.threaded_elsewhere():
        time.sleep(1e-4)


def _begin_child() -> None:
    """Forget the parent's helpers and limits of BLAS"""
    global _crew
    blas.leave_all_in_child()
    _crew = {}, SimpleQueue()


def _add_blas_libraries() -> None:
    """Tell `blas.SingleThreaded` of the BLAS libraries in this process"""
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        name = library.internal_api
        if name == "openblas" and library.threading_layer == "openmp":
            name = "openblas on openmp"
        for pair in BLAS_FUNCTIONS.get(name, []):
            if all(hasattr(library.dynlib, function) for function in pair):
                get, set_ = (ctypes.cast(getattr(library.dynlib, function), ctypes.c_void_p).value or 0 for function in pair)
                blas.add_library(get, set_, name in BY_THREAD)
                break


_add_blas_libraries()
# Tasks that an interrupt left running may be within libraries that the exit unloads.
atexit.register(_dismiss_helpers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_prepare_fork, after_in_child=_begin_child)
    # Limits that are deleted end: in one call of C code, so that an interrupt cannot come in between.
    os.register_at_fork(after_in_parent=_limits_at_fork.clear, after_in_child=_limits_at_fork.clear)
