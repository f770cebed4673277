"""Alembic's entry: migrations run on the connection that `keyserver.kit.migrations` hands over.

`alembic revision --autogenerate` on the command line uses DATABASE_URL.
"""

import asyncio
import os
from typing import Literal

from alembic import context
from sqlalchemy import Connection, TypeDecorator
from sqlalchemy.ext.asyncio import create_async_engine

from keyserver.kit.db import parse_database_url
from keyserver.tables import metadata


def render_item(kind: str, item: object, _: object) -> str | Literal[False]:
    """Migrations name the database's own types: what ours mean today must not change an old migration."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_from_command_line() -> None:
    url, arguments = parse_database_url(os.environ["DATABASE_URL"])
    engine = create_async_engine(url, connect_args={"dsn": arguments["dsn"]})
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_from_command_line())
