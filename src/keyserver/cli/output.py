"""What commands print: tables for people, JSON for scripts, one clear line on stderr when something is wrong."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def fail(sentence: str) -> NoReturn:
    """One clear line on stderr, and exit code 1."""
    typer.echo(f"keyserver: {sentence}", err=True)
    raise typer.Exit(1)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """A table as wide as its cells need, so that no address or id is cut; `empty` is said when there are no rows."""
    if not rows:
        typer.echo(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(_cell(value), no_wrap=True) for value in row))
    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    console = Console(width=max(console.width, needed))
    console.print(table, soft_wrap=True)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
