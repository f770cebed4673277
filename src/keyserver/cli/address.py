"""`keyserver address`: derivation without a service, a database or a network."""

from typing import Annotated

import typer

from keyserver.cli.output import Json, fail, print_json, print_table
from keyserver.cli.xpub import Xpub, XpubFile, read_xpub

app = typer.Typer(no_args_is_help=True, help="Addresses, offline.")


@app.callback()
def _group() -> None:
    """Addresses, offline."""


@app.command()
def derive(
    chain: Annotated[str, typer.Option(help="bitcoin, litecoin, dogecoin, ethereum, base, tron, …")],
    xpub: Xpub = None,
    xpub_file: XpubFile = None,
    network: Annotated[str, typer.Option(help="mainnet, testnet, signet, regtest, …")] = "mainnet",
    type: Annotated[str, typer.Option(help="`evm` for an EVM chain not known by name.")] = "native",  # noqa: A002
    address_type: Annotated[
        str | None, typer.Option(help="p2wpkh, p2tr, p2sh-p2wpkh or p2pkh; the chain's default when left out.")
    ] = None,
    index: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The first index.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many addresses.")] = 1,
    as_json: Json = False,
) -> None:
    """Show which address index N would be: compare it with your wallet before anybody pays."""
    text = read_xpub(xpub, xpub_file)
    if text is None:
        fail("Give the account's extended public key: --xpub, --xpub - (standard input) or --xpub-file")
    derived = _derive(
        text, chain=chain, network=network, type=type, address_type=address_type, index=index, count=count
    )
    if as_json:
        print_json(derived)
        return
    print_table(["index", "address"], [[each["index"], each["address"]] for each in derived], empty="")


def _derive(
    text: str,
    *,
    chain: str,
    network: str,
    type: str,  # noqa: A002 - the wire's word
    address_type: str | None,
    index: int,
    count: int,
) -> list[dict[str, int | str]]:
    from keyserver.addresses.derive import MAX_INDEX, RingKey
    from keyserver.addresses.xpub import InvalidExtendedKey, parse_extended_public_key
    from keyserver.chains.catalog import chain_spec, choose_address_type

    try:
        spec = chain_spec(chain, network, type=type)
        kind = choose_address_type(spec, address_type)
        key = parse_extended_public_key(text, spec=spec, address_type=kind)
    except (InvalidExtendedKey, ValueError) as error:
        fail(str(error))
    ring = RingKey.from_xpub(key.xpub)
    wanted = range(index, min(index + count, MAX_INDEX + 1))
    return [{"index": each, "address": ring.address(each, spec=spec, address_type=kind)} for each in wanted]
