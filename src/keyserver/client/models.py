"""What the key server answers, typed and frozen.

Amounts of a coin or token are ints in base units (satoshi, wei); credit is ints in nanodollars (1e-9 USD); dollars are
Decimals. Instants carry their zone. Members this version does not know are passed over, and a word it does not know
stays a str, so that a newer server does not break an older client.
"""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


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


class Side(StrEnum):
    DEBIT = "debit"
    CREDIT = "credit"


Status = Annotated[ChargeStatus | str, Field(union_mode="left_to_right")]
Additional = Annotated[AdditionalStatus | str, Field(union_mode="left_to_right")]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Chain(Model):
    """A payment method that can be asked for by its `id`. `chain` is the blockchain's name."""

    id: str
    token: str
    chain: str
    network: str
    type: str
    decimals: int
    display_name: str
    contract_address: str | None
    confirmations: int
    icon_url: str | None
    is_testnet: bool


class Address(Model):
    """A deposit address of the tenant's, for ever. `index` is its BIP-44 address index."""

    address: str
    index: int
    chain: str
    token: str


class CreatedCharge(Model):
    """A new charge. `chain` is the payment method's id that was asked for; `expected_amount` in base units."""

    charge_id: str
    address: str
    chain: str
    token: str
    amount_usd: Decimal
    derivation_index: int
    expires_at: datetime
    status: Status
    type: str
    network: str
    decimals: int
    contract_address: str | None
    expected_amount: int
    display_amount: Decimal
    price_usd: Decimal
    payment_uri: str
    created_at: datetime


class Payment(Model):
    """One output that paid to a charge's address; `amount` in base units. `price_usd`: what it was credited at."""

    tx_hash: str
    output_index: int
    amount: int
    confirmations: int
    confirmations_required: int
    status: str
    block_height: int | None
    credited_usd: Decimal | None
    price_usd: Decimal | None = None
    price_source: str | None = None
    seen_at: datetime


class Charge(Model):
    """A charge now. `chain` is the blockchain's name, `chain_id` the payment method's id; amounts in base units."""

    charge_id: str
    status: Status
    additional_status: Additional
    address: str
    chain: str
    chain_id: str
    token: str
    amount_usd_cents: int
    amount_received_cents: int
    expected_amount: int
    received_amount: int
    price_usd: Decimal | None = None
    price_source: str | None = None
    confirmations: int
    confirmations_required: int
    tx_hash: str | None
    credited_at: datetime | None
    expires_at: datetime
    created_at: datetime
    metadata: dict[str, Any] | None
    callback_url: str | None
    payments: tuple[Payment, ...]

    @property
    def amount_usd(self) -> Decimal:
        """Dollars that were asked for."""
        return Decimal(self.amount_usd_cents).scaleb(-2)

    @property
    def is_settled(self) -> bool:
        return self.status == ChargeStatus.SETTLED


class Balance(Model):
    """The tenant's credit in nanodollars; `balance_usd` is the same balance in dollars, exactly."""

    tenant_id: str
    balance_nanodollars: int
    held_nanodollars: int
    available_nanodollars: int
    balance_usd: Decimal


class PlacedHold(Model):
    """Credit set aside until it is settled or voided, or `expires_at`."""

    hold_id: str
    capability: str
    estimate_nanodollars: int
    expires_at: datetime


class SettledHold(Model):
    """What was charged for a hold; `entry_id` is None when that was nothing."""

    hold_id: str
    capability: str
    cost_nanodollars: int
    charged_nanodollars: int
    entry_id: str | None


class UsageRow(Model):
    """Calls of one group. Of the first five those are set that were grouped by, None where a call has none."""

    day: date | None = None
    capability: str | None = None
    model: str | None = None
    instance: str | None = None
    attributed_to: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nanodollars: int
    charge_nanodollars: int


class LedgerEntry(Model):
    """One posting to the tenant's credit: `credit` raised it, `debit` lowered it."""

    id: str
    posted_at: datetime
    type: str
    description: str | None
    reference_id: str
    amount_nanodollars: int
    side: Side
    balance_after_nanodollars: int
    metadata: dict[str, Any]

    @property
    def amount_usd(self) -> Decimal:
        """Dollars, exact."""
        return Decimal(self.amount_nanodollars).scaleb(-9)


class WebhookEvent(Model):
    """A change of a charge, verified. Deliveries may come twice and out of order: a lower `sequence` is older.

    `id` is the `webhook-id`, the same at every attempt to deliver this event. Amounts in base units.
    """

    id: str
    type: str
    timestamp: datetime
    sequence: int
    charge_id: str
    chain: str
    token: str
    address: str
    status: Status
    additional_status: Additional
    tx_hash: str | None
    confirmations: int
    confirmations_required: int
    amount_expected_cents: int
    amount_received_cents: int
    expected_amount: int
    received_amount: int
    metadata: dict[str, Any] | None
