"""`/admin/prices`: what is used now and why, and an operator's own price instead."""

from fastapi import APIRouter

from keyserver.access.deps import Admin
from keyserver.kit.deps import Now, Session, Settled
from keyserver.kit.http import StrictRoute
from keyserver.kit.wire import Identifier
from keyserver.pricing import listing, service
from keyserver.pricing.deps import Prices
from keyserver.pricing.schemas import NewPin, PriceList, PriceView, SourceView

router = APIRouter(prefix="/admin/prices", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])


@router.get("")
async def list_prices(session: Session, prices: Prices, now: Now) -> PriceList:
    """Every token that has a price or that we can be paid in, with what each source said of it, and the sources."""
    listed = await listing.listing(session, policy=prices.policy, now=now())
    states = await listing.source_states(session)
    return PriceList(
        prices=[PriceView.model_validate(price) for price in listed],
        sources=[SourceView.model_validate(state) for state in states],
    )


@router.put("/{token}", dependencies=[Settled])
async def pin_price(session: Session, body: NewPin, token: Identifier, prices: Prices, now: Now) -> PriceView:
    """This is the token's price in dollars from now on, whatever the sources say, until it is unpinned."""
    await service.pin(session, token=token, price_usd=body.price_usd, now=now())
    listed = await listing.listed_price(session, token=token, policy=prices.policy, now=now())
    return PriceView.model_validate(listed)


@router.delete("/{token}", status_code=204, dependencies=[Settled])
async def unpin_price(session: Session, token: Identifier) -> None:
    """The sources decide again. 404 when no price is pinned."""
    await service.unpin(session, token=token)
