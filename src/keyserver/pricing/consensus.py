"""One price out of what several sources said, or the reason why there is none. Pure; there is no default value.

a pin                          → that price ("manual")
else what is fresh             → the median of those near the median of all, if they are the majority
a stablecoin inside its band   → exactly one dollar ("par")
anything else                  → NoPrice
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal, localcontext

from keyserver.kit.money import format_price

MANUAL = "manual"
PAR = "par"
ONE_DOLLAR = Decimal(1)

#: How far a source's clock may be ahead of ours; what claims to be newer is not believed.
FUTURE_TOLERANCE = timedelta(minutes=1)

#: Wide enough for sums and products of the prices that `quotes.price_of` lets in: nothing here is ever rounded.
_EXACT = Context(prec=400)


@dataclass(frozen=True, slots=True)
class SourcePrice:
    source: str
    price_usd: Decimal
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator's price. It holds until it is taken away: whoever pins answers for its age."""

    price_usd: Decimal
    pinned_at: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """`max_deviation` and `stablecoin_band` are shares: 0.05 is five percent."""

    max_age: timedelta
    max_deviation: Decimal
    stablecoin_band: Decimal


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
        market = _market(observations, token=token, now=now, policy=policy)
        if stablecoin and abs(market.price_usd - ONE_DOLLAR) <= policy.stablecoin_band:
            return Price(price_usd=ONE_DOLLAR, source=PAR, observed_at=market.observed_at)
        return market


def is_fresh(observed_at: datetime, *, now: datetime, policy: Policy) -> bool:
    return now - policy.max_age <= observed_at <= now + FUTURE_TOLERANCE


def _market(observations: Sequence[SourcePrice], *, token: str, now: datetime, policy: Policy) -> Price:
    fresh = [seen for seen in observations if is_fresh(seen.observed_at, now=now, policy=policy)]
    if not fresh:
        raise NoPrice(_nothing_fresh(observations, token=token, now=now, policy=policy))
    middle = median([seen.price_usd for seen in fresh])
    near = [seen for seen in fresh if abs(seen.price_usd - middle) <= policy.max_deviation * middle]
    if 2 * len(near) <= len(fresh):
        raise NoPrice(_disagreement(fresh, token=token, policy=policy))
    return Price(
        price_usd=median([seen.price_usd for seen in near]),
        source="+".join(sorted(seen.source for seen in near)),
        observed_at=min(seen.observed_at for seen in near),
    )


def median(prices: Iterable[Decimal]) -> Decimal:
    """The middle one, or the exact mean of the two middle ones."""
    ordered = sorted(prices)
    upper = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[upper]
    with localcontext(_EXACT):
        return (ordered[upper - 1] + ordered[upper]) / 2


def _nothing_fresh(observations: Sequence[SourcePrice], *, token: str, now: datetime, policy: Policy) -> str:
    if not observations:
        return f"no source has ever answered for {token}"
    limit = int(policy.max_age.total_seconds())
    heard = _listed(observations, lambda seen: _age(seen.observed_at, now=now))
    return f"no source has answered for {token} in the last {limit} s: {heard}"


def _disagreement(fresh: Sequence[SourcePrice], *, token: str, policy: Policy) -> str:
    heard = _listed(fresh, lambda seen: f"{format_price(seen.price_usd)} USD")
    return f"the sources for {token} differ by more than {policy.max_deviation:%} from their median: {heard}"


def _listed(observations: Sequence[SourcePrice], tell: Callable[[SourcePrice], str]) -> str:
    return ", ".join(f"{seen.source} {tell(seen)}" for seen in sorted(observations, key=lambda seen: seen.source))


def _age(observed_at: datetime, *, now: datetime) -> str:
    seconds = int((now - observed_at).total_seconds())
    return f"{seconds} s ago" if seconds >= 0 else f"{-seconds} s in the future"
