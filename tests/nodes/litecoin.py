"""A real litecoind on its regtest network, on loopback alone, gone with the test that started it.

    @pytest.fixture
    async def litecoin() -> AsyncIterator[LitecoinNode]:
        async with LitecoinNode() as node:
            yield node

Every test process makes one data directory with a wallet and 110 blocks (ten spendable coinbases) when the first node
starts, and every node after that starts from a copy of it: about 0.3 seconds instead of one.

What to know about litecoind 0.21: it relates to Bitcoin Core 0.21 and prints `addresses`; its mempool refuses
replacement (mine a `rival` with `generate_block` instead); MWEB activates at height 432, where a block must hold a
peg-in (send to an `mweb` address first), and `generateblock` no longer works from there on.
"""

import asyncio
import atexit
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from tests.nodes.required import require
from tests.ports import free_port

from keyserver.kit.jsonrpc import JsonRpc, RpcError, RpcUnavailable
from keyserver.watching.bitcoind_rpc import connect

GENESIS = "530827f38f93b43ed12af0b3ad25a288dc02ed74d6d7857862df51fc56c416f9"
FIRST_HEIGHT = 110
#: The first height that may hold an MWEB block.
MWEB_HEIGHT = 432
WALLET = "tests"
FEE = Decimal("0.001")

_START_SECONDS = 30.0
_STOP_SECONDS = 1.0
_IN_WARMUP = -28
_NOT_COPIED = shutil.ignore_patterns("debug.log", ".lock", ".cookie", "*.pid")

Amount = str | int | Decimal

_template: Path | None = None


class LitecoinNode:
    """`url` is what keyserver is registered with. `cookie=True` runs without a password, by the node's cookie file;
    `fresh=True` starts at the genesis block without a wallet; `options` are further command line options.
    """

    def __init__(self, *, cookie: bool = False, fresh: bool = False, options: Sequence[str] = ()) -> None:
        self._program = require("litecoind")
        self._cookie = cookie
        self._fresh = fresh
        self._options = options
        self._user, self._password = secrets.token_hex(8), secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._client: JsonRpc | None = None
        self.port = 0
        self.directory = Path()

    async def __aenter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="keyserver-litecoin-"))
        try:
            if not self._fresh:
                await asyncio.to_thread(
                    shutil.copytree, await _filled(), self.directory, ignore=_NOT_COPIED, dirs_exist_ok=True
                )
            await self._start_on_a_free_port()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        if self._cookie:
            return f"http://127.0.0.1:{self.port}/?cookie={self.cookie_file}"
        return f"http://{self._user}:{self._password}@127.0.0.1:{self.port}/"

    @property
    def cookie_file(self) -> Path:
        return self.directory / "regtest" / ".cookie"

    def wallet_url(self, wallet: str) -> str:
        """Where wallet calls go when the node has several."""
        return self.url.replace(f":{self.port}/", f":{self.port}/wallet/{wallet}")

    # --- the process ------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """SIGKILL: nothing is flushed, so a node that is started again may have forgotten blocks and its mempool."""
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._process is not None:
            _kill(self._process)
            await asyncio.to_thread(self._process.wait)
            atexit.unregister(self._kill_at_exit)
            self._process = None

    async def stop(self) -> None:
        """As an operator stops it: chain and mempool are on disk afterwards.

        A stopping litecoind waits for idle connections of its clients, up to 30 seconds. So it writes first, and is
        killed when it takes long.
        """
        await self.rpc("savemempool")
        await self.rpc("gettxoutsetinfo")  # writes blocks and coins out before it counts
        await self.rpc("stop")
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        await self.kill()

    async def restart(self) -> None:
        """Starts the node again, killed or stopped, on the same port. In cookie mode it writes a new cookie."""
        if self._process is not None:
            await self.stop()
        await self._start()

    def pause(self) -> None:
        """The process stays and holds its connections, but answers nothing until `resume`."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)  # until its last thread has stopped

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _start_on_a_free_port(self, *, attempts: int = 3) -> None:
        self.port = free_port()
        try:
            await self._start()
        except ChildProcessError:  # somebody else may have taken the port
            if attempts == 1:
                raise
            await self._start_on_a_free_port(attempts=attempts - 1)

    async def _start(self) -> None:
        self.cookie_file.unlink(missing_ok=True)
        self._spawn()
        async with asyncio.timeout(_START_SECONDS):
            while not await self._answers():  # noqa: ASYNC110 - another process has no event to wait for
                await asyncio.sleep(0.02)

    def _spawn(self) -> None:
        credentials = () if self._cookie else (f"-rpcuser={self._user}", f"-rpcpassword={self._password}")
        wallet = () if self._fresh else (f"-wallet={WALLET}",)
        # Dies with us even when we are killed, where the system can do that.
        leash = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
        self._process = subprocess.Popen(
            [
                *leash,
                self._program,
                "-regtest",
                f"-datadir={self.directory}",
                "-server",
                f"-rpcport={self.port}",
                "-rpcbind=127.0.0.1",
                "-rpcallowip=127.0.0.1",
                *credentials,
                "-listen=0",
                "-connect=0",
                "-dnsseed=0",
                "-discover=0",
                "-upnp=0",
                "-fallbackfee=0.0002",
                "-dbcache=4",
                "-maxmempool=50",
                "-keypool=10",
                "-printtoconsole=0",
                *wallet,
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self._kill_at_exit)

    def _kill_at_exit(self) -> None:
        if self._process is not None:
            _kill(self._process)

    async def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = self.directory / "regtest" / "debug.log"
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise ChildProcessError(f"litecoind ended with {self._process.returncode} at its start:\n{tail}")
        try:
            await self.rpc("getblockcount")
        except RpcUnavailable:
            return False
        except RpcError as error:
            if error.code == _IN_WARMUP:
                return False
            raise
        return True

    # --- what it can be asked ---------------------------------------------------------------------------------------

    async def rpc(self, method: str, *params: Any) -> Any:
        """One call, wallet calls too. Amounts are sent as strings and come back as `Decimal`."""
        if self._client is None:
            self._client = connect(self.wallet_url(WALLET))
        return await self._client.call(method, *params)

    async def address(self, kind: str = "bech32") -> str:
        """A new one of the node's wallet: `legacy`, `p2sh-segwit`, `bech32` or `mweb`."""
        return str(await self.rpc("getnewaddress", "", kind))

    async def height(self) -> int:
        return int(await self.rpc("getblockcount"))

    async def best(self) -> str:
        return str(await self.rpc("getbestblockhash"))

    async def mine(self, blocks: int = 1, address: str | None = None) -> list[str]:
        """Hashes of new blocks, the first of which holds what the mempool held."""
        return list(await self.rpc("generatetoaddress", blocks, address or await self.address()))

    async def send(self, address: str, amount: Amount) -> str:
        return str(await self.rpc("sendtoaddress", address, str(amount)))

    async def send_many(self, amounts: Mapping[str, Amount]) -> str:
        return str(await self.rpc("sendmany", "", {address: str(amount) for address, amount in amounts.items()}))

    async def send_twice(self, address: str, first: Amount, second: Amount) -> str:
        """One transaction whose outputs 0 and 1 both pay `address`, which no wallet call makes."""
        stand_in = await self.address()
        raw = await self.rpc("createrawtransaction", [], [{address: str(first)}, {stand_in: str(second)}])
        wanted, replaced = await self._script(address), await self._script(stand_in)
        raw = raw.replace(replaced, wanted)
        funded = await self.rpc("fundrawtransaction", raw, {"changePosition": 2})
        return await self.broadcast(await self.sign(funded["hex"]))

    async def rival(self, tx_hash: str, address: str) -> str:
        """A signed transaction, not sent, that spends the inputs of `tx_hash` to `address`: a double spend."""
        inputs = (await self.rpc("getrawtransaction", tx_hash, 1))["vin"]
        spent = [{"txid": spent["txid"], "vout": spent["vout"]} for spent in inputs]
        coins = [await self.rpc("gettxout", output["txid"], output["vout"], False) for output in spent]
        total = sum((coin["value"] for coin in coins), Decimal(0))
        return await self.sign(await self.rpc("createrawtransaction", spent, [{address: str(total - FEE)}]))

    async def sign(self, raw: str) -> str:
        signed = await self.rpc("signrawtransactionwithwallet", raw)
        assert signed["complete"], signed
        return str(signed["hex"])

    async def broadcast(self, raw: str) -> str:
        return str(await self.rpc("sendrawtransaction", raw))

    async def _script(self, address: str) -> str:
        """The address's output script with its length in front, as it stands in a raw transaction."""
        script = (await self.rpc("getaddressinfo", address))["scriptPubKey"]
        return f"{len(script) // 2:02x}{script}"

    # --- forks ------------------------------------------------------------------------------------------------------

    async def generate_block(self, address: str, transactions: Sequence[str] = ()) -> str:
        """Hash of a block with exactly these transactions (raw, or ids of the mempool's), whatever else waits."""
        return str((await self.rpc("generateblock", address, list(transactions)))["hash"])

    async def invalidate(self, block_hash: str) -> None:
        """Leaves the branch of this block; its transactions go back to the mempool."""
        await self.rpc("invalidateblock", block_hash)

    async def reorg(self, depth: int, *, transactions: Sequence[str] | None = None) -> list[str]:
        """Replaces the last `depth` blocks by `depth + 1` others, and returns their hashes.

        Orphaned transactions are mined again in the first, unless `transactions` says what is to stand in it; then
        the following blocks are empty.
        """
        height = await self.height()
        await self.invalidate(await self.rpc("getblockhash", height - depth + 1))
        if transactions is None:
            return await self.mine(depth + 1)
        hashes = [await self.generate_block(await self.address(), transactions)]
        for _ in range(depth):
            hashes.append(await self.generate_block(await self.address()))  # noqa: PERF401 - one after the other
        return hashes


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()


async def _filled() -> Path:
    """The data directory to start from, made at first use."""
    global _template
    if _template is None:
        directory = Path(tempfile.mkdtemp(prefix="keyserver-litecoin-template-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        async with LitecoinNode(fresh=True) as node:
            await node.rpc("createwallet", WALLET)
            await node.mine(FIRST_HEIGHT)
            await node.stop()
            await asyncio.to_thread(shutil.copytree, node.directory, directory, ignore=_NOT_COPIED, dirs_exist_ok=True)
        _template = directory
    return _template
