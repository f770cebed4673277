"""What the ledger remembers of payments whose rows are gone: a payment recorded again must not be credited again."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from sqlalchemy import ARRAY, Text, any_, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain
from keyserver.charges.crediting import SOURCE
from keyserver.charges.models import Payment
from keyserver.ledger.models import EntryType, JournalEntry, JournalLine, Side

#: (transaction hash, output index, token): how entries of the ledger name an output.
Output: TypeAlias = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """A payment as its entries tell of it. `credited_nanos` is None when every credit was taken back."""

    payment_id: str
    credits: int
    credited_nanos: int | None
    price_usd: Decimal | None
    price_source: str | None
    tenant_id: str


async def standing_credits(
    session: AsyncSession, blockchain: Blockchain, tx_hashes: Collection[str]
) -> Mapping[Output, Standing]:
    """Of payments in these transactions that have entries, but no row.

    Reads every entry of payments, since none but a lost row is ever looked for in this way.
    """
    entry = JournalEntry
    payment_id = entry.metadata_["paymentId"].astext
    query = (
        select(entry, JournalLine.amount_nanos)
        .join(JournalLine, JournalLine.entry_id == entry.id)
        .where(entry.source == SOURCE, JournalLine.side == Side.CREDIT)
        .where(entry.metadata_["txHash"].astext == any_(literal(sorted(tx_hashes), ARRAY(Text))))
        .where(entry.metadata_["chain"].astext == blockchain.chain)
        .where(entry.metadata_["network"].astext == blockchain.network)
        .where(~select(Payment.id).where(Payment.id == payment_id).exists())
        .order_by(entry.id)
    )
    found: dict[Output, Standing] = {}
    for posted, nanos in await session.execute(query):
        told = posted.metadata_
        key = (told["txHash"], int(told["outputIndex"]), told["token"])
        before = found.get(key)
        is_credit = posted.type is not EntryType.CORRECTION
        found[key] = Standing(
            payment_id=told["paymentId"],
            credits=(before.credits if before else 0) + is_credit,
            credited_nanos=nanos if is_credit else None,
            price_usd=Decimal(told["priceUsd"]) if told["priceUsd"] is not None else None,
            price_source=told["priceSource"],
            tenant_id=posted.tenant_id,
        )
    return found
