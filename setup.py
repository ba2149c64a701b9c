"""What pyproject.toml cannot say: the cffi module, and a wheel tag that the building interpreter decides."""

import sysconfig

from setuptools import setup

# cffi builds a stable-ABI module except on free-threaded and debug interpreters; the tag says the same.
stable_abi = not (sysconfig.get_config_var("Py_GIL_DISABLED") or sysconfig.get_config_var("Py_DEBUG"))

setup(
    cffi_modules=["build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"} if stable_abi else {}},
)
