"""Holding credit, and what becomes of it: posted, voided, expired; each once, whoever else is at it."""

import asyncio
from datetime import timedelta

import pytest
from tests.gateway.books import NOW, USD, books_are_whole, charge, credit, give, hold, payer
from tests.watching.world import add_tenant

from keyserver.gateway.billing import void
from keyserver.gateway.errors import CreditsExhausted, HoldClosed, InsufficientCredits
from keyserver.kit.db import Database
from keyserver.ledger.holds import expire_due


async def expire(database: Database, *, after: int) -> int:
    async with database.connection() as connection:
        return await expire_due(connection, now=NOW + timedelta(seconds=after))


async def test_a_hold_sets_credit_aside_and_posting_it_charges_what_it_came_to(database: Database) -> None:
    await give(database, 10 * USD)
    placed = await hold(database, 4 * USD)
    assert placed.available_nanos == 6 * USD
    settled = await charge(database, placed, 1 * USD)
    assert (settled.charged_nanos, settled.available_nanos, settled.replayed) == (USD, 9 * USD, False)
    after = await credit(database)
    assert (after.balance_nanos, after.held_nanos) == (9 * USD, 0)
    assert (after.day_spent_nanos, after.month_spent_nanos) == (USD, USD)
    await books_are_whole(database)
