"""`credits.low`, `credits.exhausted`, `credits.top_up_due`: a crossing of the ledger becomes an event in the outbox.

The posting that crossed wrote the crossing down in its own statement; here it is handed on, once, in a transaction that
takes it away and writes the delivery.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.kit.clock import iso_z
from keyserver.kit.money import format_nanos
from keyserver.ledger.models import CreditCrossing, CreditTerms, CrossingKind
from keyserver.webhooks.outbox import enqueue

#: Crossings handed on in one transaction.
BATCH = 100


async def tell_crossings(session: AsyncSession, *, top_up_url: str | None, now: datetime) -> int:
    """Enqueues what was crossed, oldest first; returns how many. A tenant without a callback URL is not told."""
    query = (
        select(CreditCrossing, CreditTerms)
        .outerjoin(CreditTerms, CreditTerms.tenant_id == CreditCrossing.tenant_id)
        .order_by(CreditCrossing.id)
        .limit(BATCH)
        .with_for_update(of=CreditCrossing, skip_locked=True)
    )
    found: list[tuple[CreditCrossing, CreditTerms | None]] = [
        (each[0], each[1]) for each in await session.execute(query)
    ]
    for crossing, terms in found:
        if terms is not None and terms.callback_url is not None:
            await enqueue(
                session,
                tenant_id=crossing.tenant_id,
                signing_tenant_id=crossing.tenant_id,
                subject_id=f"credits:{crossing.tenant_id}",
                sequence=crossing.id,
                type=f"credits.{crossing.kind}",
                url=terms.callback_url,
                payload=_payload(crossing, terms, top_up_url=top_up_url),
                now=now,
            )
    await session.execute(delete(CreditCrossing).where(CreditCrossing.id.in_([each.id for each, _ in found])))
    return len(found)


def _payload(crossing: CreditCrossing, terms: CreditTerms, *, top_up_url: str | None) -> dict[str, Any]:
    due = crossing.kind is CrossingKind.TOP_UP_DUE and terms.top_up_amount_nanos is not None
    return {
        "type": f"credits.{crossing.kind}",
        "timestamp": iso_z(crossing.crossed_at),
        "sequence": crossing.id,
        "tenantId": crossing.tenant_id,
        "balanceNanodollars": str(crossing.balance_nanos),
        "balanceUsd": format_nanos(crossing.balance_nanos),
        "thresholdUsd": format_nanos(crossing.threshold_nanos),
        "entryId": crossing.entry_id,
        "topUpUrl": top_up_url,
        **({"amountUsd": format_nanos(terms.top_up_amount_nanos or 0)} if due else {}),
    }
