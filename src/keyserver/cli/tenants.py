"""`keyserver tenants`."""

from enum import StrEnum
from typing import Annotated

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url, segment
from keyserver.cli.output import Json, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Tenants: who is charged and credited.")


class Type(StrEnum):
    PERSONAL = "personal"
    ORG = "org"
    PLATFORM_SERVICE = "platform_service"


class Tier(StrEnum):
    INTERNAL = "internal"
    DEMO = "demo"
    TESTING = "testing"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The name people know it by.")],
    type: Annotated[Type, typer.Option(help="A platform_service may act for other tenants.")] = Type.ORG,  # noqa: A002
    id: Annotated[str | None, typer.Option(help="Its id; made up when left out.")] = None,  # noqa: A002
    slug: Annotated[str | None, typer.Option(help="A unique short name.")] = None,
    owner_id: Annotated[str | None, typer.Option(help="Your own id of its owner.")] = None,
    billing_email: Annotated[str | None, typer.Option(help="Where bills go.")] = None,
    tier: Annotated[
        Tier | None, typer.Option(help="What a platform_service spends for; internal when left out.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Create a tenant, and show its webhook secret once."""
    members = {
        "name": name,
        "type": type,
        "id": id,
        "slug": slug,
        "owner_id": owner_id,
        "billing_email": billing_email,
        "metadata": None if tier is None else {"tier": tier},
    }
    body = {member: value for member, value in members.items() if value is not None}
    made = AdminApi(url).post("/admin/tenants", body)
    if as_json:
        print_json(made)
        return
    typer.echo(f"Created tenant {made['id']} ({made['type']}).")
    _show_secret(made["webhook_secret"])


@app.command("list")
def list_(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List every tenant."""
    found = list(AdminApi(url).pages("/admin/tenants", "tenants"))
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "name", "type", "slug", "created"],
        [[each["id"], each["name"], each["type"], each["slug"], each["created_at"]] for each in found],
        empty="There are no tenants yet.",
    )


@app.command()
def rotate_webhook_secret(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")], url: Url = DEFAULT_URL, as_json: Json = False
) -> None:
    """Make a new webhook secret, and show it once; the one before signs beside it for 24 hours."""
    made = AdminApi(url).post(f"/admin/tenants/{segment(tenant)}/webhook-secret", {})
    if as_json:
        print_json(made)
        return
    typer.echo(f"The secret before this one signs until {made['previous_valid_until']}.")
    _show_secret(made["webhook_secret"])


def _show_secret(secret: str) -> None:
    typer.echo("Its webhook secret, shown this once:")
    typer.echo(secret)
