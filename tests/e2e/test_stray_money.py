"""Money nobody asked for, on real nodes: at addresses never handed out, and on other chains of the same keys."""

from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.addresses.account_keys import public_key
from tests.builders import AS_ADMIN, AS_PLATFORM, XPUB_COIN_1, XPUB_COIN_60
from tests.e2e.coins import Coin, Ether, Litecoin
from tests.e2e.world import PRICE, World, worth
from tests.nodes.anvil import AnvilNode

from keyserver.addresses.derive import RingKey
from keyserver.chains.catalog import chain_spec


def address_at(coin: Coin, index: int) -> str:
    chain, xpub = ("litecoin", XPUB_COIN_1) if isinstance(coin, Litecoin) else ("ethereum", XPUB_COIN_60)
    spec = chain_spec(chain, "regtest", type="evm")
    return RingKey.from_xpub(xpub).address(index, spec=spec, address_type=spec.address_types[0])


async def post(world: World, path: str, headers: dict[str, str], body: dict[str, Any]) -> httpx.Response:
    return await world.api.post(path, json=body, headers=headers)


async def test_money_at_an_address_never_handed_out_waits_for_an_operator_and_spends_its_index(
    coin: Coin, world: World
) -> None:
    await coin.register(world.api, price_usd=PRICE)
    units = 10**7 + 1

    await coin.pay(address_at(coin, 42), units)
    await coin.mine(3)

    (payment,) = await world.until(world.unmatched, lambda listed: len(listed) == 1)
    assert (payment["tenant_id"], payment["reason"], payment["amount"]) == (None, "never_issued", str(units))
    given = await post(world, "/address", AS_PLATFORM, {"chain": coin.id})
    assert given.json()["index"] == 43
    credit = {"tenant_id": "platform", "price_usd": PRICE, "note": "the payer's mistake"}
    credited = await post(world, f"/admin/payments/{payment['id']}/credit", AS_ADMIN, credit)
    assert credited.status_code == 200, credited.text
    assert await world.balance() == worth(coin, units)
    assert await world.unmatched() == []
    await world.assert_books_are_right()

    await world.until(lambda: _is_watched(world, 43 + 90), bool)  # the window has moved on
    await coin.pay(address_at(coin, 43 + 90), units)
    await coin.mine(3)
    await world.until(world.unmatched, lambda listed: len(listed) == 1)


async def _is_watched(world: World, index: int) -> bool:
    connection = await asyncpg.connect(world.database_url)
    try:
        return bool(await connection.fetchval("SELECT min(filled_index) > $1 FROM lookahead_windows", index))
    finally:
        await connection.close()


@pytest.mark.parametrize("case", ["same ring", "another ring", "disabled"])
async def test_the_right_address_on_another_chain_is_the_same_tenants_at_market(
    case: str, anvil: AnvilNode, world: World, tmp_path: Path
) -> None:
    ether = Ether(anvil)
    await ether.register(world.api, price_usd=PRICE)
    made = await world.charge(ether)
    async with AnvilNode(tmp_path / "base", chain_id=8453) as other_node:
        base = Ether(other_node)
        own_ring = {"account_index": 1, "xpub": public_key("m/44'/60'/1'")} if case == "another ring" else {}
        await base.register(world.api, price_usd=PRICE, id="BASE", chain="base", **own_ring)
        if case == "disabled":
            await world.api.delete("/admin/chains/BASE", headers=AS_ADMIN)

        await base.pay(made.address, made.units)
        await base.mine(3)

        await world.until(world.balance, lambda balance: balance == worth(base, made.units))
    (payment,) = await world.payments()
    assert (payment["chain"], payment["charge_id"], payment["tenant_id"]) == ("base", None, "platform")
    found = await world.found(made)
    assert (found["status"], found["receivedAmount"], found["payments"]) == ("New", "0", [])
    assert world.receiver.told_of(made.id) == []
    await world.assert_books_are_right()
