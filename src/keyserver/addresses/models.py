"""Key rings, the addresses handed out from them, and those that will be. An address is its tenant's for ever."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base


class KeyRing(Base):
    """One account-level extended public key (coin type, account, curve) and one index sequence for all methods on it.

    `material` is the key itself without its version bytes (hex of chain code and public key): zpub and xpub of one
    account are the same ring. The next index is in a PostgreSQL sequence named `index_sequence`, made with the row.
    """

    __tablename__ = "key_rings"
    __table_args__ = (
        UniqueConstraint("coin_type", "account_index", "curve"),
        CheckConstraint("coin_type BETWEEN 0 AND 2147483647", name="coin_type_range"),
        CheckConstraint("account_index BETWEEN 0 AND 2147483647", name="account_index_range"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    coin_type: Mapped[int]
    account_index: Mapped[int]
    curve: Mapped[str]
    xpub: Mapped[str]
    material: Mapped[str] = mapped_column(index=True)
    index_sequence: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class Address(Base):
    """`address` is the chain's own spelling, `match_key` what a block's output is compared with (lower case on EVM).

    Without a tenant (and a payment method) it was paid before anybody was given it: such an index is spent, and never
    handed out.

    No foreign keys: checking one locks the parent row, and every new address would meet on the same few parents,
    which are never deleted.
    """

    __tablename__ = "addresses"
    __table_args__ = (Index(None, "tenant_id", "created_at"),)

    key_ring_id: Mapped[str] = mapped_column(primary_key=True)
    address_index: Mapped[int] = mapped_column(primary_key=True)
    match_key: Mapped[str] = mapped_column(unique=True)
    address: Mapped[str]
    tenant_id: Mapped[str | None]
    payment_method_id: Mapped[str | None]
    created_at: Mapped[datetime]


class LookaheadAddress(Base):
    """An address that nobody had been given when it was written here: money sent to it is noticed all the same.

    `spelling` is the match key of the ring's index 0 in the same form: methods that write one index alike write all
    alike.
    """

    __tablename__ = "lookahead_addresses"

    key_ring_id: Mapped[str] = mapped_column(primary_key=True)
    spelling: Mapped[str] = mapped_column(primary_key=True)
    address_index: Mapped[int] = mapped_column(primary_key=True)
    match_key: Mapped[str] = mapped_column(unique=True)
    address: Mapped[str]


class LookaheadWindow(Base):
    """How far a ring's look-ahead goes in one spelling.

    Every index below `filled_index` is known, here or as handed out; below `swept_index`, what was handed out is no
    longer kept here as well.
    """

    __tablename__ = "lookahead_windows"

    key_ring_id: Mapped[str] = mapped_column(ForeignKey("key_rings.id"), primary_key=True)
    spelling: Mapped[str] = mapped_column(primary_key=True)
    filled_index: Mapped[int] = mapped_column(server_default=text("0"))
    swept_index: Mapped[int] = mapped_column(server_default=text("0"))
