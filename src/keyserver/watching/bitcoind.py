"""Following bitcoind and its relatives (litecoind, dogecoind) over JSON-RPC.

The node needs no wallet, no imported address and no transaction index, and may prune: whole blocks are read and our
addresses looked up in them, which costs the same however many there are. Only a node too old for getblock's verbosity
2 needs -txindex. Methods used: getblockchaininfo, getnetworkinfo, getblockhash, getblockheader, getblock,
getbestblockhash, getmempoolinfo, getrawmempool, getrawtransaction, and waitfornewblock where there is one.
"""

from collections.abc import Mapping
from datetime import datetime

from keyserver.watching.bitcoind_blocks import BlockReader
from keyserver.watching.bitcoind_mempool import read_mempool
from keyserver.watching.bitcoind_news import LONGEST_WAIT, BlockNews
from keyserver.watching.bitcoind_rpc import NodeRpc
from keyserver.watching.bitcoind_wire import NETWORKS, read_capabilities, understanding
from keyserver.watching.ports import Block, BlockRef, ChainSource, Mempool, Node, NodeUnavailable, WrongNode


class BitcoindSource(ChainSource):
    """A `ChainSource`. `url` is `http(s)://user:password@host:port/`, or carries `?cookie=/path/to/.cookie`: then
    the node's cookie file is read for every request, since the node writes a new one at each start.

    `network` is our word (mainnet, testnet, signet, regtest), `genesis_hash` the hash the chain must start with; None
    accepts any. `coinbase_maturity`: confirmations after which new coins can be spent. Raises ValueError for a URL
    that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        network: str,
        genesis_hash: str | None,
        coinbase_maturity: int,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._rpc = NodeRpc(url, headers=headers, timeout=timeout)
        self._blocks = BlockReader(self._rpc, coinbase_maturity=coinbase_maturity)
        self._news = BlockNews(NodeRpc(url, headers=headers, timeout=LONGEST_WAIT + 10.0))
        self._network = network
        self._genesis_hash = genesis_hash
        self._tip_height = 0
        self._relays_transactions = True

    async def identify(self) -> Node:
        self._blocks.forget_abilities()
        self._news.forget_abilities()
        info = await self._rpc.call("getblockchaininfo")
        genesis = await self.block_hash(0)
        software = await self._rpc.call("getnetworkinfo")
        with understanding("getblockchaininfo"):
            network = NETWORKS.get(info["chain"], info["chain"])
            if network != self._network:
                raise WrongNode(f"the node follows {network}, but was registered for {self._network}")
            if self._genesis_hash is not None and genesis != self._genesis_hash.lower():
                raise WrongNode(f"the node's chain starts with {genesis}, not with {self._genesis_hash}: another chain")
            # A regtest node says that it syncs until somebody mines.
            if info.get("initialblockdownload", False) and network != "regtest":
                raise NodeUnavailable(
                    f"the node is still syncing: {info['verificationprogress'] * 100:.1f} % of the chain, "
                    f"block {info['blocks']} of {info['headers']}; following begins when it is done"
                )
            self._relays_transactions = bool(software.get("localrelay", True))
            return Node(identity=genesis, capabilities=read_capabilities(info, software))

    async def tip(self) -> BlockRef:
        info = await self._rpc.call("getblockchaininfo")
        with understanding("getblockchaininfo"):
            tip = BlockRef(height=info["blocks"], hash=info["bestblockhash"])
        self._tip_height = tip.height
        return tip

    async def block_hash(self, height: int) -> str:
        return await self._blocks.hash_at(height)

    async def mined_at(self, height: int) -> datetime:
        return await self._blocks.mined_at(height)

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:  # noqa: ARG002 - no tokens here
        """Coinbase outputs are among the transfers, and so are Litecoin's peg-outs, which stand in the block's last
        transaction. An output counts when it has exactly one address and is worth something.
        """
        return await self._blocks.block(height)

    async def blocks(self, first: int, count: int, *, contracts: frozenset[str]) -> list[Block]:  # noqa: ARG002
        """While these are used, the blocks after them are on their way, up to the tip that was seen last."""
        return await self._blocks.run(first, count, tip_height=self._tip_height)

    async def news(self, tip: BlockRef, *, within: float) -> None:
        await self._news.wait(tip, within=within)

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:
        """A Litecoin peg-out becomes an output only in a block, and is not shown before.

        None where only blocks are relayed (-blocksonly): that a transaction is not there says nothing of it.
        """
        if not self._relays_transactions:
            return None
        return await read_mempool(self._rpc, known=known)

    async def close(self) -> None:
        await self._news.close()
        await self._blocks.close()
        await self._rpc.close()
