"""Asking an EVM node: what its errors mean to us, and batches no longer than it takes."""

from collections.abc import Sequence
from typing import Any

from keyserver.kit.jsonrpc import AnswerTooLarge, JsonRpc, RpcError, RpcUnavailable
from keyserver.watching.evm_refusals import Refusal, classify, refuses_batch
from keyserver.watching.ports import BlockNotFound, NodeUnavailable, SourceError

#: Calls of one JSON-RPC batch, as long as the node has not asked for fewer.
MOST_BATCHED = 100
_OVERLOADED = frozenset({429, 502, 503, 504})

Call = tuple[str, Sequence[Any]]


class Overloaded(NodeUnavailable):
    """The node wants to be left alone for a while."""


class Unanswered(NodeUnavailable):
    """The node refused this very request, by its length, its answer's length or its time: less may be answered."""


class EvmCalls:
    """One node. How many calls it takes at a time is found out by halving, and forgotten by `reset`."""

    def __init__(self, rpc: JsonRpc) -> None:
        self._rpc = rpc
        self._batched = MOST_BATCHED

    def reset(self) -> None:
        self._batched = MOST_BATCHED

    async def call(self, method: str, *params: Any) -> Any:
        """An answer that has no substitute: an error is a SourceError."""
        try:
            return await self.ask(method, *params)
        except RpcError as error:
            raise refused(method, error) from error

    async def ask(self, method: str, *params: Any) -> Any:
        """An answer, or the node's RpcError, which the caller understands. Anything else is NodeUnavailable."""
        try:
            return await self._rpc.call(method, *params)
        except RpcUnavailable as error:
            raise unavailable(error) from error

    async def many(self, method: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers in order, by as few requests as the node takes; what failed in a batch is repeated alone."""
        answers = await self.each([(method, params) for params in calls])
        for number, params in enumerate(calls):
            if isinstance(answers[number], RpcError):
                answers[number] = await self.call(method, *params)
        return answers

    async def each(self, calls: Sequence[Call]) -> list[Any]:
        """Answers in order, with the node's RpcError in the place of those it refused. Overloaded is raised."""
        answers: list[Any] = []
        while len(answers) < len(calls):
            chunk = calls[len(answers) : len(answers) + self._batched]
            answered = await self._batch(chunk)
            if answered is None:
                self._batched = max(1, len(chunk) // 2)
            else:
                answers += answered
        for (method, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, RpcError) and classify(answer.code, answer.message) is Refusal.BUSY:
                raise refused(method, answer) from answer
        return answers

    async def _batch(self, calls: Sequence[Call]) -> list[Any] | None:
        """None when the node refuses so many calls at a time."""
        if len(calls) == 1:
            ((method, params),) = calls
            try:
                return [await self.ask(method, *params)]
            except RpcError as error:
                return [error]
        try:
            answers = await self._rpc.batch(calls, return_errors=True)
        except RpcUnavailable as error:
            if _is_overloaded(error):
                raise unavailable(error) from error
            return None
        except RpcError as error:
            if classify(error.code, error.message) is Refusal.BUSY and not refuses_batch(error.message):
                raise refused("a batch", error) from error
            return None
        errors = [answer for answer in answers if isinstance(answer, RpcError)]
        return None if any(refuses_batch(error.message) for error in errors) else answers


def refused(method: str, error: RpcError) -> SourceError:
    match classify(error.code, error.message):
        case Refusal.UNKNOWN_BLOCK:
            return BlockNotFound(f"the node does not know the block: {error}")
        case Refusal.BUSY:
            return Overloaded(f"the node refused {method}: {error}")
        case _:
            return NodeUnavailable(f"the node refused {method}: {error}")


def _is_overloaded(error: RpcUnavailable) -> bool:
    return error.status in _OVERLOADED or error.retry_after is not None


def unavailable(error: RpcUnavailable) -> NodeUnavailable:
    if _is_overloaded(error):
        return Overloaded(str(error), retry_after=error.retry_after)
    too_much = isinstance(error, AnswerTooLarge) or error.status is not None
    return (Unanswered if too_much else NodeUnavailable)(str(error), retry_after=error.retry_after)
