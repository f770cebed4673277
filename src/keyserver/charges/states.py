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

from collections.abc import Iterable, Sequence
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
    """The outcome at `now`. It is the same for the same facts, in whatever order they are given."""
    counted = [payment for payment in payments if payment.status in COUNTED]
    status, additional_status = _judge(terms, payments, now=now)
    return Outcome(
        status=status,
        additional_status=additional_status,
        received_units=_sum(counted),
        confirmed_units=_sum(payment for payment in counted if payment.status is PaymentStatus.CONFIRMED),
        confirmations=_confirmations(terms, counted),
        deadline_at=_deadline(terms, payments, now=now),
    )


def _judge(terms: Terms, payments: Sequence[PaymentFact], *, now: datetime) -> tuple[ChargeStatus, AdditionalStatus]:
    counted = [payment for payment in payments if payment.status in COUNTED]
    status = _status(terms, counted, now=now)
    if any(_is_missing(payment, settled=status is ChargeStatus.SETTLED) for payment in payments):
        return status, AdditionalStatus.REORGED
    return status, _additional_status(terms, counted, now=now)


def _status(terms: Terms, counted: Sequence[PaymentFact], *, now: datetime) -> ChargeStatus:
    if _sum(payment for payment in counted if payment.status is PaymentStatus.CONFIRMED) >= terms.expected_units:
        return ChargeStatus.SETTLED
    if _sum(counted) >= terms.expected_units:
        seen_in_time = _sum(payment for payment in counted if payment.seen_at < terms.expires_at)
        overdue = seen_in_time >= terms.expected_units and now > terms.monitored_until
        return ChargeStatus.INVALID if overdue else ChargeStatus.PROCESSING
    return ChargeStatus.NEW if now < terms.expires_at else ChargeStatus.EXPIRED


def _is_missing(payment: PaymentFact, *, settled: bool) -> bool:
    """Whether a credit that was taken back still leaves a hole: what replaced it may have filled it."""
    return payment.reversed and not (settled and payment.status is PaymentStatus.REPLACED)


def _additional_status(terms: Terms, counted: Sequence[PaymentFact], *, now: datetime) -> AdditionalStatus:
    received = _sum(counted)
    if 0 < received < terms.expected_units:
        return AdditionalStatus.PAID_PARTIAL
    timely = _sum(
        payment
        for payment in counted
        if is_timely(terms, seen_at=payment.seen_at, confirmed_at=payment.confirmed_at or now)
    )
    if received >= terms.expected_units > timely:
        return AdditionalStatus.PAID_LATE
    return AdditionalStatus.PAID_OVER if received > terms.expected_units else AdditionalStatus.NONE


def _sum(payments: Iterable[PaymentFact]) -> int:
    return sum(payment.amount_units for payment in payments)


def _confirmations(terms: Terms, counted: Sequence[PaymentFact]) -> int:
    """How deep the expected amount is buried: what comes on top of it later does not dig it up again."""
    buried = confirmations = 0
    for depth, amount_units in sorted(((_depth(terms, each), each.amount_units) for each in counted), reverse=True):
        if buried >= terms.expected_units:
            break
        buried += amount_units
        confirmations = depth
    return confirmations


def _depth(terms: Terms, payment: PaymentFact) -> int:
    """Its confirmations up to those required, and all of these only once it is final: new coins must mature first."""
    most = terms.confirmations_required - (payment.status is not PaymentStatus.CONFIRMED)
    return min(payment.confirmations, most)


def _deadline(terms: Terms, payments: Sequence[PaymentFact], *, now: datetime) -> datetime | None:
    """Time is compared with two instants only: with no new facts, nothing changes between them."""
    present = _judge(terms, payments, now=now)
    for instant in (terms.expires_at, terms.monitored_until + timedelta(microseconds=1)):
        if instant > now and _judge(terms, payments, now=instant) != present:
            return instant
    return None


def event_type(
    status: ChargeStatus,
    additional_status: AdditionalStatus,
    *,
    before: ChargeStatus,
    additional_before: AdditionalStatus,
) -> str:
    """The webhook's `type` for a change from one state to another.

    `charge.reorged` when a credit was just taken back, else `charge.<status>` when the status changed. A charge that
    is merely open again is `charge.updated`, for nobody should take it for a new one.
    """
    if additional_status is AdditionalStatus.REORGED and additional_before is not AdditionalStatus.REORGED:
        return "charge.reorged"
    if status is before or status is ChargeStatus.NEW:
        return "charge.updated"
    return f"charge.{status.lower()}"
