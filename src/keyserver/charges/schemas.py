"""Wire shapes of charges and payments."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator

from keyserver.charges.models import Action, Actor, Charge, Payment, PaymentAction
from keyserver.charges.queries import FoundPayment
from keyserver.charges.states import AdditionalStatus, ChargeStatus, PaymentStatus
from keyserver.kit.money import format_nanos, format_price, nanos_to_cents_down, usd_to_nanos_exact
from keyserver.kit.wire import (
    Body,
    CamelBody,
    CamelView,
    DecimalNumber,
    Identifier,
    Instant,
    JsonObject,
    ShortText,
    View,
)

MAX_AMOUNT_CENTS = 1_000_000_000
MIN_LIFETIME_SECONDS = 60
MAX_LIFETIME_SECONDS = 604_800


class NewCharge(CamelBody):
    chain: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(description="A payment method's id")
    amount_usd: DecimalNumber = Field(description="Dollars, rounded half up to cents; positive, at most 10,000,000")
    callback_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    metadata: JsonObject | None = Field(None, description="At most 16 KiB of JSON, returned as given")
    expires_in_seconds: Annotated[int, Field(ge=MIN_LIFETIME_SECONDS, le=MAX_LIFETIME_SECONDS, strict=True)] | None = (
        None
    )


class CreatedCharge(CamelView):
    """`chain` is the id that was asked for."""

    charge_id: str
    address: str
    chain: str
    token: str
    amount_usd: float
    derivation_index: int
    expires_at: Instant
    status: ChargeStatus
    type: str
    network: str
    decimals: int
    contract_address: str | None
    expected_amount: str
    display_amount: str
    price_usd: str
    price_source: str
    priced_at: Instant
    payment_uri: str
    created_at: Instant


class PaymentView(CamelView):
    """`amount` in base units. `confirmations_required` is more than the charge's for the coins of a block reward.
    What it was credited at: `price_usd` for a whole coin, and where that came from.
    """

    tx_hash: str
    output_index: int
    amount: str
    confirmations: int
    confirmations_required: int
    status: PaymentStatus
    block_height: int | None
    credited_usd: str | None
    price_usd: str | None
    price_source: str | None = Field(description="`locked:` and the charge's sources, or the market's when it was late")
    seen_at: Instant


class ChargeSummary(CamelView):
    """`chain` is the blockchain's name, `chain_id` the payment method's id. Amounts in base units unless named.

    `price_usd` is the locked rate: dollars for a whole coin, of the sources named, as it was at `priced_at`.
    """

    charge_id: str
    status: ChargeStatus
    address: str
    chain: str
    token: str
    amount_usd_cents: int
    credited_at: Instant | None
    chain_id: str
    additional_status: AdditionalStatus
    expected_amount: str
    received_amount: str
    amount_received_cents: int
    price_usd: str
    price_source: str
    priced_at: Instant
    confirmations: int
    confirmations_required: int
    tx_hash: str | None
    expires_at: Instant
    created_at: Instant
    metadata: dict[str, Any] | None
    callback_url: str | None


class ChargeView(ChargeSummary):
    payments: list[PaymentView]


class ChargePage(CamelView):
    charges: list[ChargeView]
    next_cursor: str | None


class AdminPaymentView(View):
    id: str
    chain: str
    network: str
    token: str
    address: str
    tx_hash: str
    output_index: int
    amount: str
    status: PaymentStatus
    reason: str | None
    tenant_id: str | None
    charge_id: str | None
    credited_usd: str | None
    dismissed_at: Instant | None
    seen_at: Instant


class AdminPaymentPage(View):
    payments: list[AdminPaymentView]
    next_cursor: str | None


class PaymentActionView(View):
    """`asked` is what the request asked for; `before` and `after` are what the payment was."""

    action: Action
    actor: Actor
    asked: dict[str, Any]
    before: dict[str, str | None]
    after: dict[str, str | None]
    reason: str | None
    request_id: str | None
    acted_at: Instant


class AdminPaymentDetail(AdminPaymentView):
    """`address_index` is the last number of the address's path, by which a wallet finds its key."""

    address_index: int
    payment_method_id: str | None
    decimals: int
    confirmations: int
    confirmations_required: int
    block_height: int | None
    block_hash: str | None
    confirmed_at: Instant | None
    price_usd: str | None
    price_source: str | None
    history: list[PaymentActionView]


class CreditPayment(Body):
    """At `price_usd` for a whole coin, or `amount_usd` in all; with neither, at the market's price of now."""

    tenant_id: Identifier | None = Field(None, description="Needed when nobody was given the payment's address")
    price_usd: DecimalNumber | None = Field(None, description="Dollars for a whole coin; positive")
    amount_usd: DecimalNumber | None = Field(None, description="Dollars, at most nine decimals; positive")
    note: ShortText = Field(description="Why; kept in the history and in the ledger")

    @field_validator("price_usd", "amount_usd")
    @classmethod
    def _positive(cls, value: Decimal | None) -> Decimal | None:
        if value is not None and value <= 0:
            raise ValueError("must be positive")
        return value

    @field_validator("amount_usd")
    @classmethod
    def _postable(cls, value: Decimal | None) -> Decimal | None:
        if value is not None:
            usd_to_nanos_exact(value)
        return value


class DismissPayment(Body):
    reason: ShortText = Field(description="Why; kept in the history")


def payment_view(payment: Payment) -> PaymentView:
    return PaymentView(
        tx_hash=payment.tx_hash,
        output_index=payment.output_index,
        amount=str(payment.amount_units),
        confirmations=payment.confirmations,
        confirmations_required=payment.confirmations_required,
        status=payment.status,
        block_height=payment.block_height,
        credited_usd=None if payment.credited_nanos is None else format_nanos(payment.credited_nanos),
        price_usd=None if payment.price_usd is None else format_price(payment.price_usd),
        price_source=payment.price_source,
        seen_at=payment.seen_at,
    )


def admin_payment_view(found: FoundPayment) -> AdminPaymentView:
    payment = found.payment
    return AdminPaymentView(
        id=payment.id,
        chain=found.chain,
        network=found.network,
        token=payment.token,
        address=payment.address,
        tx_hash=payment.tx_hash,
        output_index=payment.output_index,
        amount=str(payment.amount_units),
        status=payment.status,
        reason=payment.reason,
        tenant_id=payment.tenant_id,
        charge_id=payment.charge_id,
        credited_usd=None if payment.credited_nanos is None else format_nanos(payment.credited_nanos),
        dismissed_at=payment.dismissed_at,
        seen_at=payment.seen_at,
    )


def admin_payment_detail(found: FoundPayment, history: Sequence[PaymentAction]) -> AdminPaymentDetail:
    payment = found.payment
    return AdminPaymentDetail(
        **dict(admin_payment_view(found)),
        address_index=payment.address_index,
        payment_method_id=payment.payment_method_id,
        decimals=payment.decimals,
        confirmations=payment.confirmations,
        confirmations_required=payment.confirmations_required,
        block_height=payment.block_height,
        block_hash=payment.block_hash,
        confirmed_at=payment.confirmed_at,
        price_usd=None if payment.price_usd is None else format_price(payment.price_usd),
        price_source=payment.price_source,
        history=[PaymentActionView.model_validate(action) for action in history],
    )


def charge_view(charge: Charge, payments: list[Payment], *, chain: str, token: str) -> ChargeView:
    return ChargeView(
        charge_id=charge.id,
        status=charge.status,
        address=charge.address,
        chain=chain,
        token=token,
        amount_usd_cents=charge.amount_cents,
        credited_at=charge.credited_at,
        chain_id=charge.payment_method_id,
        additional_status=charge.additional_status,
        expected_amount=str(charge.expected_units),
        received_amount=str(charge.received_units),
        amount_received_cents=nanos_to_cents_down(charge.received_nanos),
        price_usd=format_price(charge.price_usd),
        price_source=charge.price_source,
        priced_at=charge.priced_at,
        confirmations=charge.confirmations,
        confirmations_required=charge.confirmations_required,
        tx_hash=payments[-1].tx_hash if payments else None,
        expires_at=charge.expires_at,
        created_at=charge.created_at,
        metadata=charge.metadata_,
        callback_url=charge.callback_url,
        payments=[payment_view(payment) for payment in payments],
    )


def dollars(cents: int) -> int | float:
    """Cents as a JSON number of dollars: the nearest double prints as the same two decimals."""
    return cents // 100 if cents % 100 == 0 else float(Decimal(cents).scaleb(-2))
