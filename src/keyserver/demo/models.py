"""The simulated chain's own books. Empty outside demo mode."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base, Units


class DemoBlock(Base):
    """Every block ever mined; the branch that counts is the one `canonical` marks."""

    __tablename__ = "demo_blocks"
    __table_args__ = (
        Index("uq_demo_blocks_canonical", "blockchain_id", "height", unique=True, postgresql_where=text("canonical")),
    )

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    block_hash: Mapped[str] = mapped_column(primary_key=True)
    height: Mapped[int]
    parent_hash: Mapped[str]
    mined_at: Mapped[datetime]
    canonical: Mapped[bool]


class DemoTransfer(Base):
    """A payment on the simulated chain; without a block it waits in the mempool."""

    __tablename__ = "demo_transfers"
    __table_args__ = (UniqueConstraint("blockchain_id", "tx_hash", "output_index"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"))
    tx_hash: Mapped[str]
    output_index: Mapped[int]
    asset: Mapped[str]
    address: Mapped[str]
    amount_units: Mapped[int] = mapped_column(Units())
    block_hash: Mapped[str | None]
