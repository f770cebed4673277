"""The default price list: the data of the library `genai-prices`, as it was installed; nothing is downloaded (pure).

The library's own calculation costs 200 µs a call, for it weighs every unit anew. Here a model's prices are looked up
once a minute and turned into plain fractions; a test holds both to the same sums.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.tariff import Quantities

MAX_MODEL_LENGTH = 256
_MILLION = 1_000_000
_NOTHING = Fraction(0)

#: What must have a price for the list to price a capability at all: a call that costs nothing by omission is a loss.
_NEEDED: dict[str, tuple[str, ...]] = {
    Capability.CHAT: ("input_mtok", "output_mtok", "requests_kcount"),
    Capability.COMPLETIONS: ("input_mtok", "output_mtok", "requests_kcount"),
    Capability.EMBEDDINGS: ("input_mtok", "requests_kcount"),
    Capability.IMAGES: ("output_image_mtok", "output_mtok", "requests_kcount"),
    Capability.SPEECH: ("input_mchars", "output_audio_mtok", "output_mtok", "requests_kcount"),
    Capability.TRANSCRIPTIONS: ("input_audio_hours", "audio_hours", "input_audio_mtok", "input_mtok"),
}


@dataclass(frozen=True, slots=True)
class _Step:
    """Dollars for one unit. Above a tier's start, in input tokens of the whole call, every unit costs the tier's."""

    base: Fraction
    tiers: tuple[tuple[int, Fraction], ...] = ()

    def at(self, input_tokens: int) -> Fraction:
        price = self.base
        for start, tier in self.tiers:
            if input_tokens > start:
                price = tier
        return price


@dataclass(frozen=True, slots=True)
class _Prices:
    """One model's prices at one service tier."""

    per_unit: dict[str, _Step]

    def cost_usd(self, taken: Quantities) -> Fraction:
        inputs = (
            ("cache_read_mtok", taken.cached_input_tokens),
            ("cache_write_mtok", taken.cache_write_tokens),
            ("input_audio_mtok", taken.input_audio_tokens),
            ("input_image_mtok", taken.input_image_tokens),
        )
        cost = self._side("input_mtok", taken.input_tokens, inputs, taken)
        outputs = (
            ("output_audio_mtok", taken.output_audio_tokens),
            ("output_image_mtok", taken.output_image_tokens),
        )
        cost += self._side("output_mtok", taken.output_tokens, outputs, taken)
        if taken.seconds:
            name = "input_audio_hours" if "input_audio_hours" in self.per_unit else "audio_hours"
            cost += self._price(name, taken) * Fraction(taken.seconds)
        cost += self._price("input_mchars", taken) * taken.characters
        return cost + self._price("requests_kcount", taken) * taken.requests

    def _side(self, plain: str, total: int, parts: tuple[tuple[str, int], ...], taken: Quantities) -> Fraction:
        """The tokens of one direction: each kind at its own price where it has one, the rest at the plain price."""
        cost = _NOTHING
        for name, tokens in parts:
            if tokens and name in self.per_unit:
                special = min(tokens, total)
                cost += self._price(name, taken) * special
                total -= special
        return cost + self._price(plain, taken) * total

    def _price(self, name: str, taken: Quantities) -> Fraction:
        step = self.per_unit.get(name)
        return _NOTHING if step is None else step.at(taken.input_tokens)


@dataclass(frozen=True, slots=True)
class ListPrice:
    """A model's price on the list; some providers ask more or less at another service tier than the standard one."""

    standard: _Prices
    by_tier: dict[str, _Prices]
    source: str = "list"

    def cost_usd(self, quantities: Quantities) -> Fraction:
        prices = self.by_tier.get(quantities.service_tier or "", self.standard)
        return prices.cost_usd(quantities)


def listed_price(capability: str, model: str, *, base_url: str, now: datetime) -> ListPrice | None:
    """The price of a model at the provider with this URL, else at whoever is known to make it; None when unlisted."""
    if len(model) > MAX_MODEL_LENGTH:
        return None
    price = _looked_up(model, base_url, now.replace(second=0, microsecond=0))
    needed = _NEEDED.get(capability, ())
    return price if price is not None and any(name in price.standard.per_unit for name in needed) else None


@lru_cache(maxsize=4096)
def _looked_up(model: str, base_url: str, minute: datetime) -> ListPrice | None:
    found = _model(model, base_url)
    if found is None:
        return None
    tiers = {
        variant.when["service_tier"]
        for variant in found.price_variants or ()
        if variant.when.keys() == {"service_tier"}
    }
    return ListPrice(
        _prices(found.get_prices(minute)),
        {tier: _prices(found.get_prices(minute, {"service_tier": tier})) for tier in tiers},
    )


def _model(model: str, base_url: str) -> ModelInfo | None:
    """By the upstream's URL; by the name alone; as OpenRouter names it (`vendor/model`); as a model of OpenAI."""
    attempts: list[dict[str, Any]] = [
        {"provider_id": None, "provider_api_url": base_url},
        {"provider_id": None, "provider_api_url": None},
        {"provider_id": "openrouter" if "/" in model else "openai", "provider_api_url": None},
    ]
    for attempt in attempts:
        try:
            return get_snapshot().find_provider_model(model, None, **attempt)[1]
        except LookupError:
            continue
    return None


def _prices(listed: ModelPrice) -> _Prices:
    return _Prices({name: _step(name, price) for name, price in vars(listed).items() if price is not None})


def _step(name: str, price: Decimal | TieredPrices) -> _Step:
    """The list's prices are for a million tokens or characters, an hour, or a thousand of anything else."""
    per = _MILLION if name.endswith(("_mtok", "_mchars")) else 3600 if name.endswith("_hours") else 1000
    if isinstance(price, TieredPrices):
        return _Step(
            Fraction(price.base) / per, tuple((tier.start, Fraction(tier.price) / per) for tier in price.tiers)
        )
    return _Step(Fraction(price) / per)
