"""The addresses that each key ring will hand out next, known before they are, in every spelling its methods use.

Money comes to them all the same: a wallet of the operator's on the same account hands them out too, and a database
that was restored from a backup has forgotten what it gave away. `owners.py` finds them as it finds what was handed out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.derive import MAX_INDEX, RingKey
from keyserver.addresses.models import KeyRing, LookaheadAddress, LookaheadWindow
from keyserver.chains.catalog import AddressType, ChainSpec, chain_spec, match_key
from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.kit.db import Database

DEFAULT_AHEAD = 100
#: Derived in one step, which other work in the process waits for: some 30 ms.
CHUNK = 200
MOST_STEPS = 50
#: Looked through in one step for indexes that were handed out already.
STRIDE = 20 * CHUNK

_MISSING = text("""
    SELECT index FROM generate_series(CAST(:first AS bigint), CAST(:end AS bigint) - 1) AS index
     WHERE NOT EXISTS (SELECT FROM addresses a WHERE a.key_ring_id = :ring AND a.address_index = index
                                                 AND a.payment_method_id = ANY(:methods))
     ORDER BY index LIMIT :most
""")
_SWEEP = text("""
    DELETE FROM lookahead_addresses ahead USING addresses a
     WHERE ahead.key_ring_id = :ring AND ahead.spelling = :spelling
       AND ahead.address_index >= :first AND ahead.address_index < :end AND a.match_key = ahead.match_key
""")


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way in which chains write a ring's addresses; `method_ids` are the payment methods that write them so."""

    name: str
    key_ring_id: str
    index_sequence: str
    key: RingKey
    spec: ChainSpec
    address_type: AddressType
    method_ids: list[str] = field(default_factory=list)

    def address(self, index: int) -> str:
        return self.key.address(index, spec=self.spec, address_type=self.address_type)


async def fill_all(database: Database, *, ahead: int) -> bool:
    """Brings every ring's window towards `ahead` addresses beyond its next index; whether all of them are there.

    One step a transaction, and so many steps a window that a long one holds up no other for long.
    """
    async with database.transaction() as session:
        spellings = await spellings_of(session)
    short = False
    for spelling in spellings:
        more, steps = True, 0
        while more and steps < MOST_STEPS:
            async with database.transaction() as session:
                more, steps = await fill(session, spelling, ahead=ahead), steps + 1
        short = short or more
    return not short


async def spellings_of(session: AsyncSession, *, key_ring_id: str | None = None) -> Sequence[Spelling]:
    """Every spelling of all rings, or of one. Disabled methods count: their chains are followed like any other."""
    query = (
        select(KeyRing, Blockchain, PaymentMethod.id, PaymentMethod.address_type)
        .join(PaymentMethod, PaymentMethod.key_ring_id == KeyRing.id)
        .join(Blockchain, Blockchain.id == PaymentMethod.blockchain_id)
        .order_by(KeyRing.id, PaymentMethod.id)
    )
    if key_ring_id is not None:
        query = query.where(KeyRing.id == key_ring_id)
    keys: dict[str, RingKey] = {}
    found: dict[tuple[str, str], Spelling] = {}
    for ring, blockchain, method_id, address_type in await session.execute(query):
        key = keys[ring.id] = keys.get(ring.id) or RingKey.from_xpub(ring.xpub)
        spec = chain_spec(blockchain.chain, blockchain.network, type=blockchain.family)
        form = AddressType(address_type)
        name = match_key(spec.family, key.address(0, spec=spec, address_type=form))
        spelling = found.setdefault((ring.id, name), Spelling(name, ring.id, ring.index_sequence, key, spec, form))
        spelling.method_ids.append(method_id)
    return list(found.values())


async def fill(session: AsyncSession, spelling: Spelling, *, ahead: int) -> bool:
    """One step of filling a window; whether another is needed.

    It starts where the last one ended, be that far below the next index: what was stepped over after a restore was
    most likely handed out before.
    """
    next_index = await _next_index(session, spelling.index_sequence)
    end = min(next_index + ahead, MAX_INDEX + 1)
    identity = (spelling.key_ring_id, spelling.name)
    window = await session.get(LookaheadWindow, identity)
    if window is not None and window.filled_index >= end and window.swept_index >= next_index:
        return False
    new = {"key_ring_id": spelling.key_ring_id, "spelling": spelling.name}
    await session.execute(insert(LookaheadWindow).values(new).on_conflict_do_nothing())
    window = await session.get_one(LookaheadWindow, identity, with_for_update=True, populate_existing=True)
    await _extend(session, spelling, window, end=end)
    await _sweep(session, window, next_index=next_index)
    return window.filled_index < end


async def _extend(session: AsyncSession, spelling: Spelling, window: LookaheadWindow, *, end: int) -> None:
    end = min(end, window.filled_index + STRIDE)
    if window.filled_index >= end:
        return
    wanted = {"ring": spelling.key_ring_id, "methods": spelling.method_ids, "first": window.filled_index, "end": end}
    missing = list(await session.scalars(_MISSING, {**wanted, "most": CHUNK}))
    rows = []
    for index in missing:
        address = spelling.address(index)
        rows.append(
            {
                "key_ring_id": spelling.key_ring_id,
                "spelling": spelling.name,
                "address_index": index,
                "match_key": match_key(spelling.spec.family, address),
                "address": address,
            }
        )
    if rows:
        await session.execute(insert(LookaheadAddress).values(rows).on_conflict_do_nothing())
    window.filled_index = end if len(missing) < CHUNK else missing[-1] + 1


async def _sweep(session: AsyncSession, window: LookaheadWindow, *, next_index: int) -> None:
    """What was handed out is found among `addresses`: it need not be kept twice."""
    if window.swept_index >= next_index:
        return
    where = {"ring": window.key_ring_id, "spelling": window.spelling, "first": window.swept_index, "end": next_index}
    await session.execute(_SWEEP, where)
    window.swept_index = next_index


async def issue_beyond(session: AsyncSession, index_sequence: str, index: int) -> None:
    """No index up to this one is dealt from here on.

    `nextval` again and again, for unlike `setval` it never goes back, whoever takes indexes at the same time.
    """
    missing = index + 1 - await _next_index(session, index_sequence)
    if missing > 0:
        taken = text(
            "SELECT count(nextval(CAST(:sequence AS text)::regclass)) FROM generate_series(1, CAST(:missing AS bigint))"
        )
        await session.execute(taken, {"sequence": index_sequence, "missing": missing})


async def _next_index(session: AsyncSession, index_sequence: str) -> int:
    # The name is of our own making (letters, digits, underscore), as registration.py says.
    query = text(f"SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END FROM {index_sequence}")  # noqa: S608
    return int((await session.execute(query)).scalar_one())
