"""Where following a blockchain starts."""

from datetime import datetime, timedelta

from keyserver.chains.catalog import Family
from keyserver.chains.models import Blockchain
from keyserver.watching.ports import BlockRef, ChainSource

#: How far a block's time may lie before the true time: a chain's own rule for UTXO chains, seconds elsewhere.
_CLOCK_SLACK = {Family.UTXO: timedelta(hours=2)}


async def start_block(source: ChainSource, blockchain: Blockchain) -> BlockRef:
    """The block before the first that can hold a payment: nothing is paid before its address was handed out.

    An operator's `start_height` is the first block to look at; without one, it is the first since the registration.
    """
    if blockchain.start_height is not None:
        height = max(0, blockchain.start_height - 1)
    else:
        slack = _CLOCK_SLACK.get(Family(blockchain.family), timedelta(minutes=1))
        height = await last_before(source, blockchain.created_at - slack)
    return BlockRef(height, await source.block_hash(height))


async def last_before(source: ChainSource, instant: datetime) -> int:
    """Height of the last block mined before `instant`, by bisection; 0 when even the first is younger."""
    low, high = 0, (await source.tip()).height
    while low < high:
        middle = (low + high + 1) // 2
        if await source.mined_at(middle) < instant:
            low = middle
        else:
            high = middle - 1
    return low
