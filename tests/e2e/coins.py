"""The coins of real nodes under one set of verbs, for tests that say the same of every chain."""

from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Any

import httpx
from tests.builders import ether, litecoin, register
from tests.nodes.anvil import AnvilNode
from tests.nodes.litecoin import FIRST_HEIGHT, MWEB_HEIGHT, LitecoinNode

Node = LitecoinNode | AnvilNode
#: Enough for any charge of a test, in the token's base units.
_PURSE = 10**15


class Coin(ABC):
    """One asset on one node, under the payment method `id`. Amounts are in base units."""

    id: str
    token: str
    decimals: int
    confirmations = 3
    #: Whether a payment is seen before it is in a block.
    shows_waiting: bool
    node: Node

    async def register(self, api: httpx.AsyncClient, *, price_usd: str, **changes: Any) -> dict[str, Any]:
        """Registers the payment method and pins its price."""
        return await register(api, self.body(**changes), price_usd=price_usd)

    def body(self, **changes: Any) -> dict[str, Any]:
        """Body of POST /admin/chains."""
        return self._body() | {"confirmations": self.confirmations, "rpc_url": self.node.url} | changes

    async def mine(self, blocks: int = 1) -> None:
        await self.node.mine(blocks)

    async def kill_node(self) -> None:
        """SIGKILL, with the blocks it has on its disk."""
        await self.node.kill()

    async def height(self) -> int:
        return await self.node.height()

    @abstractmethod
    def _body(self) -> dict[str, Any]: ...

    @abstractmethod
    async def pay(self, address: str, units: int) -> str:
        """Sends a payment, which waits for the next block; returns the transaction's hash."""

    @abstractmethod
    async def pay_two(self, first: tuple[str, int], second: tuple[str, int]) -> str:
        """One transaction that pays twice."""

    @abstractmethod
    async def orphan(self, blocks: int, tx_hash: str) -> None:
        """A rival branch takes the place of the newest blocks, without the transactions they held."""

    @abstractmethod
    async def again(self) -> None:
        """The transaction orphaned last waits for a block again, if it does not already."""


class Litecoin(Coin):
    id, token, decimals, shows_waiting = "LTC", "LTC", 8, True

    def __init__(self, node: LitecoinNode) -> None:
        self.node: LitecoinNode = node

    def _body(self) -> dict[str, Any]:
        return litecoin(start_height=FIRST_HEIGHT)  # so that the template's blocks need not be read

    async def pay(self, address: str, units: int) -> str:
        return await self.node.send(address, coins(units))

    async def pay_two(self, first: tuple[str, int], second: tuple[str, int]) -> str:
        if first[0] == second[0]:
            return await self.node.send_twice(first[0], coins(first[1]), coins(second[1]))
        return await self.node.send_many({address: coins(units) for address, units in (first, second)})

    async def mine(self, blocks: int = 1) -> None:
        height = await self.height()
        if height < MWEB_HEIGHT <= height + blocks:  # there the chain demands a payment into its extension block
            await self.node.mine(MWEB_HEIGHT - 1 - height)
            await self.node.send(await self.node.address("mweb"), 1)
            blocks -= MWEB_HEIGHT - 1 - height
        await self.node.mine(blocks)

    async def kill_node(self) -> None:
        await self.node.rpc("gettxoutsetinfo")  # writes blocks and coins out before it counts
        await self.node.kill()

    async def orphan(self, blocks: int, tx_hash: str) -> None:  # noqa: ARG002 - it stays in the node's mempool
        await self.node.reorg(blocks, transactions=())

    async def again(self) -> None:
        """Nothing to do: the node put it back into its mempool."""


class _OnAnvil(Coin):
    shows_waiting = False

    def __init__(self, node: AnvilNode) -> None:
        self.node: AnvilNode = node
        self._orphaned = ""

    async def orphan(self, blocks: int, tx_hash: str) -> None:
        self._orphaned = await self.node.rpc("eth_getRawTransactionByHash", tx_hash)
        await self.node.reorg(blocks)

    async def again(self) -> None:
        await self.node.rpc("eth_sendRawTransaction", self._orphaned)


class Ether(_OnAnvil):
    id, token, decimals = "ETH", "ETH", 18

    def _body(self) -> dict[str, Any]:
        return ether()

    async def pay(self, address: str, units: int) -> str:
        return await self.node.send(address, units)

    async def pay_two(self, first: tuple[str, int], second: tuple[str, int]) -> str:
        raise NotImplementedError("a transaction of an EVM chain pays its coin once")


class Token(_OnAnvil):
    """An ERC-20 of the test's own; `await deploy()` first."""

    id, token, decimals = "TEST", "TEST", 6
    contract = ""

    async def deploy(self) -> "Token":
        self.contract = await self.node.deploy_erc20()
        await self.node.mint(self.contract, self.node.accounts[0], _PURSE)
        await self.node.mine()
        return self

    def _body(self) -> dict[str, Any]:
        return ether(id=self.id, token=self.token, type="erc20", contract=self.contract, decimals=self.decimals)

    async def pay(self, address: str, units: int) -> str:
        return await self.node.transfer_token(self.contract, address, units)

    async def pay_two(self, first: tuple[str, int], second: tuple[str, int]) -> str:
        return await self.node.two_transfers_in_one_transaction(self.contract, first, second)


def coins(units: int) -> Decimal:
    """Litecoins in an amount of base units."""
    return Decimal(units).scaleb(-8)
