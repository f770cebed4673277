"""What an operator sees of deliveries, and sending one again."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.webhooks.errors import DeliveryNotFound
from keyserver.webhooks.models import DeliveryStatus, WebhookAttempt, WebhookDelivery


@dataclass(frozen=True, slots=True)
class Filter:
    """What to list; None leaves a question open. `subject_id` is the charge's id."""

    status: DeliveryStatus | None = None
    tenant_id: str | None = None
    subject_id: str | None = None


async def list_deliveries(
    session: AsyncSession, *, wanted: Filter, before: tuple[datetime, str] | None, limit: int
) -> list[WebhookDelivery]:
    """Newest first; `before` is `(created_at, id)` of the last one seen."""
    query = select(WebhookDelivery).order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc()).limit(limit)
    if wanted.status is not None:
        query = query.where(WebhookDelivery.status == wanted.status)
    if wanted.tenant_id is not None:
        query = query.where(WebhookDelivery.tenant_id == wanted.tenant_id)
    if wanted.subject_id is not None:
        query = query.where(WebhookDelivery.subject_id == wanted.subject_id)
    if before is not None:
        query = query.where(tuple_(WebhookDelivery.created_at, WebhookDelivery.id) < before)
    return list(await session.scalars(query))


async def get_delivery(session: AsyncSession, delivery_id: str) -> WebhookDelivery:
    delivery = await session.get(WebhookDelivery, delivery_id)
    if delivery is None:
        raise DeliveryNotFound
    return delivery


async def attempts_of(session: AsyncSession, delivery_id: str) -> list[WebhookAttempt]:
    """Every attempt ever made at it, the first one first."""
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id).order_by(WebhookAttempt.attempt)
    return list(await session.scalars(query))


async def redeliver(session: AsyncSession, delivery_id: str, *, now: datetime) -> WebhookDelivery:
    """Due now with the same id, whatever became of it before; its retry schedule starts anew.

    A call that is under way just now may still be recorded; the receiver knows a second one by its id.
    """
    again = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id)
        .values(status=DeliveryStatus.PENDING, attempts=0, next_attempt_at=now, finished_at=None)
    )
    returning = again.returning(WebhookDelivery).execution_options(populate_existing=True)
    delivery = (await session.scalars(returning)).one_or_none()
    if delivery is None:
        raise DeliveryNotFound
    return delivery


async def backlog(session: AsyncSession, *, now: datetime) -> list[tuple[str, str, list[tuple[dict[str, str], float]]]]:
    """Gauges for `kit.metrics.render`: deliveries due and not yet taken, and how long the first has been."""
    due = select(func.count(), func.coalesce(func.min(WebhookDelivery.next_attempt_at), now)).where(
        WebhookDelivery.status == DeliveryStatus.PENDING, WebhookDelivery.next_attempt_at <= now
    )
    count, since = (await session.execute(due)).one()
    age = (now - since).total_seconds()
    return [
        ("keyserver_webhooks_due", "Webhook deliveries that are due and wait for a slot", [({}, float(count))]),
        ("keyserver_webhooks_due_age_seconds", "How long the longest due webhook has waited", [({}, age)]),
    ]
