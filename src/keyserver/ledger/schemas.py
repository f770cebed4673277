"""Wire shapes of the ledger. Nanodollars are integers, written as strings."""

from typing import Any

from pydantic import field_validator

from keyserver.kit.money import MAX_NANOS, usd_to_nanos_exact
from keyserver.kit.wire import Body, CamelView, DecimalNumber, Identifier, Instant, ShortText, View
from keyserver.ledger.chart import MANUAL
from keyserver.ledger.models import EntryType, Side

_MOST_NANOS = MAX_NANOS // 1000


class BalanceView(CamelView):
    tenant_id: str
    balance_nanodollars: str
    held_nanodollars: str
    available_nanodollars: str
    balance_usd: str


class EntryView(CamelView):
    """`side` is `credit` when the tenant's balance rose, `debit` when it fell."""

    id: str
    posted_at: Instant
    type: EntryType
    description: str | None
    reference_id: str
    amount_nanodollars: str
    side: Side
    balance_after_nanodollars: str
    metadata: dict[str, Any]


class EntryPage(CamelView):
    entries: list[EntryView]
    next_cursor: str | None


class NewEntry(Body):
    tenant_id: Identifier
    type: EntryType
    amount_usd: DecimalNumber
    reference_id: ShortText
    description: ShortText | None = None

    @field_validator("type")
    @classmethod
    def _by_hand(cls, value: EntryType) -> EntryType:
        if value not in MANUAL:
            raise ValueError(f"must be one of {', '.join(sorted(MANUAL))}")
        return value

    @field_validator("amount_usd")
    @classmethod
    def _postable(cls, value: Any) -> Any:
        nanos = usd_to_nanos_exact(value)
        if nanos == 0 or abs(nanos) > _MOST_NANOS:
            raise ValueError("must not be zero nor absurdly large")
        return value


class ManualEntryView(View):
    id: str
    tenant_id: str
    type: EntryType
    amount_usd: str
    side: Side
    reference_id: str
    description: str | None
    posted_at: Instant
    balance_after_nanodollars: str


class AccountView(CamelView):
    code: str
    name: str
    type: str
    balance: str


class TrialBalanceView(CamelView):
    """Nanodollars as strings; `balance` is in the account's normal direction."""

    total_debits: str
    total_credits: str
    difference: str
    balanced: bool
    accounts: list[AccountView]


class DiscrepancyView(View):
    account_code: str
    stripe: int
    balance_nanodollars: str
    lines_nanodollars: str


class HeldDiscrepancyView(View):
    account_code: str
    held_nanodollars: str
    pending_nanodollars: str


class CheckView(View):
    ok: bool
    discrepancies: list[DiscrepancyView]
    held_discrepancies: list[HeldDiscrepancyView]
