"""How much a call will take at most, told from its request in microseconds; nothing is downloaded (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.tariff import Quantities, Quote


@dataclass(frozen=True, slots=True)
class EstimatePolicy:
    """`output_tokens` is assumed of a call that names no maximum; floor and cap are of the charge that is held."""

    output_tokens: int = 2048
    floor_nanos: int = 1_000
    cap_nanos: int = 100_000_000_000


def expected(
    capability: Capability, body: Mapping[str, Any], *, raw_size: int, policy: EstimatePolicy = EstimatePolicy(), head: bytes = b""
) -> Quantities:
    """`body`: the request's JSON, or a form's fields; `raw_size`: bytes of the request, or of the form's file, whose
    first bytes are `head`."""
    raise NotImplementedError


def estimate_nanos(quote: Quote, quantities: Quantities, *, policy: EstimatePolicy = EstimatePolicy()) -> int:
    """What is held for a call: its expected charge, not less than the floor and not more than the cap."""
    charge = quote.charge_nanos(quote.price_of(quantities))
    return min(max(charge, policy.floor_nanos), policy.cap_nanos)
