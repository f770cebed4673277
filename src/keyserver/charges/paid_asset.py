"""What an arrival at an address of ours was paid in: a payment method's asset, or the chain's own coin without one."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.owners import Owned
from keyserver.chains.catalog import chain_spec
from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod


@dataclass(frozen=True, slots=True)
class PaidAsset:
    """`confirmations` is how many make a payment final that no charge asked for."""

    payment_method_id: str | None
    token: str
    decimals: int
    confirmations: int


async def methods_on(session: AsyncSession, blockchain: Blockchain) -> Sequence[PaymentMethod]:
    """All payment methods of the blockchain, disabled ones too: what arrives there is somebody's money all the same."""
    query = select(PaymentMethod).where(PaymentMethod.blockchain_id == blockchain.id)
    return list(await session.scalars(query.order_by(PaymentMethod.enabled.desc(), PaymentMethod.created_at)))


def paid_asset(
    blockchain: Blockchain, methods: Sequence[PaymentMethod], asset: str, address: Owned
) -> PaidAsset | None:
    """The asset of the method the address was asked for, else of any method, else the chain's own coin.

    None for a token without a method: nobody told us its symbol and decimals.
    """
    candidates = [method for method in methods if method.asset == asset]
    asked = [method for method in candidates if method.id == address.payment_method_id]
    for method in asked + candidates:
        return PaidAsset(method.id, method.token, method.decimals, method.confirmations)
    return _own_coin(blockchain, methods) if asset == NATIVE else None


def _own_coin(blockchain: Blockchain, methods: Sequence[PaymentMethod]) -> PaidAsset:
    """Nobody said how deep such a payment must be: as deep as the most careful method on this blockchain wants."""
    spec = chain_spec(blockchain.chain, blockchain.network, type=blockchain.family)
    confirmations = max((method.confirmations for method in methods), default=spec.default_confirmations)
    return PaidAsset(None, spec.coin, spec.decimals, confirmations)
