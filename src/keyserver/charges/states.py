"""What a charge is, as a pure function of its terms, its payments and the time.

Nothing is remembered between calls. Whatever order payments, confirmations and reorganisations are observed in, and
however often, the same facts give the same outcome.

            ┌────────────────────────────┐
            ▼                            │ replaced, orphaned
    New ──enough seen──▶ Processing ──enough confirmed──▶ Settled
     │                    │  ▲  │                          │ ▲
     │ time               │  │  └─not confirmed in 24 h──▶ Invalid
     ▼                    ▼  │ late payment                 │
    Expired ◀──replaced───┘──┘ ◀────────replaced────────────┘
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

#: How long after expiry a payment that was seen in time may take to confirm and still get the locked rate.
MONITORING = timedelta(hours=24)


class ChargeStatus(StrEnum):
    NEW = "New"
    PROCESSING = "Processing"
    SETTLED = "Settled"
    EXPIRED = "Expired"
    INVALID = "Invalid"


class AdditionalStatus(StrEnum):
    NONE = "None"
    PAID_PARTIAL = "PaidPartial"
    PAID_OVER = "PaidOver"
    PAID_LATE = "PaidLate"
    REORGED = "Reorged"


class PaymentStatus(StrEnum):
    """`seen` in the mempool; `confirming` in a block; `confirmed` deep enough, credited; the rest no longer count."""

    SEEN = "seen"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    ORPHANED = "orphaned"
    REPLACED = "replaced"


COUNTED = frozenset({PaymentStatus.SEEN, PaymentStatus.CONFIRMING, PaymentStatus.CONFIRMED})

#: Every change of status that time, payments and the chain can bring about.
TRANSITIONS: dict[ChargeStatus, frozenset[ChargeStatus]] = {
    ChargeStatus.NEW: frozenset(
        {ChargeStatus.PROCESSING, ChargeStatus.SETTLED, ChargeStatus.EXPIRED, ChargeStatus.INVALID}
    ),
    ChargeStatus.PROCESSING: frozenset(
        {ChargeStatus.NEW, ChargeStatus.SETTLED, ChargeStatus.EXPIRED, ChargeStatus.INVALID}
    ),
    ChargeStatus.SETTLED: frozenset(
        {ChargeStatus.NEW, ChargeStatus.PROCESSING, ChargeStatus.EXPIRED, ChargeStatus.INVALID}
    ),
    ChargeStatus.EXPIRED: frozenset({ChargeStatus.PROCESSING, ChargeStatus.SETTLED, ChargeStatus.INVALID}),
    ChargeStatus.INVALID: frozenset({ChargeStatus.PROCESSING, ChargeStatus.SETTLED, ChargeStatus.EXPIRED}),
}


@dataclass(frozen=True, slots=True)
class Terms:
    expected_units: int
    expires_at: datetime
    confirmations_required: int

    @property
    def monitored_until(self) -> datetime:
        return self.expires_at + MONITORING


@dataclass(frozen=True, slots=True)
class PaymentFact:
    """What is known of one payment. `reversed`: it had been credited, and the credit was taken back."""

    amount_units: int
    status: PaymentStatus
    confirmations: int
    seen_at: datetime
    confirmed_at: datetime | None = None
    reversed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`deadline_at` is the next instant at which time alone changes this outcome, if there is one."""

    status: ChargeStatus
    additional_status: AdditionalStatus
    received_units: int
    confirmed_units: int
    confirmations: int
    deadline_at: datetime | None


def is_timely(terms: Terms, *, seen_at: datetime, confirmed_at: datetime) -> bool:
    """Whether a payment gets the locked rate: seen before expiry and confirmed within 24 h after it."""
    return seen_at < terms.expires_at and confirmed_at <= terms.monitored_until


def assess(terms: Terms, payments: Sequence[PaymentFact], *, now: datetime) -> Outcome:
    counted = [payment for payment in payments if payment.status in COUNTED]
    received = sum(payment.amount_units for payment in counted)
    confirmed = sum(payment.amount_units for payment in counted if payment.status is PaymentStatus.CONFIRMED)
    timely = sum(
        payment.amount_units
        for payment in counted
        if is_timely(terms, seen_at=payment.seen_at, confirmed_at=payment.confirmed_at or now)
    )
    seen_in_time = sum(payment.amount_units for payment in counted if payment.seen_at < terms.expires_at)
    status = _status(terms, received=received, confirmed=confirmed, seen_in_time=seen_in_time, now=now)
    return Outcome(
        status=status,
        additional_status=_additional_status(
            terms, received=received, timely=timely, reversed_=any(payment.reversed for payment in payments)
        ),
        received_units=received,
        confirmed_units=confirmed,
        confirmations=min((min(payment.confirmations, terms.confirmations_required) for payment in counted), default=0),
        deadline_at=_deadline(terms, settled=status is ChargeStatus.SETTLED, received=received, now=now),
    )


def _status(terms: Terms, *, received: int, confirmed: int, seen_in_time: int, now: datetime) -> ChargeStatus:
    if confirmed >= terms.expected_units:
        return ChargeStatus.SETTLED
    if received >= terms.expected_units:
        reached_in_time = seen_in_time >= terms.expected_units
        return ChargeStatus.INVALID if reached_in_time and now > terms.monitored_until else ChargeStatus.PROCESSING
    return ChargeStatus.NEW if now < terms.expires_at else ChargeStatus.EXPIRED


def _additional_status(terms: Terms, *, received: int, timely: int, reversed_: bool) -> AdditionalStatus:
    if reversed_:
        return AdditionalStatus.REORGED
    if 0 < received < terms.expected_units:
        return AdditionalStatus.PAID_PARTIAL
    if received >= terms.expected_units > timely:
        return AdditionalStatus.PAID_LATE
    return AdditionalStatus.PAID_OVER if received > terms.expected_units else AdditionalStatus.NONE


def _deadline(terms: Terms, *, settled: bool, received: int, now: datetime) -> datetime | None:
    if settled:
        return None
    if now < terms.expires_at:
        return terms.expires_at
    if received >= terms.expected_units and now <= terms.monitored_until:
        return terms.monitored_until + timedelta(microseconds=1)
    return None


def event_type(status: ChargeStatus, additional_status: AdditionalStatus, *, before: ChargeStatus) -> str:
    """The webhook's `type` for a change that ended in this state."""
    if additional_status is AdditionalStatus.REORGED and status is not before:
        return "charge.reorged"
    if status is before:
        return "charge.updated"
    return f"charge.{status.lower()}"
