"""`keyserver keys`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url, segment
from keyserver.cli.output import Json, fail, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Service keys: how a tenant's programs are known.")

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
_SPAN = re.compile(r"([1-9][0-9]{0,4})([hd])")


@app.command()
def create(
    tenant: Tenant,
    instance_id: Annotated[str | None, typer.Option(help="The one instance that will use it.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d, 12h, or 2027-01-31T00:00:00Z. Never when left out.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Create a service key, and show it once."""
    body = {"instance_id": instance_id, "expires_at": _expiry(expires, now=datetime.now(UTC))}
    given = {member: value for member, value in body.items() if value is not None}
    made = AdminApi(url).post(f"/admin/tenants/{segment(tenant)}/keys", given)
    if as_json:
        print_json(made)
        return
    typer.echo(f"Created key {made['id']} of tenant {made['tenant_id']}; it ends {made['expires_at'] or 'never'}.")
    typer.echo("The key, shown this once:")
    typer.echo(made["key"])


@app.command("list")
def list_(tenant: Tenant, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List a tenant's keys, without their secrets."""
    found = AdminApi(url).get(f"/admin/tenants/{segment(tenant)}/keys")["keys"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "begins", "instance", "expires", "revoked", "created"],
        [
            [each[name] for name in ("id", "prefix", "instance_id", "expires_at", "revoked_at", "created_at")]
            for each in found
        ],
        empty="This tenant has no keys.",
    )


@app.command()
def rotate(
    key: Annotated[str, typer.Argument(help="The key's id, key_…")],
    overlap: Annotated[str, typer.Option(help="How long the old key goes on working: 24h, 7d, or 0.")] = "24h",
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Make a key's successor, and show it once; the old one ends after the overlap."""
    seconds = int(_span(overlap, option="--overlap").total_seconds())
    made = AdminApi(url).post(f"/admin/keys/{segment(key)}/rotate", {"overlap_seconds": seconds})
    if as_json:
        print_json(made)
        return
    typer.echo(f"Created key {made['id']} of tenant {made['tenant_id']}; {key} works until {made['replaces_until']}.")
    typer.echo("The key, shown this once:")
    typer.echo(made["key"])


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="The key's id, key_…")], url: Url = DEFAULT_URL) -> None:
    """Revoke a key: when this returns, it is refused everywhere."""
    AdminApi(url).delete(f"/admin/keys/{segment(key)}")
    typer.echo(f"Revoked {key}.")


def _span(text: str, *, option: str) -> timedelta:
    if text.strip() == "0":
        return timedelta()
    span = _SPAN.fullmatch(text.strip())
    if span is None:
        fail(f"{option} must be like 90d, 12h or 0")
    amount = int(span[1])
    return timedelta(days=amount) if span[2] == "d" else timedelta(hours=amount)


def _expiry(text: str | None, *, now: datetime) -> str | None:
    if text is None:
        return None
    if _SPAN.fullmatch(text.strip()):
        return (now + _span(text, option="--expires")).isoformat()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail("--expires must be like 90d, 12h or 2027-01-31T00:00:00Z")
    if moment.tzinfo is None:
        fail("--expires must have a time zone, like 2027-01-31T00:00:00Z")
    return moment.isoformat()
