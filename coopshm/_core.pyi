"""The compiled core: cffi's two objects over csrc/api.h. Their attributes are known to cffi, not to type checkers."""

from typing import Any

ffi: Any
lib: Any
