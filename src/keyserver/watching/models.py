"""How far each blockchain has been followed, the last blocks of the branch we are on, and jobs that read them again."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base, Units, Words, words_check


class Scanner(Base):
    """The cursor of one blockchain: the last block applied. It moves by compare-and-swap on `block_hash`."""

    __tablename__ = "scanners"

    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), primary_key=True)
    height: Mapped[int]
    block_hash: Mapped[str]
    moved_at: Mapped[datetime]
    #: The newest block that may hold coin it does not show, until balances have been compared up to there.
    hidden_up_to: Mapped[int | None]


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


class JobKind(StrEnum):
    RESCAN = "rescan"
    AUDIT = "audit"


class JobStatus(StrEnum):
    """`waiting` for a worker or for an older job of its blockchain, `running` since one has begun; the rest is over."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WatchJob(Base):
    """Blocks to be read again in the background. Its progress is here, so that any worker can go on with it.

    A worker holds a job until `leased_until`. That saves work, and nothing rests on it: progress moves from
    `next_height` by compare-and-swap, in the transaction of what was found.
    """

    __tablename__ = "watch_jobs"
    __table_args__ = (
        CheckConstraint(words_check("kind", JobKind), name="kind_known"),
        CheckConstraint(words_check("status", JobStatus), name="status_known"),
        CheckConstraint("from_height IS NOT NULL OR since_at IS NOT NULL", name="begins_somewhere"),
        Index(None, "blockchain_id", "kind", "id"),
        Index("ix_watch_jobs_open", "blockchain_id", "id", postgresql_where=text("finished_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"))
    kind: Mapped[JobKind] = mapped_column(Words(JobKind))
    #: Made by the schedule, not asked for by an operator.
    nightly: Mapped[bool] = mapped_column(server_default=text("false"))
    #: The first height; left out: that of the first block since `since_at`, found when the job begins.
    from_height: Mapped[int | None]
    since_at: Mapped[datetime | None]
    to_height: Mapped[int]
    #: The next height to read; null until the job has begun.
    next_height: Mapped[int | None]
    status: Mapped[JobStatus] = mapped_column(Words(JobStatus), server_default=text("'waiting'"))
    #: Payments recorded by a rescan, differences found by an audit.
    found: Mapped[int] = mapped_column(server_default=text("0"))
    report: Mapped[dict[str, Any] | None]
    #: Why the last try failed; null once one has succeeded.
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    leased_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


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
