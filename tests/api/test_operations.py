"""`/health/*` and `/metrics`, for orchestrators and Prometheus."""

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from tests.api.support import problem
from tests.builders import AS_PLATFORM, ManualClock, litecoin, register

from keyserver.kit.db import Database


async def samples(api: httpx.AsyncClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def test_live_needs_nothing_and_ready_says_what_it_looked_at(api: httpx.AsyncClient) -> None:
    assert (await api.get("/health/live")).json() == {"status": "ok"}
    await register(api, litecoin())
    answer = await api.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "database": "ok",
        "migrations": "ok",
        "scannerLag": {"litecoin:regtest": None},
        "scannerState": {"litecoin:regtest": "not started"},
    }


async def test_a_schema_of_another_version_is_not_ready(api: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    problem(await api.get("/health/ready"), 503)
    assert (await api.get("/health/live")).status_code == 200


async def test_metrics_count_requests_by_route_and_not_by_path(api: httpx.AsyncClient) -> None:
    for name in ("ch_one", "ch_two", "ch_three"):
        await api.get(f"/charges/{name}", headers=AS_PLATFORM)
    await api.get("/" + "n" * 40)
    counted = (await samples(api))["keyserver_http_request_duration_seconds_count"]
    routes = {labels["route"] for labels, _ in counted}
    assert "/charges/{charge_id}" in routes and not any("ch_" in route or "nnn" in route for route in routes)
    (of_charges,) = [
        value
        for labels, value in counted
        if labels == {"method": "GET", "route": "/charges/{charge_id}", "status": "404"}
    ]
    assert of_charges >= 3


async def test_a_chain_that_was_never_reached_has_no_height_rather_than_0(
    api: httpx.AsyncClient, database: Database
) -> None:
    await register(api, litecoin())
    assert "keyserver_scanner_height" not in await samples(api)
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO scanners VALUES ('litecoin:regtest', 7, 'ab', now())"))
    labels = {"chain": "litecoin", "network": "regtest"}
    assert (await samples(api))["keyserver_scanner_height"] == [(labels, 7.0)]
    assert (await samples(api))["keyserver_payments_unmatched"] == [({}, 0.0)]


async def test_a_chain_that_nobody_follows_is_told_by_its_ages_and_its_nodes(
    api: httpx.AsyncClient, database: Database, clock: ManualClock
) -> None:
    await register(api, litecoin())
    nodes = '[{"node": "a:1", "state": "in use"}, {"node": "b:2", "state": "wrong chain"}]'
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO scanners VALUES ('litecoin:regtest', 7, 'ab', :now)"), {"now": clock()})
        await session.execute(
            text(
                "INSERT INTO node_reports (blockchain_id, tip_height, tip_seen_at, nodes)"
                " VALUES ('litecoin:regtest', 7, :now, CAST(:nodes AS jsonb))"
            ),
            {"now": clock(), "nodes": nodes},
        )
    labels = {"chain": "litecoin", "network": "regtest"}
    assert (await samples(api))["keyserver_scanner_stuck"] == [(labels, 0.0)]
    clock.advance(minutes=10)
    found = await samples(api)
    assert found["keyserver_scanner_cursor_age_seconds"] == [(labels, 600.0)]
    assert found["keyserver_scanner_contact_age_seconds"] == [(labels, 600.0)]
    assert found["keyserver_scanner_stuck"] == [(labels, 1.0)]
    assert {each["node"]: value for each, value in found["keyserver_node_usable"]} == {"a:1": 1.0, "b:2": 0.0}
    ready = await api.get("/health/ready")
    assert (ready.status_code, ready.json()["scannerState"]) == (200, {"litecoin:regtest": "stuck"})
