"""Whose money it is, and at which price: addresses without a charge, other tokens, disabled methods, own wallets."""

import pytest
from tests.addresses.account_keys import public_key
from tests.builders import AS_ADMIN
from tests.e2e.coins import Coin, Ether, Litecoin, Token
from tests.e2e.world import PRICE, World, worth
from tests.nodes.anvil import AnvilNode

#: m/44'/60'/0'/0/0 of the published test mnemonic, as in tests/vectors/bip44.json.
FIRST_ETHER_ADDRESS = "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"


# --- the operator's own wallet ------------------------------------------------------------------------------------


async def _first_address(coin: Coin) -> str:
    """Index 0 as another program than ours derives it: litecoind from a descriptor, a published vector for ether."""
    if not isinstance(coin, Litecoin):
        return FIRST_ETHER_ADDRESS
    account = public_key("m/44'/1'/0'", form="tpub")
    described = await coin.node.rpc("getdescriptorinfo", f"wpkh({account}/0/*)")
    (first,) = await coin.node.rpc("deriveaddresses", described["descriptor"], [0, 0])
    return str(first)


async def test_the_address_the_operators_wallet_shows_is_the_one_that_is_paid_and_credited(
    coin: Coin, world: World
) -> None:
    expected = await _first_address(coin)

    answer = await coin.register(world.api, price_usd=PRICE, expected_address=expected)
    made = await world.charge(coin)
    assert answer["addresses"][0] == made.address == expected
    await coin.pay(expected, made.units)
    await coin.mine(3)

    await world.until_charge(made, status="Settled")


async def test_a_key_that_is_not_the_operators_registers_nothing(coin: Coin, world: World) -> None:
    other = (await coin.node.address()) if isinstance(coin, Litecoin) else "0x" + "a1" * 20

    refused = await world.api.post("/admin/chains", json=coin.body(expected_address=other), headers=AS_ADMIN)

    assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "/expected_address"
    assert (await world.api.get("/chains")).json() == []


# --- without a charge ---------------------------------------------------------------------------------------------


async def test_payments_to_an_address_without_a_charge_are_credited_at_the_market_price_of_their_time(
    any_coin: Coin, world: World
) -> None:
    coin = any_coin
    await coin.register(world.api, price_usd=PRICE)
    address = await world.address(coin)
    units = 123_456_789

    await coin.pay(address, units)
    await coin.mine(3)
    await world.until(world.balance, lambda balance: balance == worth(coin, units))
    await world.reprice(coin, "12.5")
    await coin.pay(address, units)
    await coin.mine(3)

    credits_ = [worth(coin, units), worth(coin, units, "12.5")]
    await world.until(world.balance, lambda balance: balance == sum(credits_))
    assert await world.entries() == [("purchase", nanos) for nanos in credits_]
    await world.assert_books_are_right()


# --- other tokens -------------------------------------------------------------------------------------------------


@pytest.fixture
async def ether(anvil: AnvilNode, world: World) -> Ether:
    ether = Ether(anvil)
    await ether.register(world.api, price_usd=PRICE)
    return ether


async def test_a_token_paid_to_an_ether_charge_is_credited_at_market_and_the_charge_stays_unpaid(
    ether: Ether, anvil: AnvilNode, world: World
) -> None:
    token = await Token(anvil).deploy()
    await token.register(world.api, price_usd="1.01")
    made = await world.charge(ether)

    await token.pay(made.address, 30_000_000)
    await token.mine(3)

    await world.until(world.balance, lambda balance: balance == worth(token, 30_000_000, "1.01"))
    charge = await world.found(made)
    assert (charge["status"], charge["receivedAmount"], charge["payments"]) == ("New", "0", [])
    (payment,) = await world.payments()
    assert (payment["token"], payment["charge_id"], payment["tenant_id"]) == ("TEST", None, "platform")

    await ether.pay(made.address, made.units)
    await ether.mine(3)
    await world.until_charge(made, status="Settled", additionalStatus="None")


async def test_ether_on_a_chain_that_only_offers_a_token_waits_for_a_price_and_is_credited(
    anvil: AnvilNode, world: World
) -> None:
    token, ether, units = await Token(anvil).deploy(), Ether(anvil), 3 * 10**17 + 1
    await token.register(world.api, price_usd="1", type="stablecoin")
    made = await world.charge(token)

    await ether.pay(made.address, units)
    await ether.mine(3)

    (payment,) = await world.until(world.unmatched, lambda listed: len(listed) == 1)
    assert (payment["token"], payment["amount"], payment["reason"]) == ("ETH", str(units), "no_price")
    assert (payment["tenant_id"], payment["charge_id"], payment["address"]) == ("platform", None, made.address)
    assert await world.balance() == 0

    await world.reprice(ether, PRICE)
    await world.until(world.balance, lambda balance: balance == worth(ether, units))
    assert await world.unmatched() == []
    charge = await world.found(made)
    assert (charge["status"], charge["receivedAmount"], charge["payments"]) == ("New", "0", [])
    assert world.receiver.told_of(made.id) == []
    await world.assert_books_are_right()


async def test_an_unregistered_look_alike_of_a_token_is_ignored(ether: Ether, anvil: AnvilNode, world: World) -> None:
    token, look_alike = await Token(anvil).deploy(), await Token(anvil).deploy()
    await token.register(world.api, price_usd="1")
    made = await world.charge(token)

    await look_alike.pay(made.address, made.units)
    await look_alike.mine(4)
    await world.until_scanned(await token.height())

    assert await world.payments() == []
    assert (await world.found(made))["status"] == "New"


# --- disabled -----------------------------------------------------------------------------------------------------


async def test_a_charge_settles_although_its_payment_method_was_disabled_meanwhile(
    any_coin: Coin, world: World
) -> None:
    coin = any_coin
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)

    disabled = await world.api.delete(f"/admin/chains/{coin.id}", headers=AS_ADMIN)
    assert disabled.status_code == 204 and (await world.api.get("/chains")).json() == []
    await coin.pay(made.address, made.units)
    await coin.mine(3)

    await world.until_charge(made, status="Settled")
    assert await world.balance() == worth(coin, made.units)
    await world.until_told(made, status="Settled")
