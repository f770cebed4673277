"""The schema: up, down, up again; and the models say exactly what the migrations make."""

import asyncio

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from keyserver import tables
from keyserver.kit.db import Database
from keyserver.kit.migrations import is_current, migrate


async def test_models_and_migrations_say_the_same(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_down_leaves_nothing_and_up_again_works(database: Database) -> None:
    left = text(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
        " AND relname <> 'pk_alembic_version' AND relname <> 'alembic_version_pkc'"
    )
    functions = text("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
    await migrate(database, "base", down=True)
    async with database.engine.connect() as connection:
        assert await connection.scalar(left) == 0
        assert await connection.scalar(functions) == 0
    await migrate(database)
    assert await is_current(database)


async def test_replicas_that_start_together_migrate_once(database: Database, database_url: str) -> None:
    await migrate(database, "base", down=True)
    others = [Database(database_url, pool_size=2) for _ in range(4)]
    await asyncio.gather(*(migrate(other) for other in others))
    assert await is_current(database)
    for other in others:
        await other.dispose()
