"""What a call cost: its hold closed, the debit, the journal entry and the usage record, in one statement."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, cast
from zlib import crc32

import asyncpg

from keyserver.gateway.errors import HoldClosed, RequestIdUsed
from keyserver.gateway.payer import Payer
from keyserver.gateway.tariff import CostSource
from keyserver.kit.clock import utc_day
from keyserver.kit.db import Connect
from keyserver.kit.grouping import Grouped
from keyserver.kit.ids import new_id
from keyserver.ledger import holds
from keyserver.ledger.chart import revenue_account, tenant_account
from keyserver.ledger.holds import SPENT_IN_MONTH, SPENT_ON_DAY, month_of
from keyserver.ledger.journal import NOTE_CROSSINGS

#: Who names the references of usage entries: each is the id of its hold.
SOURCE = "usage"
#: A request of the holds API is charged once, whatever holds were taken for it.
STATED_ONCE = "uq_usage_records_stated"


class Outcome(StrEnum):
    """How a call ended. All of them are billed for what came."""

    COMPLETED = "completed"
    CLIENT_GONE = "client_gone"
    UPSTREAM_CUT = "upstream_cut"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Metered:
    """What the usage record says of a call."""

    request_id: str
    capability: str
    model: str | None
    upstream: str | None
    input_tokens: int
    output_tokens: int
    units: Decimal | None
    unit_type: str | None
    cost_nanos: int
    charge_nanos: int
    cost_source: CostSource
    started_at: datetime
    duration_ms: int
    first_byte_ms: int | None
    outcome: Outcome
    upstream_status: int | None
    streamed: bool

    def to_json(self) -> str:
        """For the local journal; `from_json` reads it back."""
        return json.dumps(asdict(self), default=str, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Metered":
        fields: dict[str, Any] = json.loads(text)
        return cls(
            **{
                **fields,
                "units": None if fields["units"] is None else Decimal(fields["units"]),
                "cost_source": CostSource(fields["cost_source"]),
                "started_at": datetime.fromisoformat(fields["started_at"]),
                "outcome": Outcome(fields["outcome"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """`replayed`: this hold had been settled before, and these are the figures of then (`available_nanos` of now)."""

    charged_nanos: int
    available_nanos: int
    entry_id: str | None
    replayed: bool


#: A replay finds the record and changes nothing. $1 entry id, $2 now, $3 hold, $4 tenant, $5 charge, $6 whether an
#: expired or lost hold is charged as well.
SETTLE = f"""
    WITH closing AS (
        UPDATE holds SET status = 'posted', late = (status = 'expired'), closed_at = $2
         WHERE id = $3 AND tenant_id = $4 AND (status = 'pending' OR (status = 'expired' AND $6))
        RETURNING late, CASE WHEN late THEN 0 ELSE estimate_nanos END AS released
    ), record AS (
        INSERT INTO usage_records (hold_id, entry_id, tenant_id, settled_at, charge_nanos, key_id, instance_id,
               attributed_tenant_id, request_id, capability, model, upstream, input_tokens, output_tokens, units,
               unit_type, cost_nanos, cost_source, started_at, duration_ms, first_byte_ms, outcome, upstream_status,
               streamed, late)
        SELECT $3, CASE WHEN $5::bigint > 0 THEN $1 END, $4, $2, $5, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
               $25, $26, $27, $28, $29, $30, $31, $32, $33, coalesce(late, true)
          FROM (VALUES (1)) AS always LEFT JOIN closing ON true
         WHERE late IS NOT NULL OR ($6 AND NOT EXISTS (SELECT FROM holds WHERE id = $3))
        ON CONFLICT (hold_id) DO NOTHING
        RETURNING hold_id
    ), input AS (
        SELECT t.*, CASE WHEN owner IS NULL THEN 0 ELSE coalesce(released, 0) END AS released
          FROM record LEFT JOIN closing ON true CROSS JOIN (VALUES
               (1, $7::text, 0::smallint, 'debit', -$5::bigint, $8::text, 'liability', $4::text),
               (2, $9, $10, 'credit', $5, $11, 'revenue', NULL)
          ) AS t (line, code, stripe, side, delta, name, type, owner)
         WHERE owner IS NOT NULL OR $5 > 0
    ), opened AS (
        INSERT INTO accounts (code, name, type, tenant_id)
        SELECT code, name, type, owner FROM input
         WHERE NOT EXISTS (SELECT FROM accounts WHERE accounts.code = input.code)
        ON CONFLICT DO NOTHING
    ), balances AS (
        INSERT INTO account_balances AS b (account_code, stripe, balance_nanos, version, held_nanos, spent_on,
                                           day_spent_nanos, month_spent_nanos)
        SELECT code, stripe, delta, ($5 > 0)::int, released, CASE WHEN owner IS NOT NULL THEN $12::date END,
               greatest(-delta, 0), greatest(-delta, 0)
          FROM input ORDER BY code
        ON CONFLICT (account_code, stripe) DO UPDATE
           SET balance_nanos = b.balance_nanos + excluded.balance_nanos, version = b.version + excluded.version,
               held_nanos = b.held_nanos - excluded.held_nanos, spent_on = greatest(b.spent_on, excluded.spent_on),
               day_spent_nanos = {SPENT_ON_DAY.format(day="excluded.spent_on")} + excluded.day_spent_nanos,
               month_spent_nanos = {SPENT_IN_MONTH.format(month="$13::date")} + excluded.month_spent_nanos
        RETURNING account_code, stripe, balance_nanos, held_nanos, version
    ), entry AS (
        INSERT INTO journal_entries (id, posted_at, type, tenant_id, source, reference_id, description, metadata)
        SELECT $1, $2, 'usage', $4, '{SOURCE}', hold_id, $34, $14::jsonb FROM record WHERE $5 > 0
    ), lines AS (
        INSERT INTO journal_lines
               (entry_id, line, account_code, stripe, side, amount_nanos, balance_after_nanos, account_version)
        SELECT $1, line, code, input.stripe, side, $5,
               CASE WHEN owner IS NOT NULL THEN balance_nanos END, CASE WHEN owner IS NOT NULL THEN version END
          FROM input JOIN balances ON account_code = code AND balances.stripe = input.stripe
         WHERE $5 > 0
    ), {NOTE_CROSSINGS}
    SELECT (SELECT balance_nanos - held_nanos FROM balances WHERE account_code = $7) AS available_nanos
"""  # noqa: S608 - constants

_BEFORE = """
    SELECT charge_nanos, entry_id, balance_nanos - held_nanos
      FROM usage_records LEFT JOIN account_balances ON account_code = $3 AND stripe = 0
     WHERE hold_id = $1 AND tenant_id = $2
"""


async def settle(
    connect: Connect,
    *,
    hold_id: str,
    payer: Payer,
    metered: Metered,
    now: datetime,
    late: bool = True,
    grouped: Grouped | None = None,
) -> Settled:
    """Charges `metered.charge_nanos` and releases the hold, exactly once by hold id; more than was held is charged too.

    A hold that has expired or is lost is charged as well, for the money was spent, and the record says `late`; with
    `late=False` it is not. Raises HoldClosed for a hold that cannot be charged: voided, expired, or another tenant's;
    and RequestIdUsed for a stated cost whose request id was charged under another hold. `grouped` settles calls of one
    tenant together that end at once.
    """
    entry_id = new_id("je")
    arguments = (
        *_posting(payer, metered, entry_id=entry_id, hold_id=hold_id, late=late, now=now),
        *_record(payer, metered),
        f"{metered.capability}: {metered.model}" if metered.model else metered.capability,
    )
    available = await _settle(connect, grouped, payer.tenant_id, arguments)
    if available is not None:
        charged = metered.charge_nanos
        return Settled(charged, available, entry_id if charged else None, replayed=False)
    account = tenant_account(payer.tenant_id)
    async with connect() as connection:
        before = await connection.fetchrow(_BEFORE, hold_id, payer.tenant_id, account.code)
    if before is None:
        raise HoldClosed
    charged, entry, available = before
    return Settled(charged, available, entry, replayed=True)


async def _settle(connect: Connect, grouped: Grouped | None, tenant_id: str, arguments: tuple[Any, ...]) -> int | None:
    """Available credit after it; None when the statement changed nothing."""
    if grouped is not None:
        # One tenant's balance and then one row of revenue, so that two groups never wait for each other in a circle.
        row = await grouped.fetchrow(f"{tenant_id} {arguments[8]}", arguments)
        return cast(int | None, row["available_nanos"])
    async with connect() as connection:
        try:
            return cast(int | None, await connection.fetchval(SETTLE, *arguments))
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != STATED_ONCE:
                raise
            raise RequestIdUsed from None


def _posting(
    payer: Payer,
    metered: Metered,
    *,
    entry_id: str,
    hold_id: str,
    late: bool,
    now: datetime,
) -> tuple[Any, ...]:
    """$1 to $14: the entry, and what it moves."""
    account, revenue = tenant_account(payer.tenant_id), revenue_account(metered.capability)
    day = utc_day(now)
    metadata = {
        "capability": metered.capability,
        "model": metered.model,
        "requestId": metered.request_id,
        "instanceId": payer.instance_id,
        "attributedTo": payer.attributed_tenant_id,
    }
    return (
        entry_id,
        now,
        hold_id,
        payer.tenant_id,
        metered.charge_nanos,
        late,
        account.code,
        account.name,
        revenue.code,
        crc32(payer.tenant_id.encode()) % revenue.stripes,  # always the same: see `_settle`
        revenue.name,
        day,
        month_of(day),
        json.dumps({name: value for name, value in metadata.items() if value is not None}),
    )


def _record(payer: Payer, metered: Metered) -> tuple[Any, ...]:
    """$15 to $33: the usage record."""
    return (
        payer.key_id,
        payer.instance_id,
        payer.attributed_tenant_id,
        metered.request_id,
        metered.capability,
        metered.model,
        metered.upstream,
        metered.input_tokens,
        metered.output_tokens,
        metered.units,
        metered.unit_type,
        metered.cost_nanos,
        metered.cost_source,
        metered.started_at,
        metered.duration_ms,
        metered.first_byte_ms,
        metered.outcome,
        metered.upstream_status,
        metered.streamed,
    )


async def void(connect: Connect, *, hold_id: str, now: datetime) -> None:
    """Gives a pending hold's credit back; nothing when it is closed already."""
    async with connect() as connection:
        await holds.void(connection, hold_id=hold_id, now=now)
