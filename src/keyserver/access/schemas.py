"""Wire shapes of tenants and keys."""

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator

from keyserver.access.models import TenantType
from keyserver.kit.wire import Body, Identifier, Instant, JsonObject, ShortText, View


class Tier(StrEnum):
    """What a platform service's spending is for: kept in its metadata, for reports."""

    INTERNAL = "internal"
    DEMO = "demo"
    TESTING = "testing"


class NewTenant(Body):
    """A `platform_service` is owned by the system: it has no owner and no billing e-mail, and a tier."""

    id: Identifier | None = None
    name: ShortText
    slug: Identifier | None = None
    type: TenantType
    owner_id: ShortText | None = None
    billing_email: ShortText | None = None
    metadata: JsonObject = Field(default_factory=dict, validate_default=True)

    @field_validator("owner_id", "billing_email")
    @classmethod
    def _not_of_a_platform_service(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("type") is TenantType.PLATFORM_SERVICE:
            raise ValueError("must be left out: a platform_service is owned by the system")
        return value

    @field_validator("metadata")
    @classmethod
    def _with_a_known_tier(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if info.data.get("type") is not TenantType.PLATFORM_SERVICE:
            return value
        tier = value.get("tier", Tier.INTERNAL)
        if tier not in list(Tier):
            raise ValueError(f"tier must be one of {', '.join(Tier)}")
        return {**value, "tier": str(tier)}


class TenantView(View):
    id: str
    name: str
    slug: str | None
    type: TenantType
    owner_id: str | None
    billing_email: str | None
    metadata: dict[str, Any] = Field(validation_alias="metadata_")
    created_at: Instant


class TenantPage(View):
    tenants: list[TenantView]
    next_cursor: str | None


class NewKey(Body):
    instance_id: ShortText | None = None
    expires_at: AwareDatetime | None = None


class Rotation(Body):
    """`overlap_seconds`: how long the old key goes on working; 0 ends it at once. `expires_at` is the new key's."""

    overlap_seconds: int = Field(86_400, ge=0, le=31 * 86_400)
    expires_at: AwareDatetime | None = None


class KeyView(View):
    id: str
    prefix: str
    tenant_id: str
    instance_id: str | None
    expires_at: Instant | None
    revoked_at: Instant | None
    created_at: Instant


class KeyList(View):
    keys: list[KeyView]


class CreatedKey(View):
    """`key` is shown here and never again."""

    id: str
    key: str
    prefix: str
    tenant_id: str
    instance_id: str | None
    expires_at: Instant | None


class RotatedKey(CreatedKey):
    """The old key works until `replaces_until`."""

    replaces: str
    replaces_until: Instant


__all__ = ["CreatedKey", "KeyList", "KeyView", "NewKey", "NewTenant", "TenantPage", "TenantView"]
