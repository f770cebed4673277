"""`/charges` for tenants and `/admin/payments` for operators."""

from datetime import timedelta
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.deps import Admin, Authenticated
from keyserver.access.hot import HotRoute
from keyserver.access.idempotency import answer_hot, answer_once, kept_answer, tenant_scope
from keyserver.addresses.issuing import Rings
from keyserver.chains.registry import Registry
from keyserver.charges import queries
from keyserver.charges.creation import Draft, check_request, expected_units, store_charge
from keyserver.charges.errors import InvalidCredit
from keyserver.charges.history import history_of
from keyserver.charges.schemas import (
    AdminPaymentDetail,
    AdminPaymentPage,
    ChargePage,
    ChargeView,
    CreatedCharge,
    CreditPayment,
    DismissPayment,
    NewCharge,
    admin_payment_detail,
    admin_payment_view,
    charge_view,
)
from keyserver.charges.states import ChargeStatus, PaymentStatus
from keyserver.charges.unmatched import WantedCredit, credit_by_hand, dismiss
from keyserver.kit.db import Connect
from keyserver.kit.deps import Now, Session, request_id_of
from keyserver.kit.http import StrictRoute
from keyserver.kit.money import usd_to_nanos_exact
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.pricing.service import PriceBook

ShortQuery = Annotated[str | None, Query(min_length=1, max_length=128)]

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
    session: Session,
    unmatched: bool = False,
    status: PaymentStatus | None = None,
    chain: ShortQuery = None,
    tenant_id: ShortQuery = None,
    tenant: ShortQuery = None,
    reason: ShortQuery = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> AdminPaymentPage:
    """Newest first. Unmatched: confirmed, and neither credited nor dismissed; `reason` says why.

    `chain` is a payment method's id or a blockchain's name; `tenant` is another name for `tenant_id`.
    """
    wanted = queries.PaymentFilter(unmatched, status, chain, tenant_id or tenant, reason)
    before = decode_cursor(cursor)[0] if cursor else None
    found = await queries.list_payments(session, wanted=wanted, before_id=before, limit=limit + 1)
    page = [admin_payment_view(each) for each in found[:limit]]
    return AdminPaymentPage(payments=page, next_cursor=encode_cursor(page[-1].id) if len(found) > limit else None)


@admin_router.get("/payments/{payment_id}")
async def get_payment(session: Session, payment_id: str) -> AdminPaymentDetail:
    """One payment, with what was decided about it by hand and what the chain undid of that."""
    return await _payment_detail(session, payment_id)


@admin_router.post(
    "/payments/{payment_id}/credit",
    response_model=AdminPaymentDetail,
    responses={
        409: {"description": "Not confirmed, credited already, or another tenant's"},
        503: {"description": "`price_unavailable`: name `price_usd` or `amount_usd`"},
    },
)
async def credit_payment(request: Request, payment_id: str, body: CreditPayment, now: Now) -> Response:
    """Credits an unmatched or dismissed payment. The same again changes nothing and gets the same answer."""
    if body.price_usd is not None and body.amount_usd is not None:
        raise InvalidCredit.at("/amount_usd", "Give price_usd or amount_usd, not both")
    wanted = WantedCredit(
        tenant_id=body.tenant_id,
        price_usd=body.price_usd,
        amount_nanos=None if body.amount_usd is None else usd_to_nanos_exact(body.amount_usd),
        note=body.note,
    )

    async def work(session: AsyncSession) -> tuple[int, Any]:
        market = cast(PriceBook, request.app.state.prices)
        await credit_by_hand(session, payment_id, wanted, market=market, request_id=request_id_of(request), now=now())
        return 200, (await _payment_detail(session, payment_id)).model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


@admin_router.post(
    "/payments/{payment_id}/dismiss",
    response_model=AdminPaymentDetail,
    responses={409: {"description": "Not confirmed, credited already, or dismissed for another reason"}},
)
async def dismiss_payment(request: Request, payment_id: str, body: DismissPayment, now: Now) -> Response:
    """Nobody is credited for this payment, and it is no longer listed as unmatched; crediting it undoes that."""

    async def work(session: AsyncSession) -> tuple[int, Any]:
        await dismiss(session, payment_id, reason=body.reason, request_id=request_id_of(request), now=now())
        return 200, (await _payment_detail(session, payment_id)).model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


async def _payment_detail(session: AsyncSession, payment_id: str) -> AdminPaymentDetail:
    return admin_payment_detail(await queries.get_payment(session, payment_id), await history_of(session, payment_id))
