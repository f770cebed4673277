"""DATABASE_URL as libpq has it, and what asyncpg makes of it."""

import ssl
from typing import Any

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args

from keyserver.kit.db import Database, parse_database_url


def arguments(url: str) -> dict[str, Any]:
    return parse_database_url(url)[1]


def as_asyncpg_reads(url: str) -> tuple[Any, Any]:
    """Addresses and parameters that asyncpg takes out of the DSN we give it."""
    found = arguments(url)
    parsed = _parse_connect_dsn_and_args(
        dsn=found["dsn"],
        host=None,
        port=None,
        user=None,
        password=None,
        passfile=None,
        database=None,
        ssl=None,
        direct_tls=None,
        server_settings=found["server_settings"],
        service=None,
        servicefile=None,
        target_session_attrs=None,
        krbsrvname=None,
        gsslib=None,
    )
    return parsed[0], parsed[1]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_usual_scheme_is_accepted(scheme: str) -> None:
    url, found = parse_database_url(f" {scheme}://user:secret@db.example:5433/name\n")
    assert url.drivername == "postgresql+asyncpg"
    assert found["dsn"] == "postgresql://user:secret@db.example:5433/name"


@pytest.mark.parametrize("raw", ["", "nonsense", "mysql://localhost/x", "sqlite:///x", "http://db/", "postgresql"])
def test_anything_else_is_refused_in_one_sentence_without_the_url(raw: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL") as caught:
        parse_database_url(raw)
    assert "\n" not in str(caught.value)


def test_a_refused_url_s_password_is_not_in_the_sentence() -> None:
    for raw in ("mysql://user:hush@db/x", "postgresql://user:hush@db:port/x"):
        with pytest.raises(ValueError, match="DATABASE_URL") as caught:
            parse_database_url(raw)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "verify", "checks_name"),
    [
        ("require", ssl.CERT_NONE, False),
        ("prefer", ssl.CERT_NONE, False),
        ("disable", None, None),
    ],
)
def test_sslmode_keeps_its_meaning(mode: str, verify: ssl.VerifyMode | None, checks_name: bool | None) -> None:
    _, parameters = as_asyncpg_reads(f"postgres://user@db.example/name?sslmode={mode}")
    assert parameters.sslmode.name == mode
    if verify is None:
        assert not parameters.ssl
    else:
        assert (parameters.ssl.verify_mode, parameters.ssl.check_hostname) == (verify, checks_name)


def test_a_special_character_in_the_password_survives() -> None:
    _, parameters = as_asyncpg_reads("postgres://us%40er:p%2Fa%3Ass%25@db.example/name")
    assert (parameters.user, parameters.password) == ("us@er", "p/a:ss%")


def test_a_socket_directory_and_several_hosts_are_understood() -> None:
    addresses, _ = as_asyncpg_reads("postgresql://user@/name?host=/var/run/postgresql&port=5433")
    assert addresses == ["/var/run/postgresql/.s.PGSQL.5433"]


def test_parameters_of_libpq_alone_are_passed_over_and_the_others_are_the_server_s() -> None:
    url = (
        "postgres://user@db.example/name?sslmode=disable&channel_binding=prefer&keepalives=1&gssencmode=disable"
        "&application_name=shop&connect_timeout=7&statement_timeout=5000"
    )
    found = arguments(url)
    assert found["timeout"] == 7.0
    assert found["server_settings"] == {"application_name": "shop"}
    _, parameters = as_asyncpg_reads(url)
    settings = parameters.server_settings
    assert settings == {"application_name": "shop", "statement_timeout": "5000"}
    assert arguments("postgres://user@db/name")["server_settings"] == {"application_name": "keyserver"}


async def test_the_server_is_told_what_the_url_says(database_url: str) -> None:
    separator = "&" if "?" in database_url else "?"
    database = Database(f"{database_url}{separator}application_name=shop&statement_timeout=4321&sslmode=prefer")
    try:
        async with database.connection() as connection:
            assert await connection.fetchval("SHOW application_name") == "shop"
            assert await connection.fetchval("SHOW statement_timeout") == "4321ms"
    finally:
        await database.dispose()
