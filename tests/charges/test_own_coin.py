"""A chain's own coin where only tokens have payment methods: nobody asked for it, and it is the tenant's."""

from decimal import Decimal

import pytest
from tests.watching.chain_in_memory import transfer
from tests.watching.world import UNIT_NANOS, World, blockchain, method

from keyserver.charges.models import Charge
from keyserver.charges.queries import PaymentFilter, list_payments
from keyserver.charges.states import PaymentStatus
from keyserver.charges.waiting import credit_waiting
from keyserver.ledger.balances import trial_balance
from keyserver.watching.scanner import Follower

ETHER = 10**18
HOLDINGS = "1200:ethereum:regtest:ETH"


async def follower_of(world: World, chain: str = "ethereum") -> Follower:
    """Follows a blockchain whose methods are for two tokens, of two and of three confirmations."""
    async with world.database.transaction() as session:
        session.add(blockchain(world.clock, chain))
        await session.flush()
        on_chain = {"blockchain_id": f"{chain}:regtest", "type": "erc20"}
        session.add(method(f"USDC-{chain}", "USDC", "0xusdc", **on_chain))
        session.add(method(f"DAI-{chain}", "DAI", "0xdai", **on_chain, confirmations=3))
    return world.follower(f"{chain}:regtest")


async def pay_ether(world: World, follower: Follower, address: str, *, blocks: int = 3) -> None:
    world.chain.mine(transfer(address, ETHER), blocks=blocks)
    await world.step(follower)


async def unmatched(world: World) -> list[tuple[str, str, str | None, str | None]]:
    """(chain, token, reason, charge) of what an operator is shown."""
    async with world.database.transaction() as session:
        found = await list_payments(session, wanted=PaymentFilter(unmatched=True), before_id=None, limit=50)
    return [(each.chain, each.payment.token, each.payment.reason, each.payment.charge_id) for each in found]


async def assert_unpaid(world: World, charge: Charge) -> None:
    assert await world.state(charge) == ("New", "None", 0, 0)
    assert await world.webhooks(charge) == []


async def test_it_is_credited_at_market_and_none_of_the_charges_business(world: World) -> None:
    follower = await follower_of(world)
    world.market.prices["ETH"] = Decimal("3000.5")
    charge = await world.charge(100, method_id="USDC-ethereum")

    await pay_ether(world, follower, charge.address)

    assert await world.balance() == 3_000_500_000_000
    (payment,) = await world.payments()
    assert (payment.payment_method_id, payment.token, payment.decimals) == (None, "ETH", 18)
    async with world.database.transaction() as session:
        held = {code: nanos for code, _, _, nanos in (await trial_balance(session)).accounts}
    assert held[HOLDINGS] == 3_000_500_000_000
    assert await unmatched(world) == []
    await assert_unpaid(world, charge)


async def test_it_is_final_as_late_as_the_most_careful_method_of_its_blockchain(world: World) -> None:
    follower = await follower_of(world)
    world.market.prices["ETH"] = Decimal(3000)

    await pay_ether(world, follower, await world.address(method_id="USDC-ethereum"), blocks=2)
    assert [(each.status, each.confirmations) for each in await world.payments()] == [(PaymentStatus.CONFIRMING, 2)]
    world.chain.mine()
    await world.step(follower)

    assert [(each.status, each.confirmations) for each in await world.payments()] == [(PaymentStatus.CONFIRMED, 3)]


@pytest.mark.parametrize(("chain", "coin"), [("ethereum", "ETH"), ("polygon", "POL"), ("gnosis", "GNOSIS")])
async def test_without_a_price_it_is_listed_as_unmatched_and_credited_once_there_is_one(
    world: World, chain: str, coin: str
) -> None:
    follower = await follower_of(world, chain)
    charge = await world.charge(100, method_id=f"USDC-{chain}")

    await pay_ether(world, follower, charge.address)
    assert await credit_waiting(world.database, market=world.market, now=world.clock) == 0
    assert await unmatched(world) == [(chain, coin, "no_price", None)]

    world.market.prices[coin] = Decimal(7)
    credited = [await credit_waiting(world.database, market=world.market, now=world.clock) for _ in range(2)]
    assert credited == [1, 0]
    assert await world.balance() == 7 * UNIT_NANOS
    assert await unmatched(world) == []
    await assert_unpaid(world, charge)


async def test_coins_without_a_price_hold_up_no_others(world: World) -> None:
    strange, known = await follower_of(world, "gnosis"), await follower_of(world, "ethereum")
    key = await world.address(method_id="USDC-ethereum")
    world.chain.mine(*(transfer(key, ETHER) for _ in range(5)), blocks=3)
    await world.step(strange)
    await world.step(known)

    world.market.prices["ETH"] = Decimal(2)
    assert await credit_waiting(world.database, market=world.market, now=world.clock, limit=3) == 3
    assert await credit_waiting(world.database, market=world.market, now=world.clock, limit=3) == 2
    assert await world.balance() == 10 * UNIT_NANOS


async def test_when_its_block_is_orphaned_its_credit_is_reversed(world: World) -> None:
    follower = await follower_of(world)
    world.market.prices["ETH"] = Decimal(3000)
    await world.step(follower)
    await pay_ether(world, follower, await world.address(method_id="USDC-ethereum"))
    assert await world.balance() == 3000 * UNIT_NANOS

    world.chain.fork(3)
    world.chain.mine(blocks=4)
    await world.step(follower)

    assert await world.balance() == 0
    assert await world.entries() == [("purchase", "credit:1"), ("correction", "reversal:1")]


async def test_a_token_without_a_method_has_no_symbol_and_is_passed_over(world: World) -> None:
    follower = await follower_of(world)
    world.chain.wait(transfer(await world.address(method_id="USDC-ethereum"), 5, asset="0xnobody"))
    await world.step(follower)
    assert await world.payments() == []
