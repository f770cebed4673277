"""The gateway's measurements: calls through it beside the same calls straight to its trivial upstream."""

import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg

from bench import parts
from bench.upstream import EVENTS, MODEL

ADMIN_TOKEN = "benchmark-admin-token-0123456789"
CALL = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}, separators=(",", ":"))
STREAM = json.dumps({**json.loads(CALL), "stream": True}, separators=(",", ":"))
STREAMS = 500
_PATH = "/v1/chat/completions"
_HEADERS = {"authorization": f"Bearer {parts.SERVICE_KEY}", "content-type": "application/json"}


@dataclass(frozen=True)
class Pair:
    """The gateway and what is behind it."""

    gateway: parts.Running
    upstream_url: str


@contextmanager
def running(database_url: str, log: Path) -> Iterator[Pair]:
    """Both, with a rate for the model and no limit on calls."""
    command = [sys.executable, "-m", "bench.upstream", "{port}"]
    with (
        parts.server(command, path="/", log=log) as upstream,
        parts.keyserver(
            database_url, log, KEYSERVER_UPSTREAM_URL=f"{upstream.url}/v1", ADMIN_TOKEN=ADMIN_TOKEN
        ) as gateway,
    ):
        for unit in ("1K-input-tokens", "1K-output-tokens"):
            _put(gateway, "/admin/rates", {"capability": "chat", "model": MODEL, "unit": unit, "price_usd": "0.001"})
        _put(gateway, "/admin/tenants/platform/limits", {"llm_per_minute": 1_000_000})
        yield Pair(gateway, upstream.url)


def _put(gateway: parts.Running, path: str, body: dict[str, object]) -> None:
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"}
    request = urllib.request.Request(gateway.url + path, json.dumps(body).encode(), headers, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def calls(pair: Pair, seconds: int) -> tuple[parts.Load, parts.Load]:
    """Plain calls over 32 connections, and the same straight to the upstream."""
    ours = parts.wrk(pair.gateway.url + _PATH, seconds=seconds, body=CALL)
    return ours, parts.wrk(pair.upstream_url + _PATH, seconds=seconds, body=CALL)


def added_milliseconds(pair: Pair, count: int = 300) -> tuple[float, float]:
    """What the gateway adds to the median of a plain call, and to a stream's first byte, on one connection."""
    return asyncio.run(_added(pair, CALL, count)), asyncio.run(_added(pair, STREAM, count // 3))


async def _added(pair: Pair, body: str, count: int) -> float:
    async with aiohttp.ClientSession(headers=_HEADERS) as session:
        through = await _median(session, pair.gateway.url, body, count)
        straight = await _median(session, pair.upstream_url, body, count)
    return through - straight


async def _median(session: aiohttp.ClientSession, url: str, body: str, count: int) -> float:
    """Milliseconds to the first byte of the body, the median; the first tenth only warms up."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        async with session.post(url + _PATH, data=body) as answer:
            await answer.content.readany()
            taken.append((time.perf_counter() - began) * 1000)
            await answer.read()
    return statistics.median(taken[count // 10 :])


@dataclass(frozen=True)
class Streams:
    """How many had all their events and `[DONE]`, how many have a usage record, and the memory of each process."""

    complete: int
    billed: int
    seconds: float
    megabytes: list[float]


def streams(pair: Pair, database_url: str) -> Streams:
    """So many streams at once."""
    return asyncio.run(_streams(pair, database_url))


async def _streams(pair: Pair, database_url: str) -> Streams:
    connection = await asyncpg.connect(database_url)
    count = "SELECT count(*) FROM usage_records WHERE streamed"
    before = await connection.fetchval(count)
    began = time.perf_counter()
    async with aiohttp.ClientSession(headers=_HEADERS, connector=aiohttp.TCPConnector(limit=0)) as session:
        complete = await asyncio.gather(*(_stream(session, pair.gateway.url) for _ in range(STREAMS)))
    seconds = time.perf_counter() - began
    megabytes = [parts.resident_megabytes(each) for each in pair.gateway.process_ids()]
    billed = 0
    while billed < STREAMS and time.perf_counter() < began + 60:  # some may have been kept on disk for a moment
        billed = await connection.fetchval(count) - before
        await asyncio.sleep(0.1)
    await connection.close()
    return Streams(sum(complete), billed, seconds, megabytes)


async def _stream(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.post(url + _PATH, data=STREAM) as answer:
        body = await answer.read()
    return body.count(b'"delta"') == EVENTS and b"data: [DONE]" in body and b": x-credits-charged" in body
