"""`/charges` for tenants and `/admin/payments` for operators."""

from datetime import timedelta
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime

from keyserver.access.deps import Admin, Authenticated
from keyserver.access.hot import HotRoute
from keyserver.access.idempotency import answer_hot, kept_answer, tenant_scope
from keyserver.addresses.issuing import Rings
from keyserver.chains.registry import Registry
from keyserver.charges import queries
from keyserver.charges.creation import Draft, check_request, expected_units, store_charge
from keyserver.charges.schemas import (
    AdminPaymentPage,
    AdminPaymentView,
    ChargePage,
    ChargeView,
    CreatedCharge,
    NewCharge,
    charge_view,
)
from keyserver.charges.states import ChargeStatus
from keyserver.kit.db import Connect
from keyserver.kit.deps import Now, Session
from keyserver.kit.http import StrictRoute
from keyserver.kit.money import format_nanos
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.pricing.service import PriceBook

hot_router = APIRouter(tags=["charges"], route_class=HotRoute)
router = APIRouter(tags=["charges"], route_class=StrictRoute)
admin_router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])


@hot_router.post(
    "/charges",
    status_code=201,
    response_model=CreatedCharge,
    responses={503: {"description": "`price_unavailable`: no source has a usable price; no address is spent"}},
)
async def create_charge(request: Request, caller: Authenticated, body: NewCharge, now: Now) -> Response:
    """An amount in dollars, locked to an amount of the asset, and an address of its own to pay it to."""
    scope = tenant_scope(caller.tenant_id)
    if (kept := await kept_answer(request, scope=scope)) is not None:
        return kept
    state = request.app.state
    method = (await cast(Registry, state.registry).methods()).offered(body.chain)
    cents, metadata = check_request(body, egress=state.egress)
    price = await cast(PriceBook, state.prices).price(method.token, stablecoin=method.is_stablecoin, now=now())
    draft = Draft(
        method=method,
        price=price,
        amount_cents=cents,
        expected_units=expected_units(cents, price=price, method=method),
        callback_url=body.callback_url,
        metadata=metadata,
        lifetime=timedelta(seconds=body.expires_in_seconds or state.charge_lifetime_seconds),
    )

    async def work(connect: Connect) -> tuple[int, Any]:
        ring = await cast(Rings, state.rings).get(connect, method.key_ring_id)
        document = await store_charge(
            connect,
            state.indexes,
            draft,
            ring,
            tenant_id=caller.tenant_id,
            signing_tenant_id=caller.key_tenant_id,
            now=now(),
        )
        return 201, document

    return await answer_hot(request, work, scope=scope)


@router.get("/charges/{charge_id}")
async def get_charge(caller: Authenticated, session: Session, charge_id: str) -> ChargeView:
    found = await queries.get_charge(session, charge_id, tenant_id=caller.tenant_id)
    return charge_view(found.charge, found.payments, chain=found.chain, token=found.token)


@router.get("/charges")
async def list_charges(
    caller: Authenticated,
    session: Session,
    status: ChargeStatus | None = None,
    chain: str | None = None,
    created_after: Annotated[AwareDatetime | None, Query(alias="createdAfter")] = None,
    created_before: Annotated[AwareDatetime | None, Query(alias="createdBefore")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ChargePage:
    """Newest first. `chain` is a payment method's id or a blockchain's name."""
    wanted = queries.Filter(status, chain, created_after, created_before)
    before = decode_cursor(cursor)[0] if cursor else None
    found = await queries.list_charges(
        session, tenant_id=caller.tenant_id, wanted=wanted, before_id=before, limit=limit + 1
    )
    page = [charge_view(each.charge, each.payments, chain=each.chain, token=each.token) for each in found[:limit]]
    return ChargePage(charges=page, next_cursor=encode_cursor(page[-1].charge_id) if len(found) > limit else None)


@admin_router.get("/payments")
async def list_payments(
    session: Session, unmatched: bool = False, limit: Limit = 50, cursor: Cursor = None
) -> AdminPaymentPage:
    """Newest first. Unmatched: confirmed, but credited to nobody yet; `reason` says why."""
    before = decode_cursor(cursor)[0] if cursor else None
    found = await queries.list_payments(session, unmatched=unmatched, before_id=before, limit=limit + 1)
    page = [
        AdminPaymentView(
            id=payment.id,
            chain=chain,
            network=network,
            token=payment.token,
            address=payment.address,
            tx_hash=payment.tx_hash,
            output_index=payment.output_index,
            amount=str(payment.amount_units),
            status=payment.status,
            reason=payment.reason,
            tenant_id=payment.tenant_id,
            charge_id=payment.charge_id,
            credited_usd=None if payment.credited_nanos is None else format_nanos(payment.credited_nanos),
            seen_at=payment.seen_at,
        )
        for payment, chain, network in found[:limit]
    ]
    return AdminPaymentPage(payments=page, next_cursor=encode_cursor(page[-1].id) if len(found) > limit else None)
