"""What is followed, and how its node is reached."""

from dataclasses import dataclass

from sqlalchemy import Select, select

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.kit.secrets import MasterKey

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """One blockchain and how its node is reached; `type` (a payment method's) tells the family of unknown chains."""

    blockchain_id: str
    chain: str
    network: str
    type: str
    url: str
    headers: Headers
    poll_seconds: float | None


def methods_with_nodes() -> Select[Blockchain, PaymentMethod]:
    """Those that name a node; of one blockchain's, the first one's node serves them all.

    Disabled payment methods count: what they asked for is still watched.
    """
    return (
        select(Blockchain, PaymentMethod)
        .join(PaymentMethod, PaymentMethod.blockchain_id == Blockchain.id)
        .where(PaymentMethod.rpc_url_encrypted.is_not(None))
        .order_by(PaymentMethod.enabled.desc(), PaymentMethod.created_at.desc(), PaymentMethod.id)
    )


def target_of(blockchain: Blockchain, method: PaymentMethod, master: MasterKey) -> Target:
    """Raises NotDecryptable when the node's URL was encrypted with a master key we don't have."""
    return Target(
        blockchain_id=blockchain.id,
        chain=blockchain.chain,
        network=blockchain.network,
        type=method.type,
        url=url_of(method, master),
        headers=headers_of(method, master),
        poll_seconds=blockchain.poll_seconds,
    )


def url_of(method: PaymentMethod, master: MasterKey) -> str:
    assert method.rpc_url_encrypted is not None
    return master.decrypt(method.rpc_url_encrypted).decode()


def headers_of(method: PaymentMethod, master: MasterKey) -> Headers:
    if method.rpc_headers_encrypted is None:
        return ()
    lines = master.decrypt(method.rpc_headers_encrypted).decode().split("\n")
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
