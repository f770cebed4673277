"""What every ChainSource promises, asked of the chain in memory and of the simulated one of demo mode."""

from datetime import datetime
from typing import Protocol

import pytest
from tests.builders import ManualClock
from tests.watching.chain_in_memory import ChainInMemory, transfer
from tests.watching.world import blockchain

from keyserver.demo import chain as demo
from keyserver.demo.chain import SimulatedChain
from keyserver.kit.db import Database
from keyserver.watching.ports import BlockNotFound, BlockRef, ChainSource, Transfer


class Playground(Protocol):
    """A chain with what a test must be able to make happen on it."""

    @property
    def source(self) -> ChainSource: ...

    async def pay(self, address: str, units: int, *, asset: str = "native") -> str: ...

    async def mine(self, blocks: int = 1) -> None: ...

    async def reorganise(self, depth: int) -> None: ...


class InMemory:
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._chain = ChainInMemory(started_at=clock())
        self.source: ChainSource = self._chain

    async def pay(self, address: str, units: int, *, asset: str = "native") -> str:
        payment = transfer(address, units, asset=asset)
        self._chain.wait(payment)
        return payment.tx_hash

    async def mine(self, blocks: int = 1) -> None:
        self._chain.mine(*self._chain.waiting, blocks=blocks, at=self._clock())

    async def reorganise(self, depth: int) -> None:
        held = self._chain.fork(depth)
        self._chain.mine(blocks=depth + 1, at=self._clock())
        self._chain.wait(*held)


class Simulated:
    def __init__(self, database: Database, clock: ManualClock) -> None:
        self._database, self._clock = database, clock
        self.source: ChainSource = SimulatedChain(database, "coin:regtest")

    async def pay(self, address: str, units: int, *, asset: str = "native") -> str:
        async with self._database.transaction() as session:
            return await demo.pay(session, "coin:regtest", asset=asset, address=address, units=units)

    async def mine(self, blocks: int = 1) -> None:
        async with self._database.transaction() as session:
            await demo.mine(session, "coin:regtest", blocks=blocks, now=self._clock())

    async def reorganise(self, depth: int) -> None:
        async with self._database.transaction() as session:
            await demo.reorganise(session, "coin:regtest", depth=depth, now=self._clock())


@pytest.fixture(params=["in memory", "simulated"])
async def playground(request: pytest.FixtureRequest, database: Database, clock: ManualClock) -> Playground:
    if request.param == "in memory":
        return InMemory(clock)
    async with database.transaction() as session:
        session.add(blockchain(clock))
        await session.flush()
        await demo.create(session, "coin:regtest", now=clock())
        await demo.create(session, "coin:regtest", now=clock())
    return Simulated(database, clock)


async def test_blocks_stand_on_their_parents_and_know_their_hash_and_time(
    playground: Playground, clock: ManualClock
) -> None:
    source = playground.source
    first = await source.tip()
    later: datetime = clock.advance(minutes=1)
    await playground.mine(3)
    assert await source.tip() == BlockRef(3, await source.block_hash(3))
    assert await source.block_hash(0) == first.hash
    for height in (1, 2, 3):
        block = await source.block(height, contracts=frozenset())
        assert block.ref == BlockRef(height, await source.block_hash(height))
        assert block.parent_hash == await source.block_hash(height - 1)
        assert block.mined_at == await source.mined_at(height) == later


async def test_a_block_that_is_not_there_is_said_not_to_be(playground: Playground) -> None:
    source = playground.source
    with pytest.raises(BlockNotFound):
        await source.block_hash(1)
    with pytest.raises(BlockNotFound):
        await source.mined_at(1)
    with pytest.raises(BlockNotFound):
        await source.block(1, contracts=frozenset())


async def test_a_payment_waits_then_is_in_one_block(playground: Playground) -> None:
    source = playground.source
    tx_hash = await playground.pay("addr", 12)
    expected = [Transfer(tx_hash, 0, "native", "addr", 12)]
    mempool = await source.mempool(known=frozenset())
    assert mempool is not None
    assert (mempool.tip_hash, mempool.tx_hashes) == ((await source.tip()).hash, frozenset({tx_hash}))
    assert list(mempool.transfers) == expected
    known = await source.mempool(known=frozenset({tx_hash}))
    assert known is not None
    assert known.tx_hashes == {tx_hash} and not known.transfers

    await playground.mine(2)
    assert list((await source.block(1, contracts=frozenset())).transfers) == expected
    assert list((await source.block(2, contracts=frozenset())).transfers) == []
    empty = await source.mempool(known=frozenset())
    assert empty is not None
    assert (empty.tip_hash, empty.tx_hashes) == ((await source.tip()).hash, frozenset())


async def test_only_tokens_asked_for_are_told(playground: Playground) -> None:
    await playground.pay("addr", 1, asset="0xtok")
    await playground.mine()
    assert list((await playground.source.block(1, contracts=frozenset({"0xother"}))).transfers) == []
    told = (await playground.source.block(1, contracts=frozenset({"0xtok"}))).transfers
    assert [each.asset for each in told] == ["0xtok"]


async def test_a_reorganisation_replaces_blocks_by_empty_ones_and_their_payments_wait_again(
    playground: Playground,
) -> None:
    source = playground.source
    await playground.mine()
    mined = await playground.pay("addr", 1)
    await playground.mine(2)
    still_waiting = await playground.pay("addr", 2)
    before = [await source.block_hash(height) for height in range(4)]
    await playground.reorganise(2)
    tip = await source.tip()
    assert tip.height == 4
    after = [await source.block_hash(height) for height in range(5)]
    assert (after[:2], len(set(before) & set(after))) == (before[:2], 2)
    for height in (2, 3, 4):
        block = await source.block(height, contracts=frozenset())
        assert (block.parent_hash, list(block.transfers)) == (after[height - 1], [])
    mempool = await source.mempool(known=frozenset())
    assert mempool is not None
    assert mempool.tx_hashes == {mined, still_waiting}


async def test_a_node_says_the_same_of_itself_each_time(playground: Playground) -> None:
    first, second = await playground.source.identify(), await playground.source.identify()
    assert first == second and first.identity and first.capabilities
    await playground.source.close()
