"""Making a charge: everything that can be refused first, then an index, then one INSERT of address and charge."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from keyserver.addresses.indexes import Indexes
from keyserver.addresses.issuing import Issued, Ring, step_over, take_address
from keyserver.chains.registry import Method
from keyserver.charges.errors import InvalidAmount, InvalidCallback, InvalidMetadata
from keyserver.charges.payment_uri import payment_uri
from keyserver.charges.schemas import MAX_AMOUNT_CENTS, NewCharge, dollars
from keyserver.charges.states import ChargeStatus
from keyserver.kit.clock import iso_z
from keyserver.kit.db import Connect
from keyserver.kit.egress import EgressPolicy, RefusedUrl
from keyserver.kit.ids import new_id
from keyserver.kit.money import MAX_UNITS, cents_to_units_up, format_price, format_units, usd_to_cents
from keyserver.pricing.consensus import Price

MAX_METADATA_BYTES = 16 * 1024

INSERT_CHARGE = """
    WITH issued AS (
        INSERT INTO addresses (key_ring_id, address_index, match_key, address, tenant_id, payment_method_id, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING key_ring_id
    )
    INSERT INTO charges (key_ring_id, address_index, address, tenant_id, payment_method_id, created_at, id,
                         signing_tenant_id, amount_cents, expected_units, price_usd, price_source, priced_at, decimals,
                         confirmations_required, callback_url, metadata, expires_at, deadline_at)
    SELECT $1, $2, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18::json, $19, $19 FROM issued
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """A charge that nothing refuses any more; it lacks only its address."""

    method: Method
    price: Price
    amount_cents: int
    expected_units: int
    callback_url: str | None
    metadata: str | None
    lifetime: timedelta


def check_request(body: NewCharge, *, egress: EgressPolicy) -> tuple[int, str | None]:
    """The amount in cents and the metadata as JSON; raises for whatever is wrong with the request by itself."""
    if body.amount_usd <= 0:
        raise InvalidAmount.at("/amountUsd", "amountUsd must be positive")
    cents = usd_to_cents(body.amount_usd)
    if cents > MAX_AMOUNT_CENTS:
        raise InvalidAmount.at("/amountUsd", "amountUsd must be at most 10,000,000")
    if cents == 0:
        raise InvalidAmount.at("/amountUsd", "amountUsd must be at least half a cent")
    if body.callback_url is not None:
        try:
            egress.check_url(body.callback_url)
        except RefusedUrl as error:
            raise InvalidCallback.at("/callbackUrl", str(error)) from None
    return cents, _metadata(body.metadata)


def _metadata(metadata: dict[str, Any] | None) -> str | None:
    if metadata is None:
        return None
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        raise InvalidMetadata.at("/metadata", "metadata holds a number that is not finite") from None
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise InvalidMetadata.at("/metadata", f"metadata must be at most {MAX_METADATA_BYTES} bytes of JSON")
    return text


def expected_units(cents: int, *, price: Price, method: Method) -> int:
    """What to ask for, in base units, rounded up; at least one whole base unit must be owed."""
    exact_owed = Decimal(cents).scaleb(method.decimals - 2)
    if exact_owed < price.price_usd:
        raise InvalidAmount.at("/amountUsd", f"amountUsd is worth less than one base unit of {method.token}")
    units = cents_to_units_up(cents, price_usd=price.price_usd, decimals=method.decimals)
    if units > MAX_UNITS:
        raise InvalidAmount.at("/amountUsd", f"amountUsd is more {method.token} than there can be")
    return units


async def store_charge(
    connect: Connect,
    indexes: Indexes,
    draft: Draft,
    ring: Ring,
    *,
    tenant_id: str,
    signing_tenant_id: str,
    now: datetime,
) -> dict[str, Any]:
    """Takes an address and stores the charge; returns the document of the answer."""
    charge_id = new_id("ch")
    expires_at = now + draft.lifetime
    method, price = draft.method, draft.price
    tries = 0
    while True:
        issued = await take_address(connect, indexes, ring, method)
        row = (
            issued.key_ring_id,
            issued.index,
            issued.match_key,
            issued.address,
            tenant_id,
            method.id,
            now,
            charge_id,
            signing_tenant_id,
            draft.amount_cents,
            draft.expected_units,
            price.price_usd,
            price.source,
            price.observed_at,
            method.decimals,
            method.confirmations,
            draft.callback_url,
            draft.metadata,
            expires_at,
        )
        async with connect() as connection:
            done: str = await connection.execute(INSERT_CHARGE, *row)
        if done == "INSERT 0 1":
            return _document(charge_id, draft, issued, now=now, expires_at=expires_at)
        tries += 1
        step_over(issued, tries=tries)


def _document(charge_id: str, draft: Draft, issued: Issued, *, now: datetime, expires_at: datetime) -> dict[str, Any]:
    method = draft.method
    return {
        "chargeId": charge_id,
        "address": issued.address,
        "chain": method.id,
        "token": method.token,
        "amountUsd": dollars(draft.amount_cents),
        "derivationIndex": issued.index,
        "expiresAt": iso_z(expires_at),
        "status": ChargeStatus.NEW,
        "type": method.type,
        "network": method.network,
        "decimals": method.decimals,
        "contractAddress": method.contract_address,
        "expectedAmount": str(draft.expected_units),
        "displayAmount": format_units(draft.expected_units, method.decimals),
        "priceUsd": format_price(draft.price.price_usd),
        "priceSource": draft.price.source,
        "pricedAt": iso_z(draft.price.observed_at),
        "paymentUri": payment_uri(
            family=method.spec.family,
            chain=method.chain,
            chain_id=method.spec.node_identity or method.node_identity,
            contract=method.contract_address,
            address=issued.address,
            units=draft.expected_units,
            decimals=method.decimals,
        ),
        "createdAt": iso_z(now),
    }
