"""`/demo/*`, in demo mode only: play the payer, the miner and the reorganisation."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import select

from keyserver.chains.catalog import Family
from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.charges.errors import ChargeNotFound
from keyserver.charges.models import Charge
from keyserver.demo import chain
from keyserver.demo.setup import METHODS
from keyserver.kit.deps import Now, Session
from keyserver.kit.http import StrictRoute
from keyserver.kit.problems import BadRequest
from keyserver.kit.wire import CamelBody, CamelView, DecimalNumber

router = APIRouter(prefix="/demo", tags=["demo"], route_class=StrictRoute)
_BLOCKCHAINS = tuple(f"{method.chain}:{method.network}" for method in METHODS)


class NewDemoPayment(CamelBody):
    charge_id: str
    fraction: DecimalNumber = Field(Decimal(1), gt=0, le=100, description="Share of the expected amount; 0.5 is half")


class DemoPaymentView(CamelView):
    charge_id: str
    tx_hash: str
    amount: str


class Mining(CamelBody):
    blocks: Annotated[int, Field(ge=1, le=1000)] = 1


class Reorganising(CamelBody):
    depth: Annotated[int, Field(ge=1, le=100)] = 1


class HeightsView(CamelView):
    """The new height of each simulated chain."""

    heights: dict[str, int]


@router.post("/pay", status_code=201)
async def pay(session: Session, body: NewDemoPayment) -> DemoPaymentView:
    """Pays a charge (or a part of it, or too much). The payment waits for `/demo/mine`."""
    query = (
        select(Charge, PaymentMethod, Blockchain)
        .join(PaymentMethod, PaymentMethod.id == Charge.payment_method_id)
        .join(Blockchain, Blockchain.id == PaymentMethod.blockchain_id)
        .where(Charge.id == body.charge_id)
    )
    row = (await session.execute(query)).first()
    if row is None:
        raise ChargeNotFound
    charge, method, blockchain = row
    if blockchain.id not in _BLOCKCHAINS:
        raise BadRequest.at("/chargeId", "This charge is on a real chain; only simulated ones can be paid here")
    units = max(1, int(charge.expected_units * body.fraction))
    address = charge.address.lower() if blockchain.family == Family.EVM else charge.address
    tx_hash = await chain.pay(session, blockchain.id, asset=method.asset, address=address, units=units)
    return DemoPaymentView(charge_id=charge.id, tx_hash=tx_hash, amount=str(units))


@router.post("/mine")
async def mine(session: Session, now: Now, body: Mining | None = None) -> HeightsView:
    """Mines blocks on every simulated chain; the first holds all that waits."""
    blocks = (body or Mining()).blocks
    return HeightsView(
        heights={each: await chain.mine(session, each, blocks=blocks, now=now()) for each in _BLOCKCHAINS}
    )


@router.post("/reorg")
async def reorganise(session: Session, now: Now, body: Reorganising | None = None) -> HeightsView:
    """Replaces the newest blocks of every simulated chain by empty ones; their payments wait again."""
    depth = (body or Reorganising()).depth
    return HeightsView(
        heights={each: await chain.reorganise(session, each, depth=depth, now=now()) for each in _BLOCKCHAINS}
    )
