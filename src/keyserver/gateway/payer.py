"""Who pays for a call: the key's tenant, or the one a platform service names."""

from dataclasses import dataclass

from fastapi import Request


@dataclass(frozen=True, slots=True)
class Payer:
    """`unlimited`: a platform service, never refused for credit or caps, and debited all the same.

    `attributed_tenant_id` is whom a platform service paid for (`X-Attribute-To`).
    """

    tenant_id: str
    unlimited: bool
    key_id: str | None
    instance_id: str | None
    attributed_tenant_id: str | None


async def payer_of(request: Request) -> Payer:
    """Who pays; raises KeyRefused (401), Forbidden (403) or BadRequest (400) for every wrong use of the headers."""
    raise NotImplementedError
