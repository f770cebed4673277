"""One follower for every blockchain: started as they are registered, retried, changed, ended."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select
from tests.builders import MASTER_KEY
from tests.watching.chain_in_memory import ChainInMemory
from tests.watching.world import BLOCKCHAIN, World, blockchain, method

from keyserver.chains.models import NATIVE, PaymentMethod
from keyserver.kit.secrets import MasterKey
from keyserver.kit.supervise import Backoff
from keyserver.watching.models import NodeReport, Scanner
from keyserver.watching.ports import BlockRef, ChainSource, NodeUnavailable
from keyserver.watching.targets import Target
from keyserver.watching.watcher import ALARM_AFTER, Watcher

MASTER = MasterKey(MASTER_KEY)
QUICK = Backoff(first=0.01, most=0.02)


@asynccontextmanager
async def watching(world: World, make_source: Callable[[Target], ChainSource], **options: Any) -> AsyncIterator[None]:
    watcher = Watcher(
        world.database,
        make_source,
        market=world.market,
        master=MASTER,
        clock=world.clock,
        poll_seconds=0.02,
        told=lambda: None,
        backoff=QUICK,
        **options,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(watcher.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def reach_node(world: World, url: str, method_id: str = "COIN") -> None:
    async with world.database.transaction() as session:
        (await session.get_one(PaymentMethod, method_id)).rpc_url_encrypted = MASTER.encrypt(url)


async def height(world: World, blockchain_id: str = BLOCKCHAIN) -> int | None:
    async with world.database.transaction() as session:
        found: int | None = await session.scalar(select(Scanner.height).where(Scanner.blockchain_id == blockchain_id))
        return found


async def until_height(world: World, wanted: int, blockchain_id: str = BLOCKCHAIN) -> None:
    async with asyncio.timeout(10):
        while await height(world, blockchain_id) != wanted:  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(0.02)


def stuck(chain: str = "coin") -> float | None:
    return REGISTRY.get_sample_value("keyserver_block_stuck", {"chain": chain, "network": "regtest"})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody there sets an event
            await asyncio.sleep(0.01)


async def test_new_and_changed_targets_are_picked_up_and_ended_cleanly(world: World) -> None:
    sources: dict[str, ChainInMemory] = {}

    def make(target: Target) -> ChainSource:
        sources[target.nodes[0].url] = ChainInMemory(started_at=world.clock(), branch=list(world.chain.branch))
        return sources[target.nodes[0].url]

    async with watching(world, make):
        await reach_node(world, "http://first")
        await until_height(world, 0)
        await reach_node(world, "http://second")
        await until(lambda: "http://second" in sources and sources["http://first"].closed)
        sources["http://second"].mine(blocks=3)
        await until_height(world, 3)
        async with world.database.transaction() as session:
            session.add(blockchain(world.clock, "other"))
            await session.flush()
            url = MASTER.encrypt("http://other")
            session.add(method("OTHER", "COIN", NATIVE, blockchain_id="other:regtest", rpc_url_encrypted=url))
        began = time.monotonic()
        await until_height(world, 0, "other:regtest")
        assert time.monotonic() - began < 3
    assert all(each.closed for each in sources.values())


async def test_a_node_that_is_down_is_asked_again_reported_and_alarmed_until_it_is_back(world: World) -> None:
    await reach_node(world, "http://node")
    down = NodeUnavailable("the node is down")
    world.chain.failures.extend([down] * (ALARM_AFTER + 2))
    async with watching(world, lambda _: world.chain):
        await until(lambda: stuck() == 1)
        await until_height(world, 0)
        await until(lambda: stuck() == 0)
    async with world.database.transaction() as session:
        report = await session.get_one(NodeReport, BLOCKCHAIN)
        assert (report.last_error, report.last_error_at) == ("the node is down", world.clock())


async def test_a_failing_block_sets_the_alarm_and_is_not_skipped_and_mending_the_url_clears_it(world: World) -> None:
    await reach_node(world, "http://bad")
    good = ChainInMemory(started_at=world.clock())
    good.mine(blocks=4)
    bad = ChainInMemory(started_at=world.clock(), branch=list(good.branch), broken={3: RuntimeError("unreadable")})
    async with watching(world, lambda target: bad if target.nodes[0].url == "http://bad" else good):
        await until(lambda: stuck() == 1)
        assert await height(world) == 2
        await reach_node(world, "http://good")
        await until_height(world, 4)
        await until(lambda: stuck() == 0)


async def test_a_node_says_itself_when_to_ask_again(world: World) -> None:
    await reach_node(world, "http://node")
    world.chain.failures.append(NodeUnavailable("too many requests", retry_after=0.5))
    began = time.monotonic()
    async with watching(world, lambda _: world.chain):
        await until_height(world, 0)
    assert time.monotonic() - began >= 0.5


async def test_a_source_that_cannot_be_made_is_reported_and_tried_again(world: World) -> None:
    await reach_node(world, "http://node")
    tries = 0

    def make(_: Target) -> ChainSource:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError("no such chain")
        return world.chain

    async with watching(world, make):
        await until_height(world, 0)
    async with world.database.transaction() as session:
        assert "no such chain" in ((await session.get_one(NodeReport, BLOCKCHAIN)).last_error or "")


async def test_a_url_that_another_master_key_encrypted_is_reported(world: World) -> None:
    async with world.database.transaction() as session:
        changed = await session.get_one(PaymentMethod, "COIN")
        changed.rpc_url_encrypted = MasterKey("some other master key").encrypt("http://node")
    async with watching(world, lambda _: pytest.fail("there is nothing to follow")), asyncio.timeout(10):
        while True:
            async with world.database.transaction() as session:
                report = await session.get(NodeReport, BLOCKCHAIN)
            if report is not None and "COIN" in (report.last_error or ""):
                return
            await asyncio.sleep(0.02)


async def test_a_node_that_never_answers_does_not_hold_up_the_end_nor_its_successor(world: World) -> None:
    class Silent(ChainInMemory):
        async def tip(self) -> BlockRef:
            await asyncio.Event().wait()
            raise AssertionError

    await reach_node(world, "http://silent")
    silent = Silent(started_at=world.clock())
    async with watching(world, lambda target: silent if "silent" in target.nodes[0].url else world.chain, grace=0.2):
        await until(lambda: silent.identified == 1)
        await reach_node(world, "http://node")
        began = time.monotonic()
        await until_height(world, 0)
        assert time.monotonic() - began < 3
        await until(lambda: silent.closed)
