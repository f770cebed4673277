"""What the tests of the wire share: problem documents, callers, how many indexes are left untouched."""

from typing import Any

import httpx
from sqlalchemy import text
from tests.builders import AS_ADMIN, AS_PLATFORM

from keyserver.kit.db import Database


def problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, held to RFC 9457 and to our own members."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "error", "code"} <= document.keys()
    assert document["status"] == status
    assert document["error"] == document["detail"]
    assert isinstance(document["error"], str) and document["error"]
    assert document["code"] == document["code"].lower().replace(" ", "_") != ""
    assert document["type"] == f"urn:keyserver:problem:{document['code']}"
    assert code is None or document["code"] == code, document
    if status == 400 and "errors" in document:
        assert all(error.keys() == {"pointer", "detail"} for error in document["errors"])
    return document


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in headers.items()}}


def acting_for(tenant_id: str, **headers: str) -> dict[str, str]:
    """The platform's key, used for another tenant."""
    return {**AS_PLATFORM, "x-tenant-id": tenant_id, **headers}


async def a_tenant(api: httpx.AsyncClient, tenant_id: str = "acme", *, kind: str = "org", **members: Any) -> Any:
    body = {"id": tenant_id, "name": tenant_id.title(), "type": kind, **members}
    answer = await api.post("/admin/tenants", json=body, headers=AS_ADMIN)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def a_key(api: httpx.AsyncClient, tenant_id: str = "acme", **members: Any) -> dict[str, Any]:
    """The answer that shows a new key; the tenant is there already."""
    answer = await api.post(f"/admin/tenants/{tenant_id}/keys", json=members, headers=AS_ADMIN)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def a_tenant_with_key(api: httpx.AsyncClient, tenant_id: str = "acme", *, kind: str = "org") -> dict[str, str]:
    """Headers of a new tenant's own key."""
    await a_tenant(api, tenant_id, kind=kind)
    return bearer((await a_key(api, tenant_id))["key"])


async def next_index(api: httpx.AsyncClient, chain: str = "LTC") -> int:
    """The index the next caller gets, which is spent by asking."""
    answer = await api.post("/address", json={"chain": chain}, headers=AS_PLATFORM)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["index"])


async def count(database: Database, table: str) -> int:
    async with database.transaction() as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)
