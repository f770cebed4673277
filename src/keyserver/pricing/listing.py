"""Prices as an operator sees them: what is used, what it was decided from, and why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import PaymentMethod
from keyserver.chains.registry import STABLECOIN
from keyserver.pricing.consensus import MANUAL, NoPrice, Policy, Price, decide
from keyserver.pricing.models import PriceSourceState
from keyserver.pricing.refresher import priced_assets
from keyserver.pricing.service import Facts, read_facts
from keyserver.pricing.tokens import normal_token

#: (name, help, [(labels, value)]), as `kit.metrics.render` takes them.
Gauge = tuple[str, str, list[tuple[dict[str, str], float]]]


@dataclass(frozen=True, slots=True)
class ListedObservation:
    source: str
    price_usd: Decimal
    observed_at: datetime
    age_seconds: int


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """`price` when there is a usable one, else the `reason` why not."""

    token: str
    price: Price | None
    age_seconds: int | None
    pinned: bool
    reason: str | None
    observations: list[ListedObservation]

    @property
    def usable(self) -> bool:
        return self.price is not None

    @property
    def price_usd(self) -> Decimal | None:
        return None if self.price is None else self.price.price_usd

    @property
    def source(self) -> str | None:
        return None if self.price is None else self.price.source

    @property
    def observed_at(self) -> datetime | None:
        return None if self.price is None else self.price.observed_at


async def listing(session: AsyncSession, *, policy: Policy, now: datetime) -> list[ListedPrice]:
    """Every token that has a price or that we can be paid in, by symbol."""
    facts = await read_facts(session)
    tokens = sorted(facts.keys() | {asset.token for asset in await priced_assets(session)})
    stable = await stablecoins(session)
    return [
        _listed(token, facts.get(token, Facts()), policy=policy, now=now, stablecoin=token in stable)
        for token in tokens
    ]


async def listed_price(session: AsyncSession, *, token: str, policy: Policy, now: datetime) -> ListedPrice:
    """One row of `listing`."""
    token = normal_token(token)
    facts = await read_facts(session, token=token)
    stable = await stablecoins(session)
    return _listed(token, facts.get(token, Facts()), policy=policy, now=now, stablecoin=token in stable)


async def stablecoins(session: AsyncSession) -> frozenset[str]:
    """Tokens with a payment method that calls itself a stablecoin: no name alone makes one."""
    query = select(PaymentMethod.token).where(PaymentMethod.type == STABLECOIN).distinct()
    return frozenset(await session.scalars(query))


async def source_states(session: AsyncSession) -> Sequence[PriceSourceState]:
    return (await session.scalars(select(PriceSourceState).order_by(PriceSourceState.source))).all()


async def database_gauges(session: AsyncSession, *, now: datetime) -> list[Gauge]:
    """The age of what each source said last, and of pins, by token and source."""
    samples = []
    for token, facts in sorted((await read_facts(session)).items()):
        seen = [(observation.source, observation.observed_at) for observation in facts.observations]
        if facts.pin is not None:
            seen.append((MANUAL, facts.pin.pinned_at))
        samples += [
            ({"token": token, "source": source}, max(0.0, (now - seen_at).total_seconds()))
            for source, seen_at in sorted(seen)
        ]
    return [("keyserver_price_age_seconds", "Age of the newest price by token and source", samples)]


def _listed(token: str, facts: Facts, *, policy: Policy, now: datetime, stablecoin: bool) -> ListedPrice:
    price, reason = None, None
    try:
        price = decide(facts.observations, facts.pin, token=token, now=now, policy=policy, stablecoin=stablecoin)
    except NoPrice as error:
        reason = error.reason
    return ListedPrice(
        token=token,
        price=price,
        age_seconds=None if price is None else _age(price.observed_at, now=now),
        pinned=facts.pin is not None,
        reason=reason,
        observations=[
            ListedObservation(
                source=seen.source,
                price_usd=seen.price_usd,
                observed_at=seen.observed_at,
                age_seconds=_age(seen.observed_at, now=now),
            )
            for seen in sorted(facts.observations, key=lambda seen: seen.source)
        ],
    )


def _age(seen_at: datetime, *, now: datetime) -> int:
    return max(0, int((now - seen_at).total_seconds()))
