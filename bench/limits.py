"""Say how fast the algorithm of a row of ours could be, at the measured rates of the machine and with no other cost."""

from dataclasses import dataclass

SKETCH_ROWS = 8  # per column: fastridge.preconditioners.SKETCH_ROWS
IN_WORDS = """
**Least time (share).** What the machine needs, at the rates measured above, for the work that the row's algorithm cannot
avoid, and which part of the row's time that is; in brackets, what most of it is. A pass takes what is longer: X read from
memory once, as it is stored, or its arithmetic.

- `cg`: a pass for A'y and the column norms, one for every step (4 operations for each stored entry and target), and one for
  the residual that the answer is certified by. With several targets X is read once a step for all of them. A preconditioner
  named in the row adds its own: `gram` a pass with half a Gram matrix, `sketch` one to add up the rows and half a Gram
  matrix of 8 p rows, either with a Cholesky factor of p^3 / 3, all in float32 arithmetic.
- `cholesky`: a pass with half a Gram matrix, the factor (one for each different alpha), and a pass for the residual at first
  and after every refinement. Of sparse X, the Gram matrix of rows that are all equally long, which costs least. In float64
  for float32 X also: nothing less reaches the target.
- `svd`: a pass with a QR factorisation, and one for the residual. `cd`: the least of a Gram matrix and a pass a sweep.

Vectors, triangular solves, copies and attempts that were given up are not counted. Data that fit in the caches can exceed
100 %.
"""


@dataclass(frozen=True)
class Limit:
    """Hold the least seconds, and the part of them that waits for memory."""

    seconds: float
    memory_seconds: float

    @property
    def cause(self) -> str:
        """Name what most of the time is."""
        return "memory" if 2 * self.memory_seconds >= self.seconds else "flops"


def read_seconds(info: dict, rates: dict) -> float:
    """Return the time to read X from memory once: no solver is faster."""
    return info["x_bytes"] / rates["read_bytes_per_second"]


def gram_flops(info: dict) -> float:
    """Count multiplications and additions of half a Gram matrix on the small side, of rows that are equally long."""
    # Of rows with n_i entries it is sum n_i^2 (dense: m c^2), which is least where all n_i are equal.
    return info["n_stored"] ** 2 / max(info["shape"])


def product_flops(info: dict) -> float:
    """Count multiplications and additions of A'(A v)."""
    return 4.0 * info["n_stored"]


def gram_seconds(info: dict, rates: dict) -> float:
    """Return the time of a Gram matrix at the rate of matrix products, or to read X if that is longer."""
    return max(gram_flops(info) / rates["flops_per_second"]["float64"], read_seconds(info, rates))


def limit(info: dict, rates: dict) -> Limit | None:
    """Return the least time of a row of ours; None where the algorithm is not one of those counted."""
    read = read_seconds(info, rates)
    m, c = max(info["shape"]), min(info["shape"])
    product, gram, factor = product_flops(info), gram_flops(info), c**3 / 3
    k, steps, all_steps = info["n_targets"], info["n_iter"] or 0, info["n_iter_all_targets"] or 0
    # (passes over X, operations in float64, operations in float32), each taken as long as its slower part.
    first, check = (1, product * k / 2, 0), (1, product * k, 0)
    if info["solver"] == "cholesky":
        n_factors = info["n_alphas"]
        stages = [(1, gram + product * k / 2, 0), (0, n_factors * factor, 0), check, *steps * [check]]
    elif info["solver"] == "svd":
        stages = [(1, 2 * m * c**2 - 2 / 3 * c**3, 0), check]
    elif info["solver"] == "cg":
        stages = [first, (steps, product * all_steps, 0), check]
        if info["preconditioner"] == "gram":
            stages += [(1, 0, gram), (0, 0, factor)]
        elif info["preconditioner"] == "sketch":
            stages += [(1, 0, info["n_stored"]), (0, 0, SKETCH_ROWS * c**3 + factor)]
    elif info["solver"] == "cd":
        sweeps, formed = (steps, product * all_steps, 0), (1, gram, 0)
        stages = [first, min(sweeps, formed, key=lambda stage: _seconds(stage, read, rates)), check]
    else:
        return None
    seconds = sum(_seconds(stage, read, rates) for stage in stages)
    memory = sum(stage[0] * read for stage in stages if stage[0] * read >= _seconds(stage, read, rates))
    return Limit(seconds, memory)


def _seconds(stage: tuple, read: float, rates: dict) -> float:
    passes, flops64, flops32 = stage
    rate = rates["flops_per_second"]
    return max(passes * read, flops64 / rate["float64"] + flops32 / rate["float32"])
