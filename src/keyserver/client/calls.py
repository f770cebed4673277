"""The requests a platform service can make, and how to read their answers (pure: nothing here sends anything)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter

from keyserver.client.models import (
    Address,
    Balance,
    Chain,
    Charge,
    CreatedCharge,
    LedgerEntry,
    Model,
    PlacedHold,
    SettledHold,
    UsageRow,
)

T = TypeVar("T")

_CHAINS = TypeAdapter(list[Chain])


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. `parse` reads the body of its success. `creates`: it needs an idempotency key to be tried again."""

    method: str
    path: str
    parse: Callable[[bytes], T]
    query: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None
    creates: bool = False
    idempotency_key: str | None = None
    attribute_to: str | None = None


class UsageReport(Model):
    rows: tuple[UsageRow, ...]


class ChargePage(Model):
    charges: tuple[Charge, ...]
    next_cursor: str | None


class EntryPage(Model):
    entries: tuple[LedgerEntry, ...]
    next_cursor: str | None


def chains() -> Call[list[Chain]]:
    return Call("GET", "/chains", _CHAINS.validate_json)


def create_address(chain: str, *, idempotency_key: str | None) -> Call[Address]:
    body = {"chain": chain}
    return Call("POST", "/address", Address.model_validate_json, None, body, True, idempotency_key)


def create_charge(
    chain: str,
    amount_usd: Decimal | int | str,
    *,
    callback_url: str | None,
    metadata: Mapping[str, Any] | None,
    expires_in: int | None,
    idempotency_key: str | None,
) -> Call[CreatedCharge]:
    members = {
        "chain": chain,
        "amountUsd": _dollars(amount_usd, "amount_usd"),
        "callbackUrl": callback_url,
        "metadata": metadata,
        "expiresInSeconds": expires_in,
    }
    body = {name: value for name, value in members.items() if value is not None}
    return Call("POST", "/charges", _created_charge, None, body, True, idempotency_key)


def _dollars(amount: object, name: str) -> str:
    """A plain decimal string. A float is refused: it may not be the amount its writer meant."""
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
        raise TypeError(f"{name} must be a Decimal, an int or a decimal string, not {type(amount).__name__}")
    return format(amount, "f") if isinstance(amount, Decimal) else str(amount)


def _created_charge(body: bytes) -> CreatedCharge:
    """`amountUsd` is a JSON number on the wire; it never passes through a float here."""
    return CreatedCharge.model_validate(json.loads(body, parse_float=Decimal))


def charge(charge_id: str) -> Call[Charge]:
    return Call("GET", f"/charges/{quote(charge_id, safe='')}", Charge.model_validate_json)


def charge_page(
    *,
    status: str | None,
    chain: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    limit: int,
    cursor: str | None,
) -> Call[ChargePage]:
    query = {
        "status": status,
        "chain": chain,
        "createdAfter": _instant(created_after),
        "createdBefore": _instant(created_before),
        "limit": str(limit),
        "cursor": cursor,
    }
    given = {name: str(value) for name, value in query.items() if value is not None}
    return Call("GET", "/charges", ChargePage.model_validate_json, given)


def balance() -> Call[Balance]:
    return Call("GET", "/ledger/balance", Balance.model_validate_json)


def entry_page(*, limit: int, cursor: str | None) -> Call[EntryPage]:
    query = {"limit": str(limit), **({"cursor": cursor} if cursor is not None else {})}
    return Call("GET", "/ledger/entries", EntryPage.model_validate_json, query)


def place_hold(
    capability: str,
    estimate_usd: Decimal | int | str,
    *,
    ttl_seconds: int | None,
    attribute_to: str | None,
    idempotency_key: str | None,
) -> Call[PlacedHold]:
    members = {
        "capability": capability,
        "estimateUsd": _dollars(estimate_usd, "estimate_usd"),
        "ttlSeconds": ttl_seconds,
    }
    body = {name: value for name, value in members.items() if value is not None}
    parse = PlacedHold.model_validate_json
    return Call("POST", "/usage/holds", parse, None, body, True, idempotency_key, attribute_to)


def settle_hold(
    hold_id: str,
    cost_usd: Decimal | int | str,
    *,
    request_id: str,
    provider: str | None,
    units: Decimal | int | None,
    unit_type: str | None,
) -> Call[SettledHold]:
    members = {
        "costUsd": _dollars(cost_usd, "cost_usd"),
        "requestId": request_id,
        "provider": provider,
        "units": None if units is None else _dollars(units, "units"),
        "unitType": unit_type,
    }
    body = {name: value for name, value in members.items() if value is not None}
    return Call("POST", _hold(hold_id, "settle"), SettledHold.model_validate_json, None, body, True)


def void_hold(hold_id: str) -> Call[None]:
    return Call("POST", _hold(hold_id, "void"), lambda _: None, creates=True)


def _hold(hold_id: str, verb: str) -> str:
    return f"/usage/holds/{quote(hold_id, safe='')}/{verb}"


def usage(
    *, group_by: Sequence[str], begins: date | datetime | None, ends: date | datetime | None
) -> Call[UsageReport]:
    query = {"groupBy": ",".join(group_by), "from": _day_or_instant(begins), "to": _day_or_instant(ends)}
    given = {name: value for name, value in query.items() if value is not None}
    return Call("GET", "/usage", UsageReport.model_validate_json, given)


def _day_or_instant(moment: date | datetime | None) -> str | None:
    return _instant(moment) if moment is None or isinstance(moment, datetime) else moment.isoformat()


def _instant(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("an instant must have a time zone")
    return moment.isoformat()
