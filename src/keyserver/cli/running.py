"""`keyserver serve`, `work`, `migrate` and `demo`: the commands that are the service."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from typing import Annotated, NoReturn

import typer

from keyserver.cli.output import fail

Workers = Annotated[int | None, typer.Option(min=1, max=64, help="API processes; default KEYSERVER_WORKERS.")]
Background = Annotated[bool, typer.Option(help="Follow chains, deliver webhooks, … in this server.")]


def serve(workers: Workers = None, background: Background = True) -> None:
    """Migrate the database, then answer requests until SIGTERM."""
    _share_metrics()
    from keyserver.cli.failures import explained, read_settings
    from keyserver.kit.logging import configure_logging

    settings = read_settings()
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    configure_logging(settings.log_level)
    with explained():
        from keyserver import server

        _leave(server.serve(settings, background=background))


def work() -> None:
    """Do the background work alone, until SIGTERM.

    Follows chains, delivers webhooks, refreshes prices, expires charges, checks the books.
    """
    _share_metrics()
    from keyserver.cli.failures import explained, read_settings
    from keyserver.kit.logging import configure_logging

    settings = read_settings()
    configure_logging(settings.log_level)
    with explained():
        from keyserver import server

        _leave(server.work_alone(settings))


def migrate(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 when not current.")] = False,
) -> None:
    """Bring the database's schema to what this version needs."""
    import asyncio

    from keyserver.assembly import database_url
    from keyserver.cli.failures import explained, read_settings
    from keyserver.kit.db import Database
    from keyserver.kit.logging import configure_logging
    from keyserver.kit.migrations import head, is_current
    from keyserver.kit.migrations import migrate as upgrade

    settings = read_settings()
    configure_logging("WARNING")

    async def run() -> bool:
        database = Database(
            database_url(settings), pool_size=2, prepared_statements=settings.database_prepared_statements
        )
        try:
            if not check:
                await upgrade(database)
            return await is_current(database)
        finally:
            await database.dispose()

    with explained():
        current = asyncio.run(run())
    if not current:
        fail(f"The database's schema is not current ({head()}): run `keyserver migrate`")
    typer.echo(f"The database's schema is current ({head()}).")


def demo() -> None:
    """Serve simulated chains, to try it out.

    Keys are made and shown at each start, unless SERVICE_KEY and ADMIN_TOKEN are set. Never for real money.
    """
    _share_metrics()
    from keyserver.cli import demo as demonstration
    from keyserver.cli.failures import explained, read_settings
    from keyserver.kit.logging import configure_logging

    settings = demonstration.demo_settings(read_settings())
    configure_logging(settings.log_level, plain=True)
    with explained():
        from keyserver import server

        _leave(server.serve(settings, announce=lambda started: demonstration.announce(settings, started)))


def _share_metrics() -> None:
    """Before anything imports the metrics: all processes count together, in files that go with this one."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="keyserver-metrics-")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        atexit.register(shutil.rmtree, directory, ignore_errors=True)


def _leave(code: int) -> NoReturn:
    """Ends the process without searching everything imported for garbage, which takes longer than all the rest."""
    gc.freeze()
    sys.exit(code)
