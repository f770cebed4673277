"""Charges and the payments that arrive at our addresses, asked for or not."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.charges.states import AdditionalStatus, ChargeStatus, PaymentStatus
from keyserver.kit.orm import Base, Units, Words, words_check

UNENDED = "status IN ('New', 'Processing', 'Invalid')"


class Charge(Base):
    """The terms (fixed at creation), and the outcome (a function of terms, payments and time: states.py).

    No foreign keys to tenants and payment methods, for the reason given at `addresses.models.Address`.
    """

    __tablename__ = "charges"
    __table_args__ = (
        ForeignKeyConstraint(["key_ring_id", "address_index"], ["addresses.key_ring_id", "addresses.address_index"]),
        UniqueConstraint("key_ring_id", "address_index"),
        CheckConstraint(words_check("status", ChargeStatus), name="status_known"),
        CheckConstraint(words_check("additional_status", AdditionalStatus), name="additional_status_known"),
        CheckConstraint("amount_cents > 0", name="amount_positive"),
        CheckConstraint("expected_units > 0", name="expected_positive"),
        Index(None, "tenant_id", "id"),
        # Few and mostly young, but a page of them must not be looked for among millions that ended.
        Index("ix_charges_unended", "tenant_id", "id", postgresql_where=text(UNENDED)),
        Index(None, "created_at", postgresql_using="brin", postgresql_with={"autosummarize": True}),
        Index("ix_charges_deadline", "deadline_at", postgresql_where=text("deadline_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    #: The tenant whose key made the charge: its secret signs the webhooks.
    signing_tenant_id: Mapped[str]
    payment_method_id: Mapped[str]
    key_ring_id: Mapped[str]
    address_index: Mapped[int]
    address: Mapped[str]
    amount_cents: Mapped[int]
    expected_units: Mapped[int] = mapped_column(Units())
    price_usd: Mapped[Decimal]
    price_source: Mapped[str]
    priced_at: Mapped[datetime]
    decimals: Mapped[int] = mapped_column(SmallInteger)
    confirmations_required: Mapped[int] = mapped_column(Integer)
    callback_url: Mapped[str | None]
    #: JSON, not JSONB: it is given back as it came.
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    status: Mapped[ChargeStatus] = mapped_column(Words(ChargeStatus), server_default=text("'New'"))
    additional_status: Mapped[AdditionalStatus] = mapped_column(Words(AdditionalStatus), server_default=text("'None'"))
    received_units: Mapped[int] = mapped_column(Units(), server_default=text("0"))
    received_nanos: Mapped[int] = mapped_column(server_default=text("0"))
    confirmed_units: Mapped[int] = mapped_column(Units(), server_default=text("0"))
    #: The fewest confirmations among the payments that count, up to `confirmations_required`.
    confirmations: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    credited_at: Mapped[datetime | None]
    #: When time alone changes the state next (expiry, then the end of monitoring); null when it no longer can.
    deadline_at: Mapped[datetime | None]
    #: Number of the last change told; rises by one with every webhook.
    sequence: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class Payment(Base):
    """One output to an address of ours. Never deleted: what stops counting changes its status.

    While it is in no block it is what its transaction brought last: in another block that may be something else.

    `output_index` is the output's position on UTXO chains and the log index of a token transfer; of an EVM chain's own
    coin 0 for the transaction itself, told from log 0 by its asset, and 1 upwards for its internal calls. Coin that was
    found by comparing balances has its block's hash for `tx_hash`, and an index below 0.
    """

    __tablename__ = "payments"
    __table_args__ = (
        ForeignKeyConstraint(["key_ring_id", "address_index"], ["addresses.key_ring_id", "addresses.address_index"]),
        UniqueConstraint("blockchain_id", "tx_hash", "output_index", "asset"),
        CheckConstraint(words_check("status", PaymentStatus), name="status_known"),
        CheckConstraint("amount_units > 0", name="amount_positive"),
        Index(None, "charge_id"),
        Index(None, "key_ring_id", "address_index"),
        Index("ix_payments_open", "blockchain_id", "status", postgresql_where=text("status <> 'confirmed'")),
        Index("ix_payments_height", "blockchain_id", "block_height"),
        Index("ix_payments_uncredited", "id", postgresql_where=text("status = 'confirmed' AND credited_nanos IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"))
    tx_hash: Mapped[str]
    output_index: Mapped[int]
    asset: Mapped[str]
    key_ring_id: Mapped[str]
    address_index: Mapped[int]
    address: Mapped[str]
    #: Null while nobody was given this address, nor credited by hand.
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id"))
    never_issued: Mapped[bool] = mapped_column(server_default=text("false"))
    #: The charge this payment counts for: its address's, when asset and chain are the ones asked for.
    charge_id: Mapped[str | None] = mapped_column(ForeignKey("charges.id"))
    #: Null when it came in the chain's own coin, and no payment method on that blockchain is for it.
    payment_method_id: Mapped[str | None] = mapped_column(ForeignKey("payment_methods.id"))
    token: Mapped[str]
    decimals: Mapped[int] = mapped_column(SmallInteger)
    amount_units: Mapped[int] = mapped_column(Units())
    confirmations_required: Mapped[int] = mapped_column(Integer)

    status: Mapped[PaymentStatus] = mapped_column(Words(PaymentStatus))
    #: Counted up to `confirmations_required`.
    confirmations: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    block_height: Mapped[int | None]
    block_hash: Mapped[str | None]
    seen_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    #: Of coin found by comparing balances: it arrived above this height, up to `block_height`. Null for all else.
    found_above: Mapped[int | None]
    #: What stands credited now; null when nothing does. `credits` counts credits ever posted, for their references.
    credited_nanos: Mapped[int | None]
    credits: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    price_usd: Mapped[Decimal | None]
    price_source: Mapped[str | None]
    #: Why it is not credited, though confirmed.
    reason: Mapped[str | None]
    #: When an operator decided that nobody is to be credited for it; null again once somebody is.
    dismissed_at: Mapped[datetime | None]


class Action(StrEnum):
    CREDIT = "credit"
    DISMISS = "dismiss"
    REVERSE = "reverse"


class Actor(StrEnum):
    ADMIN = "admin"
    CHAIN = "chain"


class PaymentAction(Base):
    """What an operator decided about a payment, and what a reorganisation undid of it.

    Append-only: triggers of the migration hold it. `asked` is what the request asked for, `before` and `after` what
    the payment was.
    """

    __tablename__ = "payment_actions"
    __table_args__ = (
        CheckConstraint(words_check("action", Action), name="action_known"),
        CheckConstraint(words_check("actor", Actor), name="actor_known"),
        Index(None, "payment_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"))
    action: Mapped[Action] = mapped_column(Words(Action))
    actor: Mapped[Actor] = mapped_column(Words(Actor))
    asked: Mapped[dict[str, Any]]
    before: Mapped[dict[str, Any]]
    after: Mapped[dict[str, Any]]
    reason: Mapped[str | None]
    request_id: Mapped[str | None]
    acted_at: Mapped[datetime]
