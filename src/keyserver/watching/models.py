"""How far each blockchain has been followed, and the last blocks of the branch we are on."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base, Units


class Scanner(Base):
    """The cursor of one blockchain: the last block applied. It moves by compare-and-swap on `block_hash`."""

    __tablename__ = "scanners"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    height: Mapped[int]
    block_hash: Mapped[str]
    moved_at: Mapped[datetime]


class NodeReport(Base):
    """What an operator wants to know of a blockchain's node: there from the first try, whether it worked or not."""

    __tablename__ = "node_reports"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    tip_height: Mapped[int | None]
    tip_seen_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]
    capabilities: Mapped[dict[str, Any] | None]


class ScannedBlock(Base):
    """The newest blocks applied, for finding a fork; older ones than any reorganisation we follow are dropped."""

    __tablename__ = "scanned_blocks"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    block_hash: Mapped[str]


class AccountCheck(Base):
    """How far the coin that reached an address of ours is accounted for by comparing balances.

    Up to `height` every unit is either a recorded payment or was found to be one; `balance_units` and `nonce` are what
    the account held there, null when that block's hash is known but has to be asked anew (after a fork).
    """

    __tablename__ = "account_checks"
    __table_args__ = (
        Index(
            "ix_account_checks_watched",
            "blockchain_id",
            "watched_until",
            postgresql_where=text("watched_until IS NOT NULL"),
        ),
    )

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    match_key: Mapped[str] = mapped_column(primary_key=True)
    height: Mapped[int]
    block_hash: Mapped[str]
    balance_units: Mapped[int | None] = mapped_column(Units())
    nonce: Mapped[int | None]
    #: Until then it is looked at with every block: a charge there waits for this coin, or did lately.
    watched_until: Mapped[datetime | None]


class AccountRound(Base):
    """The address looked at last in the round through all that were handed out."""

    __tablename__ = "account_rounds"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    key_ring_id: Mapped[str]
    address_index: Mapped[int]
