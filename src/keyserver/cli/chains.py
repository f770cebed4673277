"""`keyserver chains`: payment methods of a running service."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url, segment
from keyserver.cli.output import Json, fail, print_json, print_table
from keyserver.cli.xpub import Xpub, XpubFile, read_xpub, refuse_private

app = typer.Typer(no_args_is_help=True, help="Payment methods: what can be paid with.")

RpcUrl = Annotated[
    list[str] | None,
    typer.Option(help="The node, with user:password@ if it wants one. Repeatable: when one fails, another takes over."),
]
RpcHeader = Annotated[
    list[str] | None, typer.Option(help="A header for each of these nodes: 'Name: value'. Repeatable.")
]
Confirmations = Annotated[int | None, typer.Option(help="Until a payment is final.")]
ChainFinality = Annotated[
    str | None,
    typer.Option(
        help="depth: confirmations decide. safe, finalized: and the chain's own tag. Of the whole blockchain."
    ),
]
MethodId = Annotated[str, typer.Argument(help="The payment method's id.")]


@app.command()
def add(
    id: Annotated[str | None, typer.Option(help="What clients will ask for, such as BTC.")] = None,  # noqa: A002
    chain: Annotated[str | None, typer.Option(help="bitcoin, litecoin, ethereum, base, …")] = None,
    network: Annotated[str | None, typer.Option(help="Default mainnet.", show_default=False)] = None,
    token: Annotated[str | None, typer.Option(help="Symbol of the coin or token, such as USDC.")] = None,
    xpub: Xpub = None,
    xpub_file: XpubFile = None,
    rpc_url: RpcUrl = None,
    rpc_header: RpcHeader = None,
    expected_address: Annotated[
        str | None, typer.Option(help="What your own wallet shows at index 0: registers nothing when it differs.")
    ] = None,
    contract: Annotated[str | None, typer.Option(help="The token's contract.")] = None,
    type: Annotated[  # noqa: A002 - the wire's word
        str | None, typer.Option(help="native, erc20, stablecoin (priced at par), evm. By the contract when left out.")
    ] = None,
    decimals: Annotated[int | None, typer.Option(help="Needed with --contract.")] = None,
    coin_type: Annotated[int | None, typer.Option(help="SLIP-44; the chain's own when left out.")] = None,
    account_index: Annotated[int | None, typer.Option(help="Account of the path; default 0.")] = None,
    address_type: Annotated[str | None, typer.Option(help="p2wpkh, p2tr, p2sh-p2wpkh or p2pkh.")] = None,
    confirmations: Confirmations = None,
    finality: ChainFinality = None,
    display_name: Annotated[str | None, typer.Option(help="What payers see.")] = None,
    display_order: Annotated[int | None, typer.Option(help="Place in the list.")] = None,
    icon_url: Annotated[str | None, typer.Option(help="An icon for payers.")] = None,
    start_height: Annotated[int | None, typer.Option(help="First block to follow; the tip when left out.")] = None,
    poll_seconds: Annotated[float | None, typer.Option(help="How often the node is asked.")] = None,
    oracle_address: Annotated[str | None, typer.Option(help="A Chainlink feed on the same chain.")] = None,
    oracle_asset_id: Annotated[str | None, typer.Option(help="The asset's id at the price sources.")] = None,
    is_testnet: Annotated[bool | None, typer.Option("--testnet/--no-testnet", help="Marks it so.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON with these members; options win over it.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Register a payment method, and show its first three addresses to compare with your wallet."""
    options = {name: value for name, value in locals().items() if value is not None}
    for name in ("xpub", "xpub_file", "rpc_url", "rpc_header", "file", "url", "as_json"):
        options.pop(name, None)
    body = _from_file(file) | options | _nodes(rpc_url, rpc_header)
    if (key := read_xpub(xpub, xpub_file)) is not None:
        body["xpub"] = key
    body = _completed(body)
    made = AdminApi(url).post("/admin/chains", body)
    if as_json:
        print_json(made)
        return
    typer.echo(f"Registered {made['id']} at {made['path']}. Compare its first addresses with your wallet:")
    print_table(["index", "address"], list(enumerate(made["addresses"])), empty="")
    if body.get("expected_address") is None:
        typer.echo("With --expected-address, a key that is not your wallet's is refused at once.")


@app.command("list")
def list_(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List every payment method, disabled ones too."""
    found = AdminApi(url).get("/admin/chains")["chains"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "token", "chain", "network", "address type", "path", "confirmations", "enabled"],
        [
            [
                each[name]
                for name in ("id", "token", "chain", "network", "address_type", "path", "confirmations", "enabled")
            ]
            for each in found
        ],
        empty="There are no payment methods yet: register one with `keyserver chains add`.",
    )


@app.command()
def change(
    method_id: MethodId,
    rpc_url: RpcUrl = None,
    rpc_header: RpcHeader = None,
    confirmations: Confirmations = None,
    finality: ChainFinality = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Change a payment method's nodes (all of them anew), its confirmations, or its blockchain's finality."""
    given = {"confirmations": confirmations, "finality": finality}
    body = {name: value for name, value in given.items() if value is not None} | _nodes(rpc_url, rpc_header)
    if not body:
        fail("Nothing to change: give --rpc-url, --rpc-header, --confirmations or --finality")
    AdminApi(url).patch(f"/admin/chains/{segment(method_id)}", body)
    typer.echo(f"Changed {method_id}.")


@app.command()
def disable(method_id: MethodId, url: Url = DEFAULT_URL) -> None:
    """Offer a payment method no longer. What was asked for is still followed and credited."""
    AdminApi(url).delete(f"/admin/chains/{segment(method_id)}")
    typer.echo(f"Disabled {method_id}. `keyserver chains enable {method_id}` offers it again.")


@app.command()
def enable(method_id: MethodId, url: Url = DEFAULT_URL) -> None:
    """Offer a disabled payment method again."""
    AdminApi(url).patch(f"/admin/chains/{segment(method_id)}", {"enabled": True})
    typer.echo(f"Enabled {method_id}.")


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        text = file.read_text()
        document = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        fail(f"Cannot read {file}: {reason}")
    except ValueError as error:
        refuse_private(text)
        fail(f"{file} is not JSON: {error}")
    if not isinstance(document, dict):
        fail(f"{file} must hold one JSON object")
    refuse_private(str(document.get("xpub", "")))
    return document


def _nodes(urls: list[str] | None, headers: list[str] | None) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if urls:
        body["rpc_url"] = urls
    if headers:
        body["rpc_headers"] = _headers(headers)
    return body


def _headers(given: list[str]) -> dict[str, str]:
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon:
            fail("--rpc-header must be like 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def _completed(body: dict[str, Any]) -> dict[str, Any]:
    """The body with what the catalog knows: type, coin type and decimals of the chain."""
    from keyserver.chains.catalog import chain_spec

    for name in ("id", "chain", "token", "xpub", "rpc_url"):
        if body.get(name) is None:
            fail(f"--{name.replace('_', '-')} is missing (`keyserver chains add --help`)")
    contract = body.get("contract")
    full = {"network": "mainnet", "account_index": 0, "type": "erc20" if contract else "native"} | body
    try:
        spec = chain_spec(str(full["chain"]), str(full["network"]), type=str(full["type"]))
    except ValueError as error:
        fail(str(error))
    if contract is None:
        full.setdefault("decimals", spec.decimals)
    elif "decimals" not in full:
        fail("--decimals is missing: a token's are not its chain's")
    full.setdefault("coin_type", _coin_type(spec))
    return full


def _coin_type(spec: Any) -> int:
    """The chain's own SLIP-44 number, 1 on test networks, Ethereum's for every EVM chain."""
    from keyserver.chains.catalog import coin_types, is_testnet

    accepted = coin_types(spec)
    if not accepted:
        return 60
    return 1 if is_testnet(spec) else min(accepted)
