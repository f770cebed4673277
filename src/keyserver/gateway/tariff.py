"""What a call costs and what is charged for it: quantities at their rates, then the margin (pure).

A model's own rates are those of one capability whose pattern matches its name; the most specific pattern wins, and
all units of that pattern add up:

1. a pattern without `*` and `?`, which is the model's name itself;
2. else the one with the most literal characters (`gpt-4o-*` before `gpt-4*`);
3. else the one with fewer `*` and `?`, then the first in the order of the alphabet.

`*` is thereby the last of one's own. After those the default price list is asked (gateway/price_list.py), and then
the rates marked as fallback, by the same order. A model that none of them prices is refused.

Every rounding is up, to a nanodollar: first of the cost, then of the charge.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cached_property
from typing import Protocol, assert_never

from keyserver.kit.money import NANOS_PER_USD


class CostSource(StrEnum):
    """Who says what a call cost: the upstream, its usage at our rates, an estimate, or a caller of the holds API."""

    UPSTREAM = "upstream"
    USAGE = "usage"
    ESTIMATE = "estimate"
    STATED = "stated"


class Unit(StrEnum):
    INPUT_TOKENS = "1K-input-tokens"
    OUTPUT_TOKENS = "1K-output-tokens"
    TOKENS = "1K-tokens"
    REQUEST = "request"
    IMAGE = "image"
    SECOND = "second"
    CHARACTERS = "1K-characters"


_THOUSANDS = frozenset({Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS, Unit.TOKENS, Unit.CHARACTERS})


@dataclass(frozen=True, slots=True)
class Quantities:
    """How much of everything one call took. The special tokens are parts of `input_tokens` and `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    requests: int = 1
    images: int = 0
    seconds: Decimal = Decimal(0)
    characters: int = 0
    service_tier: str | None = None

    def count(self, unit: Unit) -> int | Fraction:
        """How many tokens, characters, … of a rate's unit this is; of thousands, the single ones."""
        match unit:
            case Unit.INPUT_TOKENS:
                return self.input_tokens
            case Unit.OUTPUT_TOKENS:
                return self.output_tokens
            case Unit.TOKENS:
                return self.input_tokens + self.output_tokens
            case Unit.REQUEST:
                return self.requests
            case Unit.IMAGE:
                return self.images
            case Unit.SECOND:
                return Fraction(self.seconds)
            case Unit.CHARACTERS:
                return self.characters
            case _:
                assert_never(unit)


class Price(Protocol):
    """What a model's quantities cost. `source` says whose price it is."""

    @property
    def source(self) -> str: ...

    def cost_usd(self, quantities: Quantities) -> Fraction:
        """Dollars, exact."""
        ...


@dataclass(frozen=True)
class Rate:
    """Dollars for one unit of whatever models the pattern matches; `fallback` stands behind the default price list."""

    capability: str
    model: str
    unit: Unit
    price_usd: Decimal
    fallback: bool = False

    @cached_property
    def price_of_one(self) -> Fraction:
        """Dollars for a single token or character where the unit is a thousand of them."""
        return Fraction(self.price_usd) / (1000 if self.unit in _THOUSANDS else 1)


@dataclass(frozen=True, slots=True)
class RatesPrice:
    """The price of one pattern: its units add up."""

    rates: tuple[Rate, ...]
    source: str = "rates"

    def cost_usd(self, quantities: Quantities) -> Fraction:
        return sum((rate.price_of_one * quantities.count(rate.unit) for rate in self.rates), Fraction(0))


@dataclass(frozen=True, slots=True)
class Quote:
    """A model's price as it stood when the call was admitted; a later change of rates does not touch it."""

    price: Price
    margin: Decimal

    def price_of(self, quantities: Quantities) -> int:
        """The cost in nanodollars, rounded up."""
        return nanos_up(self.price.cost_usd(quantities))

    def charge_nanos(self, cost_nanos: int) -> int:
        """What is charged for a cost: times the margin, rounded up to a nanodollar."""
        return charge_nanos(cost_nanos, margin=self.margin)


def charge_nanos(cost_nanos: int, *, margin: Decimal) -> int:
    """Cost times margin in nanodollars, rounded up."""
    numerator, denominator = margin.as_integer_ratio()
    charged: int = -(-cost_nanos * numerator // denominator)
    return charged


def nanos_up(usd: Fraction) -> int:
    """Dollars as nanodollars, rounded up."""
    return -(-usd.numerator * NANOS_PER_USD // usd.denominator)


def matches(pattern: str, model: str) -> bool:
    """Whether a glob matches a model's name: `*` is any text, `?` any character, everything else itself."""
    return fnmatchcase(model, pattern.replace("[", "[[]"))


def specificity(pattern: str) -> tuple[bool, int, int, str]:
    """Sorts patterns, the most specific first."""
    wildcards = pattern.count("*") + pattern.count("?")
    return wildcards > 0, wildcards - len(pattern), wildcards, pattern


class RateBook:
    """The rates of one moment."""

    def __init__(self, rates: Iterable[Rate]) -> None:
        by_pattern: dict[tuple[str, bool], dict[str, list[Rate]]] = {}
        for rate in rates:
            by_pattern.setdefault((rate.capability, rate.fallback), {}).setdefault(rate.model, []).append(rate)
        self._patterns: Mapping[tuple[str, bool], Sequence[tuple[str, RatesPrice]]] = {
            key: [(pattern, RatesPrice(tuple(found[pattern]))) for pattern in sorted(found, key=specificity)]
            for key, found in by_pattern.items()
        }

    def own(self, capability: str, model: str) -> RatesPrice | None:
        return self._first(capability, model, fallback=False)

    def fallback(self, capability: str, model: str) -> RatesPrice | None:
        return self._first(capability, model, fallback=True)

    def _first(self, capability: str, model: str, *, fallback: bool) -> RatesPrice | None:
        patterns = self._patterns.get((capability, fallback), ())
        return next((price for pattern, price in patterns if matches(pattern, model)), None)
