"""When a webhook is tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.webhooks.schedule import DELAYS, Outcome, after, outcome_of, parse_retry_after

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
FAILED = st.sampled_from([Outcome.REFUSED, Outcome.UNANSWERED])
FRACTION = st.floats(0, 1, exclude_max=True)


def middle() -> float:
    return 0.5


def test_the_delays_are_those_of_the_contract() -> None:
    waits = [after(attempt, outcome=Outcome.REFUSED, retry_after=None, random=middle) for attempt in range(1, 11)]
    hours = [timedelta(hours=number) for number in (2, 5, 10, 14, 20, 24)]
    assert waits == [timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), *hours, None]


@given(st.integers(1, 9), FAILED, FRACTION)
def test_jitter_moves_a_delay_by_a_tenth_at_most(attempt: int, outcome: Outcome, fraction: float) -> None:
    wait = after(attempt, outcome=outcome, retry_after=None, random=lambda: fraction)
    assert wait is not None
    assert abs(wait - DELAYS[attempt - 1]) <= DELAYS[attempt - 1] * 0.1 + timedelta(microseconds=1)


def test_jitter_spreads_both_ways() -> None:
    shortest = after(4, outcome=Outcome.REFUSED, retry_after=None, random=lambda: 0.0)
    longest = after(4, outcome=Outcome.REFUSED, retry_after=None, random=lambda: 0.999)
    assert shortest == timedelta(hours=1.8)
    assert longest is not None
    assert longest > timedelta(hours=2.19)


@given(st.integers(1, 20), st.sampled_from([Outcome.DELIVERED, Outcome.GONE]), st.timedeltas(timedelta(0)))
def test_success_and_gone_stop_at_once_whatever_else_is_said(
    attempt: int, outcome: Outcome, retry_after: timedelta
) -> None:
    assert after(attempt, outcome=outcome, retry_after=retry_after, random=middle) is None


@given(st.integers(1, 9), st.timedeltas(timedelta(0)), FRACTION)
def test_retry_after_lengthens_the_wait_up_to_a_day_and_never_shortens_it(
    attempt: int, retry_after: timedelta, fraction: float
) -> None:
    own = after(attempt, outcome=Outcome.REFUSED, retry_after=None, random=lambda: fraction)
    wait = after(attempt, outcome=Outcome.REFUSED, retry_after=retry_after, random=lambda: fraction)
    assert own is not None
    assert wait == max(own, min(retry_after, timedelta(hours=24)))


@given(st.integers(10, 1000), st.timedeltas(timedelta(0)))
def test_retry_after_adds_no_attempts(attempt: int, retry_after: timedelta) -> None:
    assert after(attempt, outcome=Outcome.REFUSED, retry_after=retry_after, random=middle) is None


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (199, Outcome.REFUSED),
        (301, Outcome.REFUSED),
        (400, Outcome.REFUSED),
        (410, Outcome.GONE),
        (429, Outcome.REFUSED),
        (500, Outcome.REFUSED),
        (None, Outcome.UNANSWERED),
    ],
)
def test_only_2xx_is_success_and_only_410_is_gone(code: int | None, outcome: Outcome) -> None:
    assert outcome_of(code) is outcome


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("999999999", 999_999_999),
        ("Sun, 01 Jun 2025 12:01:00 GMT", 60),
        ("Sunday, 01-Jun-25 12:01:00 GMT", 60),
        ("Sun Jun  1 12:01:00 2025", 60),
        ("Sun, 01 Jun 2025 11:00:00 GMT", 0),
        ("Sun, 01 Jun 2025 14:01:00 +0200", 60),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: int) -> None:
    assert parse_retry_after(value, now=NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1.5", "١٢", "9" * 5000, "Sun, 01 Jun 99999 12:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_passed_over(value: str | None) -> None:
    assert parse_retry_after(value, now=NOW) is None


@given(st.text(max_size=60))
def test_no_header_value_is_an_error(value: str) -> None:
    parsed = parse_retry_after(value, now=NOW)
    assert parsed is None or parsed >= timedelta(0)
