"""Compiled loops over ranges of rows: no Python objects, no allocation, the GIL released.

`dense` is the module compiled for the widest vectors this processor has.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

try:
    from fastridge._kernels import blas, dense_base, descent, moments, sparse, vectors
except ImportError as error:
    if error.name != __name__:  # it is there, and does not load
        raise
    raise ImportError(
        f"fastridge's compiled kernels are not built for this Python in {__path__[0]}. In a checkout, build them with "
        "`python -m pip install -e .`; to use a fastridge installed elsewhere, start Python outside the checkout."
    ) from None


def _best_dense(level: int) -> ModuleType:
    for name, needed in (("dense_v4", 4), ("dense_v3", 3)):
        if level >= needed:
            try:
                return import_module(f"fastridge._kernels.{name}")
            except ImportError:  # not built on this platform
                continue
    return dense_base


if TYPE_CHECKING:
    dense = dense_base
else:
    dense = _best_dense(dense_base.simd_level())

__all__ = ["blas", "dense", "descent", "moments", "sparse", "vectors"]
