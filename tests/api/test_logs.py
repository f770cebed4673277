"""What a running server logs: JSON, one line a request, nothing else about it; and what it says at its start."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.builders import ADMIN_TOKEN, AS_PLATFORM, MASTER_KEY, SERVICE_KEY
from tests.server import ServerProcess, running_server

pytestmark = pytest.mark.process


def lines_of(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


async def test_every_request_is_one_json_line_with_the_members_of_the_contract(
    database_url: str, tmp_path: Path
) -> None:
    sent = [
        ("r-0", "GET", "/health/live", None, 200, "/health/live"),
        ("r-1", "GET", "/charges/ch_x?token=hush", "acme", 404, "/charges/{charge_id}"),
        ("r-2", "POST", "/charges", "platform", 400, "/charges"),
        ("r-3", "GET", "/nothing/at/all", None, 404, "(none)"),
        ("r-4", "GET", "/charges?cursor=%00", None, 400, "(none)"),
    ]
    unknown = {"KEYSERVER_PORL_SECONDS": "5", "KEYSERVER_WORKER": "3"}
    async with (
        running_server(database_url, tmp_path, **unknown) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as api,
    ):
        for request_id, method, path, tenant, status, _ in sent:
            headers = {**(AS_PLATFORM if tenant else {}), "x-request-id": request_id}
            if tenant == "acme":
                headers["x-tenant-id"] = tenant
            assert (await api.request(method, path, headers=headers)).status_code == status
        assert await asyncio.to_thread(server.stop) == 0
    lines = lines_of(server)
    for request_id, method, _, tenant, status, route in sent:
        (line,) = [each for each in lines if each.get("request_id") == request_id]
        assert line.pop("duration_ms") >= 0 and line.pop("timestamp").endswith("Z")
        assert line == {
            "event": "request",
            "level": "info",
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "tenant": tenant,
        }
    assert {line["name"] for line in lines if line["event"] == "unknown_setting"} == unknown.keys()
    log = server.log.read_text()
    assert not [secret for secret in (SERVICE_KEY, ADMIN_TOKEN, MASTER_KEY, "hush") if secret in log]


async def test_a_server_that_cannot_start_says_why_and_ends(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess("mysql://localhost/x", tmp_path)
    with pytest.raises(AssertionError, match=r"DATABASE_URL must start with postgresql://"):
        await server.start()
    server.end()
