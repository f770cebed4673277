"""What the gateway keeps: calls of the last minute, and a record of every call that was billed.

Neither has a foreign key to tenants, whose row every call would lock (see ledger/models.py).
"""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.gateway.billing import Outcome
from keyserver.gateway.capabilities import Group
from keyserver.gateway.tariff import CostSource
from keyserver.kit.orm import Base, Words, words_check


class RateWindow(Base):
    """The calls of one tenant in one group, second by second; see gateway/rate.py for `buckets`.

    `per_minute` is the tenant's own limit, beside what it limits: one row decides.
    """

    __tablename__ = "rate_windows"
    __table_args__ = (
        CheckConstraint(words_check("rate_group", Group), name="group_known"),
        CheckConstraint("per_minute >= 0", name="per_minute_not_negative"),
    )

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    rate_group: Mapped[Group] = mapped_column(Words(Group), primary_key=True)
    per_minute: Mapped[int | None] = mapped_column(Integer)
    head_second: Mapped[int] = mapped_column(server_default=text("0"))
    buckets: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default=text("'{}'"))


class UsageRecord(Base):
    """One billed call. `hold_id` is what makes it one: whoever settles a hold twice finds the first record.

    `settled_at` is the ledger entry's `posted_at`, so that sums by day are the same in both. `late`: its hold had
    expired or was lost, so that the credit was not set aside any more when the debit came.
    """

    __tablename__ = "usage_records"
    __table_args__ = (
        CheckConstraint("cost_nanos >= 0 AND charge_nanos >= 0", name="amounts_not_negative"),
        CheckConstraint(words_check("cost_source", CostSource), name="cost_source_known"),
        CheckConstraint(words_check("outcome", Outcome), name="outcome_known"),
        Index(None, "tenant_id", "settled_at"),
        Index(None, "settled_at"),
        Index(
            "uq_usage_records_stated",
            "tenant_id",
            "request_id",
            unique=True,
            postgresql_where=text("cost_source = 'stated'"),
        ),
    )

    hold_id: Mapped[str] = mapped_column(primary_key=True)
    entry_id: Mapped[str | None]
    tenant_id: Mapped[str]
    key_id: Mapped[str | None]
    instance_id: Mapped[str | None]
    attributed_tenant_id: Mapped[str | None]
    request_id: Mapped[str]
    capability: Mapped[str]
    model: Mapped[str | None]
    upstream: Mapped[str | None]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    units: Mapped[Decimal | None]
    unit_type: Mapped[str | None]
    cost_nanos: Mapped[int]
    charge_nanos: Mapped[int]
    cost_source: Mapped[CostSource] = mapped_column(Words(CostSource))
    started_at: Mapped[datetime]
    settled_at: Mapped[datetime]
    duration_ms: Mapped[int]
    first_byte_ms: Mapped[int | None]
    outcome: Mapped[Outcome] = mapped_column(Words(Outcome))
    upstream_status: Mapped[int | None] = mapped_column(Integer)
    streamed: Mapped[bool]
    late: Mapped[bool] = mapped_column(server_default=text("false"))
