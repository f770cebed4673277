"""Finds coin that reached our addresses by internal calls, where the node does not show them: by their balances.

An account's balance after a block that is deep enough is compared with what was known of it before. What neither
recorded payments nor its own transactions explain is narrowed down to its block, and recorded as a payment of that
block: `tx_hash` is the block's hash, which is no transaction's, and `found_above` says from which height on all coin
of this address is accounted for, so that the same money is not credited again should a trace show it later.

The network is asked outside of any transaction; what was found is written only while the cursor is where it was.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import NATIVE, Blockchain
from keyserver.charges import settlement
from keyserver.charges.crediting import Market
from keyserver.charges.paid_asset import methods_on
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.watching import cursor as cursors
from keyserver.watching.accounts import Account, Due, accounts_due, move_round, recorded_coin, save_checks
from keyserver.watching.cursor import LostRace
from keyserver.watching.models import ScannedBlock
from keyserver.watching.ports import BlockRef, ChainSource, Holding
from keyserver.watching.rises import Budget, Reading, Recorded, Rise, Search, last_block_before

#: Readings with one block, beside the first of each account, that narrowing down may take; the rest goes on later.
MOST_READINGS = 300
#: How far a block's time may lie behind the true time.
_CLOCK_SLACK = timedelta(minutes=1)
_log = structlog.get_logger("keyserver.balances")


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What one comparison stands on: the block that is deep enough, and where following began."""

    at: BlockRef
    first_height: int
    due: Due
    recorded: Mapping[str, Recorded]


async def compare_balances(
    database: Database,
    blockchain: Blockchain,
    source: ChainSource,
    cursor: BlockRef,
    *,
    final_height: int | None,
    market: Market,
    clock: Clock,
) -> bool:
    """Compares the balances that are due with this cursor; True when payments were found.

    Raises LostRace and SourceError; it can be tried again.
    """
    comparison = await _begin(database, blockchain, cursor, clock=clock)
    if comparison is None:
        return False
    accounts = comparison.due.accounts
    keys = [account.match_key for account in accounts]
    holdings = await source.holdings(keys, block_hash=comparison.at.hash) if keys else []
    if holdings is None:
        _log.warning("balances_unavailable", blockchain=blockchain.id, height=comparison.at.height)
        return False
    budget = Budget(MOST_READINGS)
    reached: list[tuple[Account, Reading]] = []
    rises: list[tuple[Account, Rise]] = []
    for account, holding in zip(accounts, holdings, strict=True):
        search = await _search(source, account, Reading(comparison.at, holding), comparison, budget=budget)
        if search is not None:
            reached.append((account, search.reached))
            rises += [(account, rise) for rise in search.rises]
    found = [await _payment(source, account, rise) for account, rise in rises]
    tip = Inclusion(cursor.height, cursor.hash, await source.mined_at(cursor.height)) if found else None
    now = clock()
    async with database.transaction() as session:
        await cursors.move_cursor(session, blockchain.id, cursor, cursor, now=None)
        if await recorded_coin(session, blockchain, accounts, up_to=comparison.at.height) != comparison.recorded:
            raise LostRace("payments were recorded while balances were compared")
        await save_checks(session, blockchain.id, reached)
        if len(reached) == len(accounts):  # else some had no turn
            await move_round(session, blockchain.id, comparison.due.place)
        if _is_complete(comparison, reached):
            await cursors.note_compared(session, blockchain.id, comparison.at.height)
        if tip is not None:
            await settlement.find(session, blockchain, found, tip, final_height=final_height, market=market, now=now)
    return bool(found)


async def _begin(database: Database, blockchain: Blockchain, cursor: BlockRef, *, clock: Clock) -> _Comparison | None:
    async with database.transaction() as session:
        height = cursor.height - await _depth(session, blockchain) + 1
        first = await session.scalar(
            select(func.min(ScannedBlock.height)).where(ScannedBlock.blockchain_id == blockchain.id)
        )
        block = await session.get(ScannedBlock, (blockchain.id, height))
        if block is None or first is None:
            return None  # following has only begun
        at = BlockRef(block.height, block.block_hash)
        due = await accounts_due(session, blockchain, at, now=clock())
        recorded = await recorded_coin(session, blockchain, due.accounts, up_to=at.height)
    return _Comparison(at, first, due, recorded)


def _is_complete(comparison: _Comparison, reached: Sequence[tuple[Account, Reading]]) -> bool:
    """Whether all that is due was looked at up to the block; else the rest goes on with the next one."""
    due = comparison.due
    up_to = [reading.block.height for _, reading in reached]
    return due.is_all and len(up_to) == len(due.accounts) and all(each == comparison.at.height for each in up_to)


async def _depth(session: AsyncSession, blockchain: Blockchain) -> int:
    """Confirmations that payments in the chain's coin want, or any payments where it is not offered."""
    methods = await methods_on(session, blockchain)
    of_the_coin = [method.confirmations for method in methods if method.asset == NATIVE]
    return max(of_the_coin or [method.confirmations for method in methods], default=1)


async def _search(
    source: ChainSource, account: Account, now: Reading, comparison: _Comparison, *, budget: Budget
) -> Search | None:
    """None when there was nothing left of the budget to begin with: this account keeps its turn."""
    recorded = comparison.recorded[account.match_key]
    if account.check is None and _is_plain(now, recorded):
        return Search(source, account.match_key, recorded, now)
    known = _known(account)
    if known is None:
        if budget.readings <= 0:
            return None
        budget.readings -= 1
        known = await _baseline(source, account, now, comparison)
    search = Search(source, account.match_key, recorded, known)
    await search.up_to(now, budget=budget)
    return search


def _is_plain(now: Reading, recorded: Recorded) -> bool:
    """An account that never sent anything, and holds what is recorded: that explains all of it."""
    return now.holding.nonce == 0 and now.holding.balance_units == sum(recorded.values())


def _known(account: Account) -> Reading | None:
    check = account.check
    if check is None or check.balance_units is None or check.nonce is None:
        return None
    return Reading(BlockRef(check.height, check.block_hash), Holding(check.balance_units, check.nonce))


async def _baseline(source: ChainSource, account: Account, now: Reading, comparison: _Comparison) -> Reading:
    """What the account held when it was handed out, or where it was looked at before a fork.

    Where the node has no longer that state, comparing begins now: what may have been there before is not ours to give.
    """
    if account.check is not None:
        block = BlockRef(account.check.height, account.check.block_hash)
    else:
        block = await _block_of_hand_out(source, account, comparison)
    if block.height >= comparison.at.height:
        return now
    holdings = await source.holdings([account.match_key], block_hash=block.hash)
    if holdings is None:
        _log.warning(
            "balance_unknown_before", address=account.match_key, height=comparison.at.height, wanted_height=block.height
        )
        return now
    return Reading(block, holdings[0])


async def _block_of_hand_out(source: ChainSource, account: Account, comparison: _Comparison) -> BlockRef:
    """The last block before the address was handed out: nobody paid it earlier."""

    async def is_before(height: int) -> bool:
        return await source.mined_at(height) < account.handed_out_at - _CLOCK_SLACK

    height = await last_block_before(is_before, first=comparison.first_height, last=comparison.at.height)
    return BlockRef(height, await source.block_hash(height))


async def _payment(source: ChainSource, account: Account, rise: Rise) -> tuple[Arrival, Inclusion]:
    arrival = Arrival(
        tx_hash=rise.block.hash,
        output_index=_index_of(account.match_key),
        asset=NATIVE,
        match_key=account.match_key,
        amount_units=rise.units,
        found_above=rise.above,
    )
    mined_at = await source.mined_at(rise.block.height)
    return arrival, Inclusion(rise.block.height, rise.block.hash, mined_at)


def _index_of(match_key: str) -> int:
    """Below 0, where no output and no log is, and another for every address: 52 bits, which any JSON reader keeps."""
    digest = hashlib.sha256(match_key.encode()).digest()
    return -1 - (int.from_bytes(digest[:8], "big") >> 12)
