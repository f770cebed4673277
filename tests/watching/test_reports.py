"""What an operator is shown of a chain that is followed: its state in one word, the error and whether it stands."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.watching.chain_in_memory import ChainInMemory
from tests.watching.test_watcher import MASTER, reach_node, until, until_height, watching
from tests.watching.world import BLOCKCHAIN, World

from keyserver.chains.models import Blockchain, Finality, PaymentMethod
from keyserver.watching.models import NodeReport, Scanner
from keyserver.watching.pace import Pace
from keyserver.watching.ports import BlockRef, ChainSource, NodeUnavailable
from keyserver.watching.reports import (
    ScannerState,
    ScannerStatus,
    report_failure,
    report_recovery,
    scanner_statuses,
)
from keyserver.watching.several import several_nodes
from keyserver.watching.targets import NodeAddress, Target, target_of


async def status(world: World) -> ScannerStatus:
    async with world.database.transaction() as session:
        (found,) = await scanner_statuses(session, now=world.clock())
        return found


async def known(world: World, *, height: int = 100, tip: int = 100, **columns: Any) -> None:
    """What followers wrote down just now."""
    now = world.clock()
    async with world.database.transaction() as session:
        await session.merge(Scanner(blockchain_id=BLOCKCHAIN, height=height, block_hash="x", moved_at=now))
        row = {"tip_height": tip, "tip_seen_at": now} | columns
        await session.merge(NodeReport(blockchain_id=BLOCKCHAIN, **row))


# --- the state ----------------------------------------------------------------------------------------------------


async def test_a_chain_nobody_reached_yet_is_not_started(world: World) -> None:
    found = await status(world)
    assert (found.state, found.height, found.tip, found.lag) == (ScannerState.NOT_STARTED, None, None, None)
    assert (found.error_stands, found.nodes, found.capabilities) == (False, [], {})


@pytest.mark.parametrize(
    ("tip", "state"), [(100, ScannerState.FOLLOWING), (102, ScannerState.FOLLOWING), (103, ScannerState.CATCHING_UP)]
)
async def test_a_few_blocks_behind_is_following_and_more_is_catching_up(
    world: World, tip: int, state: ScannerState
) -> None:
    await known(world, tip=tip)
    assert (await status(world)).state is state


async def test_how_long_catching_up_takes_is_told_from_the_rate(world: World) -> None:
    await known(world, height=100, tip=1100, blocks_per_second=4.0)
    found = await status(world)
    assert (found.blocks_per_second, found.caught_up_in_seconds) == (4.0, 250)
    await known(world, height=100, tip=1100, blocks_per_second=0.0)
    assert (await status(world)).caught_up_in_seconds is None


async def test_an_error_stands_until_a_try_works_and_is_stuck_after_a_minute(world: World) -> None:
    await known(world)
    world.clock.advance(seconds=1)
    for _ in range(3):
        async with world.database.transaction() as session:
            await report_failure(session, BLOCKCHAIN, "it is down", now=world.clock())
        found = await status(world)
        assert (found.state, found.error_stands) == (ScannerState.FOLLOWING, True)
        world.clock.advance(seconds=20)
    found = await status(world)
    assert (found.state, found.last_error) == (ScannerState.STUCK, "it is down")
    async with world.database.transaction() as session:
        await report_recovery(session, BLOCKCHAIN)
    found = await status(world)
    assert (found.state, found.error_stands, found.last_error) == (ScannerState.FOLLOWING, False, "it is down")


async def test_an_error_of_a_process_that_is_gone_does_not_stand_while_another_follows_on(world: World) -> None:
    async with world.database.transaction() as session:
        await report_failure(session, BLOCKCHAIN, "it is down", now=world.clock())
    world.clock.advance(minutes=2)
    assert (await status(world)).state is ScannerState.STUCK
    await known(world)
    found = await status(world)
    assert (found.state, found.error_stands) == (ScannerState.FOLLOWING, False)


async def test_a_chain_that_nobody_follows_any_more_is_stuck(world: World) -> None:
    await known(world)
    world.clock.advance(minutes=4)
    assert (await status(world)).state is ScannerState.FOLLOWING
    world.clock.advance(minutes=1)
    assert (await status(world)).state is ScannerState.STUCK


async def test_a_chain_that_is_seldom_asked_is_given_time(world: World) -> None:
    await known(world)
    async with world.database.transaction() as session:
        (await session.get_one(Blockchain, BLOCKCHAIN)).poll_seconds = 600
    world.clock.advance(minutes=99)
    assert (await status(world)).state is ScannerState.FOLLOWING


async def test_the_final_height_is_shown_where_it_is_asked_for(world: World) -> None:
    await known(world, final_height=64)
    assert (await status(world)).final_height is None
    async with world.database.transaction() as session:
        (await session.get_one(Blockchain, BLOCKCHAIN)).finality = Finality.SAFE
    found = await status(world)
    assert (found.finality, found.final_height) == ("safe", 64)


async def test_the_rate_is_of_the_last_minute_and_begins_anew_after_a_fork(world: World) -> None:
    pace = Pace()
    assert pace.blocks_per_second is None
    for second in range(0, 120, 10):
        pace.note(second * (1 if second < 60 else 3), at=world.clock.now + timedelta(seconds=second))
    assert pace.blocks_per_second == pytest.approx((330 - 50) / 60)
    pace.note(300, at=world.clock.now + timedelta(seconds=120))
    assert pace.blocks_per_second is None
    pace.note(310, at=world.clock.now + timedelta(seconds=125))
    assert pace.blocks_per_second == 2.0


# --- the nodes ----------------------------------------------------------------------------------------------------


async def methods(world: World, **urls: str) -> None:
    async with world.database.transaction() as session:
        for method_id, url in urls.items():
            (await session.get_one(PaymentMethod, method_id)).rpc_url_encrypted = MASTER.encrypt(url)


def several(world: World, make: Callable[[NodeAddress], ChainSource]) -> Callable[[Target], ChainSource]:
    return lambda target: several_nodes(target, make, database=world.database, clock=world.clock, reporting=True)


async def test_the_nodes_of_all_enabled_methods_serve_each_once_the_newest_methods_first(world: World) -> None:
    await methods(world, COIN="http://u:p@a:1/x\nhttp://b:2", TOK="http://b:2\nhttps://c.example/key")
    async with world.database.transaction() as session:
        blockchain = await session.get_one(Blockchain, BLOCKCHAIN)
        rows = [await session.get_one(PaymentMethod, name) for name in ("TOK", "COIN")]
        target = target_of(blockchain, rows, MASTER)
    assert [each.name for each in target.nodes] == ["b:2", "c.example:443", "a:1"]


async def test_a_disabled_methods_nodes_serve_only_where_there_is_no_other(world: World) -> None:
    await methods(world, COIN="http://old", TOK="http://new")
    seen: list[tuple[str, ...]] = []

    def make(target: Target) -> ChainSource:
        seen.append(tuple(node.name for node in target.nodes))
        return ChainInMemory(branch=list(world.chain.branch))

    async def disable(*ids: str) -> None:
        async with world.database.transaction() as session:
            for each in ids:
                (await session.get_one(PaymentMethod, each)).enabled = False

    async with watching(world, make):
        await until(lambda: bool(seen))
        assert set(seen[-1]) == {"old:80", "new:80"}
        await disable("TOK")
        await until(lambda: seen[-1] == ("old:80",))
        await disable("COIN")
        await until(lambda: set(seen[-1]) == {"old:80", "new:80"})


async def test_a_node_that_fails_is_replaced_shown_and_counted_and_nothing_stands(world: World) -> None:
    await reach_node(world, "http://user:secret@first:1/key\nhttp://second:2/key\nhttp://second:2/other")
    good = ChainInMemory(started_at=world.clock(), branch=list(world.chain.branch))
    good.mine(blocks=5)
    world.chain.failures = [NodeUnavailable("it is down")] * 1000
    chains = {"http://user:secret@first:1/key": world.chain}
    labels = {"chain": "coin", "network": "regtest"}
    before = REGISTRY.get_sample_value("keyserver_node_changes_total", labels) or 0.0
    async with watching(world, several(world, lambda node: chains.get(node.url, good))):
        await until_height(world, 5)
    found = await status(world)
    assert [(each["node"], each["state"], each["last_error"]) for each in found.nodes][:2] == [
        ("first:1", "failing", "it is down"),
        ("second:2", "in use", None),
    ]
    assert found.nodes[2]["node"] == "second:2 (2)"
    assert (found.error_stands, found.last_error) == (False, None)
    assert REGISTRY.get_sample_value("keyserver_node_changes_total", labels) == before + 1
    assert "secret" not in repr(found) and "key" not in repr(found.nodes)


async def test_a_method_whose_node_cannot_be_read_is_shown_beside_those_that_serve(world: World) -> None:
    await reach_node(world, "http://node:1")
    async with world.database.transaction() as session:
        (await session.get_one(PaymentMethod, "TOK")).rpc_url_encrypted = b"of another master key"
    async with watching(world, several(world, lambda _: world.chain)):
        await until_height(world, 0)
    rows = {each["node"]: (each["state"], each["last_error"]) for each in (await status(world)).nodes}
    assert rows["node:1"] == ("in use", None)
    state, error = rows["TOK"]
    assert state == "unreadable"
    assert "the node's URL of TOK" in error and "PATCH" in error


async def test_a_chain_is_followed_at_once_when_its_node_tells_of_a_block(world: World) -> None:
    """The interval is an hour: only the news can have brought it."""

    class Telling(ChainInMemory):
        async def news(self, tip: BlockRef, *, within: float) -> None:
            assert within == 3600
            await until(lambda: self.branch[-1].ref != tip)

    chain = Telling(started_at=world.clock(), branch=list(world.chain.branch))
    async with world.database.transaction() as session:
        (await session.get_one(Blockchain, BLOCKCHAIN)).poll_seconds = 3600
    await reach_node(world, "http://node")
    async with watching(world, several(world, lambda _: chain)):
        await until_height(world, 0)
        for height in (1, 2, 3):
            chain.mine()
            await until_height(world, height)
