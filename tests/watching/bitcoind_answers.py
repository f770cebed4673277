"""Answers as bitcoind and its relatives give them, and sources that read them from a server on loopback.

Addresses are the published examples of BIP-173 and BIP-350, and Bitcoin's genesis block's.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.nodes.rpc_server import Answer, Handler, ScriptedNode, http_server

from keyserver.watching.bitcoind import BitcoindSource

BITCOIN_GENESIS = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
P2WPKH = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"  # BIP-173
P2TR = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"  # BIP-350
P2PKH = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"  # of the genesis block's key

HEIGHT = 840_000
MATURITY = 100
HASH, PARENT, TX = "aa" * 32, "bb" * 32, "cc" * 32
NONE: frozenset[str] = frozenset()

Follow = Callable[..., Awaitable[BitcoindSource]]


@asynccontextmanager
async def sources() -> AsyncIterator[Follow]:
    """Makes sources for new servers, closed at the end; `userinfo` and `query` go into the server's URL."""
    async with AsyncExitStack() as stack:

        async def follow(handler: Handler, *, userinfo: str = "", query: str = "", **changed: Any) -> BitcoindSource:
            url = await stack.enter_async_context(http_server(handler))
            arguments: dict[str, Any] = {"network": "mainnet", "genesis_hash": None, "coinbase_maturity": MATURITY}
            source = BitcoindSource(url.replace("://", f"://{userinfo}") + "/" + query, **arguments | changed)
            stack.push_async_callback(source.close)
            return source

        yield follow


def quoted(value: str) -> str:
    return json.dumps(value)


def output(value: str, script: str, n: int = 0) -> str:
    return f'{{"value": {value}, "n": {n}, "scriptPubKey": {script}}}'


def paying(address: str, kind: str = "witness_v0_keyhash") -> str:
    """A script as Bitcoin Core 22 and later print it."""
    return f'{{"asm": "", "desc": "addr({address})#xxxxxxxx", "hex": "", "address": "{address}", "type": "{kind}"}}'


def transaction(*outputs: str, txid: str = TX) -> str:
    return f'{{"txid": "{txid}", "hash": "{"dd" * 32}", "vin": [], "vout": [{", ".join(outputs)}]}}'


def block(*transactions: str, **changed: Any) -> str:
    fields = {"hash": HASH, "confirmations": 3, "height": HEIGHT, "time": 1713571767, "previousblockhash": PARENT}
    return json.dumps(fields | changed)[:-1] + f', "tx": [{", ".join(transactions)}]}}'


def holding(text: Answer) -> ScriptedNode:
    return ScriptedNode({"getblockhash": quoted(HASH), "getblock": text})


def network(chain: str = "main", **changed: Any) -> dict[str, str]:
    """A node that is up to date, as Bitcoin Core answers."""
    info = {"chain": chain, "blocks": HEIGHT, "headers": HEIGHT, "bestblockhash": HASH, "pruned": False}
    return {
        "getblockchaininfo": json.dumps(info | {"verificationprogress": 1, "initialblockdownload": False} | changed),
        "getblockhash": quoted(BITCOIN_GENESIS),
        "getnetworkinfo": '{"version": 270000, "subversion": "/Satoshi:27.0.0/", "localrelay": true}',
    }
