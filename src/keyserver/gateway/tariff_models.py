"""What an operator sets for the gateway: rates with their history, and upstreams."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Index, Integer, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.gateway.tariff import Unit
from keyserver.kit.orm import Base, Words, words_check


class RateRow(Base):
    """A rate from `valid_from` until `valid_to`; in force while that is NULL.

    Rows are added and ended, and nothing else: a trigger of the migration refuses every other change.
    """

    __tablename__ = "rates"
    __table_args__ = (
        CheckConstraint("price_usd BETWEEN 0 AND 10000", name="price_sane"),
        CheckConstraint(words_check("unit", Unit), name="unit_known"),
        CheckConstraint("valid_to >= valid_from", name="validity_in_order"),
        Index(
            "uq_rates_in_force",
            "capability",
            "model",
            "unit",
            "fallback",
            unique=True,
            postgresql_where=text("valid_to IS NULL"),
        ),
        Index(
            "ix_rates_ended",
            "valid_to",
            "id",
            postgresql_where=text("valid_to IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    capability: Mapped[str]
    model: Mapped[str]
    unit: Mapped[Unit] = mapped_column(Words(Unit))
    price_usd: Mapped[Decimal]
    fallback: Mapped[bool]
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]


class UpstreamRow(Base):
    """Rows are disabled, never deleted: usage records name them. The key is encrypted with the master key."""

    __tablename__ = "upstreams"
    __table_args__ = (
        CheckConstraint("margin > 0 AND margin <= 100", name="margin_sane"),
        CheckConstraint("connect_timeout_seconds > 0 AND idle_timeout_seconds > 0", name="timeouts_positive"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    base_url: Mapped[str]
    api_key_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    models: Mapped[list[str]] = mapped_column(ARRAY(Text))
    margin: Mapped[Decimal | None]
    priority: Mapped[int] = mapped_column(Integer)
    connect_timeout_seconds: Mapped[float]
    idle_timeout_seconds: Mapped[float]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime]
