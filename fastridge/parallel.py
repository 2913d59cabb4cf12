"""How many threads a fit may use, how work is cut into lanes, and the pool that runs them.

The cut depends on the data alone, never on the number of threads, and every lane adds into arrays of its own that are summed
in a fixed order: a result has the same bits for any number of threads. Kernels release the GIL, so plain Python threads do.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

LANE_BYTES = 1 << 20
"""A lane should read at least this much: about 0.1 ms, a few times what handing it to a thread costs."""
MAX_LANES = 16
"""More lanes than this cost more in their separate sums than they balance."""

TINY_FACTOR, SMALL_FACTOR = 64, 2048
"""A Cholesky factor of this size takes one AVX2 core 60 ms in float64."""

_executor: ThreadPoolExecutor | None = None
_executor_size = 0
_lock = threading.Lock()
_blas: ThreadpoolController | None = None
_blas_limit: Any = None
_blas_users = 0


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

    The first exception of a task is raised here once the others have stopped; tasks not yet begun are dropped. An
    interrupt in the calling thread is raised at once.
    """
    n_helpers = min(n_threads, n_tasks) - 1
    if n_helpers < 1:
        for i in range(n_tasks):
            task(i)
        return
    pending = deque(range(n_tasks))

    def work() -> None:
        while True:
            try:
                i = pending.popleft()
            except IndexError:
                return
            try:
                task(i)
            except BaseException:
                pending.clear()
                raise

    futures: list[Future[None]] = []
    try:
        with _lock:
            executor = _pool(n_helpers)
            futures += [executor.submit(work) for _ in range(n_helpers)]
        work()
    except Exception:
        pending.clear()
        wait(futures)  # their arrays are still in use
        raise
    except BaseException:  # an interrupt does not wait; tasks that run end within milliseconds
        pending.clear()
        raise
    for future in futures:
        # A helper that never began has nothing left to do: this thread took its tasks.
        if not future.cancel():
            future.result()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS calls on the threads that make them, for lanes that call BLAS: no two pools of threads compete

    BLAS's own threads wait for one another many times within one Gram matrix, by spinning; where another process has one of
    the cores, every wait is a slice of the scheduler's time. The limit holds for the whole process while any fit is within.
    """
    global _blas, _blas_limit, _blas_users
    with _lock:
        if _blas_users == 0:
            _blas = _blas or ThreadpoolController()
            _blas_limit = _blas.limit(limits=1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _lock:
            _blas_users -= 1
            if _blas_users == 0 and _blas_limit is not None:
                _blas_limit.restore_original_limits()
                _blas_limit = None


def blas_for(size: int) -> AbstractContextManager[None]:
    """One BLAS thread for factorisations that take milliseconds; BLAS's own number for large ones, and for tiny ones (one)"""
    return single_threaded_blas() if TINY_FACTOR < size <= SMALL_FACTOR else nullcontext()


def _pool(n_helpers: int) -> ThreadPoolExecutor:
    global _executor, _executor_size
    if _executor is None or _executor_size < n_helpers:
        if _executor is not None:
            _executor.shutdown(wait=False)
        _executor = ThreadPoolExecutor(n_helpers, thread_name_prefix="fastridge")
        _executor_size = n_helpers
    return _executor


def _stop() -> None:
    global _executor, _executor_size
    with _lock:
        if _executor is not None:
            _executor.shutdown(wait=True)
        _executor, _executor_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_stop)  # a forked child would wait for threads that it does not have
