"""What the C library does with memory that is freed.

An update allocates what its backward pass needs and frees all of it. glibc then hands the free end of its heap back to the
system, and the next update has it given again, a page at a time, each one cleared: for SmolLM2-135M and a sequence of 2,200
tokens 600,000 pages, which took longer than the forward pass. Here the heap stays as large as it has been.
"""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of `mallopt` (malloc.h)
_NEVER = -1
HEAP_ELEMENT = 32 << 20
"""Bytes up to which an allocation is of the heap, the most that glibc takes; a larger one is given back when it is freed."""


def keep_freed() -> bool:
    """Have this process keep the memory that it frees; whether it does from now on.

    Nothing is changed where the C library is not glibc, or where the user has set it up (`MALLOC_…_`, `GLIBC_TUNABLES`).
    """
    if platform.libc_ver()[0] != "glibc" or any(_is_setting(*each) for each in os.environ.items()):
        return False
    library = ctypes.CDLL(None)
    # Either setting ends glibc's own adjusting of both, so both are given.
    return bool(library.mallopt(_MMAP_THRESHOLD, HEAP_ELEMENT)) and bool(library.mallopt(_TRIM_THRESHOLD, _NEVER))


def _is_setting(name: str, value: str) -> bool:
    return (name.startswith("MALLOC_") and name.endswith("_")) or (name == "GLIBC_TUNABLES" and "glibc.malloc." in value)
