"""Why the server did not start, as lines an operator can act on instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from keyserver.cli.output import fail

if TYPE_CHECKING:
    from pydantic import ValidationError

    from keyserver.settings import Settings


def read_settings() -> "Settings":
    """The settings of the environment; ends the command naming every variable that is wrong."""
    from pydantic import ValidationError

    from keyserver.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        for line in wrong_variables(error):
            typer.echo(f"keyserver: {line}", err=True)
        raise typer.Exit(1) from None
    _check_values(settings)
    return settings


def wrong_variables(error: "ValidationError") -> list[str]:
    """One line for each wrong setting: the variable and what is wrong. Never its value, which may be a secret."""
    return [
        f"{variable_of(str(each['loc'][0]))}: {each['msg'].removeprefix('Value error, ')}"
        for each in error.errors(include_input=False, include_url=False)
    ]


def variable_of(name: str) -> str:
    """The environment variable of a field of Settings, by the field's name or its alias."""
    from keyserver.settings import PREFIX, Settings

    if name.isupper():
        return name
    alias: Any = Settings.model_fields[name].validation_alias
    return f"{PREFIX}{name}".upper() if alias is None else str(alias.choices[0])


def _check_values(settings: "Settings") -> None:
    """Settings that only the parts they are for can judge; those parts run in processes that would start over."""
    from keyserver.kit.clock import utc_now
    from keyserver.kit.db import parse_database_url
    from keyserver.kit.egress import EgressPolicy
    from keyserver.worker import UnknownPriceSource, price_sources

    try:
        EgressPolicy(settings.webhook_allow)
    except ValueError as error:
        fail(f"KEYSERVER_WEBHOOK_ALLOW: {error}")
    try:
        price_sources(settings, clock=utc_now)
    except UnknownPriceSource as error:
        fail(str(error))
    if settings.database_url is not None:
        try:
            parse_database_url(settings.database_url.get_secret_value())
        except ValueError as error:
            fail(str(error))


@contextmanager
def explained() -> Iterator[None]:
    """Turns what is known to keep a server from starting into one line and exit code 1; other errors go through."""
    try:
        yield
    except Exception as error:
        sentence = explanation(error)
        if sentence is None:
            raise
        fail(sentence)


def explanation(error: Exception) -> str | None:
    """One sentence for an error that an operator can mend; None for any other, whose traceback is wanted."""
    from alembic.util import CommandError
    from asyncpg import PostgresError
    from sqlalchemy.exc import DBAPIError

    from keyserver.addresses.selftest import SelfTestFailed
    from keyserver.kit.db import is_unavailable
    from keyserver.kit.embedded import EmbeddedPostgresFailedError, EmbeddedPostgresMissingError
    from keyserver.kit.logging import redact
    from keyserver.server import PortUnavailable

    own = (PortUnavailable, EmbeddedPostgresFailedError, EmbeddedPostgresMissingError, SelfTestFailed)
    if isinstance(error, own):
        return str(error)
    if isinstance(error, CommandError):
        return f"The database's schema is not one this version knows, is it a newer version's? ({error})"
    cause = error.orig.__cause__ or error.orig if isinstance(error, DBAPIError) and error.orig else error
    said = redact(str(cause)) or type(cause).__name__
    if is_unavailable(error):
        return f"The database of DATABASE_URL cannot be reached: {said}"
    if isinstance(cause, PostgresError):
        return f"The database of DATABASE_URL refuses: {said}"
    return None
