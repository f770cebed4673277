"""How far each blockchain has been followed, and the last blocks of the branch we are on."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base


class Scanner(Base):
    """The cursor of one blockchain: the last block applied. It moves by compare-and-swap on `block_hash`.

    The rest is what an operator wants to see: the node's tip, the last error and how long one block has been failing.
    """

    __tablename__ = "scanners"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    height: Mapped[int]
    block_hash: Mapped[str]
    moved_at: Mapped[datetime]
    tip_height: Mapped[int | None]
    tip_seen_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]


class ScannedBlock(Base):
    """The newest blocks applied, for finding a fork; older ones than any reorganisation we follow are dropped."""

    __tablename__ = "scanned_blocks"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    block_hash: Mapped[str]
