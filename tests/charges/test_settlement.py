"""From blocks and mempools to charges, credits and webhooks, over a real database. A base unit is a dollar."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select
from tests.watching.chain_in_memory import transfer
from tests.watching.world import BLOCKCHAIN, UNIT_NANOS, World, blockchain, method

from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.charges import settlement
from keyserver.charges.expiry import expire_due
from keyserver.charges.models import Charge
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.charges.states import PaymentStatus
from keyserver.charges.waiting import credit_waiting
from keyserver.kit.money import MAX_NANOS, MAX_UNITS
from keyserver.ledger.chart import CASH, tenant_account
from keyserver.ledger.journal import Entry, post
from keyserver.ledger.journal import transfer as move
from keyserver.ledger.models import EntryType, JournalEntry
from keyserver.watching.ports import Transfer
from keyserver.webhooks.models import WebhookDelivery

REVERSED_AND_CREDITED = [("purchase", "credit:1"), ("correction", "reversal:1"), ("purchase", "credit:2")]


async def mine_and_follow(world: World, charge: Charge, *units: int, confirm: bool = True) -> None:
    world.chain.mine(*(transfer(charge.address, each) for each in units), at=world.clock())
    if confirm:
        world.chain.mine(at=world.clock())
    await world.step()


async def waiting(world: World) -> int:
    return await credit_waiting(world.database, market=world.market, now=world.clock)


async def test_a_payment_in_full_is_seen_confirmed_settled_credited_and_told_once(world: World) -> None:
    charge = await world.charge(100)
    payment = transfer(charge.address, 100)
    follower = world.follower()
    world.chain.wait(payment)
    await world.step(follower)
    assert await world.state(charge) == ("Processing", "None", 100, 0)
    world.chain.mine(payment)
    await world.step(follower)
    assert await world.balance() == 0
    world.clock.advance(minutes=1)
    world.chain.mine()
    await world.step(follower)

    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS
    now = await world.now_of(charge)
    assert (now.credited_at, now.confirmations, now.deadline_at) == (world.clock(), 2, None)
    assert [kind for kind, _, _ in await world.webhooks(charge)] == [
        "charge.processing",
        "charge.updated",
        "charge.settled",
    ]


async def test_a_part_and_the_rest(world: World) -> None:
    charge = await world.charge(100)
    await mine_and_follow(world, charge, 60)
    assert await world.state(charge) == ("New", "PaidPartial", 60, 60)
    assert await world.balance() == 60 * UNIT_NANOS
    await mine_and_follow(world, charge, 40)
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS


async def test_a_part_when_time_runs_out(world: World) -> None:
    charge = await world.charge(100)
    await mine_and_follow(world, charge, 60)
    world.clock.advance(minutes=30)
    assert await expire_due(world.database, clock=world.clock) == 1
    assert await world.state(charge) == ("Expired", "PaidPartial", 60, 60)
    assert await expire_due(world.database, clock=world.clock) == 0


async def test_too_much_is_credited_in_full(world: World) -> None:
    charge = await world.charge(100)
    await mine_and_follow(world, charge, 130)
    assert await world.state(charge) == ("Settled", "PaidOver", 130, 130)
    assert await world.balance() == 130 * UNIT_NANOS


async def test_late_money_settles_the_charge_at_the_market_price(world: World) -> None:
    charge = await world.charge(100)
    world.clock.advance(hours=1)
    await expire_due(world.database, clock=world.clock)
    await mine_and_follow(world, charge, 100)
    assert await world.state(charge) == ("Settled", "PaidLate", 100, 100)
    assert await world.balance() == 50 * UNIT_NANOS
    (payment,) = await world.payments()
    assert (payment.price_usd, payment.price_source) == (Decimal(50), "fake")
    async with world.database.transaction() as session:
        metadata = await session.scalar(select(JournalEntry.metadata_))
    assert metadata is not None
    assert (metadata["priceUsd"], metadata["priceSource"]) == ("50", "fake")
    assert [each[0] for each in await world.webhooks(charge)] == [
        "charge.expired",
        "charge.processing",
        "charge.settled",
    ]


async def test_late_money_without_a_price_waits_for_one(world: World) -> None:
    charge = await world.charge(100)
    world.clock.advance(hours=1)
    world.market.prices.clear()
    await mine_and_follow(world, charge, 100)
    assert await world.state(charge) == ("Settled", "PaidLate", 100, 100)
    assert (await world.balance(), await waiting(world)) == (0, 0)
    assert [each.reason for each in await world.payments()] == ["no_price"]
    told = len(await world.webhooks(charge))

    world.market.prices["COIN"] = Decimal(20)
    assert (await waiting(world), await waiting(world)) == (1, 0)
    assert await world.balance() == 20 * UNIT_NANOS
    assert [each.reason for each in await world.payments()] == [None]
    assert (await world.now_of(charge)).received_nanos == 20 * UNIT_NANOS
    assert [each[0] for each in (await world.webhooks(charge))[told:]] == ["charge.updated"]


async def test_payments_of_a_token_without_a_price_hold_up_no_others(world: World) -> None:
    world.market.prices.clear()
    key = await world.address()
    strays = [transfer(key, 1, asset="0xtok") for _ in range(5)]
    world.chain.mine(*strays, transfer(key, 10))
    world.chain.mine()
    await world.step()
    world.market.prices["COIN"] = Decimal(100)
    assert await credit_waiting(world.database, market=world.market, now=world.clock, limit=3) == 1
    assert await world.balance() == 10 * UNIT_NANOS


async def test_a_stray_token_is_the_tenants_at_market_and_none_of_the_charges_business(world: World) -> None:
    charge = await world.charge(100)
    world.market.prices["TOK"] = Decimal(10)
    world.chain.mine(transfer(charge.address, 100, asset="0xtok"))
    world.chain.mine()
    await world.step()
    assert await world.state(charge) == ("New", "None", 0, 0)
    assert await world.balance() == 10 * UNIT_NANOS
    assert await world.webhooks(charge) == []


async def test_a_stray_token_without_a_price_is_listed_as_unmatched(world: World) -> None:
    charge = await world.charge(100)
    world.chain.mine(transfer(charge.address, 100, asset="0xtok"))
    world.chain.mine()
    await world.step()
    (payment,) = await world.payments()
    assert (payment.tenant_id, payment.charge_id, payment.reason) == ("acme", None, "no_price")
    assert (payment.status, payment.credited_nanos) == (PaymentStatus.CONFIRMED, None)


async def test_a_payment_on_another_chain_of_the_same_key_ring_is_the_tenants(world: World) -> None:
    async with world.database.transaction() as session:
        session.add(blockchain(world.clock, "other"))
        await session.flush()
        session.add(method("OTHER", "COIN", NATIVE, blockchain_id="other:regtest", confirmations=1))
    charge = await world.charge(100)
    world.chain.mine(transfer(charge.address, 100))
    await world.step(world.follower("other:regtest"))
    assert await world.state(charge) == ("New", "None", 0, 0)
    assert await world.balance() == 50 * UNIT_NANOS


async def test_money_for_a_disabled_method_is_credited_all_the_same(world: World) -> None:
    charge = await world.charge(100)
    async with world.database.transaction() as session:
        (await session.get_one(PaymentMethod, "COIN")).enabled = False
    await mine_and_follow(world, charge, 100)
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS


async def test_an_address_without_a_charge_is_credited_at_market_for_ever(world: World) -> None:
    key = await world.address()
    world.clock.advance(days=400)
    world.chain.mine(transfer(key, 10))
    world.chain.mine()
    await world.step()
    assert await world.balance() == 5 * UNIT_NANOS


async def test_money_to_nobody_of_ours_leaves_no_trace(world: World) -> None:
    world.chain.mine(transfer("a stranger", 10))
    world.chain.mine()
    await world.step()
    assert (await world.payments(), await world.entries()) == ([], [])


async def test_two_outputs_of_one_transaction_both_count(world: World) -> None:
    charge = await world.charge(100)
    world.chain.mine(*(transfer(charge.address, 50, tx_hash="one", index=index) for index in (0, 1)))
    world.chain.mine()
    await world.step()
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS


async def test_the_coin_and_log_zero_of_one_transaction_are_two_payments(world: World) -> None:
    charge = await world.charge(100)
    world.market.prices["TOK"] = Decimal(100)
    both = [transfer(charge.address, 100, tx_hash="one", asset=asset) for asset in ("native", "0xtok")]
    world.chain.mine(*both)
    world.chain.mine()
    await world.step()
    assert await world.balance() == 200 * UNIT_NANOS
    assert await world.state(charge) == ("Settled", "None", 100, 100)


async def test_two_transactions_in_one_block_both_count(world: World) -> None:
    charge = await world.charge(100)
    await mine_and_follow(world, charge, 30, 70)
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert (await world.now_of(charge)).sequence == 2


async def test_an_extra_payment_after_settlement_is_credited_and_leaves_the_charge_settled(world: World) -> None:
    charge = await world.charge(100)
    await mine_and_follow(world, charge, 100)
    settled_at = (await world.now_of(charge)).credited_at
    world.clock.advance(minutes=5)
    await mine_and_follow(world, charge, 25, confirm=False)
    now = await world.now_of(charge)
    assert (now.status, now.additional_status, now.confirmations) == ("Settled", "PaidOver", 2)
    world.chain.mine()
    await world.step()
    assert await world.balance() == 125 * UNIT_NANOS
    assert (await world.now_of(charge)).credited_at == settled_at


async def test_a_replaced_payment_stops_counting_and_its_replacement_counts(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    first, second = transfer(charge.address, 100), transfer(charge.address, 100)
    world.chain.wait(first)
    await world.step(follower)
    world.chain.drop(first.tx_hash)
    await world.step(follower)
    assert await world.state(charge) == ("New", "None", 0, 0)
    world.chain.wait(second)
    await world.step(follower)
    assert await world.state(charge) == ("Processing", "None", 100, 0)
    world.chain.mine(second)
    world.chain.mine()
    await world.step(follower)
    assert await world.balance() == 100 * UNIT_NANOS
    assert [each.status for each in await world.payments()] == ["replaced", "confirmed"]


async def test_a_double_spent_payment_expires_with_its_charge(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    payment = transfer(charge.address, 100)
    world.chain.wait(payment)
    await world.step(follower)
    world.clock.advance(hours=1)
    await expire_due(world.database, clock=world.clock)
    assert (await world.state(charge))[0] == "Processing"
    world.chain.drop(payment.tx_hash)
    world.chain.mine(transfer("the payer himself", 100))
    await world.step(follower)
    assert await world.state(charge) == ("Expired", "None", 0, 0)
    assert await world.balance() == 0


async def test_a_replaced_payment_that_comes_back_counts_again(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    payment = transfer(charge.address, 100)
    for change in (world.chain.wait, lambda gone: world.chain.drop(gone.tx_hash), world.chain.wait):
        change(payment)
        await world.step(follower)
    assert await world.state(charge) == ("Processing", "None", 100, 0)


async def test_a_late_look_at_the_mempool_does_not_drop_what_another_follower_saw_since(world: World) -> None:
    charge = await world.charge(100)
    asked_at = world.clock()
    world.clock.advance(seconds=2)
    arrival = Arrival("tx", 0, NATIVE, charge.address, 100)
    async with world.database.transaction() as session:
        chain = await session.get_one(Blockchain, BLOCKCHAIN)
        await settlement.see(session, chain, [arrival], waiting={"tx"}, asked_at=world.clock(), now=world.clock())
        await settlement.see(session, chain, [], waiting=set(), asked_at=asked_at, now=world.clock())
    assert (await world.state(charge))[0] == "Processing"


async def test_orphaned_before_it_was_credited(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    await world.step(follower)
    payment = transfer(charge.address, 100)
    world.chain.mine(payment)
    await world.step(follower)
    world.chain.fork(1)
    world.chain.mine(blocks=2)
    await world.step(follower)
    assert await world.state(charge) == ("New", "None", 0, 0)
    assert await world.entries() == []
    world.chain.mine(payment, blocks=2)
    await world.step(follower)
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.entries() == [("purchase", "credit:1")]


async def test_orphaned_after_settlement_is_reversed_and_credited_again(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    await world.step(follower)
    payment = transfer(charge.address, 100)
    world.chain.mine(payment, blocks=2)
    await world.step(follower)
    assert await world.balance() == 100 * UNIT_NANOS
    world.chain.fork(2)
    world.chain.mine(blocks=3)
    await world.step(follower)
    assert await world.state(charge) == ("New", "Reorged", 0, 0)
    assert await world.balance() == 0
    assert (await world.now_of(charge)).credited_at is None
    world.chain.wait(payment)
    await world.step(follower)
    assert await world.state(charge) == ("Processing", "Reorged", 100, 0)
    world.chain.mine(payment, blocks=2)
    await world.step(follower)
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS
    assert await world.entries() == REVERSED_AND_CREDITED
    kinds = [kind for kind, _, _ in await world.webhooks(charge)]
    assert " ".join(kind.removeprefix("charge.") for kind in kinds) == (
        "processing settled reorged processing updated settled"
    )


async def test_a_token_transfer_that_comes_back_under_another_log_index_is_credited_once(world: World) -> None:
    world.market.prices["TOK"] = Decimal(100)
    charge = await world.charge(100, method_id="TOK")
    follower = world.follower()
    await world.step(follower)
    world.chain.mine(transfer(charge.address, 100, tx_hash="tx", index=3, asset="0xtok"), blocks=2)
    await world.step(follower)
    world.chain.fork(2)
    world.chain.mine(transfer(charge.address, 100, tx_hash="tx", index=8, asset="0xtok"), blocks=3)
    await world.step(follower)
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS
    assert sorted((each.output_index, str(each.status)) for each in await world.payments()) == [
        (3, "replaced"),
        (8, "confirmed"),
    ]


async def test_seen_in_time_but_confirmed_a_day_after_expiry_is_worth_the_market_price(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    payment = transfer(charge.address, 100)
    world.chain.wait(payment)
    await world.step(follower)
    world.clock.advance(days=1, minutes=31)
    await expire_due(world.database, clock=world.clock)
    assert await world.state(charge) == ("Invalid", "PaidLate", 100, 0)
    world.chain.mine(payment, blocks=2, at=world.clock())
    await world.step(follower)
    assert await world.state(charge) == ("Settled", "PaidLate", 100, 100)
    assert await world.balance() == 50 * UNIT_NANOS


async def test_mined_in_time_while_we_were_away_is_worth_the_locked_rate(world: World) -> None:
    charge = await world.charge(100)
    world.chain.mine(transfer(charge.address, 100), blocks=2, at=world.clock.advance(minutes=10))
    world.clock.advance(days=3)
    await world.step()
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS


async def test_confirmations_are_counted_block_by_block(world: World) -> None:
    charge = await world.charge(100, confirmations_required=5)
    follower = world.follower()
    world.chain.mine(transfer(charge.address, 100))
    depths = []
    for _ in range(5):
        await world.step(follower)
        depths.append((await world.now_of(charge)).confirmations)
        world.chain.mine()
    assert depths == [1, 2, 3, 4, 5]
    assert len(await world.webhooks(charge)) == 5
    assert await world.balance() == 100 * UNIT_NANOS


async def test_a_block_reward_settles_nothing_before_it_matured(world: World) -> None:
    charge = await world.charge(100)
    world.chain.mine(transfer(charge.address, 100, least=100))
    for depth in range(2, 100):
        world.chain.mine()
        if depth in {2, 3, 99}:
            await world.step()
            assert await world.state(charge) == ("Processing", "None", 100, 0)
            assert (await world.now_of(charge)).confirmations == 1, "both of its two only when it is final"
            (payment,) = await world.payments()
            assert (payment.confirmations, payment.confirmations_required) == (depth, 100)
    assert await world.balance() == 0
    world.chain.mine()
    await world.step()
    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert (await world.now_of(charge)).confirmations == 2
    assert await world.balance() == 100 * UNIT_NANOS


async def test_who_asks_for_more_than_maturity_gets_more(world: World) -> None:
    charge = await world.charge(100, confirmations_required=120)
    world.chain.mine(transfer(charge.address, 100, least=100), blocks=119)
    await world.step()
    assert (await world.state(charge))[0] == "Processing"
    world.chain.mine()
    await world.step()
    assert (await world.state(charge))[0] == "Settled"


async def test_a_block_reward_without_a_charge_waits_for_its_maturity_too(world: World) -> None:
    key = await world.address()
    world.chain.mine(transfer(key, 10, least=4), transfer(key, 10), blocks=3)
    await world.step()
    assert await world.balance() == 5 * UNIT_NANOS
    world.chain.mine()
    await world.step()
    assert await world.balance() == 10 * UNIT_NANOS


async def test_an_address_in_other_case_is_matched_by_its_key(world: World) -> None:
    """EVM adapters tell lower case, whatever the node writes; the row keeps the checksum's spelling."""
    charge = await world.charge(100)
    spelled = (await world.now_of(charge)).address
    async with world.database.transaction() as session:
        now = await session.get_one(Charge, charge.id)
        now.address = spelled.upper()
    await mine_and_follow(world, charge, 100)
    assert (await world.state(charge))[0] == "Settled"
    assert {each.address for each in await world.payments()} == {spelled.upper()}


async def test_dust_worth_less_than_a_nanodollar_is_credited_with_nothing(world: World) -> None:
    world.market.prices["COIN"] = Decimal("0.00000001")
    key = await world.address()
    world.chain.mine(transfer(key, 1))
    world.chain.mine()
    await world.step()
    (payment,) = await world.payments()
    assert (payment.credited_nanos, await world.balance(), await world.entries()) == (0, 0, [])
    assert await waiting(world) == 0


async def test_the_highest_charge_paid_in_full_is_credited(world: World) -> None:
    charge = await world.charge(10_000_000)
    await mine_and_follow(world, charge, 10_000_000)
    assert await world.balance() == 10_000_000 * UNIT_NANOS


async def test_absurd_amounts_are_kept_for_an_operator_and_stop_nothing(world: World) -> None:
    charge = await world.charge(100)
    await mine_and_follow(world, charge, MAX_UNITS, MAX_UNITS)
    now = await world.now_of(charge)
    assert (now.status, now.received_units, now.received_nanos) == ("Settled", MAX_UNITS, MAX_NANOS)
    assert {each.reason for each in await world.payments()} == {"absurd_value"}
    assert (await world.balance(), await waiting(world)) == (0, 0)


async def test_blocks_and_mempools_told_twice_change_nothing(world: World) -> None:
    charge = await world.charge(100)
    block = Inclusion(1, "b1", world.clock())
    arrival = Arrival("tx", 0, NATIVE, charge.address, 100)

    async def tell(what: str, at: Inclusion = block) -> tuple[object, ...]:
        async with world.database.transaction() as session:
            chain = await session.get_one(Blockchain, BLOCKCHAIN)
            now = world.clock()
            if what == "see":
                await settlement.see(session, chain, [arrival], waiting={"tx"}, asked_at=now, now=now)
            elif what == "include":
                arrivals = [arrival] if at is block else []
                await settlement.include(session, chain, arrivals, at, market=world.market, now=now)
            else:
                await settlement.orphan(session, chain, above_height=0, now=now)
        return (*await world.state(charge), await world.balance(), await world.webhooks(charge), await world.entries())

    second = Inclusion(2, "b2", world.clock())
    assert await tell("see") == await tell("see")
    assert await tell("include") == await tell("include")
    assert await tell("include", second) == await tell("include", second)
    assert await world.balance() == 100 * UNIT_NANOS
    assert await tell("orphan") == await tell("orphan")
    assert await tell("include") == await tell("include")
    assert await tell("include", second) == await tell("include", second)
    assert await world.entries() == REVERSED_AND_CREDITED


async def test_a_webhook_says_what_the_charge_says(world: World) -> None:
    charge = await world.charge(100, metadata_={"order": 7})
    await mine_and_follow(world, charge, 120)
    async with world.database.transaction() as session:
        query = select(WebhookDelivery).order_by(WebhookDelivery.sequence.desc()).limit(1)
        payload = (await session.scalars(query)).one().payload
    (payment,) = await world.payments()
    assert payload | {"timestamp": ""} == {
        "type": "charge.settled",
        "timestamp": "",
        "sequence": 2,
        "chargeId": charge.id,
        "chain": "coin",
        "token": "COIN",
        "address": charge.address,
        "status": "Settled",
        "additionalStatus": "PaidOver",
        "txHash": payment.tx_hash,
        "confirmations": 2,
        "confirmationsRequired": 2,
        "amountExpectedCents": 10_000,
        "amountReceivedCents": 12_000,
        "expectedAmount": "100",
        "receivedAmount": "120",
        "metadata": {"order": 7},
    }


async def test_a_charge_without_a_callback_tells_nobody_and_settles(world: World) -> None:
    charge = await world.charge(100, callback_url=None)
    await mine_and_follow(world, charge, 100)
    assert (await world.state(charge))[0] == "Settled"
    assert await world.webhooks(charge) == []


# --- races ------------------------------------------------------------------------------------------------------


async def test_expiry_and_a_payment_that_comes_at_the_same_moment(world: World) -> None:
    charges = [await world.charge(100) for _ in range(8)]
    world.chain.mine(*(transfer(each.address, 100) for each in charges), at=world.clock.advance(minutes=29))
    world.chain.mine(at=world.clock())
    world.clock.advance(minutes=1)
    follower = world.follower()
    await asyncio.gather(*(expire_due(world.database, clock=world.clock) for _ in range(4)), world.step(follower))
    for charge in charges:
        assert await world.state(charge) == ("Settled", "None", 100, 100)
        assert (await world.webhooks(charge))[-1][0] == "charge.settled"
    assert await world.balance() == 800 * UNIT_NANOS


async def test_whoever_waited_for_a_charge_does_not_turn_its_time_back(world: World) -> None:
    """A block was taken up just before expiry, and is committed after another process let the charge expire."""
    charge = await world.charge(100)
    before_expiry = charge.expires_at - timedelta(seconds=1)
    async with world.database.transaction() as session:
        chain = await session.get_one(Blockchain, BLOCKCHAIN)
        world.clock.advance(minutes=30)
        await expire_due(world.database, clock=world.clock)
        part = Arrival("tx", 0, NATIVE, charge.address, 10)
        block = Inclusion(1, "b1", before_expiry)
        await settlement.include(session, chain, [part], block, market=world.market, now=before_expiry)
    assert await world.state(charge) == ("Expired", "PaidPartial", 10, 0)


@pytest.mark.parametrize("tries", range(3))
async def test_a_price_that_comes_while_the_payment_is_orphaned(world: World, tries: int) -> None:
    world.market.prices.clear()
    charge = await world.charge(100)
    keys = [charge.address, *[await world.address(tenant_id=f"tenant{n}") for n in range(4)]]
    world.clock.advance(hours=1)
    follower = world.follower()
    await world.step(follower)
    payments = [transfer(key, 100) for key in keys]
    world.chain.mine(*payments, blocks=2, at=world.clock())
    await world.step(follower)
    world.market.prices["COIN"] = Decimal(100)
    world.chain.fork(2)
    world.chain.mine(blocks=3, at=world.clock())
    await asyncio.gather(waiting(world), world.step(follower), waiting(world))
    assert await world.balance() == 0
    assert {each.credited_nanos for each in await world.payments()} == {None}
    world.chain.mine(*payments, blocks=2, at=world.clock())
    await asyncio.gather(waiting(world), world.step(follower), waiting(world))
    assert await world.balance() == 100 * UNIT_NANOS
    assert await world.state(charge) == ("Settled", "PaidLate", 100, 100)


async def test_two_chains_that_credit_the_same_tenants_in_opposite_order_do_not_deadlock(world: World) -> None:
    async with world.database.transaction() as session:
        session.add(blockchain(world.clock, "other"))
        await session.flush()
        session.add(method("OTHER", "COIN", NATIVE, blockchain_id="other:regtest", confirmations=1))
        (await session.get_one(PaymentMethod, "COIN")).confirmations = 1
    keys = [await world.address(tenant_id=f"tenant{n:02}") for n in range(12)]
    for round_ in range(4):
        block = Inclusion(round_ + 1, f"b{round_}", world.clock())

        async def include(chain_id: str, ordered: list[str], block: Inclusion = block, round_: int = round_) -> None:
            arrivals = [Arrival(f"tx{round_}", n, NATIVE, key, 100) for n, key in enumerate(ordered)]
            async with world.database.transaction() as session:
                chain = await session.get_one(Blockchain, chain_id)
                await settlement.include(session, chain, arrivals, block, market=world.market, now=world.clock())

        async def grant(tenant_id: str, round_: int = round_) -> None:
            lines = move(debit=CASH, credit=tenant_account(tenant_id), amount_nanos=1)
            reference = f"{tenant_id}:{round_}"
            async with world.database.connection() as connection:
                await post(
                    connection, Entry(EntryType.GRANT, tenant_id, "test", reference, lines, posted_at=world.clock())
                )

        async with asyncio.timeout(20):
            await asyncio.gather(
                include(BLOCKCHAIN, keys),
                include("other:regtest", keys[::-1]),
                *(grant(f"tenant{n:02}") for n in range(12)),
            )
    for n in range(12):
        assert await world.balance(f"tenant{n:02}") == 4 * (2 * 50 * UNIT_NANOS + 1)


async def test_two_transfers_whose_log_indexes_shift_in_a_rival_block_keep_their_receivers(world: World) -> None:
    world.market.prices["TOK"] = Decimal(100)
    first = await world.charge(10, method_id="TOK", tenant_id="acme")
    second = await world.charge(20, method_id="TOK", tenant_id="other")
    follower = world.follower()
    await world.step(follower)

    def both(index: int) -> list[Transfer]:
        return [
            transfer(first.address, 10, tx_hash="batch", index=index, asset="0xtok"),
            transfer(second.address, 20, tx_hash="batch", index=index + 1, asset="0xtok"),
        ]

    world.chain.mine(*both(3), blocks=2)
    await world.step(follower)
    world.chain.fork(2)
    world.chain.mine(*both(2), blocks=3)
    await world.step(follower)

    assert await world.state(first) == ("Settled", "None", 10, 10)
    assert await world.state(second) == ("Settled", "None", 20, 20)
    assert await world.balance("acme") == 10 * UNIT_NANOS
    assert await world.balance("other") == 20 * UNIT_NANOS


async def test_a_contract_that_pays_another_amount_in_a_rival_block_is_credited_with_that(world: World) -> None:
    """As an exchange contract does, whose rate was another one there."""
    world.market.prices["COIN"] = Decimal(100)
    charge = await world.charge(100)
    follower = world.follower()
    await world.step(follower)
    world.chain.mine(transfer(charge.address, 100, tx_hash="swap", index=1), blocks=2)
    await world.step(follower)
    world.chain.fork(2)
    world.chain.mine(transfer(charge.address, 97, tx_hash="swap", index=1), blocks=3)
    await world.step(follower)

    assert await world.state(charge) == ("New", "PaidPartial", 97, 97)
    assert await world.balance() == 97 * UNIT_NANOS
