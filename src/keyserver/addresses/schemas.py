"""Wire shapes of addresses and of registering a payment method."""

from typing import Annotated

from pydantic import Field, StringConstraints

from keyserver.chains.models import Finality
from keyserver.chains.schemas import ChainFinality, Confirmations, DisplayOrder, NodeHeaders, NodeUrls
from keyserver.kit.wire import Body, Instant, PathName, ShortText, View

Bip32Index = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64, to_lower=True, pattern=r"^[A-Za-z0-9._-]+$")]


class NewAddress(Body):
    chain: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(description="A payment method's id")


class AddressView(View):
    """`chain` is the blockchain's name, `index` the BIP-44 address index."""

    address: str
    index: int
    chain: str
    token: str


class NewChain(Body):
    id: PathName
    coin_type: Bip32Index
    account_index: Bip32Index
    network: Word
    type: Word
    token: Annotated[str, StringConstraints(min_length=1, max_length=32, to_upper=True, pattern=r"^[A-Za-z0-9._-]+$")]
    chain: Word
    contract: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    decimals: Annotated[int, Field(ge=0, le=36, strict=True)]
    xpub: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Account-level extended public key (depth 3)"
    )
    rpc_url: NodeUrls
    confirmations: Confirmations | None = None
    display_name: ShortText | None = None
    oracle_address: ShortText | None = None
    address_type: Word | None = None
    icon_url: ShortText | None = None
    display_order: DisplayOrder = 0
    is_testnet: bool | None = None
    rpc_headers: NodeHeaders | None = None
    start_height: Annotated[int, Field(ge=0, le=2**62)] | None = None
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    expected_address: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    oracle_asset_id: ShortText | None = None
    finality: ChainFinality | None = None


class RegisteredChain(View):
    """`addresses` are the first three of the ring, to be compared with the operator's own wallet."""

    id: str
    path: str
    addresses: list[str]


class NextFree(View):
    account_index: int
    path: str


class PathView(View):
    coin_type: int
    account_index: int
    path: str
    status: str
    allocated_to: list[str] | None = None
    note: str | None = None
    next_available: NextFree | None = None


class AdminChainView(View):
    """A payment method as operators see it: never its xpub, nor its node's URL."""

    id: str
    path: str
    chain: str
    network: str
    type: str
    token: str
    contract: str | None
    decimals: int
    address_type: str
    confirmations: int
    display_name: str
    display_order: int
    icon_url: str | None
    is_testnet: bool
    oracle_address: str | None
    oracle_asset_id: str | None
    finality: Finality
    enabled: bool
    created_at: Instant


class AdminChainList(View):
    chains: list[AdminChainView]
