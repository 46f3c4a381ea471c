"""The one Numba decorator and the one thread policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def njit(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compile without the GIL and keep the machine code on disk.

    ``fastmath`` is off unless a kernel asks for it: it assumes that no NaN occurs.
    """
    options = {"nogil": True, "cache": True, **options}
    if function is None:
        return numba.njit(**options)
    return numba.njit(**options)(function)
