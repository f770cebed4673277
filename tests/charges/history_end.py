"""How any history must end: chain, payments, ledger, charges and webhooks tell the same."""

from collections import Counter
from collections.abc import Iterator, Sequence

from sqlalchemy import select
from tests.watching import again
from tests.watching.accounts_in_memory import AccountsInMemory
from tests.watching.chain_in_memory import ChainInMemory
from tests.watching.world import BLOCKCHAIN, World

from keyserver.charges.crediting import NEVER_ISSUED
from keyserver.charges.models import Charge, Payment
from keyserver.charges.states import PaymentStatus
from keyserver.kit.db import Database
from keyserver.ledger.models import JournalEntry
from keyserver.watching.arrivals import registered_contracts
from keyserver.watching.ports import Block, Transfer
from keyserver.webhooks.models import WebhookDelivery

CONFIRMATIONS = 2


async def check(world: World, charges: Sequence[Charge], final_height: int | None) -> None:
    """`final_height`: up to where the chain calls itself final; None when depth alone decides."""
    confirmed = [each for each in await world.payments() if each.status is PaymentStatus.CONFIRMED]
    await _recorded_once(world, confirmed, final_height)
    await _credited_once(world, confirmed)
    for charge in charges:
        await _told_and_assessed(world, charge)


async def nothing_of(world: World, stranger: AccountsInMemory) -> None:
    """Not even a trace of what a node of another chain shows."""
    elsewhere = {each.tx_hash for _, each in _held(stranger)}
    assert not [each for each in await world.payments() if each.tx_hash in elsewhere]


async def audited(world: World) -> None:
    """The three books agree, as `keyserver audit` sees them."""
    assert again.kinds(await again.audit(world)) == []


async def _recorded_once(world: World, confirmed: Sequence[Payment], final_height: int | None) -> None:
    """Confirmed is what the chain holds deep enough, each output once; coin of accounts to the last unit by block.

    What a contract passed on may have been found by its balance: then it is one payment by address and block.
    """
    contracts = await _contracts(world.database)
    deep = [
        (block, each)
        for block, each in _held(world.chain)
        if each.asset in contracts | {"native"}
        and world.chain.height - block.height + 1 >= max(CONFIRMATIONS, each.least_confirmations)
        and (final_height is None or block.height <= final_height)
    ]
    units = Counter[tuple[str, str, int]]()
    for block, each in deep:
        units[each.address, each.asset, block.height] += each.amount_units
    for payment in confirmed:
        assert payment.block_height is not None
        units[payment.address.lower(), payment.asset, payment.block_height] -= payment.amount_units
    assert not {place: left for place, left in units.items() if left}
    outputs = {(each.tx_hash, each.output_index, each.asset) for _, each in deep}
    shown = [each for each in confirmed if each.found_above is None]
    assert all((each.tx_hash, each.output_index, each.asset) in outputs for each in shown)


def _held(chain: ChainInMemory) -> Iterator[tuple[Block, Transfer]]:
    assert isinstance(chain, AccountsInMemory)
    for block in chain.branch:
        for each in [*block.transfers, *chain.hidden.get(block.hash, [])]:
            yield block, each


async def _contracts(database: Database) -> frozenset[str]:
    async with database.transaction() as session:
        return await registered_contracts(session, BLOCKCHAIN)


async def _credited_once(world: World, confirmed: Sequence[Payment]) -> None:
    """All but what an operator dismissed or has yet to name the owner of; the ledger has each credit once."""
    credited = [each for each in await world.payments() if each.credited_nanos is not None]
    left = [each for each in confirmed if each.dismissed_at is not None or each.reason == NEVER_ISSUED]
    assert {each.id for each in credited} | {each.id for each in left} == {each.id for each in confirmed}
    assert not {each.id for each in credited} & {each.id for each in left}
    assert await world.balance() == sum(each.credited_nanos or 0 for each in credited)
    async with world.database.transaction() as session:
        references = list(await session.scalars(select(JournalEntry.reference_id)))
    standing = Counter[str]()
    for reference in references:
        payment_id, what, _ = reference.split(":")
        standing[payment_id] += 1 if what == "credit" else -1
    assert {payment_id for payment_id, times in standing.items() if times} == {each.id for each in credited}
    assert set(standing.values()) <= {0, 1}


async def _told_and_assessed(world: World, charge: Charge) -> None:
    """The charge is what its payments make of it, and its last webhook says so."""
    now = await world.now_of(charge)
    async with world.database.transaction() as session:
        ours = await session.scalars(select(Payment).where(Payment.charge_id == charge.id))
        counted = [each for each in ours if each.status in {"seen", "confirming", "confirmed"}]
        query = select(WebhookDelivery).where(WebhookDelivery.subject_id == charge.id)
        last = (await session.scalars(query.order_by(WebhookDelivery.sequence.desc()).limit(1))).first()
    assert now.received_units == sum(each.amount_units for each in counted)
    confirmed = sum(each.amount_units for each in counted if each.status is PaymentStatus.CONFIRMED)
    assert (now.status == "Settled") == (confirmed >= now.expected_units)
    assert (now.credited_at is not None) == (now.status == "Settled")
    told = await world.webhooks(charge)
    assert len(told) == now.sequence
    if last is None:
        assert (now.status, now.received_units) == ("New", 0)
        return
    payload = last.payload
    assert (payload["status"], payload["additionalStatus"]) == (now.status, now.additional_status)
    assert (payload["receivedAmount"], payload["confirmations"]) == (str(now.received_units), now.confirmations)
