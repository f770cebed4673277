"""Key rings and the addresses handed out from them. An address belongs to its tenant for ever."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
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

    No foreign keys: checking one locks the parent row, and every new address would meet on the same few parents,
    which are never deleted.
    """

    __tablename__ = "addresses"
    __table_args__ = (Index(None, "tenant_id", "created_at"),)

    key_ring_id: Mapped[str] = mapped_column(primary_key=True)
    address_index: Mapped[int] = mapped_column(primary_key=True)
    match_key: Mapped[str] = mapped_column(unique=True)
    address: Mapped[str]
    tenant_id: Mapped[str]
    payment_method_id: Mapped[str]
    created_at: Mapped[datetime]
