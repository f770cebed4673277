"""Which of a block's transactions moved TRX, asked of java-tron's HTTP API (`/wallet`) beside its JSON-RPC.

Hosted nodes have both under one host, `…/jsonrpc` and `…/wallet/…`; java-tron itself serves them on two ports.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from keyserver.kit.jsonrpc import JsonRpc, RpcUnavailable
from keyserver.watching.evm_calls import Overloaded, unavailable
from keyserver.watching.evm_wire import FullBlock
from keyserver.watching.tron_wire import coin_transfers

_BLOCK_BY_ID = "/wallet/getblockbyid"
_JSONRPC = "/jsonrpc"
#: java-tron's default ports: JSON-RPC, and the HTTP API.
_JSONRPC_PORT, _HTTP_PORT = ":8545", ":8090"


class NativeBlocks:
    """Until `probe` found the API, no transaction is known to move TRX."""

    def __init__(self, url: str, *, headers: Mapping[str, str], timeout: float) -> None:
        self._places = [JsonRpc(place, headers=headers, timeout=timeout) for place in places(url)]
        self._place: JsonRpc | None = None

    @property
    def offered(self) -> bool:
        return self._place is not None

    async def probe(self, block_hash: str) -> None:
        """Looks for the API, by a block that the node has. Raises Overloaded."""
        self._place = None
        for place in self._places:
            try:
                answer = await place.document(_asked(block_hash))
            except RpcUnavailable as error:
                if isinstance(reason := unavailable(error), Overloaded):
                    raise reason from error
                continue
            if isinstance(answer, dict) and (not answer or "blockID" in answer):  # empty: another node, without it yet
                self._place = place
                return

    async def coin_transfers(self, block: FullBlock) -> frozenset[str]:
        """Hashes of its transactions that moved TRX; none are known where the API is not offered."""
        if self._place is None or not any(transaction.pays for transaction in block.transactions):
            return frozenset()
        try:
            answer = await self._place.document(_asked(block.header.hash))
        except RpcUnavailable as error:
            raise unavailable(error) from error
        return coin_transfers(answer, block)

    async def close(self) -> None:
        for place in self._places:
            await place.close()


def places(url: str) -> Sequence[str]:
    """Where the API may be, for a JSON-RPC URL."""
    parts = urlsplit(url)
    beside = parts._replace(path=parts.path.rstrip("/").removesuffix(_JSONRPC) + _BLOCK_BY_ID)
    if not parts.netloc.endswith(_JSONRPC_PORT):
        return [urlunsplit(beside)]
    other_port = beside._replace(netloc=parts.netloc.removesuffix(_JSONRPC_PORT) + _HTTP_PORT)
    return [urlunsplit(beside), urlunsplit(other_port)]


def _asked(block_hash: str) -> dict[str, str]:
    return {"value": block_hash.removeprefix("0x")}
