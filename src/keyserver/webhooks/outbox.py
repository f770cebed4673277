"""Writing down what has to be told, in the transaction of the fact itself."""

from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.kit.egress import origin
from keyserver.kit.ids import new_id
from keyserver.webhooks.models import WebhookDelivery


async def enqueue(
    session: AsyncSession,
    *,
    tenant_id: str,
    signing_tenant_id: str,
    subject_id: str,
    sequence: int,
    type: str,  # noqa: A002 - the wire's word
    url: str,
    payload: dict[str, Any],
    now: datetime,
) -> None:
    """One event for one receiver, due at once; goes out if and only if the caller's transaction commits.

    `url` has passed `EgressPolicy.check_url`. `payload` is the JSON body, under 20 kB. A second event with the same
    `(subject_id, sequence)` is an IntegrityError: the caller numbers its changes under a lock.
    """
    await session.execute(
        insert(WebhookDelivery).values(
            id=new_id("whd", now_ms=lambda: int(now.timestamp() * 1000)),
            tenant_id=tenant_id,
            signing_tenant_id=signing_tenant_id,
            subject_id=subject_id,
            sequence=sequence,
            type=type,
            url=url,
            receiver=origin(url),
            payload=payload,
            next_attempt_at=now,
            created_at=now,
        )
    )
