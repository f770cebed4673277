"""Wire shapes of tenants and keys."""

from typing import Any

from pydantic import AwareDatetime, Field

from keyserver.access.models import TenantType
from keyserver.kit.wire import Body, Identifier, Instant, JsonObject, ShortText, View


class NewTenant(Body):
    id: Identifier | None = None
    name: ShortText
    slug: Identifier | None = None
    type: TenantType
    owner_id: ShortText | None = None
    billing_email: ShortText | None = None
    metadata: JsonObject = Field(default_factory=dict)


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


__all__ = ["CreatedKey", "KeyList", "KeyView", "NewKey", "NewTenant", "TenantPage", "TenantView"]
