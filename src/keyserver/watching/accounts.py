"""Which addresses' balances are looked at with a block, and how far each was looked at, in the caller's transaction.

With every block: addresses of charges that wait for the chain's coin or did until lately. Beside them, a share of all
addresses ever handed out, in a round. Both are bounded, so that a block costs the same however many there are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.models import Address
from keyserver.chains.catalog import AddressType
from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.charges.models import Charge, Payment
from keyserver.charges.states import MONITORING
from keyserver.watching.models import AccountCheck, AccountRound
from keyserver.watching.ports import BlockRef
from keyserver.watching.rises import Reading, Recorded

#: Addresses of waiting charges, and further ones, that are looked at with one block.
MOST_WATCHED = 400
MOST_IN_ROUND = 100


#: Key ring and index of an address.
Place = tuple[str, int]
_BEGINNING: Place = ("", -1)


@dataclass(frozen=True, slots=True)
class Account:
    """An address of ours; `check` is None until it was looked at for the first time."""

    match_key: str
    place: Place
    handed_out_at: datetime
    watched_until: datetime | None
    check: AccountCheck | None


@dataclass(frozen=True, slots=True)
class Due:
    """Accounts to look at, and the place that the round has then come to.

    `is_all`: no address of a waiting charge had to be left for the next block.
    """

    accounts: Sequence[Account]
    place: Place
    is_all: bool


async def accounts_due(session: AsyncSession, blockchain: Blockchain, block: BlockRef, *, now: datetime) -> Due:
    """Those to look at after this block."""
    newly_watched = await _newly_watched(session, blockchain)
    watched = await _watched(session, blockchain, block, now=now)
    in_round = await _next_in_round(session, blockchain)
    found = {account.match_key: account for account in in_round + watched + newly_watched}
    place = in_round[-1].place if len(in_round) == MOST_IN_ROUND else _BEGINNING
    due = [each for each in found.values() if each.check is None or each.check.height < block.height]
    return Due(due, place, is_all=max(len(newly_watched), len(watched)) < MOST_WATCHED)


def _accounts(blockchain: Blockchain) -> Select[Address, AccountCheck]:
    known = and_(AccountCheck.blockchain_id == blockchain.id, AccountCheck.match_key == Address.match_key)
    return select(Address, AccountCheck).outerjoin(AccountCheck, known)


async def _newly_watched(session: AsyncSession, blockchain: Blockchain) -> list[Account]:
    """Open charges have a deadline, by which they are found."""
    query = (
        _accounts(blockchain)
        .add_columns(Charge.expires_at)
        .join(
            Charge,
            and_(Charge.key_ring_id == Address.key_ring_id, Charge.address_index == Address.address_index),
        )
        .join(PaymentMethod, PaymentMethod.id == Charge.payment_method_id)
        .where(PaymentMethod.blockchain_id == blockchain.id, PaymentMethod.asset == NATIVE)
        .where(Charge.deadline_at.is_not(None))
        .where(or_(AccountCheck.match_key.is_(None), AccountCheck.watched_until.is_(None)))
        .order_by(Charge.deadline_at)
        .limit(MOST_WATCHED)
    )
    rows = await session.execute(query)
    return [_account(address, check, until=expires_at + MONITORING) for address, check, expires_at in rows]


async def _watched(session: AsyncSession, blockchain: Blockchain, block: BlockRef, *, now: datetime) -> list[Account]:
    """Those that waited longest first."""
    query = (
        _accounts(blockchain)
        .where(AccountCheck.watched_until > now, AccountCheck.height < block.height)
        .order_by(AccountCheck.height)
        .limit(MOST_WATCHED)
    )
    return [_account(address, check) for address, check in await session.execute(query)]


async def _next_in_round(session: AsyncSession, blockchain: Blockchain) -> list[Account]:
    """The next addresses of the chain's key rings, in the order of their keys; from the start again after the last."""
    rings = select(PaymentMethod.key_ring_id).where(PaymentMethod.blockchain_id == blockchain.id)
    place = tuple_(Address.key_ring_id, Address.address_index)
    query = (
        _accounts(blockchain)
        .join(PaymentMethod, PaymentMethod.id == Address.payment_method_id)
        .where(Address.key_ring_id.in_(rings), PaymentMethod.address_type == AddressType.EVM)
        .order_by(Address.key_ring_id, Address.address_index)
        .limit(MOST_IN_ROUND)
    )
    last = await session.get(AccountRound, blockchain.id)
    if last is not None:
        query = query.where(place > tuple_(last.key_ring_id, last.address_index))
    return [_account(address, check) for address, check in await session.execute(query)]


def _account(address: Address, check: AccountCheck | None, *, until: datetime | None = None) -> Account:
    if until is None and check is not None:
        until = check.watched_until
    place = (address.key_ring_id, address.address_index)
    return Account(address.match_key, place, address.created_at, until, check)


async def recorded_coin(
    session: AsyncSession, blockchain: Blockchain, accounts: Collection[Account], *, up_to: int
) -> dict[str, Recorded]:
    """By match key: what is recorded to have arrived in the chain's coin, by height."""
    keys = {account.place: account.match_key for account in accounts}
    query = (
        select(Payment.key_ring_id, Payment.address_index, Payment.block_height, func.sum(Payment.amount_units))
        .where(tuple_(Payment.key_ring_id, Payment.address_index).in_(list(keys)))
        .where(Payment.blockchain_id == blockchain.id, Payment.asset == NATIVE, Payment.block_height <= up_to)
        .group_by(Payment.key_ring_id, Payment.address_index, Payment.block_height)
    )
    found: dict[str, dict[int, int]] = {match_key: {} for match_key in keys.values()}
    for ring, index, height, units in await session.execute(query):
        assert height is not None  # it was compared
        found[keys[ring, index]][height] = int(units)
    return dict(found)


async def save_checks(session: AsyncSession, blockchain_id: str, reached: Sequence[tuple[Account, Reading]]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "blockchain_id": blockchain_id,
            "match_key": account.match_key,
            "height": reading.block.height,
            "block_hash": reading.block.hash,
            "balance_units": reading.holding.balance_units,
            "nonce": reading.holding.nonce,
            "watched_until": account.watched_until,
        }
        for account, reading in sorted(reached, key=lambda each: each[0].match_key)
    ]
    if not rows:
        return
    saved = insert(AccountCheck).values(rows)
    changed = {
        name: saved.excluded[name] for name in ("height", "block_hash", "balance_units", "nonce", "watched_until")
    }
    await session.execute(
        saved.on_conflict_do_update(
            index_elements=["blockchain_id", "match_key"],
            set_=changed,
            where=AccountCheck.height <= saved.excluded.height,
        )
    )


async def move_round(session: AsyncSession, blockchain_id: str, place: Place) -> None:
    values = {"key_ring_id": place[0], "address_index": place[1]}
    moved = insert(AccountRound).values(blockchain_id=blockchain_id, **values)
    await session.execute(moved.on_conflict_do_update(index_elements=["blockchain_id"], set_=values))


async def take_back_checks(session: AsyncSession, blockchain_id: str, *, to: BlockRef) -> None:
    """After a fork: what was read of blocks above the last common one is of no account; there it is to be read anew."""
    gone = update(AccountCheck).where(AccountCheck.blockchain_id == blockchain_id, AccountCheck.height > to.height)
    await session.execute(
        gone.values(height=to.height, block_hash=to.hash, balance_units=None, nonce=None),
        execution_options={"synchronize_session": False},
    )
