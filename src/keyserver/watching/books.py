"""The three books as facts to compare: outputs of blocks, payments' rows, the ledger's entries. Reading only."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ARRAY, Text, any_, func, literal, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import NATIVE, Blockchain
from keyserver.charges.crediting import SOURCE, is_by_hand
from keyserver.charges.models import Payment
from keyserver.charges.recording import ours
from keyserver.charges.standing import standing_credits
from keyserver.charges.states import PaymentStatus
from keyserver.ledger.chart import holdings_account, tenant_account
from keyserver.ledger.models import JournalEntry, JournalLine, Side
from keyserver.watching.arrivals import arrivals_of, inclusion_of
from keyserver.watching.comparison import Difference, Kind, Posted, Shown, Stored, of_ledger
from keyserver.watching.ports import Block


async def read_consistently(session: AsyncSession) -> None:
    """First statement of a transaction that compares books which are being written: one moment for all its reads."""
    await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


# --- the node's book --------------------------------------------------------------------------------------------


async def shown_in(session: AsyncSession, blockchain: Blockchain, blocks: Sequence[Block]) -> list[Shown]:
    """The outputs at addresses of ours in these blocks, in assets that we can name."""
    found: list[Shown] = []
    for block in blocks:
        found.extend(
            Shown(
                output=arrival.output,
                token=paid.token,
                decimals=paid.decimals,
                amount_units=arrival.amount_units,
                height=block.height,
                block_hash=block.hash,
                mined_at=block.mined_at,
            )
            for arrival, _, paid in await ours(session, blockchain, arrivals_of(block.transfers), inclusion_of(block))
        )
    return found


# --- the payments -----------------------------------------------------------------------------------------------


async def payments_of_blocks(
    session: AsyncSession, blockchain: Blockchain, blocks: Sequence[Block], tx_hashes: Collection[str]
) -> list[Payment]:
    """Payments in these blocks, and in these transactions, wherever they are said to be."""
    here = Payment.block_height.between(blocks[0].height, blocks[-1].height)
    same = Payment.tx_hash == any_(literal(sorted(tx_hashes), ARRAY(Text)))
    query = select(Payment).where(Payment.blockchain_id == blockchain.id, or_(here, same))
    return list(await session.scalars(query.order_by(Payment.id)))


def stored_of(payments: Iterable[Payment], *, unproved_heights: Collection[int] = ()) -> list[Stored]:
    """Rows as facts. At `unproved_heights` the node does not show coin that contracts passed on.

    Nor does any node show what balances told by its output: there, what it shows is not compared either.
    """
    return [
        Stored(
            payment_id=each.id,
            output=(each.tx_hash, each.output_index, each.asset),
            token=each.token,
            decimals=each.decimals,
            amount_units=each.amount_units,
            status=each.status,
            height=each.block_height,
            block_hash=each.block_hash,
            credited_nanos=each.credited_nanos,
            price_usd=each.price_usd,
            reason=each.reason,
            is_provable=each.found_above is None
            and (each.asset != NATIVE or each.block_height not in unproved_heights),
            is_dismissed=each.dismissed_at is not None,
            is_by_hand=is_by_hand(each),
        )
        for each in payments
    ]


# --- the ledger -------------------------------------------------------------------------------------------------


async def posted_for(session: AsyncSession, blockchain: Blockchain, payments: Sequence[Payment]) -> dict[str, Posted]:
    """Credits less reversals of each payment that has entries, in the two accounts where they belong."""
    references = [
        f"{payment.id}:{what}:{number}"
        for payment in payments
        for what in ("credit", "reversal")
        for number in range(1, payment.credits + 2)  # one more than the row knows of
    ]
    payment_id = func.split_part(JournalEntry.reference_id, ":", 1)
    query = (
        select(payment_id, JournalLine.account_code, JournalLine.side, func.sum(JournalLine.amount_nanos))
        .join(JournalLine, JournalLine.entry_id == JournalEntry.id)
        .where(JournalEntry.source == SOURCE)
        .where(JournalEntry.reference_id == any_(literal(references, ARRAY(Text))))
        .group_by(payment_id, JournalLine.account_code, JournalLine.side)
    )
    debits: dict[tuple[str, str], int] = defaultdict(int)
    for id_, account, side, nanos in await session.execute(query):
        debits[id_, account] += int(nanos) if side is Side.DEBIT else -int(nanos)
    with_entries = {id_ for id_, _ in debits}
    return {each.id: _posted(blockchain, each, debits) for each in payments if each.id in with_entries}


def _posted(blockchain: Blockchain, payment: Payment, debits: Mapping[tuple[str, str], int]) -> Posted:
    holdings = holdings_account(chain=blockchain.chain, network=blockchain.network, token=payment.token).code
    held = debits.get((payment.id, holdings), 0)
    if payment.tenant_id is None:  # taken back from whomever an operator had named
        return Posted(held, held)
    return Posted(held, -debits.get((payment.id, tenant_account(payment.tenant_id).code), 0))


async def lost_credits(session: AsyncSession, blockchain: Blockchain, missing: Sequence[Shown]) -> list[Shown]:
    """The same outputs with what stands credited for them in the ledger."""
    standing = await standing_credits(session, blockchain, {each.output[0] for each in missing})

    def credited(shown: Shown) -> int | None:
        found = standing.get((shown.output[0], shown.output[1], shown.token))
        return None if found is None else found.credited_nanos

    return [replace(each, lost_credit_nanos=credited(each)) for each in missing]


async def stray_entries(
    session: AsyncSession, blockchain: Blockchain, *, since: datetime, until: datetime
) -> list[Difference]:
    """Entries of payments posted in this time whose payment is gone, or no longer confirmed and still credited."""
    entry = JournalEntry
    payment_id = func.split_part(entry.reference_id, ":", 1)
    query = (
        select(payment_id, func.min(entry.id), Payment)
        .outerjoin(Payment, Payment.id == payment_id)
        .where(entry.source == SOURCE, entry.posted_at.between(since, until))
        .where(entry.metadata_["chain"].astext == blockchain.chain)
        .where(entry.metadata_["network"].astext == blockchain.network)
        .where(or_(Payment.id.is_(None), Payment.status != PaymentStatus.CONFIRMED))
        .group_by(payment_id, Payment.id)
        .order_by(payment_id)
    )
    rows = (await session.execute(query)).all()
    payments = [payment for _, _, payment in rows if payment is not None and payment.block_height is None]
    posted = await posted_for(session, blockchain, payments)
    found = [difference for each in stored_of(payments) for difference in of_ledger(each, posted)]
    for _, entry_id, payment in rows:
        if payment is None:
            found.append(await _without_payment(session, entry_id))
    return found


async def _without_payment(session: AsyncSession, entry_id: str) -> Difference:
    entry = await session.get_one(JournalEntry, entry_id)
    told = entry.metadata_
    return Difference(
        kind=Kind.CREDIT_WITHOUT_PAYMENT,
        tx_hash=told["txHash"],
        output_index=int(told["outputIndex"]),
        token=told["token"],
        height=None,
        payment_id=told["paymentId"],
        node=None,
        payments=None,
        ledger=f"entry {entry.id}: {entry.reference_id}",
    )
