"""Builds coopshm._core: cffi's out-of-line API mode over the C core in csrc/ (setup.py names this file).

csrc/api.h is read twice: by cdef(), which learns the declarations from it, and by the C compiler. A
declaration therefore exists once, and a change of it that the C code does not follow fails to compile.

COOPSHM_WERROR=1 in the environment turns compiler warnings into errors.
"""

import os
from pathlib import Path

from cffi import FFI

CSRC = Path("csrc")  # relative to the project's root, as setuptools wants its sources, and where it runs this

PREAMBLE = """
#include <stddef.h>
#include <stdint.h>
#include "api.h"

/* What follows is cffi's generated code, which leaves parameters unused. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
"""

ffibuilder = FFI()
ffibuilder.cdef((CSRC / "api.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "coopshm._core",
    PREAMBLE,
    sources=[str(path) for path in sorted(CSRC.glob("*.c"))],
    depends=["build.py", *(str(path) for path in sorted(CSRC.glob("*.h")))],
    include_dirs=[str(CSRC)],
    libraries=["rt", "pthread"],  # empty since glibc 2.34, which keeps them for older builds
    extra_compile_args=[
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-fvisibility=hidden",  # the module exports nothing but its init function
        *(["-Werror"] if os.environ.get("COOPSHM_WERROR") == "1" else []),
    ],
)
