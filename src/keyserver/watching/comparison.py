"""The three books side by side: what a node shows, the payments stored, the ledger. Pure: facts in, differences out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from keyserver.charges.states import COUNTED, PaymentStatus
from keyserver.kit.money import format_nanos, format_units, units_to_nanos_down

#: (transaction hash, output index, asset)
Output: TypeAlias = tuple[str, int, str]
#: However many confirmations, and whatever finality, a payment waits for: longer than this is wrong.
LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Shown:
    """An output at an address of ours in a block, as the node shows it. `lost_credit_nanos`: what the ledger says was
    credited for it, when there is no payment any more that could say so."""

    output: Output
    token: str
    decimals: int
    amount_units: int
    height: int
    block_hash: str
    mined_at: datetime
    lost_credit_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A payment's row. `is_provable` is False when the node's block would not show it although it is there."""

    payment_id: str
    output: Output
    token: str
    decimals: int
    amount_units: int
    status: PaymentStatus
    height: int | None
    block_hash: str | None
    credited_nanos: int | None
    price_usd: Decimal | None
    reason: str | None
    is_provable: bool = True
    is_dismissed: bool = False
    #: An operator said what it is worth, with or without a price.
    is_by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Posted:
    """Credits less reversals of one payment: in the holdings account of its token, and to its tenant."""

    holdings_nanos: int = 0
    tenant_nanos: int = 0


class Kind(StrEnum):
    PAYMENT_MISSING = "payment_missing"
    PAYMENT_NOT_COUNTED = "payment_not_counted"
    PAYMENT_UNKNOWN_TO_NODE = "payment_unknown_to_node"
    AMOUNT_DIFFERS = "amount_differs"
    BLOCK_DIFFERS = "block_differs"
    NOT_CONFIRMED = "not_confirmed"
    NOT_CREDITED = "not_credited"
    CREDITED_UNCONFIRMED = "credited_unconfirmed"
    VALUE_DIFFERS = "value_differs"
    LEDGER_ENTRY_MISSING = "ledger_entry_missing"
    LEDGER_CREDIT_LEFT = "ledger_credit_left"
    LEDGER_AMOUNT_DIFFERS = "ledger_amount_differs"
    LEDGER_ACCOUNTS_DIFFER = "ledger_accounts_differ"
    CREDIT_WITHOUT_PAYMENT = "credit_without_payment"


#: What an operator should do. Rows and entries are never mended by hand before somebody knows who changed them.
ADVICE = {
    Kind.PAYMENT_MISSING: "rescan this height: the payment is recorded, and credited unless it stands credited already",
    Kind.PAYMENT_NOT_COUNTED: "rescan this height: the payment counts again, and is credited",
    Kind.PAYMENT_UNKNOWN_TO_NODE: "compare with an explorer; if it is not there, find who wrote the row, and correct",
    Kind.AMOUNT_DIFFERS: "compare with an explorer; find who changed the row, then correct the tenant's credit",
    Kind.BLOCK_DIFFERS: "compare with an explorer; the money is right if amount and credit are",
    Kind.NOT_CONFIRMED: "see `keyserver scan status`; a follower that runs confirms it with the next block",
    Kind.NOT_CREDITED: "see the log for `credit`; credit by hand once you know why it was not",
    Kind.CREDITED_UNCONFIRMED: "find who changed the status; if the payment is gone, post a correction",
    Kind.VALUE_DIFFERS: "find who changed amount, price or credit of the row, then correct the tenant's credit",
    Kind.LEDGER_ENTRY_MISSING: "restore the entry from a backup: the ledger was changed by hand",
    Kind.LEDGER_CREDIT_LEFT: "find who changed the payment; post a correction if the tenant should not have it",
    Kind.LEDGER_AMOUNT_DIFFERS: "find who changed the payment or the ledger, then correct the tenant's credit",
    Kind.LEDGER_ACCOUNTS_DIFFER: "restore the entry's lines from a backup: the ledger was changed by hand",
    Kind.CREDIT_WITHOUT_PAYMENT: "look for the transaction on an explorer; rescan its height, or post a correction",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """What each book says of one output; None: nothing at all."""

    kind: Kind
    tx_hash: str
    output_index: int
    token: str
    height: int | None
    payment_id: str | None
    node: str | None
    payments: str | None
    ledger: str | None

    @property
    def advice(self) -> str:
        return ADVICE[self.kind]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the blocks compared, of one token: amounts in base units, dollars in nanodollars."""

    decimals: int
    node_units: int = 0
    payments_units: int = 0
    credited_nanos: int = 0
    ledger_nanos: int = 0

    def plus(self, other: "Totals") -> "Totals":
        return Totals(
            self.decimals,
            self.node_units + other.node_units,
            self.payments_units + other.payments_units,
            self.credited_nanos + other.credited_nanos,
            self.ledger_nanos + other.ledger_nanos,
        )


def compare(
    shown: Sequence[Shown],
    stored: Sequence[Stored],
    posted: Mapping[str, Posted],
    *,
    heights: range,
    now: datetime,
) -> list[Difference]:
    """What `shown` in the blocks at `heights`, `stored` and `posted` (by payment) disagree on.

    `stored` are the payments of these blocks, and of the same transactions wherever they are said to be: those of
    other blocks are only looked at here when this is where the node shows them.
    """
    rows = {each.output: each for each in stored}
    seen = {each.output for each in shown}
    found = [difference for each in shown for difference in _of_output(each, rows.get(each.output), posted, now=now)]
    for each in stored:
        if each.height in heights and each.output not in seen and each.status in COUNTED and each.is_provable:
            found.append(_difference(Kind.PAYMENT_UNKNOWN_TO_NODE, None, each, posted))
        if each.height is None or each.height in heights:
            found.extend(of_ledger(each, posted))
    return found


def _of_output(
    shown: Shown, stored: Stored | None, posted: Mapping[str, Posted], *, now: datetime
) -> Iterable[Difference]:
    if stored is None:
        yield _difference(Kind.PAYMENT_MISSING, shown, None, posted)
        return
    if stored.amount_units != shown.amount_units:
        yield _difference(Kind.AMOUNT_DIFFERS, shown, stored, posted)
    if stored.height is None or stored.status not in COUNTED:
        yield _difference(Kind.PAYMENT_NOT_COUNTED, shown, stored, posted)
    elif (stored.height, stored.block_hash) != (shown.height, shown.block_hash):
        yield _difference(Kind.BLOCK_DIFFERS, shown, stored, posted)
    elif stored.status is not PaymentStatus.CONFIRMED and shown.mined_at < now - LONGEST_WAIT:
        yield _difference(Kind.NOT_CONFIRMED, shown, stored, posted)


def of_ledger(stored: Stored, posted: Mapping[str, Posted]) -> Iterable[Difference]:
    """Where a payment's row, its own arithmetic and the ledger disagree, whatever the node says."""
    ledger = posted.get(stored.payment_id, Posted())
    credited = stored.credited_nanos
    if credited is None:
        if stored.status is PaymentStatus.CONFIRMED and stored.reason is None and not stored.is_dismissed:
            yield _difference(Kind.NOT_CREDITED, None, stored, posted)
    else:
        if stored.status is not PaymentStatus.CONFIRMED:
            yield _difference(Kind.CREDITED_UNCONFIRMED, None, stored, posted)
        if _worth(stored) != credited and not (stored.is_by_hand and stored.price_usd is None):
            yield _difference(Kind.VALUE_DIFFERS, None, stored, posted)
    if ledger.holdings_nanos != ledger.tenant_nanos:
        yield _difference(Kind.LEDGER_ACCOUNTS_DIFFER, None, stored, posted)
    elif ledger.tenant_nanos != (credited or 0):
        yield _difference(_ledger_kind(ledger, credited), None, stored, posted)


def _ledger_kind(ledger: Posted, credited_nanos: int | None) -> Kind:
    if credited_nanos is None:
        return Kind.LEDGER_CREDIT_LEFT
    return Kind.LEDGER_AMOUNT_DIFFERS if ledger.tenant_nanos else Kind.LEDGER_ENTRY_MISSING


def _worth(stored: Stored) -> int | None:
    if stored.price_usd is None:
        return None
    return units_to_nanos_down(stored.amount_units, price_usd=stored.price_usd, decimals=stored.decimals)


def totals(
    shown: Sequence[Shown], stored: Sequence[Stored], posted: Mapping[str, Posted], *, heights: range
) -> dict[str, Totals]:
    """Sums by token. Payments count while they count for their charge and tenant; ledger sums are the holdings'."""
    found: dict[str, Totals] = {}

    def add(token: str, part: Totals) -> None:
        found[token] = found[token].plus(part) if token in found else part

    for each in shown:
        add(each.token, Totals(each.decimals, node_units=each.amount_units))
    for row in stored:
        if row.height in heights and row.status in COUNTED:
            add(row.token, Totals(row.decimals, payments_units=row.amount_units))
        if row.height is None or row.height in heights:
            ledger_nanos = posted.get(row.payment_id, Posted()).holdings_nanos
            add(row.token, Totals(row.decimals, credited_nanos=row.credited_nanos or 0, ledger_nanos=ledger_nanos))
    return found


def _difference(kind: Kind, shown: Shown | None, stored: Stored | None, posted: Mapping[str, Posted]) -> Difference:
    one = shown or stored
    assert one is not None
    return Difference(
        kind=kind,
        tx_hash=one.output[0],
        output_index=one.output[1],
        token=one.token,
        height=one.height,
        payment_id=None if stored is None else stored.payment_id,
        node=None if shown is None else f"{_amount(shown)} in block {shown.height}",
        payments=None if stored is None else _row(stored),
        ledger=_net(posted.get(stored.payment_id)) if stored is not None else _lost(shown),
    )


def _amount(one: Shown | Stored) -> str:
    return f"{format_units(one.amount_units, one.decimals)} {one.token}"


def _row(stored: Stored) -> str:
    where = "" if stored.height is None else f" in block {stored.height}"
    credited = "not credited" if stored.credited_nanos is None else f"credited ${format_nanos(stored.credited_nanos)}"
    return f"{_amount(stored)} {stored.status}{where}, {credited}"


def _lost(shown: Shown | None) -> str | None:
    if shown is None or shown.lost_credit_nanos is None:
        return None
    return f"${format_nanos(shown.lost_credit_nanos)}"


def _net(posted: Posted | None) -> str | None:
    if posted is None:
        return None
    if posted.holdings_nanos == posted.tenant_nanos:
        return f"${format_nanos(posted.tenant_nanos)}"
    return f"holdings ${format_nanos(posted.holdings_nanos)}, tenant ${format_nanos(posted.tenant_nanos)}"
