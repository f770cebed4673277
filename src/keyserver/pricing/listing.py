"""Prices as an operator sees them: what is used, what it was decided from, and why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import PaymentMethod
from keyserver.chains.registry import STABLECOIN
from keyserver.pricing.consensus import MANUAL, Exclusion, NoPrice, Policy, Price, decide, judge
from keyserver.pricing.models import PriceSourceState
from keyserver.pricing.refresher import priced_assets
from keyserver.pricing.service import Facts, read_facts
from keyserver.pricing.tokens import normal_token

#: (name, help, [(labels, value)]), as `kit.metrics.render` takes them.
Gauge = tuple[str, str, list[tuple[dict[str, str], float]]]


@dataclass(frozen=True, slots=True)
class ListedObservation:
    """`excluded` names the rule that keeps it out of the price, and is None for what is used."""

    source: str
    price_usd: Decimal
    observed_at: datetime
    age_seconds: int
    changed_at: datetime | None
    excluded: Exclusion | None

    @property
    def used(self) -> bool:
        return self.excluded is None


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """`price` when there is a usable one, else the `reason` why not.

    `left_out_by`: sources that were asked for the token, and whose last answer had no price of it.
    """

    token: str
    price: Price | None
    age_seconds: int | None
    pinned: bool
    reason: str | None
    observations: list[ListedObservation]
    left_out_by: list[str]

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
    states = await source_states(session)
    return [
        _listed(token, facts.get(token, Facts()), states, policy=policy, now=now, stablecoin=token in stable)
        for token in tokens
    ]


async def listed_price(session: AsyncSession, *, token: str, policy: Policy, now: datetime) -> ListedPrice:
    """One row of `listing`."""
    token = normal_token(token)
    facts = await read_facts(session, token=token)
    stable = await stablecoins(session)
    states = await source_states(session)
    return _listed(token, facts.get(token, Facts()), states, policy=policy, now=now, stablecoin=token in stable)


async def stablecoins(session: AsyncSession) -> frozenset[str]:
    """Tokens with a payment method that calls itself a stablecoin: no name alone makes one."""
    query = select(PaymentMethod.token).where(PaymentMethod.type == STABLECOIN).distinct()
    return frozenset(await session.scalars(query))


async def source_states(session: AsyncSession) -> Sequence[PriceSourceState]:
    return (await session.scalars(select(PriceSourceState).order_by(PriceSourceState.source))).all()


async def database_gauges(session: AsyncSession, *, policy: Policy, now: datetime) -> list[Gauge]:
    """What is used now, and of what each source said last: its age, and whether and by which rule it is not used."""
    ages, uses, exclusions, used = [], [], [], []
    for listed in await listing(session, policy=policy, now=now):
        if listed.price is not None:
            used.append(({"token": listed.token}, float(listed.price.price_usd)))
            if listed.pinned:
                ages.append(({"token": listed.token, "source": MANUAL}, _seconds(listed.price.observed_at, now=now)))
        for seen in listed.observations:
            labels = {"token": listed.token, "source": seen.source}
            ages.append((labels, _seconds(seen.observed_at, now=now)))
            uses.append((labels, float(seen.used)))
            if seen.excluded is not None:
                exclusions.append((labels | {"rule": str(seen.excluded)}, 1.0))
    return [
        ("keyserver_price_age_seconds", "Age of the newest price by token and source", ages),
        ("keyserver_price_usd", "Price used now by token; absent while there is none", used),
        ("keyserver_price_used", "Whether a source's newest price is part of the one used", uses),
        ("keyserver_price_excluded", "Newest prices that are not used, by the rule that excludes them", exclusions),
    ]


def _listed(
    token: str, facts: Facts, states: Sequence[PriceSourceState], *, policy: Policy, now: datetime, stablecoin: bool
) -> ListedPrice:
    price, reason = None, None
    try:
        price = decide(facts.observations, facts.pin, token=token, now=now, policy=policy, stablecoin=stablecoin)
    except NoPrice as error:
        reason = error.reason
    verdicts = judge(facts.observations, facts.pin, now=now, policy=policy)
    return ListedPrice(
        token=token,
        price=price,
        age_seconds=None if price is None else _age(price.observed_at, now=now),
        pinned=facts.pin is not None,
        reason=reason,
        observations=[
            ListedObservation(
                source=verdict.seen.source,
                price_usd=verdict.seen.price_usd,
                observed_at=verdict.seen.observed_at,
                age_seconds=_age(verdict.seen.observed_at, now=now),
                changed_at=verdict.seen.changed_at,
                excluded=verdict.excluded,
            )
            for verdict in sorted(verdicts, key=lambda verdict: verdict.seen.source)
        ],
        left_out_by=[state.source for state in states if token in state.left_out],
    )


def _seconds(seen_at: datetime, *, now: datetime) -> float:
    return max(0.0, (now - seen_at).total_seconds())


def _age(seen_at: datetime, *, now: datetime) -> int:
    return int(_seconds(seen_at, now=now))
