"""A real EVM node for tests: anvil, mining only when told to, with its published development accounts unlocked.

    async with AnvilNode(tmp_path) as node:
        await node.send(address, 10**18)
        await node.mine()

Found by KEYSERVER_ANVIL, else where `scripts/nodes` installs it, else on PATH.
"""

import asyncio
import gzip
import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.nodes.required import require
from tests.ports import free_port

from keyserver.kit.jsonrpc import JsonRpc

_HERE = Path(__file__).parent
_INSTALLED = _HERE.parents[1] / ".nodes/node_modules/.bin/anvil"
_LISTENING = re.compile(r"^Listening on 127\.0\.0\.1:(\d+)$", re.MULTILINE)
#: PUSH0 PUSH0 REVERT: a contract that takes nothing.
_REFUSES = "0x5f5ffd"
#: An explicit limit, since a node refuses to estimate the gas of a transaction that will fail.
_GAS = 500_000
_START_SECONDS = 20.0


class AnvilNode:
    """One anvil process with its files in `directory`. `url` stays the same over `kill` and `restart`.

    `accounts` are the unlocked development accounts, lower case; the first one pays unless `sender` says otherwise.
    """

    def __init__(self, directory: Path, *, chain_id: int = 31337) -> None:
        self._directory = directory
        self._chain_id = chain_id
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._client: JsonRpc | None = None
        self.accounts: list[str] = []

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        await self._start()
        self.accounts = await self.rpc("eth_accounts")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def rpc(self, method: str, *params: Any) -> Any:
        """Raises RpcError or RpcUnavailable."""
        assert self._client is not None, "the node is not running"
        return await self._client.call(method, *params)

    # --- the process ------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """Ends the node at once, as a crash does. Blocks survive until `restart`; what waits in the mempool is lost.

        anvil holds its chain in memory and writes it at intervals of a second or more: a SIGKILL would take back the
        newest blocks, which a real node has on disk. So the state is asked for first.
        """
        state = await self.rpc("anvil_dumpState", True)
        self._state.write_bytes(gzip.decompress(bytes.fromhex(state.removeprefix("0x"))))
        await self._end()

    async def restart(self) -> None:
        """Starts a killed node again on the same port with the same chain."""
        assert self._process is None, "the node is running"
        await self._start()

    @property
    def _state(self) -> Path:
        return self._directory / "state.json"

    async def _start(self) -> None:
        program = require("anvil", os.environ.get("KEYSERVER_ANVIL") or str(_INSTALLED))
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--chain-id", str(self._chain_id), "--no-mining"]
        if self._state.exists():
            options += ["--load-state", str(self._state)]
        log = self._directory / "anvil.log"
        with log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                program,
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # the npm package's program is a script that starts another: end both
            )
        try:
            self._port = await self._listening(log)
        except BaseException:
            await self._end()
            raise
        self._client = JsonRpc(self.url)

    async def _listening(self, log: Path) -> int:
        assert self._process is not None
        async with asyncio.timeout(_START_SECONDS):
            while not (found := _LISTENING.search(text := await asyncio.to_thread(log.read_text))):
                if self._process.returncode is not None:
                    raise RuntimeError(f"anvil did not start: {text[-2000:]}")
                await asyncio.sleep(0.01)
        return int(found[1])

    async def _end(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._process is not None:
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._client = self._process = None

    # --- the chain --------------------------------------------------------------------------------------------------

    async def mine(self, blocks: int = 1) -> int:
        """Puts what waits into the next block; returns the new height."""
        for _ in range(blocks):
            await self.rpc("evm_mine")
        return await self.height()

    async def height(self) -> int:
        return int(await self.rpc("eth_blockNumber"), 16)

    async def block_hash(self, height: int) -> str:
        block = await self.rpc("eth_getBlockByNumber", hex(height), False)
        return str(block["hash"])

    async def reorg(self, depth: int, *, again: Mapping[str, int] | None = None) -> None:
        """Replaces the newest `depth` blocks by as many rivals, with other hashes even when as empty as before.

        Their transactions are gone, except those of `again`: transaction hash to place in the rival branch (from 0).
        """
        kept = [[await self._raw(tx_hash), place] for tx_hash, place in (again or {}).items()]
        await self.rpc("anvil_reorg", depth, kept)

    async def _raw(self, tx_hash: str) -> str:
        return str(await self.rpc("eth_getRawTransactionByHash", tx_hash))

    async def set_code(self, address: str, code: str) -> None:
        await self.rpc("anvil_setCode", address, code)

    # --- ether ------------------------------------------------------------------------------------------------------

    async def send(self, to: str, wei: int, *, sender: str | None = None) -> str:
        """Sends ether; waits in the mempool until mined. Returns the transaction's hash."""
        return await self._transact(to, wei=wei, sender=sender)

    async def send_and_fail(self, to: str, wei: int) -> str:
        """Ether that is mined and stays with the sender: `to` becomes a contract that takes none. Returns the hash."""
        await self.set_code(to, _REFUSES)
        return await self.send(to, wei)

    async def forward(self, wallet: str, to: str, wei: int) -> str:
        """Ether that reaches `to` by an internal call of the contract wallet, with no transaction of its own."""
        return await self._transact(wallet, wei=wei, data=_calldata("ForwardingWallet", "forward(address)", to))

    async def deploy_wallet(self) -> str:
        return await self._deploy("ForwardingWallet")

    async def send_from(self, sender: str, to: str, wei: int) -> str:
        """Ether sent by an address whose key nobody has: its owner sweeping it."""
        await self.rpc("anvil_impersonateAccount", sender)
        return await self.send(to, wei, sender=sender)

    async def create_with(self, code: str, wei: int) -> str:
        """A transaction that runs this code as the constructor of a new contract, which gets the ether first."""
        return await self._transact(None, wei=wei, data=code)

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def deploy_erc20(self) -> str:
        """A TestToken of its own; mines one block. Returns its address, lower case."""
        return await self._deploy("TestToken")

    async def deploy_collectible(self) -> str:
        """A contract that emits an ERC-721's Transfer; mines one block. Returns its address, lower case."""
        return await self._deploy("TestCollectible")

    async def mint(self, token: str, to: str, units: int) -> str:
        return await self._token_call(token, "mint(address,uint256)", to, units)

    async def transfer_token(self, token: str, to: str, units: int, *, sender: str | None = None) -> str:
        return await self._token_call(token, "transfer(address,uint256)", to, units, sender=sender)

    async def transfer_token_and_fail(self, token: str, to: str, units: int) -> str:
        return await self._token_call(token, "transferThenFail(address,uint256)", to, units)

    async def two_transfers_in_one_transaction(
        self, token: str, first: tuple[str, int], second: tuple[str, int]
    ) -> str:
        return await self._token_call(token, "transferTwice(address,uint256,address,uint256)", *first, *second)

    async def set_fee(self, token: str, basis_points: int) -> str:
        """From the next transaction on the receiver gets so much less than was sent."""
        return await self._token_call(token, "setFee(uint256)", basis_points)

    async def _token_call(self, token: str, method: str, *arguments: str | int, sender: str | None = None) -> str:
        return await self._transact(token, data=_calldata("TestToken", method, *arguments), sender=sender)

    async def mint_collectible(self, collectible: str, to: str, token_id: int) -> str:
        return await self._transact(
            collectible, data=_calldata("TestCollectible", "mint(address,uint256)", to, token_id)
        )

    async def _deploy(self, contract: str) -> str:
        tx_hash = await self._transact(None, data=_compiled(contract)["bytecode"], gas=3_000_000)
        await self.mine()
        receipt = await self.rpc("eth_getTransactionReceipt", tx_hash)
        assert receipt["status"] == "0x1"
        return str(receipt["contractAddress"]).lower()

    async def _transact(
        self, to: str | None, *, wei: int = 0, data: str = "0x", sender: str | None = None, gas: int = _GAS
    ) -> str:
        transaction = {"from": sender or self.accounts[0], "value": hex(wei), "data": data, "gas": hex(gas)}
        return str(await self.rpc("eth_sendTransaction", transaction if to is None else {**transaction, "to": to}))


def _compiled(contract: str) -> dict[str, Any]:
    compiled: dict[str, Any] = json.loads((_HERE / "contracts" / f"{contract}.json").read_text())
    return compiled


def _calldata(contract: str, method: str, *arguments: str | int) -> str:
    """Selector and 32-byte words (Solidity's contract ABI), for methods of addresses and integers only."""
    words = [_word(argument) for argument in arguments]
    return "".join(["0x", _compiled(contract)["selectors"][method], *words])


def _word(argument: str | int) -> str:
    digits: str = argument.removeprefix("0x") if isinstance(argument, str) else f"{argument:x}"
    return digits.lower().rjust(64, "0")
