"""How far each blockchain has been followed, and the last blocks of the branch we are on."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base


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
    #: When the first of the tries failed that have failed ever since; null while following works.
    failing_since: Mapped[datetime | None]
    capabilities: Mapped[dict[str, Any] | None]
    #: Of each node its name (host and port), state, last error and the error's time, in the order of preference.
    nodes: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    blocks_per_second: Mapped[float | None]
    #: What the chain called final last, where that is asked for.
    final_height: Mapped[int | None]


class ScannedBlock(Base):
    """The newest blocks applied, for finding a fork; older ones than any reorganisation we follow are dropped."""

    __tablename__ = "scanned_blocks"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    height: Mapped[int] = mapped_column(primary_key=True)
    block_hash: Mapped[str]
