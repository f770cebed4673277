"""Identifiers: prefixed, time-ordered (so that indexes grow at one end), and not enumerable."""

import os
import time
from collections.abc import Callable

_RANDOM_BYTES = 12


def new_id(
    prefix: str,
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    entropy: Callable[[int], bytes] = os.urandom,
) -> str:
    """`<prefix>_` and 36 hex digits: 48 bits of milliseconds, then 96 random bits."""
    return f"{prefix}_{now_ms():012x}{entropy(_RANDOM_BYTES).hex()}"
