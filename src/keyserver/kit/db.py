"""PostgreSQL: one engine, two ways in.

- `transaction()`: a session in one database transaction, for everything that changes more than one fact.
- `connection()`: a bare asyncpg connection in autocommit, from asyncpg's own pool, for the few hot single statements.
  BEGIN and COMMIT around one statement, and SQLAlchemy's pool in front of it, cost more than the statement (bench/).

Functions in the domains take a session or a connection first, flush, and never commit: commits stand here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, cast

import asyncpg
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

Connection: TypeAlias = asyncpg.Connection
#: Where a single statement gets its connection: the pool of bare ones, or the transaction it is part of. Taken as late
#: as can be: who holds one must not wait for another.
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]

#: Parameters of a libpq URL that only steer libpq itself (asyncpg would send them to the server as settings).
_LIBPQ_ONLY = frozenset(
    {
        "channel_binding",
        "gssencmode",
        "gsslib",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "sslcompression",
        "requirepeer",
        "load_balance_hosts",
    }
)

#: SQLSTATE classes of a server that cannot serve now: connection, resources, operator intervention, system, disk full.
_UNAVAILABLE_CLASSES = ("08", "53", "57", "58", "25006")


def parse_database_url(raw: str) -> tuple[URL, dict[str, Any]]:
    """SQLAlchemy's URL and asyncpg's arguments for a libpq URL.

    Accepts `postgres://`, `postgresql://` and `postgresql+asyncpg://`. `sslmode` and the certificate parameters keep
    their libpq meaning (asyncpg reads them from a DSN), `application_name` and `options` become server settings.
    """
    try:
        url = make_url(raw.strip())
    except Exception as error:  # SQLAlchemy raises several types, all meaning the same
        raise ValueError("DATABASE_URL is not a URL like postgresql://user:password@host:5432/name") from error
    if url.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError(f"DATABASE_URL must start with postgresql://, not {url.drivername}://")
    query = {name: value for name, value in url.query.items() if name not in _LIBPQ_ONLY}
    arguments: dict[str, Any] = {}
    settings = {name: query.pop(name) for name in ("application_name",) if name in query}
    if timeout := query.pop("connect_timeout", None):
        arguments["timeout"] = float(str(timeout))
    # asyncpg parses libpq's TLS and socket parameters itself, but only out of a DSN.
    arguments["dsn"] = url.set(drivername="postgresql", query=query).render_as_string(hide_password=False)
    arguments["server_settings"] = {"application_name": "keyserver", **settings}
    return url.set(drivername="postgresql+asyncpg", query={}), arguments


def is_unavailable(error: BaseException) -> bool:
    """Whether the database could not be reached or could not work, as opposed to refusing this statement."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        if error.connection_invalidated:
            return True
        cause = error.orig.__cause__ or error.orig
        return is_unavailable(cause)
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith(_UNAVAILABLE_CLASSES)
    return isinstance(
        error, PoolTimeoutError | OperationalError | InterfaceError | asyncpg.InterfaceError | OSError | TimeoutError
    )


class Database:
    """The two pools of one process, of at most `pool_size` connections each.

    `prepared_statements=False` is for a PgBouncer older than 1.21 in transaction mode.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_timeout: float = 10.0,
        connect_timeout: float = 3.0,
        statement_timeout: float = 30.0,
        prepared_statements: bool = True,
    ) -> None:
        sqlalchemy_url, arguments = parse_database_url(url)
        arguments.setdefault("timeout", connect_timeout)
        arguments["command_timeout"] = statement_timeout
        self._prepared = prepared_statements
        if not prepared_statements:
            arguments["statement_cache_size"] = 0
        self._pool_timeout = pool_timeout
        self._make_pool = partial(
            asyncpg.create_pool, min_size=0, max_size=pool_size, connection_class=_BareConnection, **arguments
        )
        self._pool: asyncpg.Pool | None = None
        self._pool_lock = asyncio.Lock()

        async def connect() -> Connection:
            return cast(Connection, await asyncpg.connect(**arguments))

        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url,
            async_creator=connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            pool_use_lifo=True,
            connect_args={} if prepared_statements else {"prepared_statement_cache_size": 0},
        )
        event.listen(self.engine.sync_engine, "checkout", _refuse_closed)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session whose work is committed together at the end, or not at all."""
        async with self._sessions() as session, session.begin():
            yield session

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A bare connection in autocommit, for one statement at a time."""
        return _Lent(self)

    async def _open_pool(self) -> asyncpg.Pool:
        async with self._pool_lock:
            if self._pool is None:
                self._pool = await self._make_pool()
            return self._pool

    async def ping(self) -> None:
        """Raises what the database raises when it cannot answer."""
        async with self.connection() as connection:
            await connection.fetchval("SELECT 1")

    async def dispose(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
        await self.engine.dispose()


class _Lent(AbstractAsyncContextManager[Connection]):
    """A bare connection for as long as the context lasts. By hand: a generator would cost as much as the pool."""

    __slots__ = ("_connection", "_database", "_transaction")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._transaction: Any = None

    async def __aenter__(self) -> Connection:
        pool = self._database._pool or await self._database._open_pool()  # noqa: SLF001 - of one piece with it
        self._connection = await pool.acquire(timeout=self._database._pool_timeout)  # noqa: SLF001
        if not self._database._prepared:  # noqa: SLF001 - a pooler may hand every statement to another server: pin one
            self._transaction = self._connection.transaction()
            try:
                await self._transaction.start()
            except BaseException:
                await pool.release(self._connection)
                raise
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pool = self._database._pool  # noqa: SLF001
        assert pool is not None
        try:
            if self._transaction is not None:
                await (self._transaction.commit() if kind is None else self._transaction.rollback())
        finally:
            await pool.release(self._connection)


class _BareConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is untyped
    """Single statements leave nothing behind in their session, so there is nothing to reset between users."""

    def get_reset_query(self) -> str:
        return ""


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """A connection that has died in the pool is replaced before anybody gets it.

    The bare driver's errors pass SQLAlchemy by, so that it would not learn of the death from them.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError


async def driver_connection(session: AsyncSession) -> Connection:
    """The bare connection inside the session's transaction, for the same hot statements as `Database.connection`."""
    connection = await session.connection()
    driver = await _driver(connection)
    if not driver.is_in_transaction():  # SQLAlchemy's BEGIN goes out with its first statement
        await connection.execute(text("SELECT 1"))
    return driver


async def _driver(connection: AsyncConnection) -> Connection:
    raw = await connection.get_raw_connection()
    return cast(Connection, raw.driver_connection)
