"""Wire shapes of `/chains`, and of what can be changed about a payment method."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from keyserver.kit.wire import Body, CamelView, ShortText

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")
_NODE_URL = re.compile(r"https?://[^\s/]\S*")


def _http_url(value: str) -> str:
    if not _NODE_URL.fullmatch(value):
        raise ValueError("must be an http(s) URL")
    return value


def _http_headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
            raise ValueError("must be HTTP header names with printable values")
    return value


NodeUrl = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_http_url)]
NodeHeaders = Annotated[dict[str, str], AfterValidator(_http_headers)]
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
    rpc_url: NodeUrl | None = None
    rpc_headers: NodeHeaders | None = None
    oracle_address: ShortText | None = None
    oracle_asset_id: ShortText | None = None
