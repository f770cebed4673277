"""`keyserver payments`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url, segment
from keyserver.cli.output import Json, fail, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Payments: what arrived, and what to do with money nobody asked for.")

Payment = Annotated[str, typer.Argument(help="The payment's id, pay_…")]


class Status(StrEnum):
    SEEN = "seen"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    ORPHANED = "orphaned"
    REPLACED = "replaced"


@app.command("list")
def list_(
    unmatched: Annotated[
        bool, typer.Option("--unmatched", help="Only what is confirmed, and neither credited nor dismissed.")
    ] = False,
    status: Annotated[Status | None, typer.Option(help="Only payments in this state.")] = None,
    chain: Annotated[str | None, typer.Option(help="Only of this payment method or blockchain.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only those uncredited for this reason, like no_price.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List payments, the newest first."""
    filters = {"status": status, "chain": chain, "tenant_id": tenant, "reason": reason}
    query = {name: str(value) for name, value in filters.items() if value is not None}
    if unmatched:
        query["unmatched"] = "true"
    found = list(AdminApi(url).pages("/admin/payments", "payments", **query))
    if as_json:
        print_json(found)
        return
    columns = ["id", "chain", "token", "amount", "status", "reason", "tenant_id", "credited_usd", "tx_hash", "seen_at"]
    print_table(columns, [[each[name] for name in columns] for each in found], empty="There are no such payments.")


@app.command()
def show(payment: Payment, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show one payment with its history."""
    _show(AdminApi(url).get(_path(payment)), as_json=as_json)


@app.command()
def credit(
    payment: Payment,
    note: Annotated[str, typer.Option(help="Why; kept in its history and in the ledger.")],
    tenant: Annotated[str | None, typer.Option(help="Whom to credit, when nobody was given the address.")] = None,
    price_usd: Annotated[str | None, typer.Option(help="Dollars for a whole coin.")] = None,
    amount_usd: Annotated[str | None, typer.Option(help="Dollars in all, instead of a price.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Credit an unmatched payment: at a price, with an amount, or at the market's price of now."""
    if price_usd is not None and amount_usd is not None:
        fail("Give --price-usd or --amount-usd, not both")
    members = {"tenant_id": tenant, "price_usd": price_usd, "amount_usd": amount_usd, "note": note}
    body = {member: value for member, value in members.items() if value is not None}
    done = AdminApi(url).post(f"{_path(payment)}/credit", body)
    if as_json:
        print_json(done)
        return
    typer.echo(f"Credited {done['credited_usd']} dollars to {done['tenant_id']}.")


@app.command()
def dismiss(
    payment: Payment,
    reason: Annotated[str, typer.Option(help="Why; kept in its history.")],
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Dismiss an unmatched payment: nobody is credited for it. Crediting it undoes that."""
    done = AdminApi(url).post(f"{_path(payment)}/dismiss", {"reason": reason})
    if as_json:
        print_json(done)
        return
    typer.echo(f"Dismissed {done['id']}.")


def _path(payment: str) -> str:
    return f"/admin/payments/{segment(payment)}"


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_table(["", "value"], [[name, each] for name, each in found.items() if name != "history"], empty="")
    print_table(
        ["at", "actor", "action", "reason", "credited before", "after", "request"],
        [
            [
                each["acted_at"],
                each["actor"],
                each["action"],
                each["reason"],
                each["before"]["credited_usd"],
                each["after"]["credited_usd"],
                each["request_id"],
            ]
            for each in found["history"]
        ],
        empty="Nothing was decided about it by hand.",
    )
