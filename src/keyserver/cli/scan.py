"""`keyserver scan`."""

from collections.abc import Mapping
from typing import Any

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url
from keyserver.cli.output import Json, print_json, print_table

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
