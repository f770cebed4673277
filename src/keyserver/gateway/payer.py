"""Who pays for a call: the key's tenant, or the one a platform service names.

- `X-Tenant-Id`, with a key of a platform service, names the tenant that pays itself (made on first use).
- `X-Attribute-To`, with such a key alone, names a tenant on whose behalf the platform service pays.

One call has one payer and at most one beneficiary: both headers at once, or one of them twice, say nothing clear about
money and are refused.
"""

import re
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from keyserver.access.deps import owner_of
from keyserver.access.errors import OtherTenant
from keyserver.access.keys import KeyOwner
from keyserver.access.models import TenantType
from keyserver.access.tenants import KnownTenants
from keyserver.gateway.errors import AttributionNotAllowed, KeyRefused
from keyserver.kit.problems import BadRequest, Unauthorized

_TENANT_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Payer:
    """`unlimited`: a platform service, never refused for credit or caps, and debited all the same.

    `attributed_tenant_id` is on whose behalf a platform service pays.
    """

    tenant_id: str
    unlimited: bool
    key_id: str | None
    instance_id: str | None
    attributed_tenant_id: str | None


async def payer_of(request: Request) -> Payer:
    """Who pays; raises KeyRefused (401), Forbidden (403) or BadRequest (400) for every wrong use of the headers."""
    owner = await _owner(request)
    tenants = cast(KnownTenants, request.app.state.known_tenants)
    named = _one(request, "X-Tenant-Id", code="invalid_tenant_id")
    attributed = _one(request, "X-Attribute-To", code="invalid_attribution")
    tenant_id, kind = await _tenant(tenants, owner, named)
    if attributed is not None:
        await _check_attribution(tenants, owner, attributed, paying=tenant_id)
    request.scope["state"]["tenant"] = tenant_id
    return Payer(
        tenant_id=tenant_id,
        unlimited=kind is TenantType.PLATFORM_SERVICE,
        key_id=owner.key_id,
        instance_id=owner.instance_id,
        attributed_tenant_id=attributed,
    )


async def _owner(request: Request) -> KeyOwner:
    header = request.headers.get("authorization", "").strip()
    if not header:
        raise KeyRefused("Send your API key in the Authorization header: `Bearer ks_…`", code="missing_api_key")
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise KeyRefused("The Authorization header must be `Bearer`, a space and the key", code="invalid_auth_format")
    try:
        return await owner_of(request)
    except Unauthorized:
        raise KeyRefused("This API key is not known, has expired or was revoked", code="invalid_api_key") from None


def _one(request: Request, header: str, *, code: str) -> str | None:
    """The header's one value; None when it is not there (for X-Tenant-Id also when it is empty, as elsewhere)."""
    values = request.headers.getlist(header)
    if not values or (values == [""] and header == "X-Tenant-Id"):
        return None
    if len(values) > 1 or not _TENANT_ID.fullmatch(values[0]):
        raise BadRequest(f"{header} must be one tenant id of 1 to 128 visible ASCII characters", code=code)
    return values[0]


async def _tenant(tenants: KnownTenants, owner: KeyOwner, named: str | None) -> tuple[str, TenantType]:
    if named is None or named == owner.tenant_id:
        return owner.tenant_id, owner.tenant_type
    if owner.tenant_type is not TenantType.PLATFORM_SERVICE:
        raise OtherTenant
    await tenants.ensure(named)
    kind = await tenants.type_of(named)
    assert kind is not None
    return named, kind


async def _check_attribution(tenants: KnownTenants, owner: KeyOwner, attributed: str, *, paying: str) -> None:
    if owner.tenant_type is not TenantType.PLATFORM_SERVICE:
        raise AttributionNotAllowed
    if paying != owner.tenant_id:
        raise BadRequest(
            "X-Tenant-Id bills another tenant already: send either it or X-Attribute-To", code="ambiguous_attribution"
        )
    if await tenants.type_of(attributed) is None:
        raise BadRequest("X-Attribute-To names no tenant", code="unknown_attribution")
