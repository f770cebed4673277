"""Reading transactions by their ids, many in one request (getrawtransaction)."""

from collections.abc import Sequence
from typing import Any

from keyserver.kit.jsonrpc import RpcError
from keyserver.watching.bitcoind_rpc import INVALID_ADDRESS_OR_KEY, AnswerTooLong, NodeRpc

#: Transactions asked for in one request.
BATCH = 100


async def read_transactions(rpc: NodeRpc, tx_hashes: Sequence[str], *more: Any) -> dict[str, Any]:
    """The node's answers by transaction, without those it does not find. `more` are further parameters of each call.

    Raises SourceError for every other failure.
    """
    found: dict[str, Any] = {}
    for start in range(0, len(tx_hashes), BATCH):
        found |= await _one_batch(rpc, tx_hashes[start : start + BATCH], *more)
    return found


async def _one_batch(rpc: NodeRpc, tx_hashes: Sequence[str], *more: Any) -> dict[str, Any]:
    try:
        answers = await rpc.batch("getrawtransaction", [(tx_hash, 1, *more) for tx_hash in tx_hashes])
    except AnswerTooLong:
        if len(tx_hashes) == 1:
            raise
        half = len(tx_hashes) // 2
        return await _one_batch(rpc, tx_hashes[:half], *more) | await _one_batch(rpc, tx_hashes[half:], *more)
    found: dict[str, Any] = {}
    for tx_hash, answer in zip(tx_hashes, answers, strict=True):
        if not isinstance(answer, RpcError):
            found[tx_hash] = answer
        elif answer.code != INVALID_ADDRESS_OR_KEY:
            raise rpc.failure("getrawtransaction", answer) from answer
    return found
