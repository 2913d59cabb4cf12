"""What every way to solve a problem is estimated to cost: the only place that knows rates.

The costs are crude (a few rates, measured on two cores of an AVX2 machine with `python -m bench machine`) and only their order
matters: where conjugate gradients may or may not be faster, they are given as many steps as the direct solve would cost and
then give way to it, so that a wrong guess costs at most twice the best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from fastridge.operators.sparse import SPARSE_GRAM_SECONDS
from fastridge.preconditioners import RANK
from fastridge.problem import Problem
from fastridge.solvers import descent
from fastridge.sums import known_memory

BYTES_PER_SECOND = 1.3e10
"""Read by one thread in a fused dense pass."""
STREAMED_BYTES_PER_SECOND = 2e9
"""Read from files, whatever the threads. A guess, not a measurement: plans, and so bits, are the same on every run."""
ENTRIES_PER_SECOND = 7e8
"""Stored entries that one thread visits in a fused sparse pass."""
GEMM_FLOPS = 3.5e10
"""Of one thread, blocks filled and multiplied."""
SKINNY_FLOPS, MANY_TARGETS = 1.2e10, 32
"""Of one thread, in products of blocks with the vectors of fewer targets than that."""
QR_FLOPS = 1.2e10
"""Of one thread."""
EIGH_FLOPS = 1.5e10
"""Of one thread, of the 10 c^3 of an eigendecomposition."""
INVERSE_FLOPS = 1.1e10
"""Of one thread, of the 2/3 c^3 of a Cholesky factor and its inverse, what reads and scales the matrix for them included."""
EXPECTED_STEPS = 25
"""CG steps to 1e-6 that a well-scaled problem takes; a guess that the fall-back makes harmless."""
PATH_STEPS = 100
"""Products that a path of many penalties takes on one Krylov space: a guess as well."""
WORTH_ROUNDING = 0.03
"""Seconds that a Gram matrix costs, from which on one in float32 is thought of: it may turn out to be of no use."""
GRAM_STEPS = 1
"""Refinements to 1e-6 with a float32 factor of the whole Gram matrix."""
FOLDS, MIN_FOLDED = (2, 4, 8, 16, 32, 64), 5
"""How many rows may be added to one before such a Gram matrix is formed, and how many sums must be left for every column."""
FOLDED_ERROR = 1e-6
"""The error that CG is to reach with it, where with m sums of c columns a step gains a factor sqrt(m / c)."""
FOLD_PASSES, CHECKS = 1.5, 1
"""What adding rows costs, and the products with which every solve ends."""
MEMORY_SHARE = 0.8
"""Of the memory, that matrices may take where there is no way without them."""
UNKNOWN_MEMORY = 8e9
"""Bytes, where the system does not say how many there are."""
CALL_SECONDS = 4e-5
"""A product with nothing to do."""
GRAM_FEATURES = 4000
"""Up to which the first pass over streamed rows sums their Gram matrix as well: reading them 25 times takes longer."""
MAX_DIRECT = 20_000
"""A small side up to which a Gram matrix (3.2 GB) is thought of at all."""


@dataclass(frozen=True)
class Step:
    """A solver to run, and how long before the next one is tried

    Attributes
    ----------
    solver : str
    fold : int
        Of CG's preconditioner; see `Settings`.
    max_iter : int or None
        None: the solver's own limit.
    """

    solver: str
    fold: int = 0
    max_iter: int | None = None

    def __str__(self) -> str:
        name = self.solver
        if self.fold:
            name += " (float32 factor" + (f" of rows added {self.fold} together)" if self.fold > 1 else ")")
        return name if self.max_iter is None else f"{name}, at most {self.max_iter} steps"


@dataclass(frozen=True)
class Option:
    """One way to solve the problem, and what it is estimated to cost"""

    step: Step
    seconds: float
    extra_bytes: float
    note: str = ""


def options_of(problem: Problem) -> list[Option]:
    """Estimate every way: passes over the data, a Gram matrix and factorisations are what they are made of"""
    (m, c), k = problem.side.shape, len(problem.penalty)
    flops = GEMM_FLOPS * min(problem.design.traits.n_threads, 8)
    n_penalties = len(set(problem.penalty.tolist()))
    factor, square = c**3 / 3 / flops, 8.0 * c * c
    gram, product, vectors = _gram_seconds(problem), product_seconds(problem), 8.0 * 7 * c * k
    copy = 0 if problem.side.traits.passes == 1 else problem.design.traits.n_bytes
    note = f"if {EXPECTED_STEPS} steps do; where it sees far more to come it takes {RANK} directions out"
    options = [
        Option(
            Step("cholesky"),
            gram + n_penalties * (factor + CALL_SECONDS) + CHECKS * product,
            square * (1 + n_penalties * (n_penalties > 1)),
        ),
        Option(Step("cg"), (EXPECTED_STEPS + 4) * product, vectors + copy, note),
        Option(Step("svd"), (3 * m * c * c + 20 * c**3) / flops * GEMM_FLOPS / QR_FLOPS + 2 * product, 5 * square),
        Option(Step("cd"), 4 * EXPECTED_STEPS * problem.design.traits.n_threads * product, 2 * square * descent.by_gram(problem)),
    ]
    if n_penalties > 1:
        decomposition = 10 * c**3 / flops * GEMM_FLOPS / EIGH_FLOPS
        options.insert(1, Option(Step("eigh"), gram + decomposition + 2 * product, 4 * square))
    if n_penalties == 1 and problem.side.traits.rough_gram and gram >= WORTH_ROUNDING:
        # In float32 a Gram matrix and its factor cost half; to solve with it is to read it twice.
        one_step = product + square / BYTES_PER_SECOND

        def factored(fold: int, n_steps: int, reading: float) -> Option:
            seconds = (gram / fold + factor) / 2 + reading + (n_steps + CHECKS) * one_step
            return Option(Step("cg", fold), seconds, square / 2 + vectors)

        folded = [
            factored(fold, 1 + math.ceil(math.log(FOLDED_ERROR) / math.log(math.sqrt(fold * c / m))), FOLD_PASSES * product)
            for fold in FOLDS
            if m >= MIN_FOLDED * fold * c
        ]
        options.insert(1, factored(1, GRAM_STEPS, 0.0))
        options[2:2] = sorted(folded, key=attrgetter("seconds"))[:1]
    return options


def path_seconds(problem: Problem, n_penalties: int) -> tuple[float, float]:
    """Estimate what many penalties cost by an eigendecomposition of the small side, and by products on shared spaces

    The first is infinite where it takes too much memory.
    """
    c, k = problem.rhs.shape
    product = product_seconds(problem)
    if c > MAX_DIRECT or 4 * 8.0 * c * c > 0.5 * physical_memory():
        return np.inf, PATH_STEPS * product
    rate = EIGH_FLOPS * min(problem.design.traits.n_threads, 8)
    rest = 4.0 * c * c * k * n_penalties / GEMM_FLOPS
    return _gram_seconds(problem) + 10 * c**3 / rate + rest, PATH_STEPS * product


def factors_cost_less(n_penalties: int) -> bool:
    """Whether inverting the small side at every penalty by a Cholesky factor takes less than one eigendecomposition"""
    return n_penalties * 2 / 3 / INVERSE_FLOPS < 10 / EIGH_FLOPS


def product_seconds(problem: Problem) -> float:
    """One product A'(A v) for all targets"""
    traits, k = problem.side.traits, len(problem.penalty)
    threads = min(traits.n_threads, 8)
    if traits.sparse:
        seconds = float(traits.n_entries) * (1 + 0.3 * (k - 1)) / (ENTRIES_PER_SECOND * threads)
    else:
        n, p = problem.design.shape
        blas = 4.0 * n * p * k / (GEMM_FLOPS if k >= MANY_TARGETS else SKINNY_FLOPS) if k > 1 else 0.0
        seconds = (traits.n_bytes / BYTES_PER_SECOND + blas) / threads
    return CALL_SECONDS + max(seconds, _reading_seconds(problem))


def _reading_seconds(problem: Problem) -> float:
    """One pass over rows that are not in memory"""
    traits = problem.side.traits
    return traits.n_bytes / STREAMED_BYTES_PER_SECOND if traits.streamed else 0.0


def _gram_seconds(problem: Problem) -> float:
    """B'B, by dense blocks or, where rows are short, by products of their stored entries"""
    m, c = problem.side.shape
    traits = problem.side.traits
    if traits.gram_known:
        return 0.0
    dense = max(m * float(c) ** 2 / (GEMM_FLOPS * min(traits.n_threads, 8)), _reading_seconds(problem))
    if not traits.sparse:
        return dense
    return min(dense, 0.5 * SPARSE_GRAM_SECONDS * float(traits.n_entries) ** 2 / m)


def check_small_side(shape: tuple[int, int], n_matrices: int, instead: str) -> None:
    """Raise MemoryError if matrices as large as the smaller side would take too much of the memory; `instead` says what to do"""
    (n, p), memory = shape, physical_memory()
    needed = n_matrices * 8.0 * min(n, p) ** 2
    if needed > MEMORY_SHARE * memory:
        raise MemoryError(
            f"{n:,} samples x {p:,} features take {n_matrices} matrices of the smaller side, {needed / 1e9:.0f} GB, and the "
            f"machine has {memory / 1e9:.0f} GB: {instead}"
        )


def physical_memory() -> float:
    """Bytes that this process may have; a guess where the system does not say"""
    return float(known_memory() or UNKNOWN_MEMORY)
