"""`keyserver audit`: do node, payments and ledger say the same?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url
from keyserver.cli.jobs import Job, ask, blockchains, follow, unfinished
from keyserver.cli.output import Json, print_json, print_table

DIFFERENT, UNDONE = 1, 2


def audit(
    chain: Annotated[str | None, typer.Option(help="All that are followed, when left out.")] = None,
    network: Annotated[str | None, typer.Option(help="All of the chain's, when left out.")] = None,
    from_height: Annotated[
        int | None, typer.Option("--from", min=0, help="First block; those of the last day when left out.")
    ] = None,
    to_height: Annotated[int | None, typer.Option("--to", min=0, help="Last block; the last one followed.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Compare what nodes show, the payments stored and the ledger, block by block; changes nothing.

    Exit code 0 when all three agree, 1 when they differ anywhere, 2 when it could not be done.
    """
    with _undone():
        api = AdminApi(url)
        asked = [
            ask(api, "audit", pair, from_height=from_height, to_height=to_height)
            for pair in blockchains(api, chain, network)
        ]
        ended = follow(api, asked)
    if as_json:
        print_json(ended)
    else:
        _print(ended)
    if problems := unfinished(ended):
        for line in problems:
            typer.echo(f"keyserver: {line}", err=True)
        raise typer.Exit(UNDONE)
    if any(job["found"] for job in ended):
        raise typer.Exit(DIFFERENT)


@contextmanager
def _undone() -> Iterator[None]:
    """A service that cannot be asked is no difference: exit code 2, and not the 1 of other commands."""
    try:
        yield
    except typer.Exit as exit_:
        raise typer.Exit(UNDONE if exit_.exit_code == 1 else exit_.exit_code) from None


def _print(jobs: Sequence[Job]) -> None:
    from keyserver.kit.money import format_nanos, format_units

    print_table(
        ["chain", "network", "blocks", "token", "node", "payments", "credited $", "ledger $"],
        [
            [
                job["chain"],
                job["network"],
                f"{job['from_height']} to {job['to_height']}",
                token,
                *(format_units(int(sums[name]), sums["decimals"]) for name in ("node_units", "payments_units")),
                *(format_nanos(int(sums[name])) for name in ("credited_nanos", "ledger_nanos")),
            ]
            for job in jobs
            for token, sums in sorted(job["tokens"].items())
        ],
        empty="No payments in these blocks.",
    )
    differences = [(job, each) for job in jobs for each in job["differences"]]
    if not differences:
        if not unfinished(jobs):
            typer.echo("The books agree.")
        return
    print_table(
        ["difference", "chain", "block", "transaction", "node", "payments", "ledger"],
        [_row(job, each) for job, each in differences],
        empty="",
    )
    for kind, advice in {each["kind"]: each["advice"] for _, each in differences}.items():
        typer.echo(f"{kind}: {advice}.")
    total = sum(job["found"] for job in jobs)
    kept = "" if total == len(differences) else f", of which {len(differences)} are shown"
    typer.echo(f"{total} difference{'s' if total > 1 else ''}{kept}. See docs/operating.md, The three books.")


def _row(job: Job, difference: Any) -> list[Any]:
    output = f"{difference['tx_hash']}:{difference['output_index']}"
    said = [difference[book] or "nothing" for book in ("node", "payments", "ledger")]
    return [difference["kind"], f"{job['chain']} {job['network']}", difference["height"], output, *said]
