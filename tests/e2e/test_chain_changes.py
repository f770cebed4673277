"""What a chain takes back: reorganisations before and after settlement, and double spends."""

from tests.e2e.coins import Coin, Litecoin
from tests.e2e.world import PRICE, World, worth


async def test_a_payment_orphaned_before_settlement_counts_again_when_it_is_mined_again(
    any_coin: Coin, world: World
) -> None:
    coin = any_coin
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    tx_hash = await coin.pay(made.address, made.units)
    await coin.mine(2)
    await world.until_charge(made, status="Processing", confirmations=2)

    await coin.orphan(2, tx_hash)
    if coin.shows_waiting:  # the node has it in its mempool again
        await world.until_charge(made, status="Processing", confirmations=0, receivedAmount=str(made.units))
    else:
        await world.until_charge(made, status="New", confirmations=0, receivedAmount="0")
    assert await world.entries() == []

    await coin.again()
    await coin.mine(3)
    settled = await world.until_charge(made, status="Settled", additionalStatus="None", confirmations=3)

    assert [payment["txHash"] for payment in settled["payments"]] == [tx_hash]
    assert await world.entries() == [("purchase", worth(coin, made.units))]
    await world.assert_books_are_right()
    await world.until_told(made, status="Settled")


async def test_a_payment_orphaned_after_settlement_is_taken_back_then_credited_again(
    any_coin: Coin, world: World
) -> None:
    coin = any_coin
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    tx_hash = await coin.pay(made.address, made.units)
    await coin.mine(3)
    await world.until_charge(made, status="Settled")
    credited = worth(coin, made.units)

    await coin.orphan(3, tx_hash)
    status = "Processing" if coin.shows_waiting else "New"
    reorged = await world.until_charge(made, status=status, additionalStatus="Reorged")
    assert reorged["creditedAt"] is None
    assert await world.balance() == 0
    await world.assert_books_are_right()

    await coin.again()
    await coin.mine(3)
    await world.until_charge(made, status="Settled")
    assert await world.entries() == [("purchase", credited), ("correction", -credited), ("purchase", credited)]
    assert await world.balance() == credited
    await world.assert_books_are_right()
    told = await world.until_told(made, status="Settled")
    assert "charge.reorged" in [each["type"] for each in told]


async def test_a_payment_that_the_rival_branch_holds_too_keeps_its_charge_settled_in_the_end(
    litecoin: Litecoin, world: World
) -> None:
    await litecoin.register(world.api, price_usd=PRICE)
    made = await world.charge(litecoin)
    await litecoin.pay(made.address, made.units)
    await litecoin.mine(3)
    await world.until_charge(made, status="Settled")

    await litecoin.node.reorg(2)
    await world.until_scanned(await litecoin.height())
    await world.until_charge(made, status="Settled", confirmations=3)

    assert await world.balance() == worth(litecoin, made.units)
    await world.assert_books_are_right()


async def test_a_double_spend_mined_by_a_rival_stops_the_payment_from_counting(
    litecoin: Litecoin, world: World
) -> None:
    await litecoin.register(world.api, price_usd=PRICE)
    made = await world.charge(litecoin)
    tx_hash = await litecoin.pay(made.address, made.units)
    await world.until_charge(made, status="Processing")

    rival = await litecoin.node.rival(tx_hash, await litecoin.node.address())
    await litecoin.node.generate_block(await litecoin.node.address(), [rival])

    charge = await world.until_charge(made, status="New", receivedAmount="0")
    assert [payment["status"] for payment in charge["payments"]] == ["replaced"]
    await litecoin.mine(4)
    await world.until_scanned(await litecoin.height())
    assert await world.entries() == []
    told = await world.until_told(made, status="New")
    assert [each["status"] for each in told] == ["Processing", "New"]


async def test_a_double_spend_in_a_rival_branch_takes_back_a_credit(litecoin: Litecoin, world: World) -> None:
    await litecoin.register(world.api, price_usd=PRICE)
    made = await world.charge(litecoin)
    tx_hash = await litecoin.pay(made.address, made.units)
    rival = await litecoin.node.rival(tx_hash, await litecoin.node.address())
    await litecoin.mine(3)
    await world.until_charge(made, status="Settled")

    await litecoin.node.reorg(3, transactions=[rival])

    charge = await world.until_charge(made, status="New", additionalStatus="Reorged", receivedAmount="0")
    assert [payment["status"] for payment in charge["payments"]] in (["orphaned"], ["replaced"])
    credited = worth(litecoin, made.units)
    assert await world.entries() == [("purchase", credited), ("correction", -credited)]
    await world.assert_books_are_right()


async def test_a_double_spend_while_the_server_was_down_is_noticed_after_the_start(
    litecoin: Litecoin, world: World
) -> None:
    await litecoin.register(world.api, price_usd=PRICE)
    made = await world.charge(litecoin)
    tx_hash = await litecoin.pay(made.address, made.units)
    await world.until_charge(made, status="Processing")

    await world.stop_server()
    rival = await litecoin.node.rival(tx_hash, await litecoin.node.address())
    await litecoin.node.generate_block(await litecoin.node.address(), [rival])
    await world.server.start()

    await world.until_charge(made, status="New", receivedAmount="0")
