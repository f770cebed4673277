"""`keyserver serve` and `keyserver work`: processes, the port, and an orderly end."""

import asyncio
import errno
import os
import shutil
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
import uvicorn

from keyserver.app import create_app
from keyserver.assembly import database_url, prepare
from keyserver.kit import metrics
from keyserver.kit.prefork import Role, run_processes
from keyserver.kit.secrets import MasterKey
from keyserver.settings import Settings, unknown_variables
from keyserver.worker import work

_log = structlog.get_logger("keyserver.server")
BACKLOG = 2048
SHORTEST_SECRET = 20


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: ours also ends the background work."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class PortUnavailable(RuntimeError):
    """One sentence: the address cannot be listened on, and what to set."""


@dataclass(frozen=True, slots=True)
class Started:
    """A server that listens, over a migrated database, and has not answered yet."""

    host: str
    port: int
    database_url: str
    master: MasterKey


def serve(settings: Settings, *, background: bool = True, announce: Callable[[Started], None] = lambda _: None) -> int:
    """Migrates, opens the port, then answers requests (and works) until SIGTERM; returns the exit code.

    `announce` is called once the port is open. PortUnavailable before anything else is started.
    """
    listener = _bind(settings)
    url, master = _start(settings)
    host, port = _listen(listener)
    announce(Started(host, port, url, master))
    _log.info("listening", host=host, port=port, workers=settings.workers, background=background)
    api = partial(_api, settings, url, master, listener)
    try:
        return _run_all(settings, url, master, api, background=background)
    finally:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def _run_all(settings: Settings, url: str, master: MasterKey, api: "Work", *, background: bool) -> int:
    if settings.workers == 1:
        return _run(lambda stop: _together(api(stop), *_maybe_work(background, settings, url, master, stop)))
    roles: dict[str, Role] = {f"api {number + 1}": lambda: _run(api) for number in range(settings.workers)}
    if background:
        roles["background"] = lambda: _run(partial(_work, settings, url, master))
    return run_processes(roles, grace=settings.shutdown_seconds + 5.0, on_exit=metrics.forget_process)


def work_alone(settings: Settings) -> int:
    """Background work without the API, until SIGTERM."""
    url, master = _start(settings)
    return _run(partial(_work, settings, url, master))


def _start(settings: Settings) -> tuple[str, MasterKey]:
    for name in unknown_variables(os.environ):
        _log.warning("unknown_setting", name=name, hint="misspelt? README lists every setting")
    for name, secret in (("SERVICE_KEY", settings.service_key), ("ADMIN_TOKEN", settings.admin_token)):
        if secret is not None and len(secret.get_secret_value()) < SHORTEST_SECRET:
            _log.warning("short_secret", name=name, hint=f"make it {SHORTEST_SECRET} random characters or more")
    _log.info("settings", **settings.summary())
    url = database_url(settings)
    return url, asyncio.run(prepare(settings, url))


def _bind(settings: Settings) -> socket.socket:
    """Takes the port without opening it, so that a port in use is told at once and not after the migrations."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise PortUnavailable(_why_no_port(error, host=settings.host, port=settings.port)) from error
    return listener


def _listen(listener: socket.socket) -> tuple[str, int]:
    """Opens the port; returns host and port as they came out."""
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise PortUnavailable(_why_no_port(error, host=host, port=port)) from error
    listener.set_inheritable(True)
    return host, port


def _why_no_port(error: OSError, *, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} on {host} is in use: stop what listens there, or set PORT to another"
        case errno.EACCES:
            return f"Port {port} on {host} needs more rights than this user has: set PORT to one above 1023"
        case _:
            return f"HOST {host} is no address of this machine to listen on ({error.strerror})"


Work = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def _run(main: Work) -> int:
    """Runs one process's work in an event loop whose SIGTERM and SIGINT set its stop event."""

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, stop.set)
        await main(stop)

    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(until_signal())
    else:
        uvloop.run(until_signal())
    return 0


async def _api(settings: Settings, url: str, master: MasterKey, listener: socket.socket, stop: asyncio.Event) -> None:
    config = uvicorn.Config(
        create_app(settings, database_url=url, master=master),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client was
        # Streams that are cut then have the rest of the time to be charged.
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds) - 2),
        ws="none",
    )
    server = _Server(config)
    ending = asyncio.create_task(_end(server, stop))
    await server.serve(sockets=[listener])
    stop.set()
    await ending
    if not server.started:
        raise RuntimeError("the API did not start; the lines above say why")


async def _end(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


async def _work(settings: Settings, url: str, master: MasterKey, stop: asyncio.Event) -> None:
    await work(settings, database_url=url, master=master, stop=stop)


def _maybe_work(
    background: bool, settings: Settings, url: str, master: MasterKey, stop: asyncio.Event
) -> list[Coroutine[Any, Any, None]]:
    return [_work(settings, url, master, stop)] if background else []


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part)
