"""Who is calling: the guard of the product routes and the guard of the admin routes."""

import hmac
import re
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from keyserver.access.errors import AdminDisabled, OtherTenant
from keyserver.access.keys import KeyOwner, KeyRing, digest
from keyserver.access.models import TenantType
from keyserver.access.tenants import KnownTenants
from keyserver.kit.problems import BadRequest, Unauthorized

_TENANT_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant_id` is acted for; `key_tenant_id` owns the key (another one only when a platform service acts)."""

    tenant_id: str
    key_tenant_id: str
    instance_id: str | None


def bearer_token(request: Request) -> str:
    """The token of `Authorization: Bearer …` (RFC 6750); Unauthorized when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized
    return token.strip()


async def owner_of(request: Request) -> KeyOwner:
    """Whose key this is. Raises Unauthorized."""
    owner = await cast(KeyRing, request.app.state.keys).owner(bearer_token(request))
    if owner is None:
        raise Unauthorized
    return owner


async def caller_of(request: Request) -> Caller:
    owner = await owner_of(request)
    tenant_id = request.headers.get("x-tenant-id") or owner.tenant_id
    if tenant_id != owner.tenant_id:
        if owner.tenant_type is not TenantType.PLATFORM_SERVICE:
            raise OtherTenant
        if not _TENANT_ID.fullmatch(tenant_id):
            raise BadRequest("X-Tenant-Id must be 1 to 128 visible ASCII characters", code="invalid_tenant_id")
        await cast(KnownTenants, request.app.state.known_tenants).ensure(tenant_id)
    request.scope["state"]["tenant"] = tenant_id
    return Caller(tenant_id=tenant_id, key_tenant_id=owner.tenant_id, instance_id=owner.instance_id)


async def require_admin(request: Request) -> None:
    expected: str | None = request.app.state.admin_token
    if not expected:
        raise AdminDisabled
    if not hmac.compare_digest(digest(bearer_token(request)), digest(expected)):
        raise Unauthorized


Authenticated = Annotated[Caller, Depends(caller_of)]
#: For an admin router's `dependencies`.
Admin = Depends(require_admin)
