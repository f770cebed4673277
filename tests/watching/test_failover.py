"""Several nodes of one blockchain: one serves, another takes over, and nobody is believed before saying who it is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.builders import ManualClock
from tests.watching.chain_in_memory import ChainInMemory, transfer
from tests.watching.world import UNIT_NANOS, World

from keyserver.watching.failover import BLOCKS_NOT_FOUND, Failover, Switched
from keyserver.watching.nodes import Candidate, NodeHealth, Patience
from keyserver.watching.ports import BlockRef, ChainSource, Node, NodeUnavailable, WrongNode

PATIENCE = Patience()
DOWN = NodeUnavailable("it is down")


@dataclass
class Nodes:
    """Nodes `a`, `b`, … of one chain, a monotonic clock to turn by hand, and the health that was noted last."""

    chains: dict[str, ChainInMemory]
    seconds: float = 1000.0
    noted: list[NodeHealth] = field(default_factory=list)
    refuse_notes: bool = False
    clock: ManualClock = field(default_factory=ManualClock)

    def source(self, *, patience: Patience = PATIENCE) -> Failover:
        return Failover(
            [Candidate(name, lambda name=name: self.chains[name]) for name in self.chains],  # type: ignore[misc]
            accept=self._accept,
            note=self._note,
            clock=self.clock,
            monotonic=lambda: self.seconds,
            patience=patience,
        )

    async def _accept(self, node: Node) -> None:
        if node.identity != "in memory":
            raise WrongNode(f"the node is on chain {node.identity}")

    async def _note(self, health: list[NodeHealth]) -> None:
        if self.refuse_notes:
            raise ConnectionError("the database is away")
        self.noted = health

    def down(self, name: str, *, times: int = 1000, error: Exception = DOWN) -> None:
        self.chains[name].failures = [error] * times

    def up(self, name: str) -> None:
        self.chains[name].failures = []

    def states(self) -> dict[str, str]:
        return {each.node: each.state.value for each in self.noted}

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - what goes on beside the step sets no event
                await asyncio.sleep(0.005)


def some_nodes(count: int = 2) -> Nodes:
    """They show the same twenty blocks."""
    first = ChainInMemory()
    first.mine(blocks=20)
    others = [ChainInMemory(branch=list(first.branch)) for _ in range(count - 1)]
    return Nodes(dict(zip("abcdef", [first, *others], strict=False)))


async def tip(source: Failover) -> int:
    """The height of the tip, from whichever node takes over."""
    while True:
        try:
            return (await source.tip()).height
        except Switched:
            continue


async def test_the_first_node_serves_as_long_as_it_works() -> None:
    nodes = some_nodes()
    source = nodes.source()
    for _ in range(3):
        assert await tip(source) == 20
    assert nodes.chains["a"].identified == 1
    assert (await source.block(3, contracts=frozenset())).height == 3
    assert nodes.chains["b"].fetched == []
    await source.close()
    assert nodes.chains["a"].closed


async def test_a_failure_ends_the_step_and_the_next_begins_on_another_node() -> None:
    nodes = some_nodes()
    source = nodes.source()
    await source.tip()
    nodes.down("a")
    with pytest.raises(Switched, match=r"a: it is down; b takes over"):
        await source.blocks(1, 3, contracts=frozenset())
    before = nodes.chains["b"].identified
    assert nodes.chains["b"].fetched == []
    found = await source.blocks(1, 3, contracts=frozenset())
    assert [block.height for block in found] == nodes.chains["b"].fetched == [1, 2, 3]
    assert nodes.chains["b"].identified == before + 1
    assert nodes.states() == {"a": "failing", "b": "in use"}
    assert nodes.noted[0].last_error == "it is down"
    assert nodes.noted[0].last_error_at == nodes.clock()


async def test_a_node_that_is_back_waits_its_turn() -> None:
    nodes = some_nodes()
    source = nodes.source()
    nodes.down("a")
    assert await tip(source) == 20
    nodes.up("a")
    nodes.seconds += PATIENCE.after_failure
    assert await tip(source) == 20
    nodes.seconds += PATIENCE.between_looks
    await source.tip()
    await nodes.until(lambda: nodes.states() == {"a": "ready", "b": "in use"})
    nodes.down("b")
    assert await tip(source) == 20
    assert nodes.states() == {"a": "in use", "b": "failing"}


async def test_a_node_of_another_chain_never_serves() -> None:
    nodes = some_nodes()
    nodes.chains["b"].identity = "another"
    source = nodes.source()
    await source.tip()
    nodes.down("a")
    with pytest.raises(Switched):
        await source.block_hash(3)
    for _ in range(2):
        with pytest.raises(NodeUnavailable, match=r"none of 2 nodes can be used: a: it is down; b: .* chain another"):
            await source.block_hash(3)
        nodes.seconds += PATIENCE.after_failure
    assert nodes.states()["b"] == "wrong chain"
    nodes.up("a")
    assert await tip(source) == 20
    assert nodes.chains["b"].fetched == []


async def test_a_node_that_turns_into_another_chain_is_found_out_when_it_takes_over_again() -> None:
    nodes = some_nodes()
    source = nodes.source()
    nodes.down("a")
    await tip(source)
    nodes.chains["a"].identity = "another"
    nodes.up("a")
    nodes.seconds += PATIENCE.after_failure
    nodes.down("b")
    with pytest.raises(NodeUnavailable, match="chain another"):
        await tip(source)


async def test_while_all_are_down_they_are_tried_in_turn_and_the_first_that_is_back_serves() -> None:
    nodes = some_nodes(3)
    source = nodes.source()
    for name in nodes.chains:
        nodes.down(name)
    asked = []
    for _ in range(6):
        before = {name: len(chain.failures) for name, chain in nodes.chains.items()}
        with pytest.raises(NodeUnavailable):
            await source.tip()
        asked += [name for name, chain in nodes.chains.items() if len(chain.failures) < before[name]]
        nodes.seconds += 1
    assert asked == ["a", "b", "c", "a", "b", "c"]
    nodes.up("b")
    async with asyncio.timeout(5):
        while nodes.states().get("b") != "in use":
            try:
                await source.tip()
            except NodeUnavailable:
                nodes.seconds += 1


async def test_a_node_that_asked_for_a_pause_is_not_asked_before_and_the_other_is() -> None:
    nodes = some_nodes()
    source = nodes.source()
    nodes.down("a", error=NodeUnavailable("too many requests", retry_after=120))
    assert await tip(source) == 20
    left = len(nodes.chains["a"].failures)
    nodes.down("b", error=NodeUnavailable("too many requests", retry_after=60))
    for elapsed in (0, 30):
        nodes.seconds += elapsed
        with pytest.raises(NodeUnavailable) as refused:
            await source.tip()
        assert refused.value.retry_after == pytest.approx(60 - elapsed)
    assert len(nodes.chains["a"].failures) == left
    nodes.seconds += 30
    nodes.up("b")
    assert await tip(source) == 20
    assert nodes.states()["b"] == "in use"


async def test_a_node_that_stands_still_while_another_goes_on_is_left() -> None:
    nodes = some_nodes()
    source = nodes.source()
    nodes.chains["b"].mine(blocks=5)
    assert (await source.tip()).height == 20
    await nodes.until(lambda: nodes.states() == {"a": "in use", "b": "ready"})
    assert (await source.tip()).height == 20, "it may only be a moment behind"
    nodes.seconds += PATIENCE.behind
    with pytest.raises(Switched, match="its newest block is 20, while b has shown 25"):
        await source.tip()
    assert (await source.tip()).height == 25
    assert nodes.states() == {"a": "lagging", "b": "in use"}


async def test_a_node_one_block_behind_is_left_after_minutes_and_not_before() -> None:
    nodes = some_nodes()
    source = nodes.source()
    nodes.chains["b"].mine()
    await source.tip()
    await nodes.until(lambda: nodes.states() == {"a": "in use", "b": "ready"})
    nodes.seconds += PATIENCE.behind_at_all - 1
    assert (await source.tip()).height == 20
    nodes.seconds += 1
    assert await tip(source) == 21


async def test_two_nodes_that_go_on_together_never_change() -> None:
    nodes = some_nodes()
    source = nodes.source()
    for _ in range(20):
        first = nodes.chains["a"]
        first.mine()
        nodes.chains["b"].branch = list(first.branch)
        nodes.seconds += PATIENCE.between_looks
        assert (await source.tip()).height == first.height
        await asyncio.sleep(0)
    assert nodes.states()["a"] == "in use"
    await source.close()


async def test_a_node_that_lags_takes_over_only_until_a_better_one_is_back() -> None:
    nodes = some_nodes()
    nodes.chains["b"].lag = 10
    source = nodes.source()
    await source.tip()
    nodes.down("a")
    assert await tip(source) == 10
    nodes.up("a")
    nodes.seconds += PATIENCE.between_looks
    await source.tip()
    await nodes.until(lambda: nodes.states() == {"a": "ready", "b": "in use"})
    nodes.seconds += PATIENCE.behind
    assert await tip(source) == 20


async def test_a_node_that_never_gives_the_block_after_ours_is_left() -> None:
    nodes = some_nodes()
    nodes.chains["a"].lag = 10
    source = nodes.source()
    errors: list[Exception] = []
    for _ in range(BLOCKS_NOT_FOUND):
        with pytest.raises(Exception, match=r"there is no block 11|b takes over") as raised:
            await source.blocks(11, 2, contracts=frozenset())
        errors.append(raised.value)
    assert isinstance(errors[-1], Switched)
    assert [block.height for block in await source.blocks(11, 2, contracts=frozenset())] == [11, 12]


async def test_a_node_that_hangs_is_left_when_there_is_another() -> None:
    class Hanging(ChainInMemory):
        async def tip(self) -> BlockRef:
            await asyncio.Event().wait()
            raise AssertionError

    nodes = some_nodes()
    nodes.chains["a"] = Hanging(branch=list(nodes.chains["b"].branch))
    source = nodes.source(patience=Patience(answer=0.05))
    with pytest.raises(Switched, match=r"did not answer within 0\.05 seconds"):
        await source.tip()
    assert await tip(source) == 20


async def test_a_second_node_that_hangs_holds_up_nothing() -> None:
    class Hanging(ChainInMemory):
        async def identify(self) -> Node:
            await asyncio.Event().wait()
            raise AssertionError

    nodes = some_nodes()
    nodes.chains["b"] = Hanging(branch=list(nodes.chains["a"].branch))
    source = nodes.source()
    async with asyncio.timeout(5):
        for _ in range(3):
            nodes.seconds += PATIENCE.between_looks
            assert await tip(source) == 20
        await source.close()


async def test_an_answer_nobody_understands_is_a_failure_of_its_node() -> None:
    nodes = some_nodes()
    nodes.chains["a"].broken[5] = ValueError("unreadable")
    source = nodes.source()
    with pytest.raises(Switched, match="a: unreadable"):
        await source.block(5, contracts=frozenset())
    assert (await source.block(5, contracts=frozenset())).height == 5


async def test_the_only_node_fails_in_its_own_words_and_is_asked_again_at_once() -> None:
    nodes = some_nodes(1)
    source = nodes.source()
    nodes.down("a", times=1)
    with pytest.raises(NodeUnavailable) as failed:
        await source.tip()
    assert failed.value is DOWN
    assert (await source.tip()).height == 20


async def test_whatever_the_port_asks_is_asked_of_a_node() -> None:
    """What the port itself answers would be nobody's answer."""
    asked = {name for name in vars(ChainSource) if not name.startswith("_")}
    assert asked <= vars(Failover).keys()


async def test_health_that_could_not_be_noted_is_noted_later() -> None:
    nodes = some_nodes()
    source = nodes.source()
    nodes.refuse_notes = True
    assert await tip(source) == 20
    assert nodes.noted == []
    nodes.refuse_notes = False
    nodes.down("a", times=1)
    await tip(source)
    assert nodes.states() == {"a": "failing", "b": "in use"}


# --- followed ---------------------------------------------------------------------------------------------------


async def test_payments_are_credited_once_whatever_nodes_come_and_go(world: World) -> None:
    """Two nodes that fail by turns, on rival branches that both hold the payment."""
    first = world.chain
    second = ChainInMemory(started_at=first.started_at, branch=list(first.branch))
    nodes = Nodes({"a": first, "b": second})
    follower = world.follower(chain=nodes.source())
    charge = await world.charge(100)

    async def follow() -> None:
        for _ in range(200):
            nodes.seconds += 1
            try:
                if not (await follower.step()).behind:
                    return
            except NodeUnavailable:
                continue
        raise AssertionError("it never got through")

    first.mine(paid := transfer(charge.address, 100), blocks=2)
    second.mine(blocks=1)
    second.mine(paid, blocks=3)
    for call in range(12):
        first.failures = [DOWN] * (call % 3)
        second.failures = [DOWN] * (call % 4)
        await follow()
    first.failures = []
    second.branch = list(first.branch)
    first.mine(blocks=6)
    second.branch = list(first.branch)
    second.failures = []
    await follow()
    assert await world.balance() == 100 * UNIT_NANOS
    assert [(each.amount_units, each.status.value) for each in await world.payments()] == [(100, "confirmed")]
