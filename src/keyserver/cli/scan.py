"""`keyserver scan`."""

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url
from keyserver.cli.output import Json, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Following chains.")


@app.callback()
def _group() -> None:
    """Following chains."""


@app.command()
def status(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show how far each blockchain has been followed, and what its node said last."""
    found = AdminApi(url).get("/admin/scanners")["scanners"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["chain", "network", "height", "tip", "behind", "moved", "last error", "at"],
        [
            [
                each[name]
                for name in ("chain", "network", "height", "tip", "lag", "moved_at", "last_error", "last_error_at")
            ]
            for each in found
        ],
        empty="No blockchain is followed yet: register a payment method with `keyserver chains add`.",
    )
