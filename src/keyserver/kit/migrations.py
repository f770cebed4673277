"""Bringing the schema to what this code expects. Alembic owns it; nothing else creates a table."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from keyserver.kit.db import Database

#: Any constant of ours: replicas that start together migrate one after the other.
_LOCK_ID = 0x6B657973
LOCK_TIMEOUT = "5s"


def scripts_path() -> Path:
    """Where the migrations are: inside the installed package, or beside `src/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_alembic"
    return installed if installed.is_dir() else package.parents[1] / "alembic"


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_path()))
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _migrate(connection: Connection, target: str, *, down: bool) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    config = alembic_config(connection)
    if down:
        command.downgrade(config, target)
    else:
        command.upgrade(config, target)


async def migrate(database: Database, target: str = "head", *, down: bool = False) -> None:
    """Runs the migrations in one transaction under an advisory lock; safe when several replicas start at once.

    A migration waits at most five seconds for a table's lock, so that it can never queue in front of all traffic.
    """
    async with database.engine.begin() as connection:
        await connection.run_sync(_migrate, target, down=down)


async def is_current(database: Database) -> bool:
    """Whether the database's schema is the one this code expects."""
    async with database.engine.connect() as connection:
        return await connection.run_sync(_current) == await asyncio.to_thread(head)
