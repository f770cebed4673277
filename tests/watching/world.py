"""What tests of payments are built from: payment methods, addresses and charges as rows, a market, the books."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from tests.builders import ManualClock
from tests.watching.chain_in_memory import ChainInMemory

from keyserver.access.models import Tenant, TenantType
from keyserver.addresses.models import Address, KeyRing
from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.charges.models import Charge, Payment
from keyserver.charges.states import AdditionalStatus, ChargeStatus
from keyserver.kit.db import Database
from keyserver.ledger.balances import discrepancies, tenant_balance, trial_balance
from keyserver.ledger.models import JournalEntry
from keyserver.pricing.consensus import Price
from keyserver.pricing.errors import PriceUnavailable
from keyserver.watching.ports import ChainSource
from keyserver.watching.scanner import Follower
from keyserver.webhooks.models import WebhookDelivery

#: One whole coin of the tests has two decimals and costs a hundred dollars: a base unit is a dollar.
DECIMALS = 2
UNIT_NANOS = 1_000_000_000
BLOCKCHAIN = "coin:regtest"


@dataclass
class FakeMarket:
    """Dollars for a whole coin by token; a token that is not here has no price."""

    prices: dict[str, Decimal] = field(default_factory=dict)

    async def price_in(
        self,
        session: AsyncSession,  # noqa: ARG002 - the port's signature
        token: str,
        *,
        stablecoin: bool,  # noqa: ARG002 - the port's signature
        now: datetime,
    ) -> Price:
        if token not in self.prices:
            raise PriceUnavailable("nobody knows", token=token)
        return Price(self.prices[token], "fake", now)


@dataclass
class World:
    """One chain `coin:regtest` with a coin (method COIN) and a token (TOK, asset 0xtok), followed on demand."""

    database: Database
    clock: ManualClock
    chain: ChainInMemory
    market: FakeMarket = field(default_factory=lambda: FakeMarket({"COIN": Decimal(50)}))
    told: int = 0
    handed_out: int = 0

    def follower(self, blockchain_id: str = BLOCKCHAIN, chain: ChainSource | None = None) -> Follower:
        return Follower(
            self.database, blockchain_id, chain or self.chain, market=self.market, clock=self.clock, told=self._tell
        )

    def _tell(self) -> None:
        self.told += 1

    async def step(self, follower: Follower | None = None) -> None:
        """Follows until nothing is left."""
        follower = follower or self.follower()
        while (await follower.step()).behind:
            pass

    async def address(self, *, tenant_id: str = "acme", method_id: str = "COIN", match_key: str | None = None) -> str:
        """An address of the tenant's, with no charge; returns its match key."""
        index = self.handed_out = self.handed_out + 1
        key = match_key or f"addr{index}"
        await add_tenant(self.database, tenant_id)
        row = Address(
            key_ring_id="ring",
            address_index=index,
            match_key=key,
            address=key.upper(),
            tenant_id=tenant_id,
            payment_method_id=method_id,
            created_at=self.clock(),
        )
        async with self.database.transaction() as session:
            session.add(row)
        return key

    async def charge(self, units: int = 100, *, method_id: str = "COIN", **changes: Any) -> Charge:
        """A charge of so many base units, locked at a dollar each, that expires in half an hour."""
        key = await self.address(tenant_id=changes.get("tenant_id", "acme"), method_id=method_id)
        now = self.clock()
        row: dict[str, Any] = {
            "id": f"ch_{self.handed_out:06}",
            "tenant_id": "acme",
            "signing_tenant_id": "acme",
            "payment_method_id": method_id,
            "key_ring_id": "ring",
            "address_index": self.handed_out,
            "address": key,
            "amount_cents": min(units * 100, 10**9),
            "expected_units": units,
            "price_usd": Decimal(100),
            "price_source": "test",
            "priced_at": now,
            "decimals": DECIMALS,
            "confirmations_required": 2,
            "callback_url": "http://receiver.example/hook",
            "created_at": now,
            "expires_at": now + timedelta(minutes=30),
            "deadline_at": now + timedelta(minutes=30),
            "status": ChargeStatus.NEW,
            "additional_status": AdditionalStatus.NONE,
        } | changes
        charge = Charge(**row)
        async with self.database.transaction() as session:
            session.add(charge)
        return charge

    async def now_of(self, charge: Charge) -> Charge:
        async with self.database.transaction() as session:
            return await session.get_one(Charge, charge.id)

    async def state(self, charge: Charge) -> tuple[str, str, int, int]:
        """(status, additional status, received units, confirmed units)."""
        now = await self.now_of(charge)
        return str(now.status), str(now.additional_status), now.received_units, now.confirmed_units

    async def payments(self) -> Sequence[Payment]:
        async with self.database.transaction() as session:
            return list(await session.scalars(select(Payment).order_by(Payment.id)))

    async def balance(self, tenant_id: str = "acme") -> int:
        """Nanodollars, after making sure that the books are right."""
        async with self.database.transaction() as session:
            assert await discrepancies(session) == []
            assert (await trial_balance(session)).difference_nanos == 0
            return await tenant_balance(session, tenant_id)

    async def entries(self) -> list[tuple[str, str]]:
        """(type, reference without the payment's id), in the order they were posted."""
        async with self.database.transaction() as session:
            rows = await session.scalars(select(JournalEntry).order_by(JournalEntry.id))
            return [(str(each.type), each.reference_id.partition(":")[2]) for each in rows]

    async def webhooks(self, charge: Charge) -> list[tuple[str, str, str]]:
        """(type, status, additional status) of each, after making sure that the sequence is 1, 2, 3, …"""
        async with self.database.transaction() as session:
            query = select(WebhookDelivery).where(WebhookDelivery.subject_id == charge.id)
            rows = list(await session.scalars(query.order_by(WebhookDelivery.sequence)))
        assert [each.sequence for each in rows] == list(range(1, len(rows) + 1))
        assert [each.payload["sequence"] for each in rows] == [each.sequence for each in rows]
        assert all(each.payload["type"] == each.type for each in rows)
        return [(each.type, each.payload["status"], each.payload["additionalStatus"]) for each in rows]


async def add_tenant(database: Database, tenant_id: str) -> None:
    async with database.transaction() as session:
        row = {"id": tenant_id, "name": tenant_id, "type": TenantType.ORG}
        await session.execute(insert(Tenant).values(row).on_conflict_do_nothing())


def method(method_id: str, token: str, asset: str, *, blockchain_id: str = BLOCKCHAIN, **changes: Any) -> PaymentMethod:
    row = {
        "id": method_id,
        "blockchain_id": blockchain_id,
        "key_ring_id": "ring",
        "type": "native",
        "token": token,
        "asset": asset,
        "decimals": DECIMALS,
        "address_type": "evm",
        "display_name": token,
        "is_testnet": True,
        "confirmations": 2,
        "enabled": True,
    } | changes
    return PaymentMethod(**row)


def blockchain(clock: ManualClock, chain: str = "coin", **changes: Any) -> Blockchain:
    row = {
        "id": f"{chain}:regtest",
        "chain": chain,
        "network": "regtest",
        "family": "evm",
        "created_at": clock(),
        "start_height": 0,
    } | changes
    return Blockchain(**row)


async def make_world(database: Database, clock: ManualClock, **changes: Any) -> World:
    """`changes` are columns of the blockchain's row."""
    ring = KeyRing(
        id="ring", coin_type=60, account_index=0, curve="secp256k1", xpub="", material="", index_sequence="none"
    )
    async with database.transaction() as session:
        session.add_all([ring, blockchain(clock, **changes)])
        await session.flush()
        session.add_all([method("COIN", "COIN", NATIVE), method("TOK", "TOK", "0xtok")])
    return World(database, clock, ChainInMemory(started_at=clock()))
