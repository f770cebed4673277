"""What a coin is worth now, decided from what the sources said last and what an operator pinned."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.kit.cache import LIFETIME, Snapshot
from keyserver.kit.db import Database
from keyserver.pricing.consensus import NoPrice, Pin, Policy, Price, SourcePrice, decide
from keyserver.pricing.errors import PinNotFound, PriceUnavailable
from keyserver.pricing.models import PricePin
from keyserver.pricing.tokens import normal_token

#: A row without a source is a pin.
_FACTS = """
SELECT token, source, price_usd, observed_at, changed_at FROM price_observations{where}
UNION ALL
SELECT token, NULL, price_usd, pinned_at, NULL FROM price_pins{where}
"""
_ALL_FACTS = _FACTS.format(where="")
_FACTS_OF_TOKEN = _FACTS.format(where=" WHERE token = :token")


@dataclass(slots=True)
class Facts:
    """All that is known of one token's price."""

    observations: list[SourcePrice] = field(default_factory=list)
    pin: Pin | None = None


class PriceBook:
    """Prices for this process. What `price` reads is at most `lifetime` seconds old (see kit/cache.py)."""

    def __init__(
        self,
        database: Database,
        *,
        policy: Policy,
        lifetime: float = LIFETIME,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self._database = database
        self._facts = Snapshot(self._load, lifetime=lifetime, monotonic=monotonic)

    async def price(self, token: str, *, stablecoin: bool, now: datetime) -> Price:
        """Dollars for one whole coin. Raises PriceUnavailable (503) when nothing qualifies."""
        return self._decided(await self._facts.get(), token, stablecoin=stablecoin, now=now)

    async def price_in(self, session: AsyncSession, token: str, *, stablecoin: bool, now: datetime) -> Price:
        """The same from inside a transaction, read from the database at this moment."""
        facts = await read_facts(session, token=token)
        return self._decided(facts, token, stablecoin=stablecoin, now=now)

    def _decided(self, facts: dict[str, Facts], token: str, *, stablecoin: bool, now: datetime) -> Price:
        token = normal_token(token)
        known = facts.get(token, Facts())
        try:
            return decide(
                known.observations, known.pin, token=token, now=now, policy=self.policy, stablecoin=stablecoin
            )
        except NoPrice as error:
            raise PriceUnavailable(error.reason, token=token) from None

    async def _load(self) -> dict[str, Facts]:
        async with self._database.connection() as connection:
            return _by_token(tuple(row) for row in await connection.fetch(_ALL_FACTS))


async def read_facts(session: AsyncSession, *, token: str | None = None) -> dict[str, Facts]:
    """Facts by token, of all tokens or of one."""
    if token is None:
        return _by_token(tuple(row) for row in await session.execute(text(_ALL_FACTS)))
    found = await session.execute(text(_FACTS_OF_TOKEN), {"token": normal_token(token)})
    return _by_token(tuple(row) for row in found)


def _by_token(rows: Iterable[tuple[Any, ...]]) -> dict[str, Facts]:
    facts: defaultdict[str, Facts] = defaultdict(Facts)
    for token, source, price_usd, seen_at, changed_at in rows:
        if source is None:
            facts[token].pin = Pin(price_usd=price_usd, pinned_at=seen_at)
        else:
            facts[token].observations.append(SourcePrice(source, price_usd, seen_at, changed_at))
    return dict(facts)


async def pin(session: AsyncSession, *, token: str, price_usd: Decimal, now: datetime) -> None:
    """From the commit on, this is the token's price, whatever the sources say, until `unpin`."""
    new = insert(PricePin).values(token=normal_token(token), price_usd=price_usd, pinned_at=now)
    replaced = {"price_usd": new.excluded.price_usd, "pinned_at": new.excluded.pinned_at}
    await session.execute(new.on_conflict_do_update(index_elements=[PricePin.token], set_=replaced))


async def unpin(session: AsyncSession, *, token: str) -> None:
    """The sources decide again. Raises PinNotFound when they did already."""
    gone = await session.scalar(delete(PricePin).where(PricePin.token == normal_token(token)).returning(PricePin.token))
    if gone is None:
        raise PinNotFound
