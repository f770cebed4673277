"""Whose an address is that a chain shows: handed out, or about to be.

Whoever pays an address before it was handed out spends its index: it gets its row in `addresses` without a tenant, in
the transaction that records the payment, and from then on the primary key refuses every caller who was dealt it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import ARRAY, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.lookahead import issue_beyond
from keyserver.addresses.models import Address, KeyRing

_log = structlog.get_logger("keyserver.addresses")

_OURS = text("""
    SELECT match_key FROM addresses WHERE match_key = ANY(:match_keys)
    UNION ALL SELECT match_key FROM lookahead_addresses WHERE match_key = ANY(:match_keys)
""")

_OWNERS = text("""
    SELECT key_ring_id, address_index, match_key, address, tenant_id, payment_method_id,
           TRUE AS spent, tenant_id IS NOT NULL AS handed_out
      FROM addresses WHERE match_key = ANY(:match_keys)
    UNION ALL
    SELECT ahead.key_ring_id, ahead.address_index, ahead.match_key, ahead.address, a.tenant_id, a.payment_method_id,
           a.key_ring_id IS NOT NULL, FALSE
      FROM lookahead_addresses ahead
      LEFT JOIN addresses a ON a.key_ring_id = ahead.key_ring_id AND a.address_index = ahead.address_index
     WHERE ahead.match_key = ANY(:match_keys) AND a.match_key IS DISTINCT FROM ahead.match_key
""")


@dataclass(frozen=True, slots=True)
class Owned:
    """An address of ours. `tenant_id` is who was given its index, None when nobody was.

    `handed_out` says that it was given in this very spelling; `spent` that the index has its row and is never dealt
    again. `payment_method_id` is the one it was asked for.
    """

    key_ring_id: str
    address_index: int
    match_key: str
    address: str
    tenant_id: str | None
    payment_method_id: str | None
    spent: bool
    handed_out: bool


async def ours_among(session: AsyncSession, match_keys: Collection[str]) -> frozenset[str]:
    """Those of these addresses that are ours, handed out or watched ahead; nothing changes."""
    if not match_keys:
        return frozenset()
    one_array = bindparam("match_keys", sorted(match_keys), ARRAY(Text))
    return frozenset(await session.scalars(_OURS.bindparams(one_array)))


async def known_owners(session: AsyncSession, match_keys: Collection[str]) -> dict[str, Owned]:
    """Those of these addresses that are ours, by match key; nothing changes."""
    if not match_keys:
        return {}
    one_array = bindparam("match_keys", sorted(match_keys), ARRAY(Text))  # one, however many outputs a block has
    rows = await session.execute(_OWNERS.bindparams(one_array))
    return {row.match_key: Owned(*row) for row in rows}


async def owners_of(session: AsyncSession, match_keys: Collection[str], *, now: datetime) -> dict[str, Owned]:
    """The same, and from here on none of their indexes is handed out."""
    found = await known_owners(session, match_keys)
    early = [owned for owned in found.values() if not owned.spent]
    if not early:
        return found
    await _spend(session, early, now=now)
    return await known_owners(session, match_keys)  # somebody may just have been given one of them


async def _spend(session: AsyncSession, early: Collection[Owned], *, now: datetime) -> None:
    in_order = sorted(early, key=lambda owned: (owned.key_ring_id, owned.address_index))
    for owned in in_order:
        row = {
            "key_ring_id": owned.key_ring_id,
            "address_index": owned.address_index,
            "match_key": owned.match_key,
            "address": owned.address,
            "created_at": now,
        }
        await session.execute(insert(Address).values(row).on_conflict_do_nothing())
        _log.warning("paid_before_handed_out", key_ring=owned.key_ring_id, index=owned.address_index)
    highest = {owned.key_ring_id: owned.address_index for owned in in_order}
    sequences = select(KeyRing.id, KeyRing.index_sequence).where(KeyRing.id.in_(highest)).order_by(KeyRing.id)
    for key_ring_id, sequence in await session.execute(sequences):
        await issue_beyond(session, sequence, highest[key_ring_id])
