"""Time passing: charges whose deadline has come are reassessed, in small batches, by whichever process is first."""

from sqlalchemy import select

from keyserver.charges.models import Charge
from keyserver.charges.reassessment import reassess
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database

BATCH = 200


async def expire_due(database: Database, *, clock: Clock) -> int:
    """Reassesses up to a batch of charges whose deadline has come; returns how many: a full batch means more."""
    now = clock()
    async with database.transaction() as session:
        due = (
            select(Charge)
            .where(Charge.deadline_at <= now)
            .order_by(Charge.deadline_at)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        charges = list(await session.scalars(due))
        await reassess(session, charges, now=now)
        return len(charges)
