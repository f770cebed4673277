"""When a webhook is tried again (the retry schedule of Standard Webhooks)."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import assert_never

DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
JITTER = 0.1
LONGEST_RETRY_AFTER = timedelta(hours=24)
_SECONDS = re.compile(r"[0-9]{1,9}")


class Outcome(StrEnum):
    """`gone`: the receiver says it wants no more (410). `unanswered`: no status came back at all."""

    DELIVERED = "delivered"
    GONE = "gone"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


def outcome_of(status_code: int | None) -> Outcome:
    """What an HTTP status means for a delivery; None when none was received."""
    if status_code is None:
        return Outcome.UNANSWERED
    if 200 <= status_code < 300:
        return Outcome.DELIVERED
    return Outcome.GONE if status_code == 410 else Outcome.REFUSED


def after(
    attempt: int, *, outcome: Outcome, retry_after: timedelta | None, random: Callable[[], float]
) -> timedelta | None:
    """How long to wait after this attempt (the first is 1), None to stop. `random` gives numbers in [0, 1).

    A receiver's Retry-After can only make the wait longer than the schedule's own, up to 24 h: it asks for peace, and
    `Retry-After: 0` must not turn the schedule into hammering.
    """
    match outcome:
        case Outcome.DELIVERED | Outcome.GONE:
            return None
        case Outcome.REFUSED | Outcome.UNANSWERED:
            if attempt > len(DELAYS):
                return None
            own = DELAYS[attempt - 1] * (1 - JITTER + 2 * JITTER * random())
            return max(own, min(retry_after or own, LONGEST_RETRY_AFTER))
        case _:
            assert_never(outcome)


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """The wait that a `Retry-After` header asks for (RFC 9110, 10.2.3): seconds or an HTTP date. None for nonsense."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return timedelta(seconds=int(value))
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, TypeError, LookupError, ArithmeticError):
        return None
    if until.tzinfo is None:  # "-0000", which RFC 5322 has for "in UTC"
        until = until.replace(tzinfo=UTC)
    return max(until - now, timedelta(0))
