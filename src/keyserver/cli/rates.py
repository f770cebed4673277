"""`keyserver rates`: what calls through the gateway cost."""

from typing import Annotated

import typer

from keyserver.cli.admin import DEFAULT_URL, AdminApi, Url, segment
from keyserver.cli.output import Json, print_json, print_table

app = typer.Typer(
    no_args_is_help=True, help="Rates: what calls cost, where they are not to cost what the price list says."
)


@app.command("set")
def set_(
    capability: Annotated[str, typer.Argument(help="chat, completions, embeddings, images, speech, transcriptions.")],
    model: Annotated[str, typer.Argument(help="The model's name, or a pattern such as 'gpt-4o*'.")],
    unit: Annotated[
        str,
        typer.Argument(help="1K-input-tokens, 1K-output-tokens, 1K-tokens, request, image, second or 1K-characters."),
    ],
    price_usd: Annotated[str, typer.Argument(help="Dollars for one unit, without your margin.")],
    fallback: Annotated[bool, typer.Option("--fallback", help="Only for models that nothing else prices.")] = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Set the price of one unit from now on. Several units of one pattern add up."""
    body = {"capability": capability, "model": model, "unit": unit, "price_usd": price_usd, "fallback": fallback}
    (rate,) = AdminApi(url).put("/admin/rates", body)["rates"]
    if as_json:
        print_json(rate)
        return
    typer.echo(f"{rate['capability']} by {rate['model']} costs ${rate['price_usd']} for {rate['unit']} ({rate['id']}).")


@app.command("list")
def list_(
    history: Annotated[bool, typer.Option("--history", help="Those that have ended as well.")] = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List the rates in force."""
    api = AdminApi(url)
    found = api.get("/admin/rates")["rates"]
    if history:
        found += api.pages("/admin/rates", "history")
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "capability", "model", "unit", "price (USD)", "fallback", "from", "to"],
        [
            [
                each[name]
                for name in (
                    "id",
                    "capability",
                    "model",
                    "unit",
                    "price_usd",
                    "fallback",
                    "valid_from",
                    "valid_to",
                )
            ]
            for each in found
        ],
        empty="There are no rates: calls cost what the price list says. Set one with `keyserver rates set`.",
    )


@app.command()
def end(rate: Annotated[str, typer.Argument(help="The rate's id, rate_…")], url: Url = DEFAULT_URL) -> None:
    """End a rate. It stays in the history, and what was charged stays charged."""
    AdminApi(url).delete(f"/admin/rates/{segment(rate)}")
    typer.echo(f"Ended {rate}.")
