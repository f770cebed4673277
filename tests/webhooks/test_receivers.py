"""Every way in which a receiver can be no receiver ends as one sentence, and as a delivery that is tried again."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from tests.webhooks.webhook_world import HandClock, a_dispatcher, a_receiver, an_event, the_attempts, the_delivery

from keyserver.kit.db import Database
from keyserver.webhooks.models import DeliveryStatus


class Names(AbstractResolver):
    """DNS as a test wants it; a name it does not know does not exist."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=self.names[host], port=port, family=family, proto=0, flags=0),
        ]

    async def close(self) -> None: ...


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def a_tcp_server(talk: Talk) -> AsyncIterator[int]:
    """A server that says what it likes; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def outcome_at(database: Database, url: str, *, patience: float = 2.0) -> tuple[DeliveryStatus, str | None]:
    clock = HandClock()
    async with a_dispatcher(database, clock=clock, patience=patience, resolver=Names({})) as dispatcher:
        delivery_id = await an_event(database, url=url, now=clock())
        await dispatcher.run_once()
    delivery = await the_delivery(database, delivery_id)
    assert len(await the_attempts(database, delivery_id)) == 1
    return delivery.status, delivery.last_error


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await writer.drain()


async def huge_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n")
    await writer.drain()


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    while True:
        writer.write(b"HTTP")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("talk", "sentence"),
    [
        (garbage, "The receiver did not answer in HTTP"),
        (huge_header, "The receiver did not answer in HTTP"),
        (hangs_up, "The receiver closed the connection without an answer"),
    ],
)
async def test_what_is_no_http_is_a_failed_attempt(database: Database, talk: Talk, sentence: str) -> None:
    async with a_tcp_server(talk) as port:
        found = await outcome_at(database, f"http://127.0.0.1:{port}/")
    assert found == (DeliveryStatus.PENDING, sentence)


async def test_a_header_that_trickles_in_ends_with_the_time_out(database: Database) -> None:
    async with a_tcp_server(trickles) as port:
        _, error = await outcome_at(database, f"http://127.0.0.1:{port}/", patience=0.2)
    assert error in {"The receiver did not answer in HTTP", "The receiver did not answer in time"}


async def test_a_port_that_nobody_listens_on_is_a_failed_attempt(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = await outcome_at(database, f"http://127.0.0.1:{port}/")
    assert found == (DeliveryStatus.PENDING, "The receiver cannot be connected to")


async def test_a_server_without_tls_behind_an_https_url_is_a_failed_attempt(database: Database) -> None:
    async with a_receiver() as receiver:
        found = await outcome_at(database, receiver.url.replace("http:", "https:"))
        assert receiver.received == []
    assert found == (DeliveryStatus.PENDING, "The receiver's TLS certificate or handshake is not acceptable")


async def test_a_name_that_does_not_exist_is_a_failed_attempt(database: Database) -> None:
    found = await outcome_at(database, "http://nowhere.example.com/")
    assert found == (DeliveryStatus.PENDING, "The receiver's host name does not resolve")


@pytest.mark.parametrize("url", ["http://", "ftp://example.com/", "no url at all", "http://[::1", "http://127.1/"])
async def test_a_url_that_cannot_be_called_harms_only_its_own_delivery(database: Database, url: str) -> None:
    found = await outcome_at(database, url)
    assert found == (DeliveryStatus.PENDING, "The URL cannot be called")


async def test_an_answer_without_end_is_success_once_its_status_is_there(database: Database) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
        await writer.drain()
        await reader.read()  # until we hang up

    async with a_tcp_server(endless) as port:
        assert await outcome_at(database, f"http://127.0.0.1:{port}/") == (DeliveryStatus.DELIVERED, None)


async def test_an_answer_said_to_be_compressed_is_not_unpacked(database: Database) -> None:
    async def answer() -> web.StreamResponse:
        return web.Response(body=b"no gzip", headers={"content-encoding": "gzip"})

    async with a_receiver(answer) as receiver:
        assert await outcome_at(database, receiver.url) == (DeliveryStatus.DELIVERED, None)


async def test_a_name_that_resolves_to_loopback_is_called_only_when_it_is_allowed(database: Database) -> None:
    clock = HandClock()
    names = Names({"hooks.example.com": "127.0.0.1", "platform": "127.0.0.1"})
    async with (
        a_receiver() as receiver,
        a_dispatcher(database, clock=clock, allow=("platform",), resolver=names) as dispatcher,
    ):
        refused = await an_event(
            database, url=receiver.url.replace("127.0.0.1", "hooks.example.com"), now=clock(), subject_id="chg_refused"
        )
        called = await an_event(
            database, url=receiver.url.replace("127.0.0.1", "platform"), now=clock(), subject_id="chg_called"
        )
        assert await dispatcher.run_once() == 2
        assert receiver.ids == [called]
    assert (await the_delivery(database, called)).status is DeliveryStatus.DELIVERED
    sentence = "The address 127.0.0.1 is loopback, which may not be called"
    assert (await the_delivery(database, refused)).last_error == sentence
