"""What pyproject.toml cannot say: the cffi module, and a wheel tag that the building interpreter decides."""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

# Buffers are in the stable ABI from 3.11 on. Free-threaded and debug interpreters have no such ABI; cffi knows.
stable_abi = sys.version_info >= (3, 11) and not (
    sysconfig.get_config_var("Py_GIL_DISABLED") or sysconfig.get_config_var("Py_DEBUG")
)

werror = ["-Werror"] if os.environ.get("COOPSHM_WERROR") == "1" else []  # as in build.py
# The way of a hit: the part of the package that is C for CPython's sake (see its head).
front = Extension(
    "coopshm._front",
    [str(path) for path in sorted(Path("csrc/python").glob("*.c"))],
    depends=["csrc/api.h", "csrc/python/front.h"],
    include_dirs=["csrc"],
    py_limited_api=stable_abi,
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if stable_abi else [],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden", *werror],
)

setup(
    ext_modules=[front],
    cffi_modules=["build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"} if stable_abi else {}},
)
