"""Wire shapes of `/chains`, and of what can be changed about a payment method."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from keyserver.chains.models import Finality
from keyserver.kit.wire import Body, CamelView, ShortText

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")
#: Nodes of one payment method.
MOST_NODES = 8
_LONGEST_URL = 2048
_NODE_URL = re.compile(r"https?://[^\s/]\S*")


def _node_urls(value: Any) -> list[str]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_NODES:
        raise ValueError(f"must be an http(s) URL, or a list of 1 to {MOST_NODES} of them")
    urls = [each.strip() if isinstance(each, str) else "" for each in given]
    if not all(len(url) <= _LONGEST_URL and _NODE_URL.fullmatch(url) for url in urls):
        raise ValueError("must be an http(s) URL")
    return list(dict.fromkeys(urls))


def _http_headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
            raise ValueError("must be HTTP header names with printable values")
    return value


NodeUrls = Annotated[
    list[str],
    BeforeValidator(_node_urls, json_schema_input_type=str | list[str]),
    Field(description="The node, or several in the order of preference: when one fails, another takes over"),
]
NodeHeaders = Annotated[
    dict[str, str], AfterValidator(_http_headers), Field(description="HTTP headers sent to each node of `rpc_url`")
]
ChainFinality = Annotated[
    Finality,
    Field(
        description="Of the whole blockchain. `depth`: `confirmations` make a payment final. `safe`, `finalized`: the "
        "chain's own tag must have reached its block besides"
    ),
]
Confirmations = Annotated[int, Field(ge=1, le=10_000, strict=True)]
DisplayOrder = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


class ChainView(CamelView):
    id: str
    token: str
    chain: str
    network: str
    type: str
    decimals: int
    display_name: str
    contract_address: str | None
    confirmations: int
    icon_url: str | None
    is_testnet: bool


class ChainChange(Body):
    """Members left out stay as they are; null clears those that may be empty."""

    enabled: bool = True
    confirmations: Confirmations = 1
    display_name: ShortText = ""
    display_order: DisplayOrder = 0
    icon_url: ShortText | None = None
    rpc_url: NodeUrls | None = None
    rpc_headers: NodeHeaders | None = None
    oracle_address: ShortText | None = None
    oracle_asset_id: ShortText | None = None
    finality: ChainFinality = Finality.DEPTH
