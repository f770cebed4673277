"""Handing out addresses: the next index of a ring, derived, never twice.

The index comes from a PostgreSQL sequence per key ring: no row that everybody locks, no two callers with one index.
Everything that can be refused is refused before an index is taken, for a sequence never gives one back.
"""

from dataclasses import dataclass
from datetime import datetime

import structlog

from keyserver.addresses.derive import RingKey
from keyserver.addresses.errors import NothingToDerive
from keyserver.addresses.indexes import Indexes
from keyserver.chains.catalog import match_key
from keyserver.chains.registry import Method
from keyserver.kit.db import Connect

_RING = "SELECT index_sequence, xpub FROM key_rings WHERE id = $1"
INSERT_ADDRESS = """
    INSERT INTO addresses (key_ring_id, address_index, match_key, address, tenant_id, payment_method_id, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
"""
#: A database restored from a backup may offer indexes that were handed out before; they are stepped over.
MOST_TRIES = 1000
_log = structlog.get_logger("keyserver.addresses")


@dataclass(frozen=True, slots=True)
class Ring:
    id: str
    index_sequence: str
    key: RingKey


@dataclass(frozen=True, slots=True)
class Issued:
    key_ring_id: str
    index: int
    address: str
    match_key: str


class Rings:
    """The rings' key objects of one process. A ring never changes, so it is loaded once."""

    def __init__(self) -> None:
        self._rings: dict[str, Ring] = {}

    async def get(self, connect: Connect, key_ring_id: str) -> Ring:
        ring = self._rings.get(key_ring_id)
        if ring is None:
            async with connect() as connection:
                row = await connection.fetchrow(_RING, key_ring_id)
            if row is None:
                raise NothingToDerive
            ring = Ring(key_ring_id, row["index_sequence"], RingKey.from_xpub(row["xpub"]))
            self._rings[key_ring_id] = ring
        return ring


async def take_address(connect: Connect, indexes: Indexes, ring: Ring, method: Method) -> Issued:
    """The ring's next index and its address for this method. The caller stores it with what it is for."""
    index = await indexes.take(ring.index_sequence, connect=connect)
    address = ring.key.address(index, spec=method.spec, address_type=method.address_type)
    return Issued(ring.id, index, address, match_key(method.spec.family, address))


def step_over(issued: Issued, *, tries: int) -> None:
    """Called when an index turned out to be handed out already; NothingToDerive when there is no end to it."""
    _log.warning("index_already_issued", key_ring=issued.key_ring_id, index=issued.index)
    if tries >= MOST_TRIES:
        raise NothingToDerive


async def issue_address(
    connect: Connect, indexes: Indexes, ring: Ring, method: Method, *, tenant_id: str, now: datetime
) -> Issued:
    """A new address that belongs to the tenant from here on."""
    tries = 0
    while True:
        issued = await take_address(connect, indexes, ring, method)
        row = (issued.key_ring_id, issued.index, issued.match_key, issued.address, tenant_id, method.id, now)
        async with connect() as connection:
            done: str = await connection.execute(INSERT_ADDRESS, *row)
        if done == "INSERT 0 1":
            return issued
        tries += 1
        step_over(issued, tries=tries)
