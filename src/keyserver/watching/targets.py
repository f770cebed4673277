"""What is followed, and how its node is reached."""

from dataclasses import dataclass

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.kit.secrets import MasterKey

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """One blockchain and how its node is reached; `type` (a payment method's) tells the family of unknown chains.

    `offers_coin`: whether there is a payment method for the chain's own coin.
    """

    blockchain_id: str
    chain: str
    network: str
    type: str
    url: str
    headers: Headers
    poll_seconds: float | None
    offers_coin: bool


def target_of(blockchain: Blockchain, method: PaymentMethod, master: MasterKey, *, offers_coin: bool) -> Target:
    """Raises NotDecryptable when the node's URL was encrypted with a master key we don't have."""
    return Target(
        blockchain_id=blockchain.id,
        chain=blockchain.chain,
        network=blockchain.network,
        type=method.type,
        url=url_of(method, master),
        headers=headers_of(method, master),
        poll_seconds=blockchain.poll_seconds,
        offers_coin=offers_coin,
    )


def url_of(method: PaymentMethod, master: MasterKey) -> str:
    assert method.rpc_url_encrypted is not None
    return master.decrypt(method.rpc_url_encrypted).decode()


def headers_of(method: PaymentMethod, master: MasterKey) -> Headers:
    if method.rpc_headers_encrypted is None:
        return ()
    lines = master.decrypt(method.rpc_headers_encrypted).decode().split("\n")
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
