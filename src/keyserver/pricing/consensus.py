"""One price out of what several sources said, or the reason why there is none. Pure; there is no default value.

a pin                          → that price ("manual")
else what is fresh, not frozen → the median of those near the median of all, if they are the majority
a stablecoin inside its band   → exactly one dollar ("par")
anything else                  → NoPrice
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Context, Decimal, localcontext
from enum import StrEnum

from keyserver.kit.money import format_price

MANUAL = "manual"
PAR = "par"
ONE_DOLLAR = Decimal(1)

#: How far a source's clock may be ahead of ours; what claims to be newer is not believed.
FUTURE_TOLERANCE = timedelta(minutes=1)

#: Wide enough for sums and products of the prices that `quotes.price_of` lets in: nothing here is ever rounded.
_EXACT = Context(prec=400)


#: Share of `max_deviation` by which a value that stands still may differ from those that move: spreads, not faults.
_NOISE = Decimal("0.2")


class Exclusion(StrEnum):
    """The rule that keeps what a source said out of the price."""

    PINNED = "pinned"
    STALE = "stale"
    FROZEN = "frozen"
    OUTLIER = "outlier"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class SourcePrice:
    """`changed_at`: since when the source has said this very price; None when we have not seen it change."""

    source: str
    price_usd: Decimal
    observed_at: datetime
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`excluded` is None for what the price is made of."""

    seen: SourcePrice
    excluded: Exclusion | None


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator's price. It holds until it is taken away: whoever pins answers for its age."""

    price_usd: Decimal
    pinned_at: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """`max_deviation` and `stablecoin_band` are shares: 0.05 is five percent.

    `max_age_of` holds sources with an age of their own: an oracle that writes only when the price has moved, or once
    an hour, still says what holds now. `frozen_after`: how long a price may stand still while others move.
    """

    max_age: timedelta
    max_deviation: Decimal
    stablecoin_band: Decimal
    max_age_of: Mapping[str, timedelta] = field(default_factory=dict)
    frozen_after: timedelta = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Price:
    """`source` names all that were used (`coingecko+kraken`); `observed_at` is the oldest of their instants."""

    price_usd: Decimal
    source: str
    observed_at: datetime


class NoPrice(Exception):
    """`reason` is one sentence for people."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def decide(
    observations: Sequence[SourcePrice],
    pin: Pin | None,
    *,
    token: str,
    now: datetime,
    policy: Policy,
    stablecoin: bool,
) -> Price:
    """Dollars for one whole coin of `token` now; `NoPrice` when nothing qualifies.

    Two sources alone are equally far from their median, so they qualify together or not at all. A stablecoin outside
    its band is worth what the market says; one that no source has seen lately has no price, as par is never assumed.
    """
    if pin is not None:
        return Price(price_usd=pin.price_usd, source=MANUAL, observed_at=pin.pinned_at)
    with localcontext(_EXACT):
        market = _market(judge(observations, pin, now=now, policy=policy), token=token, now=now, policy=policy)
        if stablecoin and abs(market.price_usd - ONE_DOLLAR) <= policy.stablecoin_band:
            return Price(price_usd=ONE_DOLLAR, source=PAR, observed_at=market.observed_at)
        return market


def judge(observations: Sequence[SourcePrice], pin: Pin | None, *, now: datetime, policy: Policy) -> list[Verdict]:
    """Which observations the price is made of, and which rule keeps each of the others out; in their order."""
    if pin is not None:
        return [Verdict(seen, Exclusion.PINNED) for seen in observations]
    excluded = {seen: Exclusion.STALE for seen in observations if not is_fresh(seen, now=now, policy=policy)}
    with localcontext(_EXACT):
        fresh = [seen for seen in observations if seen not in excluded]
        excluded |= dict.fromkeys(_frozen(fresh, now=now, policy=policy), Exclusion.FROZEN)
        alive = [seen for seen in fresh if seen not in excluded]
        far = _far(alive, policy=policy) if alive else []
        disputed = 2 * len(far) >= len(alive)
        excluded |= dict.fromkeys(alive, Exclusion.DISPUTED) if disputed else dict.fromkeys(far, Exclusion.OUTLIER)
    return [Verdict(seen, excluded.get(seen)) for seen in observations]


def is_fresh(seen: SourcePrice, *, now: datetime, policy: Policy) -> bool:
    max_age = policy.max_age_of.get(seen.source, policy.max_age)
    return now - max_age <= seen.observed_at <= now + FUTURE_TOLERANCE


def _far(alive: Sequence[SourcePrice], *, policy: Policy) -> list[SourcePrice]:
    middle = median([seen.price_usd for seen in alive])
    return [seen for seen in alive if abs(seen.price_usd - middle) > policy.max_deviation * middle]


def _frozen(fresh: Sequence[SourcePrice], *, now: datetime, policy: Policy) -> list[SourcePrice]:
    """Sources that have said one and the same for long, and are off from those that have moved meanwhile.

    Standing still is no fault by itself: a stablecoin does, a quiet market does, and an oracle with an age of its own
    does until there is something to write. It is one when the others went elsewhere. They must outnumber the still
    ones; as many are enough while the two differ by no more than sources may, so that a wild source never unseats one
    that rightly stands still.
    """
    still = [seen for seen in fresh if _stands_still(seen, now=now, policy=policy)]
    moving = [seen for seen in fresh if seen not in still]
    if not still or len(moving) < len(still):
        return []
    market = median([seen.price_usd for seen in moving])
    noise, furthest = _NOISE * policy.max_deviation * market, policy.max_deviation * market
    gaps = {seen: abs(seen.price_usd - market) for seen in still}
    outnumbered = len(moving) > len(still)
    return [seen for seen, gap in gaps.items() if gap > noise and (outnumbered or gap <= furthest)]


def _stands_still(seen: SourcePrice, *, now: datetime, policy: Policy) -> bool:
    if seen.changed_at is None or seen.source in policy.max_age_of:
        return False
    return now - seen.changed_at >= policy.frozen_after


def _market(verdicts: Sequence[Verdict], *, token: str, now: datetime, policy: Policy) -> Price:
    used = [verdict.seen for verdict in verdicts if verdict.excluded is None]
    if not used:
        raise NoPrice(_why_none(verdicts, token=token, now=now, policy=policy))
    return Price(
        price_usd=median([seen.price_usd for seen in used]),
        source="+".join(sorted(seen.source for seen in used)),
        observed_at=min(seen.observed_at for seen in used),
    )


def median(prices: Iterable[Decimal]) -> Decimal:
    """The middle one, or the exact mean of the two middle ones."""
    ordered = sorted(prices)
    upper = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[upper]
    with localcontext(_EXACT):
        return (ordered[upper - 1] + ordered[upper]) / 2


def _why_none(verdicts: Sequence[Verdict], *, token: str, now: datetime, policy: Policy) -> str:
    if not verdicts:
        return f"no source has ever answered for {token}"
    disputed = [verdict.seen for verdict in verdicts if verdict.excluded is Exclusion.DISPUTED]
    if disputed:
        heard = _listed(disputed, lambda seen: f"{format_price(seen.price_usd)} USD")
        return f"the sources for {token} differ by more than {policy.max_deviation:%} from their median: {heard}"
    limit = int(policy.max_age.total_seconds())
    heard = _listed([verdict.seen for verdict in verdicts], lambda seen: _age(seen.observed_at, now=now))
    return f"no source has answered for {token} in the last {limit} s: {heard}"


def _listed(observations: Sequence[SourcePrice], tell: Callable[[SourcePrice], str]) -> str:
    return ", ".join(f"{seen.source} {tell(seen)}" for seen in sorted(observations, key=lambda seen: seen.source))


def _age(observed_at: datetime, *, now: datetime) -> str:
    seconds = int((now - observed_at).total_seconds())
    return f"{seconds} s ago" if seconds >= 0 else f"{-seconds} s in the future"
