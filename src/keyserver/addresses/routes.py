"""`POST /address`, and registering payment methods: `/admin/next-path`, `POST /admin/chains`."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.deps import Admin, Authenticated
from keyserver.access.hot import HotRoute
from keyserver.access.idempotency import answer_hot, answer_once, kept_answer, tenant_scope
from keyserver.addresses.indexes import Indexes
from keyserver.addresses.issuing import Rings, issue_address
from keyserver.addresses.registration import admin_views, path_of, path_status, refuse_private, register
from keyserver.addresses.schemas import (
    AddressView,
    AdminChainList,
    AdminChainView,
    NewAddress,
    NewChain,
    NextFree,
    PathView,
    RegisteredChain,
)
from keyserver.chains.changes import change_method, disable_method
from keyserver.chains.registry import Registry
from keyserver.chains.schemas import ChainChange
from keyserver.kit.db import Connect
from keyserver.kit.deps import Now, Session, Settled
from keyserver.kit.http import StrictRoute

router = APIRouter(tags=["addresses"], route_class=HotRoute)
admin_router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])


@router.post("/address", status_code=201, response_model=AddressView)
async def create_address(request: Request, caller: Authenticated, body: NewAddress, now: Now) -> Response:
    """A new deposit address. It belongs to the tenant for ever: whatever arrives there is credited to it."""
    scope = tenant_scope(caller.tenant_id)
    if (kept := await kept_answer(request, scope=scope)) is not None:
        return kept
    method = (await cast(Registry, request.app.state.registry).methods()).offered(body.chain)
    rings, indexes = cast(Rings, request.app.state.rings), cast(Indexes, request.app.state.indexes)

    async def work(connect: Connect) -> tuple[int, Any]:
        ring = await rings.get(connect, method.key_ring_id)
        issued = await issue_address(connect, indexes, ring, method, tenant_id=caller.tenant_id, now=now())
        return 201, {"address": issued.address, "index": issued.index, "chain": method.chain, "token": method.token}

    return await answer_hot(request, work, scope=scope)


@admin_router.get("/next-path", response_model_exclude_none=True)
async def next_path(session: Session, coin_type: Annotated[int, Query(ge=0, le=2**31 - 1)]) -> PathView:
    """Whether the first account of a coin type is free, and which account is if it is not."""
    used, free = await path_status(session, coin_type)
    if not used:
        path = path_of(coin_type=coin_type, account_index=0)
        return PathView(coin_type=coin_type, account_index=0, path=path, status="available")
    account = used[0][0]
    return PathView(
        coin_type=coin_type,
        account_index=account,
        path=path_of(coin_type=coin_type, account_index=account),
        status="allocated",
        allocated_to=[each for _, names in used for each in names],
        note="Register with the same xpub to share this key ring, or take the next available account",
        next_available=NextFree(account_index=free, path=path_of(coin_type=coin_type, account_index=free)),
    )


async def _no_private_material(request: Request) -> None:
    document = await request.json()
    if isinstance(document, dict) and isinstance(headers := document.get("rpc_headers"), dict):
        # A node's token may be 64 hexadecimal digits and no key. Beside its header's name it does not look like one.
        document = {**document, "rpc_headers": [f"{name}: {value}" for name, value in headers.items()]}
    refuse_private(document)


@admin_router.post(
    "/chains",
    status_code=201,
    response_model=RegisteredChain,
    dependencies=[Depends(_no_private_material), Settled],
)
async def register_chain(request: Request, body: NewChain, now: Now) -> Response:
    async def work(session: AsyncSession) -> tuple[int, Any]:
        state = request.app.state
        addresses = await register(session, body, master=state.master_key, now=now(), ahead=state.lookahead)
        path = path_of(coin_type=body.coin_type, account_index=body.account_index)
        return 201, {"id": body.id, "path": path, "addresses": addresses}

    return await answer_once(request, work, scope="admin")


@admin_router.get("/chains")
async def list_chains(session: Session) -> AdminChainList:
    """Every payment method, disabled ones too."""
    return AdminChainList(chains=await admin_views(session))


@admin_router.patch("/chains/{method_id}", dependencies=[Depends(_no_private_material), Settled])
async def change_chain(request: Request, session: Session, method_id: str, body: ChainChange) -> AdminChainView:
    await change_method(session, method_id, body, master=request.app.state.master_key)
    return (await admin_views(session, method_id=method_id))[0]


@admin_router.delete("/chains/{method_id}", status_code=204, dependencies=[Settled])
async def disable_chain(session: Session, method_id: str) -> None:
    """Disabled, never deleted: existing charges and addresses go on."""
    await disable_method(session, method_id)
