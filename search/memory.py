"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache


@lru_cache(maxsize=1)
def _malloc_trim() -> object | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def trim_heap() -> None:
    """Return freed memory to the system; glibc keeps it (300 MB after a segment of 40,000 points), others do not."""
    trim = _malloc_trim()
    if callable(trim):
        trim(0)
