"""What a charge is: the rules one by one, then whatever order its payments come in."""

import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keyserver.charges.states import (
    COUNTED,
    MONITORING,
    TRANSITIONS,
    AdditionalStatus,
    ChargeStatus,
    Outcome,
    PaymentFact,
    PaymentStatus,
    Terms,
    assess,
    event_type,
    is_timely,
)

CREATED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EXPIRES = CREATED + timedelta(minutes=30)
MONITORED = EXPIRES + MONITORING
TERMS = Terms(expected_units=100, expires_at=EXPIRES, confirmations_required=2)
BEFORE, AFTER, LONG_AFTER = EXPIRES - timedelta(seconds=1), EXPIRES, MONITORED + timedelta(microseconds=1)
SEEN, CONFIRMING, CONFIRMED = PaymentStatus.SEEN, PaymentStatus.CONFIRMING, PaymentStatus.CONFIRMED
ORPHANED, REPLACED = PaymentStatus.ORPHANED, PaymentStatus.REPLACED


def paid(
    units: int,
    status: PaymentStatus = SEEN,
    *,
    seen: datetime = CREATED,
    confirmed: datetime | None = None,
    reversed: bool = False,  # noqa: A002 - the fact's own word
) -> PaymentFact:
    depth = {SEEN: 0, CONFIRMING: 1, CONFIRMED: 2}.get(status, 0)
    at = confirmed or seen if status is CONFIRMED else None
    return PaymentFact(units, status, depth, seen, at, reversed)


LATE = EXPIRES + timedelta(hours=1)

RULES: dict[str, tuple[list[PaymentFact], datetime, str, str]] = {
    "nothing yet": ([], BEFORE, "New", "None"),
    "nothing in time": ([], AFTER, "Expired", "None"),
    "part seen": ([paid(99)], BEFORE, "New", "PaidPartial"),
    "part seen, time over": ([paid(99)], AFTER, "Expired", "PaidPartial"),
    "part confirmed, time over": ([paid(99, CONFIRMED)], AFTER, "Expired", "PaidPartial"),
    "all seen": ([paid(100)], BEFORE, "Processing", "None"),
    "all seen in two": ([paid(60), paid(40, CONFIRMING)], BEFORE, "Processing", "None"),
    "all in a block": ([paid(100, CONFIRMING)], BEFORE, "Processing", "None"),
    "part confirmed, rest seen": ([paid(60, CONFIRMED), paid(40)], BEFORE, "Processing", "None"),
    "all confirmed": ([paid(100, CONFIRMED)], BEFORE, "Settled", "None"),
    "confirmed within 24 h": ([paid(100, CONFIRMED, confirmed=MONITORED)], MONITORED, "Settled", "None"),
    "seen in time, confirms later": ([paid(100)], MONITORED, "Processing", "None"),
    "seen in time, not confirmed in 24 h": ([paid(100)], LONG_AFTER, "Invalid", "PaidLate"),
    "not confirmed in 24 h, then after all": (
        [paid(100, CONFIRMED, confirmed=LONG_AFTER)],
        LONG_AFTER,
        "Settled",
        "PaidLate",
    ),
    "seen at the very end": ([paid(100, seen=EXPIRES)], AFTER, "Processing", "PaidLate"),
    "late, and long unconfirmed": ([paid(100, seen=LATE)], LONG_AFTER, "Processing", "PaidLate"),
    "late and confirmed": ([paid(100, CONFIRMED, seen=LATE)], LATE, "Settled", "PaidLate"),
    "completed late": ([paid(60, CONFIRMED), paid(40, CONFIRMED, seen=LATE)], LATE, "Settled", "PaidLate"),
    "too much, late": ([paid(300, CONFIRMED, seen=LATE)], LATE, "Settled", "PaidLate"),
    "too much seen": ([paid(101)], BEFORE, "Processing", "PaidOver"),
    "too much confirmed": ([paid(101, CONFIRMED)], BEFORE, "Settled", "PaidOver"),
    "paid in time, and again late": ([paid(100, CONFIRMED), paid(50, seen=LATE)], LATE, "Settled", "PaidOver"),
    "replaced": ([paid(100, REPLACED)], BEFORE, "New", "None"),
    "replaced, time over": ([paid(100, REPLACED)], AFTER, "Expired", "None"),
    "replaced by another": ([paid(100, REPLACED), paid(100)], BEFORE, "Processing", "None"),
    "orphaned before it was credited": ([paid(100, ORPHANED)], BEFORE, "New", "None"),
    "orphaned after it was credited": ([paid(100, ORPHANED, reversed=True)], BEFORE, "New", "Reorged"),
    "orphaned, and waits again": ([paid(100, SEEN, reversed=True)], BEFORE, "Processing", "Reorged"),
    "orphaned, and in a block again": ([paid(100, CONFIRMING, reversed=True)], BEFORE, "Processing", "Reorged"),
    "orphaned, and credited again": ([paid(100, CONFIRMED)], BEFORE, "Settled", "None"),
    "orphaned, while the rest suffices": (
        [paid(100, CONFIRMED), paid(20, ORPHANED, reversed=True)],
        BEFORE,
        "Settled",
        "Reorged",
    ),
    "orphaned, then replaced by nothing": ([paid(100, REPLACED, reversed=True)], AFTER, "Expired", "Reorged"),
    "orphaned, then replaced by another that confirmed": (
        [paid(100, REPLACED, reversed=True), paid(100, CONFIRMED)],
        BEFORE,
        "Settled",
        "None",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule(name: str) -> None:
    payments, now, status, additional_status = RULES[name]
    outcome = assess(TERMS, payments, now=now)
    assert (outcome.status, outcome.additional_status) == (status, additional_status)


def test_amounts_count_what_was_not_replaced_or_orphaned() -> None:
    payments = [paid(1, SEEN), paid(10, CONFIRMING), paid(100, CONFIRMED), paid(1000, ORPHANED), paid(10000, REPLACED)]
    outcome = assess(TERMS, payments, now=BEFORE)
    assert (outcome.received_units, outcome.confirmed_units) == (111, 100)


def test_confirmations_are_those_that_bury_the_expected_amount() -> None:
    assert assess(TERMS, [], now=BEFORE).confirmations == 0
    assert assess(TERMS, [paid(60, CONFIRMED), paid(40, CONFIRMING)], now=BEFORE).confirmations == 1
    assert assess(TERMS, [paid(60, CONFIRMED), paid(30)], now=BEFORE).confirmations == 0
    extra = assess(TERMS, [paid(100, CONFIRMED), paid(5)], now=BEFORE)
    assert (extra.status, extra.confirmations) == (ChargeStatus.SETTLED, 2)
    deep = replace(paid(100, CONFIRMED), confirmations=9)
    assert assess(TERMS, [deep], now=BEFORE).confirmations == 2


def test_all_confirmations_are_shown_only_of_what_is_final() -> None:
    must_mature = replace(paid(100, CONFIRMING), confirmations=50)
    assert assess(TERMS, [must_mature], now=BEFORE).confirmations == 1
    assert assess(TERMS, [paid(60, CONFIRMED), must_mature], now=BEFORE).confirmations == 1


def test_time_in_hand_is_told_as_the_next_deadline() -> None:
    assert assess(TERMS, [], now=BEFORE).deadline_at == EXPIRES
    assert assess(TERMS, [paid(100)], now=BEFORE).deadline_at == LONG_AFTER
    assert assess(TERMS, [paid(100)], now=LONG_AFTER).deadline_at is None
    assert assess(TERMS, [], now=AFTER).deadline_at is None
    assert assess(TERMS, [paid(100, CONFIRMED)], now=BEFORE).deadline_at is None


def test_a_payment_is_timely_when_seen_before_expiry_and_confirmed_within_a_day_of_it() -> None:
    assert is_timely(TERMS, seen_at=BEFORE, confirmed_at=MONITORED)
    assert not is_timely(TERMS, seen_at=BEFORE, confirmed_at=LONG_AFTER)
    assert not is_timely(TERMS, seen_at=EXPIRES, confirmed_at=EXPIRES)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("New", "None"), ("New", "PaidPartial"), "charge.updated"),
        (("New", "None"), ("Processing", "None"), "charge.processing"),
        (("Processing", "None"), ("Processing", "None"), "charge.updated"),
        (("Processing", "None"), ("Settled", "None"), "charge.settled"),
        (("Processing", "None"), ("New", "None"), "charge.updated"),
        (("New", "PaidPartial"), ("Expired", "PaidPartial"), "charge.expired"),
        (("Processing", "None"), ("Invalid", "PaidLate"), "charge.invalid"),
        (("Settled", "None"), ("New", "Reorged"), "charge.reorged"),
        (("Settled", "PaidOver"), ("Settled", "Reorged"), "charge.reorged"),
        (("New", "Reorged"), ("Processing", "Reorged"), "charge.processing"),
        (("Processing", "Reorged"), ("Settled", "None"), "charge.settled"),
        (("New", "Reorged"), ("Expired", "Reorged"), "charge.expired"),
    ],
)
def test_the_type_of_a_webhook(before: tuple[str, str], after: tuple[str, str], expected: str) -> None:
    kind = event_type(
        ChargeStatus(after[0]),
        AdditionalStatus(after[1]),
        before=ChargeStatus(before[0]),
        additional_before=AdditionalStatus(before[1]),
    )
    assert kind == expected


# --- whatever comes, in whatever order --------------------------------------------------------------------------

#: Instants around those that matter.
INSTANTS = st.sampled_from(
    [
        point + delta
        for point in (CREATED, EXPIRES, MONITORED)
        for delta in (timedelta(microseconds=-1), timedelta(0), timedelta(microseconds=1), timedelta(hours=1))
    ]
)
AMOUNTS = st.sampled_from([1, 40, 60, 99, 100, 101, 10**30])


@st.composite
def facts(draw: st.DrawFn) -> PaymentFact:
    status = draw(st.sampled_from(PaymentStatus))
    seen = draw(INSTANTS)
    confirmed = max(seen, draw(INSTANTS))
    taken_back = status is not CONFIRMED and draw(st.booleans())
    return paid(draw(AMOUNTS), status, seen=seen, confirmed=confirmed, reversed=taken_back)


PAYMENTS = st.lists(facts(), max_size=4)


@given(payments=PAYMENTS, now=INSTANTS, seed=st.integers(0, 1000))
def test_the_order_of_payments_changes_nothing(payments: list[PaymentFact], now: datetime, seed: int) -> None:
    shuffled = random.Random(seed).sample(payments, len(payments))  # noqa: S311 - a repeatable order
    assert assess(TERMS, shuffled, now=now) == assess(TERMS, payments, now=now)


@given(payments=PAYMENTS, now=INSTANTS, later=INSTANTS)
def test_time_alone_changes_the_state_at_the_deadline_and_only_there(
    payments: list[PaymentFact], now: datetime, later: datetime
) -> None:
    assume(now < later)
    present, future = assess(TERMS, payments, now=now), assess(TERMS, payments, now=later)
    if present.deadline_at is None or later < present.deadline_at:
        assert _state(future) == _state(present)
    if present.deadline_at is not None:
        assert present.deadline_at > now
        assert _state(assess(TERMS, payments, now=present.deadline_at)) != _state(present)


@given(payments=PAYMENTS, now=INSTANTS)
def test_settled_means_that_the_expected_amount_is_confirmed_and_nothing_else(
    payments: list[PaymentFact], now: datetime
) -> None:
    outcome = assess(TERMS, payments, now=now)
    confirmed = sum(each.amount_units for each in payments if each.status is CONFIRMED)
    assert (outcome.status is ChargeStatus.SETTLED) == (confirmed >= 100)
    assert outcome.received_units == sum(each.amount_units for each in payments if each.status in COUNTED)
    if outcome.status is ChargeStatus.SETTLED:
        assert outcome.confirmations == TERMS.confirmations_required


@given(before=PAYMENTS, after=PAYMENTS, now=INSTANTS, later=INSTANTS)
def test_every_change_of_status_is_in_the_table(
    before: list[PaymentFact], after: list[PaymentFact], now: datetime, later: datetime
) -> None:
    assume(now <= later and all(each.seen_at <= now for each in before))
    first, second = assess(TERMS, before, now=now).status, assess(TERMS, after, now=later).status
    assert first is second or second in TRANSITIONS[first]


def test_every_change_in_the_table_can_happen() -> None:
    """By one payment moving on beside another, or by the passing of time."""
    lives = [(amount, seen, status) for amount in (40, 100) for seen in (CREATED, LATE) for status in PaymentStatus]
    happened = set()
    for (amount, seen, status), other, moved in itertools.product(lives, lives, PaymentStatus):
        beside = paid(other[0], other[2], seen=other[1])
        for now, later in itertools.combinations_with_replacement((BEFORE, LATE, LONG_AFTER), 2):
            known = [each for each in (beside, paid(amount, status, seen=seen)) if each.seen_at <= now]
            first = assess(TERMS, known, now=now).status
            second = assess(TERMS, [beside, paid(amount, moved, seen=seen)], now=later).status
            happened.add((first, second))
    assert {(first, second) for first, targets in TRANSITIONS.items() for second in targets} <= happened


# --- observations ----------------------------------------------------------------------------------------------


@given(data=st.data())
def test_the_final_outcome_does_not_depend_on_when_and_how_often_facts_are_told(data: st.DataObject) -> None:
    """Each payment lives through stages; whichever way the tellings interleave and repeat, the end is the same."""
    lives = data.draw(st.lists(st.lists(facts(), min_size=1, max_size=3), max_size=3))
    end = [life[-1] for life in lives]
    tellings = [(index, fact) for index, life in enumerate(lives) for fact in life]
    known: dict[int, PaymentFact] = {}
    told = dict.fromkeys(range(len(lives)), 0)
    for index, _ in data.draw(st.permutations(tellings)):
        known[index] = lives[index][told[index]]
        told[index] += 1
        if data.draw(st.booleans()):
            assess(TERMS, list(known.values()), now=BEFORE)
    assert assess(TERMS, list(known.values()), now=LATE) == assess(TERMS, end, now=LATE)


def _state(outcome: Outcome) -> tuple[ChargeStatus, AdditionalStatus]:
    return outcome.status, outcome.additional_status
