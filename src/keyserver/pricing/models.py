"""What each source last said, what an operator pinned, and when each source is asked next."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import ARRAY, CheckConstraint, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base


class PriceObservation(Base):
    """The newest price of one token from one source: dollars for one whole coin.

    `changed_at` is when the source first said this price; NULL when it said so before we kept that.
    """

    __tablename__ = "price_observations"
    __table_args__ = (CheckConstraint("price_usd > 0", name="price_positive"),)

    token: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    price_usd: Mapped[Decimal]
    observed_at: Mapped[datetime]
    changed_at: Mapped[datetime | None]


class PricePin(Base):
    __tablename__ = "price_pins"
    __table_args__ = (CheckConstraint("price_usd > 0", name="price_positive"),)

    token: Mapped[str] = mapped_column(primary_key=True)
    price_usd: Mapped[Decimal]
    pinned_at: Mapped[datetime]


class PriceSourceState(Base):
    """One row a source: the processes share its clock, so that a source is asked once a tick, not once a process.

    `left_out`: tokens that its last answer had no price of, though it was asked for them.
    """

    __tablename__ = "price_sources"

    source: Mapped[str] = mapped_column(primary_key=True)
    next_fetch_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    last_success_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]
    left_out: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
