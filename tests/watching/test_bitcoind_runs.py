"""Runs of blocks and news of blocks: the adapter against a real litecoind."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.nodes.litecoin import FIRST_HEIGHT, GENESIS, LitecoinNode

from keyserver.watching.bitcoind import BitcoindSource
from keyserver.watching.ports import BlockNotFound, BlockRef

pytestmark = pytest.mark.node

NONE: frozenset[str] = frozenset()
#: Longer than any test may take: a wait that ends sooner was ended by something.
LONG = 90.0

Follow = Callable[[LitecoinNode], BitcoindSource]


@pytest.fixture
async def litecoin() -> AsyncIterator[LitecoinNode]:
    async with LitecoinNode() as node:
        yield node


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    async with AsyncExitStack() as stack:

        def follow(node: LitecoinNode) -> BitcoindSource:
            source = BitcoindSource(node.url, network="regtest", genesis_hash=GENESIS, coinbase_maturity=100)
            stack.push_async_callback(source.close)
            return source

        yield follow


@pytest.fixture
def source(litecoin: LitecoinNode, follow: Follow) -> BitcoindSource:
    return follow(litecoin)


async def caught_up(source: BitcoindSource, *, count: int) -> list[Any]:
    """Every block from the first, asked for `count` at a time."""
    tip = await source.tip()
    blocks: list[Any] = []
    while len(blocks) < tip.height:
        run = await source.blocks(len(blocks) + 1, count, contracts=NONE)
        assert 1 <= len(run) <= count
        blocks += run
    return blocks


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 16])
async def test_runs_of_blocks_are_the_blocks_one_by_one(
    litecoin: LitecoinNode, source: BitcoindSource, count: int
) -> None:
    await litecoin.send(await litecoin.address(), 1)
    await litecoin.mine(5)

    blocks = await caught_up(source, count=count)

    assert blocks == [await source.block(height, contracts=NONE) for height in range(1, FIRST_HEIGHT + 6)]


async def test_a_run_ends_at_the_tip_and_above_it_there_is_none(source: BitcoindSource) -> None:
    await source.tip()

    run = await source.blocks(FIRST_HEIGHT - 1, 16, contracts=NONE)

    assert [block.height for block in run] == [FIRST_HEIGHT - 1, FIRST_HEIGHT]
    with pytest.raises(BlockNotFound, match=f"no block at height {FIRST_HEIGHT + 1}"):
        await source.blocks(FIRST_HEIGHT + 1, 16, contracts=NONE)


async def test_blocks_read_ahead_are_not_given_once_the_branch_has_changed(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    await source.tip()
    first = FIRST_HEIGHT - 3
    await source.blocks(first, 2, contracts=NONE)
    mined = await litecoin.reorg(2)

    run = await source.blocks(first + 2, 2, contracts=NONE)

    assert [block.hash for block in run] == mined[:2]


async def test_closing_leaves_nothing_on_its_way(litecoin: LitecoinNode, follow: Follow) -> None:
    source = follow(litecoin)
    await source.tip()
    await source.blocks(1, 8, contracts=NONE)
    before = asyncio.all_tasks()

    await source.close()

    assert [task for task in before if not task.done() and task is not asyncio.current_task()] == []


# --- news -------------------------------------------------------------------------------------------------------


async def test_news_comes_with_a_block_and_other_calls_go_on_meanwhile(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    tip = await source.tip()
    news = asyncio.create_task(source.news(tip, within=LONG))
    for height in range(1, 20):
        await source.block_hash(height)
    assert not news.done()
    address = await litecoin.address()

    mined = asyncio.create_task(litecoin.mine(1, address))
    await asyncio.wait_for(news, 20)

    assert await source.tip() == BlockRef(tip.height + 1, (await mined)[0])


async def test_news_of_a_block_is_there_in_a_fraction_of_a_second(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    """Once in some tries, as the machine may be busy with others."""
    address = await litecoin.address()
    delays: list[float] = []
    while min(delays, default=1.0) > 0.15 and len(delays) < 20:
        news = asyncio.create_task(source.news(await source.tip(), within=LONG))
        await asyncio.sleep(0.2)  # the node's wait has begun
        await litecoin.mine(1, address)
        began = time.monotonic()
        await news
        delays.append(time.monotonic() - began)

    assert min(delays) <= 0.15, delays


async def test_a_block_that_came_before_the_wait_began_is_news(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    tip = await source.tip()
    await litecoin.mine()

    await asyncio.wait_for(source.news(tip, within=LONG), 20)


async def test_a_reorganisation_is_news(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    await litecoin.mine(2)
    news = asyncio.create_task(source.news(await source.tip(), within=LONG))

    await litecoin.reorg(2)

    await asyncio.wait_for(news, 20)


async def test_without_news_the_time_is_waited_and_no_longer(source: BitcoindSource) -> None:
    tip = await source.tip()
    began = time.monotonic()

    await source.news(tip, within=0.5)

    assert 0.5 <= time.monotonic() - began < 10


async def test_a_long_wait_is_made_of_short_ones(
    litecoin: LitecoinNode, source: BitcoindSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyserver.watching.bitcoind_news.LONGEST_WAIT", 0.2)
    news = asyncio.create_task(source.news(await source.tip(), within=LONG))
    await asyncio.sleep(0.7)
    assert not news.done()

    await litecoin.mine()

    await asyncio.wait_for(news, 20)


async def test_a_wait_does_not_outlive_the_source(source: BitcoindSource) -> None:
    news = asyncio.create_task(source.news(await source.tip(), within=LONG))
    await asyncio.sleep(0.1)

    await source.close()

    await asyncio.wait_for(news, 5)


async def test_a_cancelled_wait_is_cancelled(source: BitcoindSource) -> None:
    news = asyncio.create_task(source.news(await source.tip(), within=LONG))
    await asyncio.sleep(0.1)

    news.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(news, 5)
    await source.tip()


async def test_while_the_node_is_away_there_is_no_news_and_no_error(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    tip = await source.tip()
    await litecoin.kill()
    began = time.monotonic()

    await source.news(tip, within=0.4)

    assert time.monotonic() - began >= 0.4
