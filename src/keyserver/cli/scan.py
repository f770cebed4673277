"""`keyserver scan`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url, segment
from keyserver.cli.jobs import ask, follow, one_blockchain, unfinished
from keyserver.cli.output import Json, fail, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Following chains.")


@app.callback()
def _group() -> None:
    """Following chains."""


@app.command()
def status(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show how each blockchain is followed, how its nodes are and what they can do, and what went wrong last."""
    found = AdminApi(url).get("/admin/scanners")["scanners"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["chain", "network", "state", "height", "tip", "behind", "blocks/s", "caught up in", "moved", "final by"],
        [
            [
                *(each[name] for name in ("chain", "network", "state", "height", "tip", "lag", "blocks_per_second")),
                _duration(each["caught_up_in_seconds"]),
                each["moved_at"],
                _finality(each),
            ]
            for each in found
        ],
        empty="No blockchain is followed yet: register a payment method with `keyserver chains add`.",
    )
    for each in found:
        for line in _details(each):
            typer.echo(line)


def _details(scanner: Mapping[str, Any]) -> list[str]:
    """Below the table: the nodes, what the one in use can do, and the last error."""
    lines = [f"{scanner['chain']} {scanner['network']}"]
    for node in scanner["nodes"]:
        error = node["last_error"]
        lines.append(f"  node {node['node']}: {node['state']}{_last_error(error, node['last_error_at'])}")
    lines += [f"  {name}: {words}" for name, words in scanner["capabilities"].items()]
    if scanner["last_error"] is not None:
        standing = "still stands" if scanner["error_stands"] else "is over"
        lines.append(f"  last error, which {standing}: {scanner['last_error']} ({scanner['last_error_at']})")
    return lines if len(lines) > 1 else []


def _last_error(error: str | None, at: str | None) -> str:
    return "" if error is None else f"; last error: {error} ({at})"


def _finality(scanner: Mapping[str, Any]) -> str:
    if scanner["finality"] == "depth":
        return "depth"
    return f"{scanner['finality']}, up to {scanner['final_height'] if scanner['final_height'] is not None else '?'}"


def _duration(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


@app.command()
def rescan(
    chain: Annotated[str, typer.Option(help="bitcoin, litecoin, ethereum, base, …")],
    from_height: Annotated[int, typer.Option("--from", min=0, help="First block to read again.")],
    to_height: Annotated[int | None, typer.Option("--to", min=0, help="Last block; the last one followed.")] = None,
    network: Annotated[str | None, typer.Option(help="Needed when the chain is followed on several.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Read blocks again, and record and credit payments that were missed; nothing twice.

    The service does it in the background while it follows the chain; Ctrl-C only ends the watching.
    """
    api = AdminApi(url)
    asked = ask(api, "rescan", one_blockchain(api, chain, network), from_height=from_height, to_height=to_height)
    (ended,) = follow(api, [asked])
    if problems := unfinished([ended]):
        fail(problems[0])
    if as_json:
        print_json(ended)
        return
    typer.echo(f"Read blocks {ended['from_height']} to {ended['to_height']} again: {_missed(ended['found'])}.")


def _missed(payments: int) -> str:
    match payments:
        case 0:
            return "no payment was missed"
        case 1:
            return "1 payment was missed, and is recorded now"
        case _:
            return f"{payments} payments were missed, and are recorded now"


@app.command()
def jobs(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show the newest rescans and audits, and how far they have come."""
    found = AdminApi(url).get("/admin/jobs")["jobs"]
    if as_json:
        print_json(found)
        return
    names = ("id", "kind", "chain", "network", "status", "from_height", "to_height", "next_height", "found", "error")
    print_table(
        ["id", "kind", "chain", "network", "status", "from", "to", "next", "found", "error"],
        [[each[name] for name in names] for each in found],
        empty="There were no rescans or audits yet.",
    )


@app.command()
def cancel(job_id: Annotated[str, typer.Argument(metavar="JOB")], url: Url = DEFAULT_URL) -> None:
    """End a rescan or an audit before its time. What a rescan recorded stays."""
    AdminApi(url).delete(f"/admin/jobs/{segment(job_id)}")
    typer.echo(f"Ended {job_id}.")
