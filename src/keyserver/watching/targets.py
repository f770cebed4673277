"""What is followed, and how its nodes are reached."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sqlalchemy import Select, select

from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.kit.secrets import MasterKey, NotDecryptable

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NodeAddress:
    url: str
    headers: Headers = ()

    @property
    def name(self) -> str:
        """Host and port: all of it that may be shown."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"{parts.hostname}:{port}"


@dataclass(frozen=True, slots=True)
class Target:
    """One blockchain and its nodes, in the order of preference.

    `type` (a payment method's) tells the family of unknown chains. `offers_coin`: whether there is a payment method for
    the chain's own coin. `unreadable`: payment methods whose nodes were encrypted with a master key we don't have.
    """

    blockchain_id: str
    chain: str
    network: str
    type: str
    nodes: tuple[NodeAddress, ...]
    poll_seconds: float | None
    offers_coin: bool = False
    unreadable: tuple[str, ...] = ()


def targets_of(rows: Iterable[tuple[Blockchain, PaymentMethod]], master: MasterKey) -> list[Target]:
    """What there is to follow, with the nodes of the enabled payment methods, the newest method's first.

    A blockchain that has only disabled ones is followed by theirs: what they asked for is still watched.
    """
    methods: dict[Blockchain, list[PaymentMethod]] = {}
    for blockchain, method in rows:
        methods.setdefault(blockchain, []).append(method)
    return [
        replace(
            target_of(blockchain, [method for method in its if method.enabled] or its, master),
            offers_coin=any(method.asset == NATIVE for method in its),
        )
        for blockchain, its in methods.items()
    ]


def methods_with_nodes() -> Select[Blockchain, PaymentMethod]:
    """Those that name a node, for `targets_of`."""
    return (
        select(Blockchain, PaymentMethod)
        .join(PaymentMethod, PaymentMethod.blockchain_id == Blockchain.id)
        .where(PaymentMethod.rpc_url_encrypted.is_not(None))
        .order_by(PaymentMethod.created_at.desc(), PaymentMethod.id)
    )


def target_of(blockchain: Blockchain, methods: Sequence[PaymentMethod], master: MasterKey) -> Target:
    """The nodes of all these payment methods of one blockchain, each once, in their order."""
    nodes: dict[NodeAddress, None] = {}
    unreadable = []
    for method in methods:
        try:
            nodes |= dict.fromkeys(nodes_of(method, master))
        except NotDecryptable:
            unreadable.append(method.id)
    return Target(
        blockchain_id=blockchain.id,
        chain=blockchain.chain,
        network=blockchain.network,
        type=methods[0].type,
        nodes=tuple(nodes),
        poll_seconds=blockchain.poll_seconds,
        offers_coin=any(method.asset == NATIVE for method in methods),
        unreadable=tuple(unreadable),
    )


def unreadable_nodes(target: Target) -> str:
    """One sentence for an operator."""
    listed = ", ".join(target.unreadable)
    return f"the node's URL of {listed} is encrypted with another KEYSERVER_SECRET_KEY: set it anew with PATCH"


def nodes_of(method: PaymentMethod, master: MasterKey) -> list[NodeAddress]:
    """Raises NotDecryptable when they were encrypted with a master key we don't have."""
    if method.rpc_url_encrypted is None:
        return []
    headers = _headers_of(method, master)
    return [NodeAddress(url, headers) for url in master.decrypt(method.rpc_url_encrypted).decode().split("\n")]


def _headers_of(method: PaymentMethod, master: MasterKey) -> Headers:
    if method.rpc_headers_encrypted is None:
        return ()
    lines = master.decrypt(method.rpc_headers_encrypted).decode().split("\n")
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
