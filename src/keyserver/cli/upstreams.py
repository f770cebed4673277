"""`keyserver upstreams`: where calls through the gateway go."""

import sys
from typing import Annotated

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url, segment
from keyserver.cli.output import Json, fail, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Upstreams: where calls go, by model.")

UpstreamId = Annotated[str, typer.Argument(help="The upstream's id.")]


@app.command()
def add(
    id: Annotated[str, typer.Option(help="What to call it.")],  # noqa: A002 - the wire's word
    base_url: Annotated[str, typer.Option(help="Such as https://api.openai.com/v1.")],
    model: Annotated[list[str], typer.Option(help="A model or a pattern that it serves. Repeatable.")],
    api_key: Annotated[
        str | None, typer.Option(help="Its key, or - to read it from standard input, where no other user sees it.")
    ] = None,
    margin: Annotated[str | None, typer.Option(help="What costs there are multiplied by.")] = None,
    priority: Annotated[int | None, typer.Option(help="The lowest is tried first; default 100.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Register an upstream."""
    key = _from_stdin() if api_key == "-" else api_key
    members = {"id": id, "base_url": base_url, "models": model, "api_key": key, "margin": margin, "priority": priority}
    given = {name: value for name, value in members.items() if value is not None}
    made = AdminApi(url).post("/admin/upstreams", given)
    if as_json:
        print_json(made)
        return
    typer.echo(f"Calls for {', '.join(made['models'])} go to {made['base_url']}.")


@app.command("list")
def list_(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List every upstream in the order they are tried, disabled ones too."""
    found = AdminApi(url).get("/admin/upstreams")["upstreams"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "base URL", "models", "key", "margin", "priority", "enabled"],
        [
            [
                each["id"],
                each["base_url"],
                " ".join(each["models"]),
                each["has_api_key"],
                each["margin"],
                each["priority"],
                each["enabled"],
            ]
            for each in found
        ],
        empty="There are no upstreams yet: register one with `keyserver upstreams add`.",
    )


@app.command()
def disable(upstream_id: UpstreamId, url: Url = DEFAULT_URL) -> None:
    """Send no more calls there. Those under way go on."""
    AdminApi(url).delete(f"/admin/upstreams/{segment(upstream_id)}")
    typer.echo(f"Disabled {upstream_id}. `keyserver upstreams enable {upstream_id}` sends calls there again.")


@app.command()
def enable(upstream_id: UpstreamId, url: Url = DEFAULT_URL) -> None:
    """Send calls to a disabled upstream again."""
    AdminApi(url).patch(f"/admin/upstreams/{segment(upstream_id)}", {"enabled": True})
    typer.echo(f"Enabled {upstream_id}.")


def _from_stdin() -> str:
    key = sys.stdin.read().strip()
    if not key:
        fail("Standard input holds no key")
    return key
