"""Identifiers: prefixed, time-ordered (so that indexes grow at one end), and not enumerable."""

import base64
import os
import time
from collections.abc import Callable

_RANDOM_BYTES = 14


def new_id(
    prefix: str,
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    entropy: Callable[[int], bytes] = os.urandom,
) -> str:
    """`<prefix>_` and 32 characters of base32hex: 48 bits of milliseconds, then 112 random bits."""
    raw = now_ms().to_bytes(6, "big") + entropy(_RANDOM_BYTES)
    return f"{prefix}_{base64.b32hexencode(raw).decode().lower()}"
