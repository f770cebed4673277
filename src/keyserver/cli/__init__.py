"""The command line: `keyserver serve` and its like, and an operator's way to a running service.

Commands import what they need when they run: asking a running service should not wait for the server's imports.
"""

from typing import Annotated

import typer

from keyserver.cli import address, audit, chains, keys, payments, rates, running, scan, tenants, upstreams

app = typer.Typer(
    name="keyserver",
    help="Deposit addresses, charges and a double-entry ledger over REST, from extended public keys alone.",
    epilog=(
        "Commands on a running service ask KEYSERVER_URL (default http://127.0.0.1:3100) with ADMIN_TOKEN. "
        "The README lists every setting."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(running.serve)
app.command()(running.work)
app.command()(running.migrate)
app.command()(running.demo)
app.command()(audit.audit)
app.add_typer(chains.app, name="chains")
app.add_typer(tenants.app, name="tenants")
app.add_typer(keys.app, name="keys")
app.add_typer(payments.app, name="payments")
app.add_typer(address.app, name="address")
app.add_typer(scan.app, name="scan")
app.add_typer(upstreams.app, name="upstreams")
app.add_typer(rates.app, name="rates")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"keyserver {metadata.version('keyserver')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    return


def main() -> None:
    app()
