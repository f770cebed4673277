"""Coin passed on by contracts, where the node shows it: which of the two tracing methods it has is found out once."""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum

import structlog

from keyserver.kit.jsonrpc import RpcError
from keyserver.watching.evm_calls import EvmCalls, Overloaded
from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_traces import internal_calls_by_frames, internal_calls_by_traces
from keyserver.watching.evm_wire import FullBlock, Header
from keyserver.watching.ports import BlockNotFound, NodeUnavailable, Transfer

#: Traces are long: so many blocks at a time.
_SIDE_BY_SIDE = 4
_NOT_SHOWN = "not shown: balances are compared"
_log = structlog.get_logger("keyserver.evm")

Read = Callable[[object, FullBlock], list[Transfer]]


class Tracer(StrEnum):
    FRAMES = "debug_traceBlockByHash"
    TRACES = "trace_block"

    @property
    def read(self) -> Read:
        return internal_calls_by_frames if self is Tracer.FRAMES else internal_calls_by_traces

    def asked(self, header: Header) -> tuple[object, ...]:
        """trace_block takes no hash on most nodes; its answer names the block."""
        if self is Tracer.FRAMES:
            return header.hash, {"tracer": "callTracer"}
        return (hex(header.height),)


class InternalCallReader:
    """Until `probe` was called, and where a node has neither method, no internal call is shown."""

    def __init__(self, calls: EvmCalls) -> None:
        self._calls = calls
        self._tracer: Tracer | None = None

    @property
    def capability(self) -> str:
        return _NOT_SHOWN if self._tracer is None else str(self._tracer)

    async def probe(self, tip: Header) -> None:
        self._tracer = None
        for tracer in Tracer:
            if await self._offers(tracer, tip):
                self._tracer = tracer
                return

    async def _offers(self, tracer: Tracer, tip: Header) -> bool:
        """A node may know the method and still refuse it by its plan or its settings: only an answer proves it.

        Of the first block there is nothing to trace, and some nodes say so with an error.
        """
        try:
            answer = await self._calls.ask(tracer, *tracer.asked(tip))
        except RpcError as error:
            if classify(error.code, error.message) is Refusal.BUSY:
                raise Overloaded(f"the node refused {tracer}: {error}") from error
            return tip.height == 0 and "genesis" in error.message
        except Overloaded:
            raise
        except NodeUnavailable:
            return False
        return isinstance(answer, list)

    async def of_blocks(self, blocks: Sequence[FullBlock]) -> dict[str, list[Transfer] | None]:
        """By block hash: what internal calls moved; None when the node did not show it, whatever the reason."""
        found: dict[str, list[Transfer] | None] = {}
        for start in range(0, len(blocks), _SIDE_BY_SIDE):
            some = blocks[start : start + _SIDE_BY_SIDE]
            for block, transfers in zip(some, await asyncio.gather(*map(self._of_block, some)), strict=True):
                found[block.header.hash] = transfers
        return found

    async def _of_block(self, block: FullBlock) -> list[Transfer] | None:
        if not block.transactions:
            return []
        tracer = self._tracer
        if tracer is None:
            return None
        try:
            answer = await self._calls.ask(tracer, *tracer.asked(block.header))
            return tracer.read(answer, block)
        except RpcError as error:
            match classify(error.code, error.message):
                case Refusal.BUSY:
                    raise Overloaded(f"the node refused {tracer}: {error}") from error
                case Refusal.UNKNOWN_BLOCK:
                    raise BlockNotFound(f"the node does not know the block: {error}") from error
                case Refusal.UNSUPPORTED:
                    self._tracer = None
            reason = str(error)
        except Overloaded:
            raise
        except NodeUnavailable as error:  # too long, too slow, or not to be believed: balances will tell
            reason = str(error)
        _log.warning("block_not_traced", height=block.header.height, method=tracer, error=reason[:300])
        return None
