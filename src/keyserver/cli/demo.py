"""Demo mode: what it sets where nothing is set, and what it says once it listens."""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from keyserver.access.keys import PLATFORM_TENANT
from keyserver.kit.clock import utc_now
from keyserver.kit.db import Database
from keyserver.server import Started
from keyserver.settings import Settings
from keyserver.webhooks.models import SigningSecret
from keyserver.webhooks.secrets import TenantSecrets

_LOOPBACK = ("127.0.0.0/8", "::1/128")


def demo_settings(settings: Settings, *, token: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> Settings:
    """The settings in demo mode. What the environment sets stays; the rest suits one person at a terminal."""
    suited: dict[str, Any] = {
        "service_key": SecretStr(f"ks_{token()}"),
        "admin_token": SecretStr(token()),
        "workers": 1,
        "log_level": "WARNING",
        "poll_seconds": 0.5,
        "webhook_allow": _LOOPBACK,
    }
    unset = {name: value for name, value in suited.items() if name not in settings.model_fields_set}
    return settings.model_copy(update={**unset, "demo": True})


def announce(settings: Settings, started: Started) -> None:
    """Prints the banner; everything in it is true when it is printed."""
    assert settings.service_key is not None
    assert settings.admin_token is not None
    typer.echo(
        banner(
            url=base_url(started.host, started.port),
            service_key=settings.service_key.get_secret_value(),
            admin_token=settings.admin_token.get_secret_value(),
            webhook_secret=asyncio.run(_webhook_secret(started)),
            command=_command(),
        )
    )


def base_url(host: str, port: int) -> str:
    """Where a caller on this machine finds a server that listens on `host`."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{here}]' if ':' in here else here}:{port}"


async def _webhook_secret(started: Started) -> str:
    database = Database(started.database_url, pool_size=2)
    try:
        async with database.transaction() as session:
            row = await session.get(SigningSecret, PLATFORM_TENANT)
        return TenantSecrets(started.master).active(PLATFORM_TENANT, row, now=utc_now())[0]
    finally:
        await database.dispose()


def _command() -> str:
    """How this program was called, as it can be called from the same directory again."""
    called = Path(sys.argv[0])
    if called.name != "keyserver":
        return f"{sys.executable} -m keyserver"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called)


def banner(*, url: str, service_key: str, admin_token: str, webhook_secret: str, command: str) -> str:
    """What to know and what to try. The numbered lines work as they are, pasted into another terminal in this order."""
    key, json = f"-H 'Authorization: Bearer {service_key}'", "-H 'Content-Type: application/json'"
    body = '{"chain": "DEMO-BTC", "amountUsd": 25}'
    pay, mine = '{"chargeId": "\'"$CHARGE"\'"}', '{"blocks": 2}'
    find_id = 'sed \'s/.*"chargeId":"\\([^"]*\\)".*/\\1/\''
    return f"""
keyserver is at {url} in demo mode (API documentation: {url}/docs). Ctrl-C ends it.
Its chains are simulated and their coins are WORTHLESS: never send real money to an address of demo mode.

  SERVICE_KEY   {service_key}
  ADMIN_TOKEN   {admin_token}
  Unless you set them, both are new at each start and valid until it stops.
  Webhook secret of tenant platform: {webhook_secret}

Try it in another terminal:

# 1. Ask for 25 dollars.
CHARGE=$(curl -sS {url}/charges {key} {json} -d '{body}' | {find_id}); echo "$CHARGE"

# 2. Pay it, and mine the two blocks that make the payment final.
curl -sS {url}/demo/pay {json} -d '{pay}'; echo; curl -sS {url}/demo/mine {json} -d '{mine}'; echo; sleep 2

# 3. See the charge settled, and the credit.
curl -sS {url}/charges/"$CHARGE" {key}; echo; curl -sS {url}/ledger/balance {key}; echo

To receive on a real chain (the key is read from standard input; `{command} chains add --help`):

KEYSERVER_URL={url} ADMIN_TOKEN={admin_token} {command} chains add --id BTC --chain bitcoin --token BTC \\
  --rpc-url http://user:password@127.0.0.1:8332 --expected-address bc1q… --xpub -
"""
