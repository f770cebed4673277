"""Posting: an entry, its lines and the balances they move, in one statement.

Balance rows are locked in the order of their account codes, whatever the order of the lines, so that two postings
never wait for each other in a circle. A row that is not there yet is made by the statement that first moves it.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from keyserver.kit.db import Connection
from keyserver.kit.ids import new_id
from keyserver.ledger.chart import AccountSpec
from keyserver.ledger.models import EntryType, Side


@dataclass(frozen=True, slots=True)
class Line:
    account: AccountSpec
    side: Side
    amount_nanos: int

    @property
    def delta_nanos(self) -> int:
        return self.amount_nanos if self.side is self.account.normal_side else -self.amount_nanos


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened, for whom, and under whose name: `(source, reference_id)` is posted once, ever."""

    type: EntryType
    tenant_id: str
    source: str
    reference_id: str
    lines: Sequence[Line]
    posted_at: datetime
    description: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def transfer(*, debit: AccountSpec, credit: AccountSpec, amount_nanos: int) -> tuple[Line, Line]:
    """The two lines of moving an amount from one account to another."""
    return Line(debit, Side.DEBIT, amount_nanos), Line(credit, Side.CREDIT, amount_nanos)


POST = """
    WITH input AS (
        SELECT * FROM unnest($9::text[], $10::smallint[], $11::text[], $12::bigint[], $13::bigint[],
                             $14::text[], $15::text[], $16::text[])
            WITH ORDINALITY AS t (code, stripe, side, amount, delta, name, type, owner, line)
    ), opened AS (
        INSERT INTO accounts (code, name, type, tenant_id)
        SELECT DISTINCT ON (code) code, name, type, owner FROM input
         WHERE NOT EXISTS (SELECT FROM accounts WHERE accounts.code = input.code)
        ON CONFLICT DO NOTHING
    ), balances AS (
        INSERT INTO account_balances AS b (account_code, stripe, balance_nanos, version)
        SELECT code, stripe, sum(delta), 1 FROM input GROUP BY code, stripe ORDER BY code, stripe
        ON CONFLICT (account_code, stripe) DO UPDATE
           SET balance_nanos = b.balance_nanos + excluded.balance_nanos, version = b.version + 1
        RETURNING account_code, stripe, balance_nanos, version
    ), entry AS (
        INSERT INTO journal_entries (id, posted_at, type, tenant_id, source, reference_id, description, metadata)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb)
    ), lines AS (
        INSERT INTO journal_lines
               (entry_id, line, account_code, stripe, side, amount_nanos, balance_after_nanos, account_version)
        SELECT $1, line, code, input.stripe, side, amount,
               CASE WHEN owner IS NOT NULL THEN balance_nanos END, CASE WHEN owner IS NOT NULL THEN version END
          FROM input JOIN balances ON account_code = code AND balances.stripe = input.stripe
    )
    SELECT account_code, balance_nanos FROM balances
"""


async def post(connection: Connection, entry: Entry, *, pick: random.Random = random.Random()) -> str:  # noqa: B008, S311
    """Posts the entry, in the transaction the connection is in (or as one statement of its own); returns its id.

    Raises asyncpg's UniqueViolationError when `(source, reference_id)` is posted already, and, at commit,
    CheckViolationError when the lines do not balance.
    """
    entry_id = new_id("je")
    stripes = [pick.randrange(line.account.stripes) for line in entry.lines]
    await connection.execute(
        POST,
        entry_id,
        entry.posted_at,
        entry.type,
        entry.tenant_id,
        entry.source,
        entry.reference_id,
        entry.description,
        json.dumps(entry.metadata),
        [line.account.code for line in entry.lines],
        stripes,
        [line.side for line in entry.lines],
        [line.amount_nanos for line in entry.lines],
        [line.delta_nanos for line in entry.lines],
        [line.account.name for line in entry.lines],
        [line.account.type for line in entry.lines],
        [line.account.tenant_id for line in entry.lines],
    )
    return entry_id
