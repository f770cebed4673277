"""The command line."""

import os
import sys
import tempfile
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from keyserver.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def fail(sentence: str) -> NoReturn:
    """One clear line on stderr, and exit code 1."""
    typer.echo(f"keyserver: {sentence}", err=True)
    raise typer.Exit(1)


@app.command()
def serve(
    workers: Annotated[int | None, typer.Option(help="API processes; default KEYSERVER_WORKERS")] = None,
    background: Annotated[bool, typer.Option(help="Follow chains, deliver webhooks, … in this server")] = True,
) -> None:
    """Migrate the database, then answer requests until SIGTERM."""
    server, settings = _server()
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    sys.exit(server.serve(settings, background=background))


@app.command()
def work() -> None:
    """Follow chains, deliver webhooks, refresh prices: the background work alone, until SIGTERM."""
    server, settings = _server()
    sys.exit(server.work_alone(settings))


def _server() -> "tuple[ModuleType, Settings]":
    """The server's module and settings, imported late: the other commands need neither."""
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="keyserver-metrics-"))
    from keyserver import server
    from keyserver.kit.logging import configure_logging
    from keyserver.settings import Settings

    settings = Settings()
    configure_logging(settings.log_level)
    return server, settings


def main() -> None:
    app()
