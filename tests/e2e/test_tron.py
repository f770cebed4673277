"""Payments on Tron, from registration to credit, over a chain that answers as java-tron does."""

from typing import Any

from tests.builders import charge, register
from tests.e2e.world import Made, World
from tests.nodes.tron import USDT, TronNode, a_tron_node, batch, trc20, trx

#: Account m/44'/195'/0' of the published BIP-39 test mnemonic, and its address 0: worthless, public.
XPUB = "xpub6D1AabNHCupeiLM65ZR9UStMhJ1vCpyV4XbZdyhMZBiJXALQtmn9p42VTQckoHVn8WNqS7dqnJokZHAHcHGoaQgmv8D45oNUKx6DZMNZBCd"
FIRST_ADDRESS = "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH"


def usdt(node: TronNode, **changes: Any) -> dict[str, Any]:
    body = {
        "id": "USDT-TRC20",
        "coin_type": 195,
        "account_index": 0,
        "network": "mainnet",
        "type": "trc20",
        "token": "USDT",
        "chain": "tron",
        "contract": USDT,
        "decimals": 6,
        "xpub": XPUB,
        "expected_address": FIRST_ADDRESS,
        "rpc_url": node.url,
        "rpc_headers": {"TRON-PRO-API-KEY": "a-key"},
        "confirmations": 3,
        "start_height": node.first_height + 1,
    }
    return body | changes


async def charge_in(world: World, method: str, amount_usd: float) -> Made:
    made = await charge(world.api, method, amount_usd, callbackUrl=world.receiver.url)
    return Made(made["chargeId"], made["address"], int(made["expectedAmount"]))


async def test_a_charge_in_usdt_is_paid_settled_credited_and_told(world: World) -> None:
    async with a_tron_node() as node:
        await register(world.api, usdt(node), price_usd="1")
        made = await charge_in(world, "USDT-TRC20", 25)
        assert (made.address, made.units) == (FIRST_ADDRESS, 25_000_000)

        node.mine(trc20(made.address, made.units, failed=True), batch(("TSeJkUh4Qv67VNFwY8LaAxERygNdy6NQZK", 1)))
        block_hash = node.mine(trx("TSeJkUh4Qv67VNFwY8LaAxERygNdy6NQZK", 7), trc20(made.address, made.units))
        await world.until_charge(made, status="Processing")
        node.mine(empty=2)
        settled = await world.until_charge(made, status="Settled", additionalStatus="None")

        (payment,) = settled["payments"]
        paid = next(block for block in node.blocks if block["hash"] == block_hash)["transactions"][1]
        assert (payment["txHash"], payment["amount"]) == (paid["hash"], "25000000")
        assert (payment["priceUsd"], payment["priceSource"]) == ("1", "locked: manual")
        assert await world.balance() == 25 * 10**9
        await world.until_told(made, type="charge.settled")
        assert {each["TRON-PRO-API-KEY"] for each in node.headers} == {"a-key"}
        scanner = await world.scanner()
        assert scanner["capabilities"]["TRX"] == "told from TRC-10 tokens by /wallet/getblockbyid"
        await world.assert_books_are_right()


async def test_a_payment_whose_block_is_orphaned_is_taken_back_and_a_worthless_token_is_never_trx(world: World) -> None:
    async with a_tron_node() as node:
        await register(world.api, usdt(node, id="TRX", type="native", token="TRX", contract=None), price_usd="0.25")
        made = await charge_in(world, "TRX", 10)
        node.mine(trx(made.address, made.units, kind="TransferAssetContract"), empty=3)
        await world.until_scanned(node.first_height + 4)
        assert (await world.found(made))["status"] == "New"

        node.mine(trx(made.address, made.units), empty=2)
        await world.until_charge(made, status="Settled")
        assert await world.balance() == 10 * 10**9
        node.orphan(3)
        await world.until_charge(made, additionalStatus="Reorged")
        assert await world.balance() == 0
        await world.assert_books_are_right()
