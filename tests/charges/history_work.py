"""What operators do in a history, and what a chain is set up with."""

import contextlib
from collections.abc import Sequence

from sqlalchemy import text
from tests.watching.world import BLOCKCHAIN, World, method

from keyserver.addresses.models import LookaheadAddress
from keyserver.chains.models import Blockchain, Finality
from keyserver.charges import unmatched
from keyserver.charges.unmatched import WantedCredit
from keyserver.kit.problems import Problem


async def watch_ahead(world: World, match_keys: Sequence[str]) -> None:
    """These are addresses of the ring that nobody was given."""
    ahead = [
        LookaheadAddress(key_ring_id="ring", spelling="", address_index=n, match_key=key, address=key.upper())
        for n, key in enumerate(match_keys, 100)
    ]
    async with world.database.transaction() as session:
        await session.execute(text("CREATE SEQUENCE none MINVALUE 0 START 0"))
        session.add_all(ahead)


async def decide_by(world: World, finality: Finality) -> None:
    async with world.database.transaction() as session:
        (await session.get_one(Blockchain, BLOCKCHAIN)).finality = finality


async def register_token(world: World, asset: str) -> None:
    async with world.database.transaction() as session:
        session.add(method("NEW", "NEW", asset))


async def operate(world: World, pick: int, dollars: int | None) -> None:
    """Credits one of the payments by hand, with so many dollars or (0) at the market's price, or (None) dismisses it.

    What cannot be done, because of what the payment is by now, is refused and changes nothing.
    """
    payments = await world.payments()
    if not payments:
        return
    payment, now = payments[pick % len(payments)], world.clock()
    with contextlib.suppress(Problem):
        async with world.database.transaction() as session:
            if dollars is None:
                await unmatched.dismiss(session, payment.id, reason="dust", request_id="r", now=now)
                return
            tenant_id = "acme" if payment.tenant_id is None else None
            wanted = WantedCredit(tenant_id, None, dollars * 10**9 or None, "asked for")
            await unmatched.credit_by_hand(session, payment.id, wanted, market=world.market, request_id="r", now=now)
