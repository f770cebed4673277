"""Where prices come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Asset:
    """What a source is asked about. `token` is our upper-case symbol, `oracle_asset_id` an operator's own id for it."""

    token: str
    oracle_asset_id: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Dollars for one whole coin, and when the source says (or we know) that held."""

    token: str
    price_usd: Decimal
    observed_at: datetime


class PriceSource(Protocol):
    """`name` is stable: it is stored, shown and counted by."""

    name: str

    async def fetch(self, assets: Sequence[Asset]) -> Mapping[str, Observation]:
        """What the source knows of these assets, by token, in one request. Unknown assets are left out.

        Raises `SourceFailed` for anything else than an answer we understand.
        """


class SourceFailed(Exception):
    """One sentence for an operator. `retry_after` in seconds, when the source named it."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
