"""Who may call: tenants, their service keys, and the answers kept for idempotent retries."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base, Words, words_check


class TenantType(StrEnum):
    PERSONAL = "personal"
    ORG = "org"
    PLATFORM_SERVICE = "platform_service"


class Tenant(Base):
    __tablename__ = "tenants"
    __table_args__ = (CheckConstraint(words_check("type", TenantType), name="type_known"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    slug: Mapped[str | None] = mapped_column(unique=True)
    type: Mapped[TenantType] = mapped_column(Words(TenantType))
    owner_id: Mapped[str | None]
    billing_email: Mapped[str | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'::jsonb"), default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class ServiceKey(Base):
    """A key is found by the SHA-256 of the whole of it; the key itself is shown once and kept nowhere."""

    __tablename__ = "service_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    instance_id: Mapped[str | None]
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    prefix: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class IdempotentAnswer(Base):
    """The first answer to an `Idempotency-Key`, encrypted (some answers hold a secret), written with its effect."""

    __tablename__ = "idempotent_answers"
    __table_args__ = (Index(None, "created_at"),)

    scope: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int] = mapped_column(SmallInteger)
    body_encrypted: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class SystemSecret(Base):
    """The master key, when the operator set none: kept beside what it protects, which is weaker, and logged as such."""

    __tablename__ = "system_secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
