"""When a source is asked again."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.pricing.schedule import until_next_tick, until_next_try

HALF_A_MINUTE = timedelta(seconds=30)
FIVE_MINUTES = timedelta(minutes=5)


def waits(
    count: int, *, interval: timedelta = HALF_A_MINUTE, max_age: timedelta = FIVE_MINUTES, jitter: float = 0.0
) -> list[float]:
    """The waits after `count` failures in a row."""
    found: list[timedelta] = []
    for _ in range(count):
        previous = found[-1] if found else None
        found.append(
            until_next_try(interval=interval, max_age=max_age, previous=previous, retry_after=None, jitter=jitter)
        )
    return [wait.total_seconds() for wait in found]


def test_waits_double_up_to_the_age_limit() -> None:
    assert waits(5) == [60, 120, 240, 300, 300]


def test_waits_end_at_ten_minutes_when_prices_may_be_older_than_that() -> None:
    assert waits(6, max_age=timedelta(hours=1)) == [60, 120, 240, 480, 600, 600]


def test_an_age_limit_below_the_interval_does_not_make_failures_more_frequent() -> None:
    assert waits(2, max_age=timedelta(seconds=10)) == [30, 30]


@pytest.mark.parametrize(("asked_for", "seconds"), [(90.0, 90), (5.0, 30), (1800.0, 1800), (1e8, 3600)])
def test_what_a_source_asks_for_is_done_up_to_an_hour_and_never_sooner_than_a_tick(
    asked_for: float, seconds: float
) -> None:
    wait = until_next_try(
        interval=HALF_A_MINUTE, max_age=FIVE_MINUTES, previous=None, retry_after=asked_for, jitter=0.99
    )
    assert wait.total_seconds() == seconds


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=0.999))
def test_a_tick_comes_early_by_at_most_a_tenth_and_never_late(jitter: float) -> None:
    assert HALF_A_MINUTE * 0.9 <= until_next_tick(interval=HALF_A_MINUTE, jitter=jitter) <= HALF_A_MINUTE


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=0.999), st.integers(min_value=1, max_value=12))
def test_no_row_of_failures_keeps_a_source_unasked_beyond_the_age_limit(jitter: float, failures: int) -> None:
    assert all(27 <= wait <= 300 for wait in waits(failures, jitter=jitter))
