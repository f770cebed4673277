"""The world's key ring with a real key, sequence and look-ahead, and addresses handed out from it by the real code."""

from dataclasses import dataclass, field

from sqlalchemy import select, text
from tests.builders import XPUB_COIN_60
from tests.watching.world import World, add_tenant

from keyserver.addresses.indexes import Indexes
from keyserver.addresses.issuing import Issued, Ring, Rings, issue_address
from keyserver.addresses.lookahead import fill_all
from keyserver.addresses.models import Address, LookaheadAddress
from keyserver.chains.registry import Method, load_methods

AHEAD = 20
_OPEN = (
    "UPDATE key_rings SET xpub = :xpub, index_sequence = 'index_of_ring'",
    "UPDATE payment_methods SET type = 'evm'",
    "CREATE SEQUENCE index_of_ring MINVALUE 0 START 0 OWNED BY key_rings.id",
)


@dataclass
class OpenRing:
    """`indexes` is one process's."""

    world: World
    ring: Ring
    method: Method
    indexes: Indexes
    tenants: set[str] = field(default_factory=set)

    async def issue(self, *, tenant_id: str = "acme", indexes: Indexes | None = None) -> Issued:
        """What POST /address does."""
        if tenant_id not in self.tenants:
            self.tenants.add(tenant_id)
            await add_tenant(self.world.database, tenant_id)
        return await issue_address(
            self.world.database.connection,
            indexes or self.indexes,
            self.ring,
            self.method,
            tenant_id=tenant_id,
            now=self.world.clock(),
        )

    async def fill(self, ahead: int = AHEAD) -> None:
        while not await fill_all(self.world.database, ahead=ahead):
            pass

    async def ahead(self) -> dict[int, str]:
        """Match keys of the window's addresses by index."""
        async with self.world.database.transaction() as session:
            rows = await session.scalars(select(LookaheadAddress).order_by(LookaheadAddress.address_index))
            return {row.address_index: row.match_key for row in rows}

    async def spent(self) -> dict[int, str | None]:
        """The tenants of the indexes that have their row."""
        async with self.world.database.transaction() as session:
            rows = await session.scalars(select(Address).order_by(Address.address_index))
            return {row.address_index: row.tenant_id for row in rows}


async def open_ring(world: World) -> OpenRing:
    async with world.database.transaction() as session:
        for statement in _OPEN:
            await session.execute(text(statement), {"xpub": XPUB_COIN_60} if ":xpub" in statement else {})
    ring = await Rings().get(world.database.connection, "ring")
    async with world.database.connection() as connection:
        method = (await load_methods(connection)).by_id["COIN"]
    opened = OpenRing(world, ring, method, Indexes(world.database))
    await opened.fill()
    return opened
