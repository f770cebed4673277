"""Double entry: accounts, journal entries, their lines, and the balances kept beside them.

`journal_entries` and `journal_lines` are append-only and every entry balances: triggers of the migration hold both.
A balance is the sum of its account's lines, counted in the account's normal direction; system accounts spread theirs
over `STRIPES` rows, so that tenants never queue for one row.

Entries and lines have no foreign key to tenants and accounts: checking one locks the parent row, and every posting
would meet on the same few. A line's account is real because its balance row is updated in the same statement.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, UniqueConstraint, text
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
    __tablename__ = "account_balances"

    account_code: Mapped[str] = mapped_column(ForeignKey("accounts.code"), primary_key=True)
    stripe: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    balance_nanos: Mapped[int] = mapped_column(server_default=text("0"))
    #: How many postings have moved this row: the order of a tenant's lines, without gaps.
    version: Mapped[int] = mapped_column(server_default=text("0"))


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
