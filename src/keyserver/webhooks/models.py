"""The outbox: what has to be told, to whom, and every attempt at telling it."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base, Words, words_check


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class SigningSecret(Base):
    """Which version of a tenant's webhook secret signs. Secrets are derived from the master key, never stored.

    No row means version 1. For 24 h after a rotation the version before it signs too.
    """

    __tablename__ = "webhook_secrets"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    rotated_at: Mapped[datetime]


class WebhookDelivery(Base):
    """One event for one receiver. `receiver` (scheme, host, port) is what one bad endpoint is isolated by.

    `next_attempt_at` is also the claim: a dispatcher moves it beyond its own time-out before it calls, so that a
    killed process's delivery becomes due again by itself.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint(words_check("status", DeliveryStatus), name="status_known"),
        UniqueConstraint("subject_id", "sequence"),
        Index("ix_webhook_deliveries_due", "next_attempt_at", postgresql_where=text("status = 'pending'")),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    signing_tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    subject_id: Mapped[str]
    sequence: Mapped[int]
    type: Mapped[str]
    url: Mapped[str]
    receiver: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[DeliveryStatus] = mapped_column(Words(DeliveryStatus), server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_attempt_at: Mapped[datetime]
    last_status_code: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class WebhookAttempt(Base):
    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    attempted_at: Mapped[datetime]
    duration_ms: Mapped[int] = mapped_column(Integer)
    status_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None]
