"""What a block holds, in the words of settlement: which token contracts to ask for, and transfers as arrivals."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import NATIVE, PaymentMethod
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.watching.ports import Block, Transfer


async def registered_contracts(session: AsyncSession, blockchain_id: str) -> frozenset[str]:
    query = select(PaymentMethod.asset).where(
        PaymentMethod.blockchain_id == blockchain_id, PaymentMethod.asset != NATIVE
    )
    return frozenset(await session.scalars(query))


def arrivals_of(transfers: Sequence[Transfer]) -> list[Arrival]:
    return [
        Arrival(t.tx_hash, t.output_index, t.asset, t.address, t.amount_units, t.least_confirmations) for t in transfers
    ]


def inclusion_of(block: Block) -> Inclusion:
    return Inclusion(block.height, block.hash, block.mined_at)
