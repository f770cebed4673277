"""When a source is asked again. Pure."""

from datetime import timedelta

LONGEST_BACKOFF = timedelta(minutes=10)
#: A source may ask for more patience than our own back-off has, but not for more than this.
LONGEST_RETRY_AFTER = timedelta(hours=1)
#: Ticks come up to this share early, so that installations don't meet at a source. Never late: prices age meanwhile.
_SPREAD = 0.1


def until_next_tick(*, interval: timedelta, jitter: float) -> timedelta:
    """`jitter` is from 0 up to 1."""
    return interval * (1 - _SPREAD * jitter)


def until_next_try(
    *, interval: timedelta, max_age: timedelta, previous: timedelta | None, retry_after: float | None, jitter: float
) -> timedelta:
    """After a failure: what the source asked for, else twice the `previous` wait of this row of failures.

    Our own waits end at ten minutes and at `max_age`, so that a source that is back is noticed before its prices could
    have expired a second time.
    """
    if retry_after is not None:
        return min(max(timedelta(seconds=retry_after), interval), LONGEST_RETRY_AFTER)
    ceiling = max(interval, min(LONGEST_BACKOFF, max_age))
    return until_next_tick(interval=min(2 * max(previous or interval, interval), ceiling), jitter=jitter)
