"""Builds the compiled kernels; everything else about the package is in pyproject.toml.

FASTRIDGE_DEBUG=1     turns Cython's bounds checks on and optimisation down
FASTRIDGE_SANITIZE=1  builds for AddressSanitizer and UndefinedBehaviorSanitizer
"""

import os
import platform
import re
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("FASTRIDGE_DEBUG") == "1"
SANITIZE = os.environ.get("FASTRIDGE_SANITIZE") == "1"

# One wheel for every CPython from 3.11 on. In-place and editable builds stay bound to their version: its modules are found
# before those of the stable ABI, so that a stale one would hide what was built last.
IS_CPYTHON = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
STABLE_ABI = "bdist_wheel" in sys.argv and IS_CPYTHON and not (DEBUG or SANITIZE)

# Outside the repository its files are not there: links to them become what they say, pictures go.
README = Path("README.md").read_text(encoding="utf-8")
README = re.sub(r"!\[[^]]*\]\((?!https:)[^)]*\)\n*", "", README)
README = re.sub(r"\[([^]]*)\]\((?!https:)[^)]*\)", r"\1", README)

if sys.platform == "win32":
    COMPILE, LINK, PARALLEL = ["/O2"], [], None
else:
    COMPILE = ["-O1" if DEBUG or SANITIZE else "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"]
    # Both come from the code Cython writes around ours: the unused `self` of module functions, PyTypeObject's tail.
    COMPILE += ["-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    COMPILE += ["-g"] if DEBUG or SANITIZE else ["-g0"]
    LINK, PARALLEL = [], os.cpu_count()
    if SANITIZE:
        COMPILE += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
        LINK += ["-fsanitize=address,undefined"]

# The dense loops gain from wider vectors, the sparse ones (bound by gathers) do not: dense.pxi is compiled once for every
# level and _kernels/__init__.py imports the best one the processor has. Sums are unrolled by hand, not by -ffast-math.
LEVELS = {"dense_base": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    if sys.platform == "win32":
        LEVELS |= {"dense_v3": ["/arch:AVX2"], "dense_v4": ["/arch:AVX512"]}
    else:
        v3 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c"]
        LEVELS["dense_v3"] = v3
        LEVELS["dense_v4"] = [*v3, "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mprefer-vector-width=512"]

# A sum that keeps what rounding takes from it must be rounded where it says so: no fused multiply-add of the compiler's own.
EXACT = [] if sys.platform == "win32" else ["-ffp-contract=off"]
flags = {name: [] for name in ("blas", "sparse", "descent")} | dict.fromkeys(("moments", "vectors"), EXACT) | LEVELS
extensions = [
    Extension(
        f"fastridge._kernels.{name}",
        [f"fastridge/_kernels/{name}.pyx"],
        depends=["fastridge/_kernels/dense.pxi", "fastridge/_kernels/types.pxd"],
        extra_compile_args=COMPILE + extra,
        extra_link_args=LINK,
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else [],
        py_limited_api=STABLE_ABI,
    )
    for name, extra in flags.items()
]
setup(
    long_description=README,
    long_description_content_type="text/markdown",
    ext_modules=cythonize(
        extensions,
        force=True,  # a changed directive does not count as a changed source
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "embedsignature": False,
            "freethreading_compatible": True,
        },
    ),
    options={
        "bdist_wheel": {"py_limited_api": "cp311"} if STABLE_ABI else {},
        "build": {"build_base": "build/stable_abi"} if STABLE_ABI else {},  # apart from what another build left
        "build_ext": {"parallel": PARALLEL},
    },
)
