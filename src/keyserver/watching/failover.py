"""The nodes of one blockchain as one source: one of them is used until it fails, and then another takes over.

Whoever takes over is identified before its first answer counts. A failure always ends the caller's step, which begins
anew on the next node (`Switched`), so that no step mixes the answers of two; what one step left off at and the next
finds is compared by parent hashes, as after any reorganisation.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

import structlog

from keyserver.kit.clock import Clock
from keyserver.kit.db import is_unavailable
from keyserver.watching.nodes import Candidate, NodeHealth, NodeState, Patience
from keyserver.watching.ports import (
    Block,
    BlockNotFound,
    BlockRef,
    ChainSource,
    FinalityTag,
    Holding,
    Mempool,
    Node,
    NodeUnavailable,
    WrongNode,
)

T = TypeVar("T")
Accept = Callable[[Node], Awaitable[None]]
Note = Callable[[list[NodeHealth]], Awaitable[None]]

#: So many blocks in a row that a node's own tip promises and it does not give are a failure of the node.
BLOCKS_NOT_FOUND = 10
_log = structlog.get_logger("keyserver.nodes")


class Switched(NodeUnavailable):
    """A node failed and another takes over: try again at once."""


class Failover(ChainSource):
    """`candidates` in the order of preference, at least one.

    `accept` raises WrongNode for a node of another chain than was followed so far. `note` is told the health of all of
    them when it changed; what it raises is logged, and told again later.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        accept: Accept,
        note: Note,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._candidates = candidates
        self._accept = accept
        self._note = note
        self._clock = clock
        self._now = monotonic
        self._patience = patience
        self._current: Candidate | None = None
        self._introduced = False
        self._not_found = 0
        self._noted: list[NodeHealth] | None = None
        self._look: asyncio.Task[None] | None = None
        self._next_look = 0.0

    # --- the port -----------------------------------------------------------------------------------------------

    async def identify(self) -> Node:
        return await self._introduce(self._chosen())

    async def tip(self) -> BlockRef:
        tip = await self._ask(lambda source: self._soon(source.tip()))
        current, now = self._chosen(), self._now()
        for other in self._candidates:
            if other is not current and other.leads(tip.height, now=now, patience=self._patience):
                await self._give_up(current, other.describe_lead(tip.height), successor=other)
        self._look_at_the_others_when_due()
        return tip

    async def block_hash(self, height: int) -> str:
        return await self._ask(lambda source: source.block_hash(height))

    async def mined_at(self, height: int) -> datetime:
        return await self._ask(lambda source: source.mined_at(height))

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:
        return await self._ask(lambda source: source.block(height, contracts=contracts))

    async def blocks(self, first: int, count: int, *, contracts: frozenset[str]) -> list[Block]:
        try:
            found = await self._ask(lambda source: source.blocks(first, count, contracts=contracts))
        except BlockNotFound as error:
            self._not_found += 1
            if self._not_found >= BLOCKS_NOT_FOUND:
                self._not_found = 0
                await self._give_up(self._chosen(), NodeUnavailable(f"it does not give block {first}: {error}"))
            raise
        self._not_found = 0
        return found

    async def news(self, tip: BlockRef, *, within: float) -> None:
        if self._current is None:
            await asyncio.sleep(within)
        else:
            await self._current.source.news(tip, within=within)

    async def final_height(self, tag: FinalityTag) -> int | None:
        return await self._ask(lambda source: source.final_height(tag))

    async def holdings(self, addresses: Sequence[str], *, block_hash: str) -> list[Holding] | None:
        return await self._ask(lambda source: source.holdings(addresses, block_hash=block_hash))

    async def spending(self, address: str, *, block_hash: str) -> int:
        return await self._ask(lambda source: source.spending(address, block_hash=block_hash))

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:
        return await self._ask(lambda source: source.mempool(known=known))

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in self._candidates), return_exceptions=True)

    # --- the one in use -----------------------------------------------------------------------------------------

    def _chosen(self) -> Candidate:
        """The node in use; else the first that is free, else the one that was left alone the longest."""
        if self._current is None:
            now = self._now()
            allowed = [each for each in self._candidates if now >= each.not_before]
            if not allowed:
                raise self._none_left()
            self._current = min(allowed, key=lambda each: max(each.left_alone_until, now))
            self._introduced = False
        return self._current

    async def _introduce(self, candidate: Candidate) -> Node:
        try:
            node = await self._soon(candidate.source.identify())
        except Exception as error:
            await self._give_up(candidate, error)
            raise
        try:
            await self._accept(node)
        except WrongNode as error:
            await self._give_up(candidate, error)
            raise
        self._introduced = True
        candidate.state = NodeState.IN_USE
        await self._tell()
        return node

    async def _ask(self, call: Callable[[ChainSource], Awaitable[T]]) -> T:
        candidate = self._chosen()
        if not self._introduced:
            await self._introduce(candidate)
        try:
            return await call(candidate.source)
        except BlockNotFound:
            raise
        except Exception as error:
            await self._give_up(candidate, error)
            raise

    async def _soon(self, answer: Awaitable[T]) -> T:
        """A node that hangs is given up before its own time-out, when there is another."""
        within = self._patience.answer if len(self._candidates) > 1 else None
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise NodeUnavailable(f"it did not answer within {within} seconds") from None

    async def _give_up(self, candidate: Candidate, error: Exception, *, successor: Candidate | None = None) -> None:
        """Raises Switched when another node can take over; returns when this one was the only one there is."""
        now = self._now()
        candidate.failed(error, at=self._clock(), now=now, patience=self._patience)
        self._current, self._introduced = successor, False
        await self._tell()
        if len(self._candidates) == 1:
            return
        if not any(each.is_free(now) for each in self._candidates):
            raise self._none_left() from error
        raise Switched(f"{candidate.name}: {candidate.last_error}; {self._chosen().name} takes over") from error

    def _none_left(self) -> NodeUnavailable:
        """`retry_after` when all of them have asked for a pause: until the first may be asked again."""
        wait = min(each.not_before for each in self._candidates) - self._now()
        errors = [f"{each.name}: {each.last_error}" for each in self._candidates]
        sentence = errors[0] if len(errors) == 1 else f"none of {len(errors)} nodes can be used: {'; '.join(errors)}"
        return NodeUnavailable(sentence, retry_after=wait if wait > 0 else None)

    # --- those that wait ----------------------------------------------------------------------------------------

    def _look_at_the_others_when_due(self) -> None:
        """Beside the step, which a node that does not answer must not hold up."""
        if len(self._candidates) == 1 or self._now() < self._next_look or not (self._look is None or self._look.done()):
            return
        self._next_look = self._now() + self._patience.between_looks
        self._look = asyncio.create_task(self._look_at_the_others())

    async def _look_at_the_others(self) -> None:
        now = self._now()
        waiting = [each for each in self._candidates if each is not self._current and each.is_free(now)]
        await asyncio.gather(*(self._look_at(each) for each in waiting))
        await self._tell()

    async def _look_at(self, candidate: Candidate) -> None:
        try:
            await self._accept(await candidate.source.identify())
            tip = await candidate.source.tip()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it cannot take over
            if candidate is not self._current and not is_unavailable(error):  # else it was our own database
                candidate.failed(error, at=self._clock(), now=self._now(), patience=self._patience)
        else:
            if candidate is not self._current:
                candidate.showed(tip.height, now=self._now())

    async def _tell(self) -> None:
        health = [each.health for each in self._candidates]
        if health == self._noted:
            return
        try:
            await self._note(health)
        except Exception as error:  # noqa: BLE001 - the database may be away; nothing rests on it
            _log.warning("health_not_noted", error=type(error).__name__)
        else:
            self._noted = health
