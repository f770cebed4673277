"""A Tron chain on loopback that answers as java-tron does, on `/jsonrpc` and `/wallet/getblockbyid`, quirks included.

The shapes are those of java-tron's documentation of its JSON-RPC, taken down from the Nile test network.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.nodes.rpc_server import http_server

from keyserver.addresses.spelling import tron_to_hex

Json = Any

#: Tether's contract, by both of its names.
USDT = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
USDT_HEX = "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c"
MAINNET_ID = "0x2b6653dc"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
PAYER = "0xdd791d6b49e190062d650e6a23c575510d35f2f9"
#: Blocks on top of one that make it solid.
SOLID_AFTER = 19
ZEROS = {size: "0x" + "00" * size for size in (8, 32, 256)}


@dataclass(frozen=True)
class Sent:
    """A transaction: its kind by java-tron's name, and what the JSON-RPC makes of it. `events`: (token, to, units)."""

    kind: str
    to: str
    value: int = 0
    events: Sequence[tuple[str, str, int]] = ()
    failed: bool = False
    sender: str | None = PAYER


def trc20(to: str, units: int, *, token: str = USDT_HEX, failed: bool = False) -> Sent:
    return Sent("TriggerSmartContract", token, events=[(token, tron_to_hex(to), units)], failed=failed)


def batch(*payments: tuple[str, int]) -> Sent:
    """A contract that pays several with one call."""
    events = [(USDT_HEX, tron_to_hex(to), units) for to, units in payments]
    return Sent("TriggerSmartContract", "0x9ff8fc48fb114ccd5bbdc24a86f0c73082f08825", events=events)


def trx(to: str, sun: int, *, kind: str = "TransferContract") -> Sent:
    return Sent(kind, tron_to_hex(to), sun)


@dataclass
class TronNode:
    """`mine` adds blocks. What a test may change: what the node offers, and `refusal`, answered to every request."""

    first_height: int = 1000
    started_at: int = 1_790_000_000
    offers_block_receipts: bool = True
    offers_wallet: bool = True
    finds_logs: bool = True
    chain_id: str = MAINNET_ID
    behind: int = 1
    #: Hashes of blocks that only one of two nodes behind the URL knows: by number they are given, by hash they are not.
    unknown: set[str] = field(default_factory=set)
    refusal: web.Response | None = None
    url: str = ""
    blocks: list[Json] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    _sent: dict[str, tuple[Sent, ...]] = field(default_factory=dict)
    _branch: int = 0

    def __post_init__(self) -> None:
        self.mine()

    # --- the chain --------------------------------------------------------------------------------------------------

    def mine(self, *sent: Sent, empty: int = 0) -> str:
        """One block of these transactions and so many empty ones after it; returns the first one's hash."""
        height = self.first_height + len(self.blocks)
        seed = f"{self._branch}/{height}/{sent!r}"
        block_hash = f"0x{height:016x}{_sha(seed)[:48]}"
        block: Json = {
            "number": hex(height),
            "hash": block_hash,
            "parentHash": self.blocks[-1]["hash"] if self.blocks else ZEROS[32],
            "timestamp": hex(self.started_at + 3 * height),
            "miner": "0xa234e405a2c6fd67cdd4d0ea2f6188f65534c8b1",
            "size": "0x60a",
            "transactionsRoot": f"0x{_sha(seed)}",
            "stateRoot": "0x",
            "transactions": [],
            "uncles": [],
            "gasLimit": "0x2540be400",
            "gasUsed": "0x0",
            "difficulty": "0x0",
            "totalDifficulty": "0x0",
            "extraData": "0x",
            "logsBloom": ZEROS[256],
            "nonce": ZEROS[8],
            "sha3Uncles": ZEROS[32],
            "receiptsRoot": ZEROS[32],
            "mixHash": ZEROS[32],
            "baseFeePerGas": "0x0",
        }
        block["transactions"] = [_transaction(block, index, each) for index, each in enumerate(sent)]
        self._sent[block_hash] = sent
        self.blocks.append(block)
        for _ in range(empty):
            self.mine()
        return block_hash

    def orphan(self, blocks: int) -> None:
        """As many empty blocks in the place of the newest ones, and one more."""
        self._branch += 1
        del self.blocks[-blocks:]
        self.mine(empty=blocks)

    def receipts(self, block: Json) -> list[Json]:
        found: list[Json] = []
        logs = 0
        for transaction, sent in zip(block["transactions"], self._sent[block["hash"]], strict=True):
            place = {name: transaction[name] for name in ("blockHash", "blockNumber", "transactionIndex")}
            place["transactionHash"] = transaction["hash"]
            events = [
                place | {"address": token, "topics": [TRANSFER, _word(PAYER), _word(to)], "data": f"0x{units:064x}"}
                for token, to, units in sent.events
            ]
            found.append(
                place
                | {"from": transaction["from"], "to": transaction["to"], "type": "0x0", "contractAddress": None}
                | {"gasUsed": "0x0", "cumulativeGasUsed": "0x0", "effectiveGasPrice": "0x64"}
                | {"logsBloom": ZEROS[256], "status": "0x0" if sent.failed else "0x1"}
                | {"logs": [each | {"logIndex": hex(logs + at), "removed": False} for at, each in enumerate(events)]}
            )
            logs += len(events)
        return found

    # --- answers ----------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        self.headers.append(request.headers)
        if self.refusal is not None:
            return web.Response(text=self.refusal.text, status=self.refusal.status, headers=self.refusal.headers)
        if request.path == "/wallet/getblockbyid" and self.offers_wallet:
            self.asked.append("wallet")
            return web.json_response(self._native(body["value"]))
        if request.path != "/jsonrpc":
            return web.Response(status=405, text="<html>405 Method Not Allowed</html>")
        calls = body if isinstance(body, list) else [body]
        answers = [
            {"jsonrpc": "2.0", "id": call["id"]} | self._answer(call["method"], call["params"]) for call in calls
        ]
        return web.json_response(answers if isinstance(body, list) else answers[0])

    def _answer(self, method: str, params: list[Any]) -> Json:
        self.asked.append(method)
        tip = int(self.blocks[-1]["number"], 16)
        match method:
            case "eth_chainId":
                return {"result": self.chain_id}
            case "web3_clientVersion":
                return {"result": "TRON/v4.8.1/Linux/Java1.8/GreatVoyage-v4.8.1"}
            case "eth_syncing":  # an object, whether it syncs or not
                done = {"startingBlock": "0x0", "currentBlock": hex(tip), "highestBlock": hex(tip + self.behind)}
                return {"result": done}
            case "eth_getBlockByNumber":
                if params[0] == "safe":
                    return {"error": {"code": -32602, "message": "TAG safe not supported"}}
                height = {"latest": tip, "finalized": tip - SOLID_AFTER}.get(params[0]) or int(params[0], 16)
                at = height - self.first_height
                return {"result": self.blocks[at] if 0 <= at < len(self.blocks) else None}
            case "eth_getBlockReceipts" if self.offers_block_receipts:
                block = self._block(params[0])
                return {"result": None if block is None else self.receipts(block)}
            case "eth_getTransactionReceipt":
                every = [receipt for block in self._known() for receipt in self.receipts(block)]
                return {"result": next((each for each in every if each["transactionHash"] == params[0]), None)}
            case "eth_getLogs":
                return self._logs(params[0])
        return {"error": {"code": -32601, "message": f"the method {method} does not exist/is not available"}}

    def _logs(self, wanted: Json) -> Json:
        block = self._block(wanted["blockHash"])
        if block is None:
            return {"error": {"code": -32602, "message": "invalid blockHash"}}
        logs = [log for receipt in self.receipts(block) for log in receipt["logs"]]
        return {"result": [log for log in logs if log["address"] in wanted["address"]] if self.finds_logs else []}

    def _native(self, block_id: str) -> Json:
        block = self._block(f"0x{block_id}")
        if block is None:
            return {}
        document = {"blockID": block_id, "block_header": {"raw_data": {"number": int(block["number"], 16)}}}
        transactions = [
            {
                "ret": [{"contractRet": "REVERT" if sent.failed else "SUCCESS"}],
                "txID": transaction["hash"].removeprefix("0x"),
                "raw_data": {"contract": [{"type": sent.kind, "parameter": {"value": {"amount": sent.value}}}]},
            }
            for transaction, sent in zip(block["transactions"], self._sent[block["hash"]], strict=True)
        ]
        return document | ({"transactions": transactions} if transactions else {})

    def _block(self, block_hash: str) -> Json | None:
        return next((block for block in self._known() if block["hash"] == block_hash), None)

    def _known(self) -> list[Json]:
        return [block for block in self.blocks if block["hash"] not in self.unknown]


@asynccontextmanager
async def a_tron_node(**options: Any) -> AsyncIterator[TronNode]:
    node = TronNode(**options)
    async with http_server(node.handle) as url:
        node.url = f"{url}/jsonrpc"
        yield node


def _transaction(block: Json, index: int, sent: Sent) -> Json:
    return {
        "blockHash": block["hash"],
        "blockNumber": block["number"],
        "from": sent.sender,
        "to": sent.to,
        "hash": f"0x{_sha(block['hash'] + str(index))}",
        "transactionIndex": hex(index),
        "value": hex(sent.value),
        "gas": "0x0",
        "gasPrice": "0x64",
        "input": "0x",
        "type": "0x0",
        "nonce": ZEROS[8],
        "v": "0x1b",
        "r": ZEROS[32],
        "s": ZEROS[32],
    }


def _word(address: str) -> str:
    return "0x" + "00" * 12 + address[2:]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
