"""Calls within the last minute: a strict sliding window in one row per tenant and group.

`buckets[i]` is of the second `head_second - i`, the newest first, at most 61 of them. Each is 1000 times the number of
its calls, plus the millisecond of the last of them, by which the oldest bucket leaves exactly 60 s later, never early:
in no 60 seconds, wherever they begin, are there more calls than the limit. Only calls that were let through are
counted: who goes on calling while refused is let through again as soon as anybody else would be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from keyserver.gateway.capabilities import Group

WINDOW = 60
DEFAULT_PER_MINUTE = {Group.LLM: 60, Group.IMAGE: 10, Group.AUDIO: 30, Group.TELEPHONY: 100}
MOST_PER_MINUTE = 10_000_000

# For a statement that has `w`, a row of rate_windows, and as $2, $3, $4 the group, the second and the millisecond of
# now. A clock behind the row's counts as the row's.
_SHIFT = f"least(greatest($3 - w.head_second, 0), {WINDOW + 1})::int"
_EDGE = f"w.buckets[{WINDOW + 1} - {_SHIFT}]"
#: How many calls were let through in the 60 seconds before now.
CALLS = f"""(
    coalesce((SELECT sum(n / 1000) FROM unnest(w.buckets[1:{WINDOW} - {_SHIFT}]) AS n), 0)
    + CASE WHEN {_EDGE} % 1000 > $4 THEN {_EDGE} / 1000 ELSE 0 END
)"""  # noqa: S608 - a constant
#: The buckets with one call more, and the second they begin at.
ONE_MORE = f"""CASE
    WHEN {_SHIFT} > 0
    THEN (ARRAY[1000 + $4::bigint] || array_fill(0::bigint, ARRAY[{_SHIFT} - 1]) || w.buckets)[1:{WINDOW + 1}]
    ELSE ARRAY[(w.buckets[1] / 1000 + 1) * 1000 + greatest(w.buckets[1] % 1000, $4)] || w.buckets[2:{WINDOW + 1}]
END"""
HEAD = "greatest($3, w.head_second)"


@dataclass(frozen=True, slots=True)
class RateState:
    """`remaining` calls of `limit` within a minute; one more is free in `reset_seconds`, when the oldest one leaves."""

    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_seconds),
        }


def instant_of(now: datetime) -> tuple[int, int]:
    """The second since the epoch and the millisecond in it."""
    return divmod(math.floor(now.timestamp() * 1000), 1000)


def rate_state(*, limit: int, head_second: int, buckets: Sequence[int], now: datetime) -> RateState:
    """What a row of rate_windows means at this moment (the same count as `CALLS`)."""
    second, millisecond = instant_of(now)
    now_ms = second * 1000 + millisecond
    leaving: list[tuple[int, int]] = []
    for age, bucket in enumerate(buckets):
        calls, last = divmod(bucket, 1000)
        leaves_ms = (head_second - age + WINDOW) * 1000 + last
        if calls and leaves_ms > now_ms:
            leaving.append((leaves_ms, calls))
    used = sum(calls for _, calls in leaving)
    free_ms, left = now_ms, used
    for leaves_ms, calls in reversed(leaving):
        free_ms, left = leaves_ms, left - calls
        if left < limit:
            break
    wait = WINDOW if limit == 0 else max(0, min(WINDOW, math.ceil((free_ms - now_ms) / 1000)))
    return RateState(limit=limit, remaining=max(0, limit - used), reset_seconds=wait)
