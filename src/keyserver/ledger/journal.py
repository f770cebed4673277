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
from keyserver.ledger.chart import AccountSpec, tenant_account
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


#: What a posting statement notes when it takes a tenant's balance over a threshold. In that statement `input` has the
#: code, stripe, delta and owner of each line, and `balances` the rows as they are now, which it has locked.
NOTE_CROSSINGS = """
    crossed AS (
        INSERT INTO credit_crossings (tenant_id, kind, threshold_nanos, balance_nanos, entry_id, crossed_at)
        SELECT owner, kind, threshold, balance_nanos, $1, $2
          FROM input JOIN balances ON account_code = code AND balances.stripe = input.stripe
               LEFT JOIN credit_terms ON credit_terms.tenant_id = owner
               CROSS JOIN LATERAL (VALUES ('low', low_balance_nanos), ('top_up_due', top_up_below_nanos),
                                          ('exhausted', 0)) AS watched (kind, threshold)
         WHERE owner IS NOT NULL AND delta < 0 AND balance_nanos <= threshold AND balance_nanos - delta > threshold
    )
"""

POST = f"""
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
        INSERT INTO account_balances AS b (account_code, stripe, balance_nanos, version, credited)
        SELECT code, stripe, sum(delta), 1, bool_or(owner IS NOT NULL AND delta > 0)
          FROM input GROUP BY code, stripe ORDER BY code, stripe
        ON CONFLICT (account_code, stripe) DO UPDATE
           SET balance_nanos = b.balance_nanos + excluded.balance_nanos, version = b.version + 1,
               credited = b.credited OR excluded.credited
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
    ), {NOTE_CROSSINGS}
    SELECT account_code, balance_nanos FROM balances
"""  # noqa: S608 - a constant


async def post(connection: Connection, entry: Entry, *, pick: random.Random = random.Random()) -> str:  # noqa: B008, S311
    """Posts the entry, in the transaction the connection is in (or as one statement of its own); returns its id.

    Raises asyncpg's UniqueViolationError when `(source, reference_id)` is posted already or when two lines are of one
    tenant's account, and, at commit, CheckViolationError when the lines do not balance.
    """
    return await _post(connection, entry, _stripes(entry, pick))


async def post_all(
    connection: Connection,
    entries: Sequence[Entry],
    *,
    pick: random.Random = random.Random(),  # noqa: B008, S311
) -> list[str]:
    """Posts several entries in the caller's transaction; returns their ids. Raises what `post` raises.

    Their balances are locked together first, in the order every posting locks in: one after the other, the second
    entry could wait for a balance while the first one's is waited for.
    """
    stripes = [_stripes(entry, pick) for entry in entries]
    if len(entries) > 1:
        moved = {
            (line.account.code, stripe)
            for entry, chosen in zip(entries, stripes, strict=True)
            for line, stripe in zip(entry.lines, chosen, strict=True)
        }
        accounts = {line.account.code: line.account for entry in entries for line in entry.lines}
        await _lock(connection, moved, list(accounts.values()))
    return [await _post(connection, entry, chosen) for entry, chosen in zip(entries, stripes, strict=True)]


def _stripes(entry: Entry, pick: random.Random) -> list[int]:
    return [pick.randrange(line.account.stripes) for line in entry.lines]


_LOCK = """
    WITH opened AS (
        INSERT INTO accounts (code, name, type, tenant_id)
        SELECT * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS t (code, name, type, owner)
         WHERE NOT EXISTS (SELECT FROM accounts WHERE accounts.code = t.code) ORDER BY code
        ON CONFLICT DO NOTHING
    ), locked AS (
        INSERT INTO account_balances AS b (account_code, stripe)
        SELECT * FROM unnest($1::text[], $2::smallint[]) AS t (code, stripe) ORDER BY code, stripe
        ON CONFLICT (account_code, stripe) DO UPDATE SET version = b.version
        RETURNING 1
    )
    SELECT count(*) FROM locked
"""


async def _lock(connection: Connection, moved: set[tuple[str, int]], accounts: Sequence[AccountSpec]) -> None:
    await connection.fetchval(
        _LOCK,
        [code for code, _ in moved],
        [stripe for _, stripe in moved],
        [account.code for account in accounts],
        [account.name for account in accounts],
        [account.type for account in accounts],
        [account.tenant_id for account in accounts],
    )


async def open_tenant_account(connection: Connection, tenant_id: str) -> None:
    """The tenant's account and its balance row are there from here on, with nothing in it unless something was."""
    account = tenant_account(tenant_id)
    await _lock(connection, {(account.code, 0)}, [account])


async def _post(connection: Connection, entry: Entry, stripes: Sequence[int]) -> str:
    entry_id = new_id("je")
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
