"""From a charge to money in the books, paid on real nodes."""

from tests.e2e.coins import Coin, Litecoin, Token
from tests.e2e.world import PRICE, World, worth
from tests.nodes.anvil import AnvilNode


async def test_a_charge_that_is_paid_is_seen_confirmed_settled_credited_and_told(any_coin: Coin, world: World) -> None:
    coin = any_coin
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin, 25, metadata={"order": 7})

    tx_hash = await coin.pay(made.address, made.units)
    if coin.shows_waiting:
        seen = await world.until_charge(made, status="Processing")
        assert (seen["confirmations"], seen["payments"][0]["status"]) == (0, "seen")
    for confirmations in (1, 2):
        await coin.mine()
        await world.until_charge(made, status="Processing", confirmations=confirmations)
        assert await world.balance() == 0
    await coin.mine()
    settled = await world.until_charge(made, status="Settled", confirmations=3)

    credited = worth(coin, made.units)
    assert await world.balance() == credited
    assert await world.entries() == [("purchase", credited)]
    assert (settled["receivedAmount"], settled["txHash"]) == (str(made.units), tx_hash)
    assert settled["amountReceivedCents"] == 2500 and settled["additionalStatus"] == "None"
    await world.assert_books_are_right()
    told = await world.until_told(made, status="Settled")
    first = [("charge.processing", 0), ("charge.updated", 1)] if coin.shows_waiting else [("charge.processing", 1)]
    assert [(each["type"], each["confirmations"]) for each in told] == [
        *first,
        ("charge.updated", 2),
        ("charge.settled", 3),
    ]
    assert told[-1]["metadata"] == {"order": 7} and told[-1]["txHash"] == tx_hash


async def test_two_outputs_of_one_transaction_settle_two_charges(litecoin: Litecoin, world: World) -> None:
    await _two_payments_of_one_transaction_settle_two_charges(litecoin, world)


async def test_two_transfers_of_one_transaction_settle_two_charges(anvil: AnvilNode, world: World) -> None:
    await _two_payments_of_one_transaction_settle_two_charges(await Token(anvil).deploy(), world)


async def _two_payments_of_one_transaction_settle_two_charges(coin: Coin, world: World) -> None:
    await coin.register(world.api, price_usd=PRICE)
    first, second = await world.charge(coin, 25), await world.charge(coin, 40)

    tx_hash = await coin.pay_two((first.address, first.units), (second.address, second.units))
    await coin.mine(3)

    for made in (first, second):
        settled = await world.until_charge(made, status="Settled", additionalStatus="None")
        assert [payment["txHash"] for payment in settled["payments"]] == [tx_hash]
        await world.until_told(made, status="Settled")
    assert await world.balance() == worth(coin, first.units) + worth(coin, second.units)
    await world.assert_books_are_right()


async def test_two_outputs_to_the_same_charge_are_two_payments(litecoin: Litecoin, world: World) -> None:
    await _two_payments_of_one_transaction_count_both(litecoin, world)


async def test_two_transfers_to_the_same_charge_are_two_payments(anvil: AnvilNode, world: World) -> None:
    await _two_payments_of_one_transaction_count_both(await Token(anvil).deploy(), world)


async def _two_payments_of_one_transaction_count_both(coin: Coin, world: World) -> None:
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    half = made.units // 2

    tx_hash = await coin.pay_two((made.address, half), (made.address, made.units - half))
    await coin.mine(3)

    settled = await world.until_charge(made, status="Settled", additionalStatus="None")
    amounts = {payment["outputIndex"]: int(payment["amount"]) for payment in settled["payments"]}
    assert list(amounts.values()) == [half, made.units - half] and amounts.keys() == {0, 1}
    assert {payment["txHash"] for payment in settled["payments"]} == {tx_hash}
    assert await world.balance() == worth(coin, half) + worth(coin, made.units - half)


async def test_a_partial_payment_waits_for_the_rest(coin: Coin, world: World) -> None:
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    part = made.units // 3

    await coin.pay(made.address, part)
    await coin.mine(3)
    await world.until_charge(made, status="New", additionalStatus="PaidPartial", confirmations=3)
    assert await world.balance() == worth(coin, part)

    await coin.pay(made.address, made.units - part)
    await coin.mine()
    await world.until_charge(made, status="Processing", additionalStatus="None", confirmations=1)
    await coin.mine(2)
    await world.until_charge(made, status="Settled", additionalStatus="None")

    credits_ = [worth(coin, part), worth(coin, made.units - part)]
    assert await world.entries() == [("purchase", nanos) for nanos in credits_]
    await world.until_told(made, status="Settled", receivedAmount=str(made.units))


async def test_more_than_was_asked_is_credited_whole_and_told_as_paid_over(coin: Coin, world: World) -> None:
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    more = made.units * 3 // 2

    await coin.pay(made.address, more)
    await coin.mine(3)

    settled = await world.until_charge(made, status="Settled", additionalStatus="PaidOver")
    assert settled["receivedAmount"] == str(more)
    assert await world.balance() == worth(coin, more)
    await world.until_told(made, status="Settled", additionalStatus="PaidOver")


async def test_a_late_payment_settles_an_expired_charge_at_the_market_price(coin: Coin, world: World) -> None:
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    await world.let_it_expire(made)
    await world.until_charge(made, status="Expired")
    await world.reprice(coin, "61.7")

    await coin.pay(made.address, made.units)
    await coin.mine()
    await world.until_charge(made, status="Processing", additionalStatus="PaidLate", confirmations=1)
    await coin.mine(2)
    await world.until_charge(made, status="Settled", additionalStatus="PaidLate")

    assert await world.balance() == worth(coin, made.units, "61.7")
    told = await world.until_told(made, status="Settled")
    assert told[0]["type"] == "charge.expired" and told[-1]["additionalStatus"] == "PaidLate"
