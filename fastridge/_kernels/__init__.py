"""Compiled loops over ranges of rows: no Python objects, no allocation, the GIL released.

`dense` is the module compiled for the widest vectors this processor has, or for those that FASTRIDGE_SIMD names.
"""

import os
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

SIMD_LEVELS = {"v4": 4, "v3": 3, "base": 1}
"""Names of the dense modules, the widest vectors first, and the level of x86-64 that each needs."""


def _choose_dense(level: int, wanted: str = "") -> ModuleType:
    """The dense module for a processor of this level: the widest that was built, or the one that is wanted

    Raises
    ------
    ImportError
        If what is wanted has no such name, was not built, or is more than the processor has.
    """
    if wanted and wanted not in SIMD_LEVELS:
        raise ImportError(f"FASTRIDGE_SIMD must be one of {', '.join(SIMD_LEVELS)}, got {wanted!r}")
    if wanted and SIMD_LEVELS[wanted] > level:
        raise ImportError(f"FASTRIDGE_SIMD={wanted}, but this processor does not have x86-64-{wanted}")
    for name, needed in SIMD_LEVELS.items():
        if name == wanted or (not wanted and level >= needed):
            try:
                return import_module(f"fastridge._kernels.dense_{name}")
            except ImportError as error:  # not built on this platform
                if wanted:
                    raise ImportError(f"FASTRIDGE_SIMD={wanted}, but the kernels for it were not built") from error
    return dense_base


if TYPE_CHECKING:
    dense = dense_base
else:
    dense = _choose_dense(dense_base.simd_level(), os.environ.get("FASTRIDGE_SIMD", ""))

__all__ = ["blas", "dense", "descent", "moments", "sparse", "vectors"]
