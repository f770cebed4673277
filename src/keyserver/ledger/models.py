"""Double entry: accounts, journal entries, their lines, and the balances kept beside them.

`journal_entries` and `journal_lines` are append-only and every entry balances: triggers of the migration hold both.
A balance is the sum of its account's lines, counted in the account's normal direction; system accounts spread theirs
over `STRIPES` rows, so that tenants never queue for one row.

Entries and lines have no foreign key to tenants and accounts: checking one locks the parent row, and every posting
would meet on the same few. A line's account is real because its balance row is updated in the same statement.
"""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Date, ForeignKey, Identity, Index, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base, Words, words_check

STRIPES = 16


class AccountType(StrEnum):
    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    REVENUE = "revenue"
    EXPENSE = "expense"


class EntryType(StrEnum):
    PURCHASE = "purchase"
    USAGE = "usage"
    GRANT = "grant"
    REFUND = "refund"
    DIVIDEND = "dividend"
    EXPIRY = "expiry"
    CORRECTION = "correction"


class Side(StrEnum):
    DEBIT = "debit"
    CREDIT = "credit"


class Account(Base):
    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint(words_check("type", AccountType), name="type_known"),)

    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    type: Mapped[AccountType] = mapped_column(Words(AccountType))
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class AccountBalance(Base):
    """A tenant's row also carries all that its credit is guarded by, so that one lock on one row decides.

    `held_nanos` is the sum of its pending holds. `day_spent_nanos` and `month_spent_nanos` are what its calls were
    charged on the UTC day `spent_on` and in that month; another day's or month's spending is read as 0.
    """

    __tablename__ = "account_balances"
    __table_args__ = (CheckConstraint("held_nanos >= 0", name="held_not_negative"),)

    account_code: Mapped[str] = mapped_column(ForeignKey("accounts.code"), primary_key=True)
    stripe: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    balance_nanos: Mapped[int] = mapped_column(server_default=text("0"))
    #: How many postings have moved this row: the order of a tenant's lines, without gaps.
    version: Mapped[int] = mapped_column(server_default=text("0"))
    held_nanos: Mapped[int] = mapped_column(server_default=text("0"))
    #: Whether a credit line was ever posted: only then is there a grace.
    credited: Mapped[bool] = mapped_column(server_default=text("false"))
    spent_on: Mapped[date | None] = mapped_column(Date)
    day_spent_nanos: Mapped[int] = mapped_column(server_default=text("0"))
    month_spent_nanos: Mapped[int] = mapped_column(server_default=text("0"))


class JournalEntry(Base):
    """`source` says who names the reference (`payment`, `admin`, …): references are unique within it."""

    __tablename__ = "journal_entries"
    __table_args__ = (
        CheckConstraint(words_check("type", EntryType), name="type_known"),
        UniqueConstraint("source", "reference_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    posted_at: Mapped[datetime]
    type: Mapped[EntryType] = mapped_column(Words(EntryType))
    tenant_id: Mapped[str]
    source: Mapped[str]
    reference_id: Mapped[str]
    description: Mapped[str | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'::jsonb"), default=dict)


class JournalLine(Base):
    """On the lines of tenants' accounts: the balance after this line and its place in the account's history.

    Lines of striped accounts have neither, for such a balance has no single history.
    """

    __tablename__ = "journal_lines"
    __table_args__ = (
        CheckConstraint("amount_nanos > 0", name="amount_positive"),
        CheckConstraint(words_check("side", Side), name="side_known"),
        Index(
            "uq_journal_lines_history",
            "account_code",
            "account_version",
            unique=True,
            postgresql_where=text("account_version IS NOT NULL"),
        ),
    )

    entry_id: Mapped[str] = mapped_column(ForeignKey("journal_entries.id"), primary_key=True)
    line: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    account_code: Mapped[str]
    stripe: Mapped[int] = mapped_column(SmallInteger)
    side: Mapped[Side] = mapped_column(Words(Side))
    amount_nanos: Mapped[int]
    balance_after_nanos: Mapped[int | None]
    account_version: Mapped[int | None]


class HoldStatus(StrEnum):
    """A two-phase transfer: pending, then one of the others for ever (an expired one may still be posted late)."""

    PENDING = "pending"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


class Hold(Base):
    """Credit set aside for a call. Tenants have no foreign key here: see the top of this file."""

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint(words_check("status", HoldStatus), name="status_known"),
        CheckConstraint("estimate_nanos >= 0", name="estimate_not_negative"),
        Index("ix_holds_due", "expires_at", postgresql_where=text("status = 'pending'")),
        Index("ix_holds_unbilled", "id", postgresql_where=text("status = 'expired'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    instance_id: Mapped[str | None]
    attributed_tenant_id: Mapped[str | None]
    capability: Mapped[str]
    estimate_nanos: Mapped[int]
    status: Mapped[HoldStatus] = mapped_column(Words(HoldStatus), server_default=text("'pending'"))
    #: Whether it had expired when it was posted: its credit had been given back by then.
    late: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class CreditTerms(Base):
    """What was agreed with a tenant; no row and NULL mean the default (ledger/terms.py)."""

    __tablename__ = "credit_terms"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    grace_nanos: Mapped[int | None]
    daily_cap_nanos: Mapped[int | None]
    monthly_cap_nanos: Mapped[int | None]
    margin: Mapped[Decimal | None]
    low_balance_nanos: Mapped[int | None]
    top_up_below_nanos: Mapped[int | None]
    top_up_amount_nanos: Mapped[int | None]
    callback_url: Mapped[str | None]


class CrossingKind(StrEnum):
    LOW = "low"
    EXHAUSTED = "exhausted"
    TOP_UP_DUE = "top_up_due"


class CreditCrossing(Base):
    """A posting took a tenant's balance from above a threshold to it or below. Written by that posting's statement.

    Rows wait here until they are handed to the webhooks' outbox, which is above the ledger.
    """

    __tablename__ = "credit_crossings"
    __table_args__ = (CheckConstraint(words_check("kind", CrossingKind), name="kind_known"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[CrossingKind] = mapped_column(Words(CrossingKind))
    threshold_nanos: Mapped[int]
    balance_nanos: Mapped[int]
    entry_id: Mapped[str]
    crossed_at: Mapped[datetime]
