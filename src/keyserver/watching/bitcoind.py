"""Following bitcoind and its relatives (litecoind, dogecoind) over JSON-RPC.

The node needs no wallet, no imported address and no transaction index, and may prune: whole blocks are read and our
addresses looked up in them, which costs the same however many there are. Methods used: getblockchaininfo,
getnetworkinfo, getblockhash, getblockheader, getblock (verbosity 2), getbestblockhash, getmempoolinfo, getrawmempool,
getrawtransaction.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from keyserver.chains.models import NATIVE
from keyserver.kit.jsonrpc import AnswerTooLarge, JsonRpc, RpcError, RpcFailure, RpcUnavailable
from keyserver.watching.ports import (
    Block,
    BlockNotFound,
    BlockRef,
    ChainSource,
    Mempool,
    Node,
    NodeUnavailable,
    SourceError,
    Transfer,
    WrongNode,
)

DECIMALS = 8
NO_PARENT = "0" * 64
#: Transactions asked for in one request, and how often the mempool is read anew when the tip moves meanwhile.
MEMPOOL_BATCH = 100
MEMPOOL_ATTEMPTS = 3

#: Our word for the network, by the node's. Only its genesis block tells the two Bitcoin test networks apart.
_NETWORKS = {"main": "mainnet", "test": "testnet", "testnet4": "testnet", "signet": "signet", "regtest": "regtest"}

#: Bare public keys and bare multisig: not what an address stands for, though older nodes show one for their keys.
_BARE_TYPES = frozenset({"pubkey", "multisig"})

# Error codes, from Bitcoin Core's src/rpc/protocol.h; its relatives share them.
_INVALID_ADDRESS_OR_KEY = -5
_INVALID_PARAMETER = -8
_IN_WARMUP = -28

_COOKIE_PREFIX = "__cookie__:"
_COOKIE_MAX_CHARACTERS = 256


class BitcoindSource(ChainSource):
    """A `ChainSource`. `url` is `http(s)://user:password@host:port/`, or carries `?cookie=/path/to/.cookie`: then
    the node's cookie file is read for every request, since the node writes a new one at each start.

    `network` is our word (mainnet, testnet, signet, regtest), `genesis_hash` the hash the chain must start with; None
    accepts any. Raises ValueError for a URL that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        network: str,
        genesis_hash: str | None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._rpc = connect(url, headers=headers, timeout=timeout)
        self._network = network
        self._genesis_hash = genesis_hash

    async def identify(self) -> Node:
        info = await self._call("getblockchaininfo")
        genesis = await self.block_hash(0)
        software = await self._call("getnetworkinfo")
        with _understanding("getblockchaininfo"):
            network = _NETWORKS.get(info["chain"], info["chain"])
            if network != self._network:
                raise WrongNode(f"the node follows {network}, but was registered for {self._network}")
            if self._genesis_hash is not None and genesis != self._genesis_hash.lower():
                raise WrongNode(f"the node's chain starts with {genesis}, not with {self._genesis_hash}: another chain")
            # A regtest node says that it syncs until somebody mines.
            if info.get("initialblockdownload", False) and network != "regtest":
                raise NodeUnavailable(
                    f"still syncing: {info['verificationprogress'] * 100:.1f} % of the chain, "
                    f"block {info['blocks']} of {info['headers']}"
                )
            return Node(identity=genesis, capabilities=_capabilities(info, software))

    async def tip(self) -> BlockRef:
        info = await self._call("getblockchaininfo")
        with _understanding("getblockchaininfo"):
            return BlockRef(height=info["blocks"], hash=info["bestblockhash"])

    async def block_hash(self, height: int) -> str:
        found: str = await self._call(
            "getblockhash", height, missing={_INVALID_PARAMETER: f"the node has no block at height {height}"}
        )
        return found

    async def mined_at(self, height: int) -> datetime:
        block_hash = await self.block_hash(height)
        header = await self._call("getblockheader", block_hash, missing=_gone(height, block_hash))
        with _understanding("getblockheader"):
            return _time(header)

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:  # noqa: ARG002 - no tokens here
        """Coinbase outputs are among the transfers, and so are Litecoin's peg-outs, which stand in the block's last
        transaction. An output counts when it has exactly one address and is worth something.
        """
        block_hash = await self.block_hash(height)
        try:
            answer = await self._call("getblock", block_hash, 2, missing=_gone(height, block_hash))
        except NodeUnavailable as error:  # pruned, or its header came first
            raise NodeUnavailable(f"block {height}: {error}", retry_after=error.retry_after) from error
        with _understanding(f"getblock of {height}"):
            block = _block(answer)
        if (block.height, block.hash) != (height, block_hash):
            raise NodeUnavailable(f"asked for block {height} {block_hash}, got {block.height} {block.hash}")
        if answer.get("confirmations", 0) < 0:
            raise BlockNotFound(f"block {height} {block_hash} has left the best branch")
        return block

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:
        """None when the tip kept moving while we read, or the node is still reading its mempool from disk: nobody may
        conclude from such an answer that a transaction is gone.

        A Litecoin peg-out becomes an output only in a block, and is not shown before.
        """
        found: dict[str, Sequence[Transfer]] = {}
        for _ in range(MEMPOOL_ATTEMPTS):
            tip_hash = await self._call("getbestblockhash")
            listed = await self._listed()
            if listed is None:
                return None
            wanted = sorted(listed - known - found.keys())
            for start in range(0, len(wanted), MEMPOOL_BATCH):
                found |= await self._transactions(wanted[start : start + MEMPOOL_BATCH])
            if await self._call("getbestblockhash") == tip_hash:
                present = listed & (known | found.keys())
                transfers = [transfer for tx_hash in found if tx_hash in present for transfer in found[tx_hash]]
                return Mempool(tip_hash=tip_hash, tx_hashes=present, transfers=transfers)
        return None

    async def close(self) -> None:
        await self._rpc.close()

    async def _listed(self) -> frozenset[str] | None:
        """Every transaction of the mempool; None while the node still loads it."""
        info = await self._call("getmempoolinfo")
        listed = await self._call("getrawmempool")
        with _understanding("getrawmempool"):
            return frozenset(listed) if info.get("loaded", True) else None

    async def _transactions(self, tx_hashes: Sequence[str]) -> dict[str, Sequence[Transfer]]:
        """Transfers by transaction, without those that left the mempool meanwhile."""
        try:
            answers = await self._rpc.batch(
                [("getrawtransaction", (tx_hash, 1)) for tx_hash in tx_hashes], return_errors=True
            )
        except RpcFailure as error:
            if isinstance(error, AnswerTooLarge) and len(tx_hashes) > 1:
                half = len(tx_hashes) // 2
                return await self._transactions(tx_hashes[:half]) | await self._transactions(tx_hashes[half:])
            raise _source_error(error, "getrawtransaction") from error
        found: dict[str, Sequence[Transfer]] = {}
        for tx_hash, answer in zip(tx_hashes, answers, strict=True):
            if not isinstance(answer, RpcError):
                with _understanding(f"getrawtransaction of {tx_hash}"):
                    found[tx_hash] = _transfers(answer)
            elif answer.code != _INVALID_ADDRESS_OR_KEY:
                raise _source_error(answer, "getrawtransaction") from answer
        return found

    async def _call(self, method: str, *params: Any, missing: Mapping[int, str] | None = None) -> Any:
        """`missing`: error codes that mean BlockNotFound, with what to say then."""
        try:
            return await self._rpc.call(method, *params)
        except RpcFailure as error:
            if missing and isinstance(error, RpcError) and error.code in missing:
                raise BlockNotFound(missing[error.code]) from error
            raise _source_error(error, method) from error


def connect(url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 60.0) -> JsonRpc:
    """The client for a node's URL, see `BitcoindSource`. The path of the cookie file is not sent."""
    try:
        parts = urlsplit(url)
    except ValueError:  # whose words hold the password
        raise ValueError("the node's address is not a URL like http://user:password@host:port/") from None
    fields = parts.query.split("&") if parts.query else []
    cookies = [field.removeprefix("cookie=") for field in fields if field.startswith("cookie=")]
    if not cookies:
        return JsonRpc(url, headers=headers, timeout=timeout)
    kept = "&".join(field for field in fields if not field.startswith("cookie="))
    path = Path(unquote(cookies[-1]))
    return JsonRpc(
        urlunsplit(parts._replace(query=kept)), headers=headers, timeout=timeout, auth=lambda: read_cookie(path)
    )


def read_cookie(path: Path) -> tuple[str, str]:
    """User and password out of a node's cookie file. Raises RpcUnavailable, for the node may be just starting.

    Any other kind of file is refused: a registration must not be a way to have one sent to somewhere.
    """
    try:
        if not path.is_file():  # a pipe would hang
            raise FileNotFoundError
        with path.open(encoding="ascii") as file:
            cookie = file.read(_COOKIE_MAX_CHARACTERS).strip()
    except (OSError, ValueError):
        raise RpcUnavailable(f"the cookie file {path} cannot be read; is the node running?") from None
    if not cookie.startswith(_COOKIE_PREFIX) or not cookie.removeprefix(_COOKIE_PREFIX).isalnum():
        raise RpcUnavailable(f"{path} is not a node's cookie file")
    user, _, password = cookie.partition(":")
    return user, password


def _source_error(error: RpcFailure, method: str) -> SourceError:
    if isinstance(error, RpcError | RpcUnavailable) and error.status in (401, 403):
        return NodeUnavailable(f"the node refused our user name and password for {method} (HTTP {error.status})")
    if isinstance(error, RpcUnavailable):
        return NodeUnavailable(str(error), retry_after=error.retry_after)
    if isinstance(error, RpcError) and error.code == _IN_WARMUP:
        return NodeUnavailable(f"the node is starting: {error.message}")
    return NodeUnavailable(f"{method}: {error}")


def _gone(height: int, block_hash: str) -> dict[int, str]:
    return {_INVALID_ADDRESS_OR_KEY: f"the node no longer knows block {height} {block_hash}"}


@contextmanager
def _understanding(what: str) -> Iterator[None]:
    """An answer of another shape than the node's documentation promises is an error, never an empty answer."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise NodeUnavailable(f"the node's answer to {what} is not understood: {error!r:.200}") from error


def _capabilities(info: Mapping[str, Any], software: Mapping[str, Any]) -> dict[str, str]:
    return {
        "software": str(software["subversion"]).strip("/"),
        "blocks": f"from {info['pruneheight']}" if info.get("pruned") else "all",
        "mempool": "yes" if software.get("localrelay", True) else "only blocks are relayed",
    }


def _time(header: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(header["time"], UTC)


def _block(answer: Mapping[str, Any]) -> Block:
    return Block(
        height=answer["height"],
        hash=answer["hash"],
        parent_hash=answer.get("previousblockhash", NO_PARENT),
        mined_at=_time(answer),
        transfers=[transfer for tx in answer["tx"] for transfer in _transfers(tx)],
    )


def _transfers(tx: Mapping[str, Any]) -> list[Transfer]:
    return [
        Transfer(tx_hash=tx["txid"], output_index=output["n"], asset=NATIVE, address=address, amount_units=units)
        for output in tx["vout"]
        if not output.get("ismweb")  # confidential: neither address nor amount
        and (address := _address(output["scriptPubKey"])) is not None
        and (units := _units(output["value"])) > 0
    ]


def _address(script: Mapping[str, Any]) -> str | None:
    """The one address a script pays to: `address` since Bitcoin Core 22, a list before and in its relatives."""
    if script["type"] in _BARE_TYPES:
        return None
    addresses = [script["address"]] if "address" in script else script.get("addresses", ())
    if not all(isinstance(address, str) for address in addresses):
        raise TypeError(f"{addresses!r} are no addresses")
    return addresses[0] if len(addresses) == 1 else None


def _units(coins: Any) -> int:
    """Base units in an amount of coins, exactly; ValueError for what no amount can be."""
    value = Decimal(coins) if type(coins) is int else coins
    if not isinstance(value, Decimal) or value < 0 or value.adjusted() > 18:
        raise ValueError(f"{coins!r} is no amount")
    units = int(value.scaleb(DECIMALS))
    if Decimal(units).scaleb(-DECIMALS) != value:
        raise ValueError(f"{coins!r} has more than {DECIMALS} decimals")
    return units
