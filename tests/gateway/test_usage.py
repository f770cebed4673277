"""`GET /usage` and `GET /admin/usage`: sums of what was charged, equal to the ledger to the nanodollar."""

import csv
import io
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.api.support import a_tenant, a_tenant_with_key, acting_for, problem
from tests.builders import AS_ADMIN, AS_PLATFORM
from tests.gateway.books import NOW, charge, give, hold, payer

from keyserver.gateway import usage
from keyserver.gateway.usage_schemas import wants_csv
from keyserver.kit.db import Database

ACME = {"x-tenant-id": "acme", **AS_PLATFORM}


async def a_call(database: Database, nanos: int, *, cost: int | None = None, days: int = 0, **members: Any) -> None:
    """One call of a tenant (acme) that ended so many days ago."""
    named = {name: members.pop(name) for name in ("instance_id", "attributed_tenant_id") if name in members}
    by = payer(members.pop("tenant_id", "acme"), unlimited=True, **named)
    at = NOW - timedelta(days=days)
    placed = await hold(database, 1, by=by, now=at)
    fields = {"capability": "chat", "model": "m", "input_tokens": 10, "output_tokens": 5, **members}
    await charge(database, placed, nanos, by=by, now=at, cost_nanos=nanos if cost is None else cost, **fields)


@pytest.fixture
async def used(api: httpx.AsyncClient, database: Database) -> Database:
    """Calls of two tenants on three days."""
    await a_tenant(api, "acme")
    await a_tenant(api, "other")
    await give(database, 10_000, tenant_id="acme")
    await a_call(database, 130, cost=100, instance_id="bot")
    await a_call(database, 13, cost=10, model="n")
    await a_call(database, 26, cost=20, days=1, capability="images", model=None, input_tokens=0, output_tokens=0)
    await a_call(database, 0, days=40)
    await a_call(database, 7, tenant_id="other")
    await a_call(database, 70, cost=70, tenant_id="platform", attributed_tenant_id="acme")
    await a_call(database, 5, cost=5, tenant_id="platform", attributed_tenant_id="other")
    await a_call(database, 1, cost=1, tenant_id="platform")
    return database


async def rows(
    api: httpx.AsyncClient,
    path: str = "/usage",
    *,
    headers: dict[str, str] = ACME,
    begins: str | None = None,
    ends: str | None = None,
    **query: str,
) -> Any:
    given = {**query, "from": begins, "to": ends}
    params = {name: value for name, value in given.items() if value is not None}
    answer = await api.get(path, params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def sums(calls: int, tokens: tuple[int, int], cost: int, charged: int) -> dict[str, Any]:
    return {
        "calls": calls,
        "inputTokens": tokens[0],
        "outputTokens": tokens[1],
        "costNanodollars": str(cost),
        "chargeNanodollars": str(charged),
    }


@pytest.mark.usefixtures("used")
async def test_usage_is_told_by_day_when_nothing_else_is_asked(api: httpx.AsyncClient) -> None:
    assert await rows(api) == [
        {"day": "2026-02-28", **sums(1, (0, 0), 20, 26)},
        {"day": "2026-03-01", **sums(2, (20, 10), 110, 143)},
    ]


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("capability", [({"capability": "chat"}, 143), ({"capability": "images"}, 26)]),
        ("model", [({"model": "m"}, 130), ({"model": "n"}, 13), ({"model": None}, 26)]),
        ("instance", [({"instance": "bot"}, 130), ({"instance": None}, 39)]),
        (
            "model,day",
            [
                ({"model": "m", "day": "2026-03-01"}, 130),
                ({"model": "n", "day": "2026-03-01"}, 13),
                ({"model": None, "day": "2026-02-28"}, 26),
            ],
        ),
    ],
)
async def test_usage_is_grouped_by_what_is_asked_for(
    api: httpx.AsyncClient, group_by: str, expected: list[tuple[dict[str, Any], int]]
) -> None:
    found = await rows(api, groupBy=group_by)
    groups = [{name: row[name] for name in group_by.split(",")} for row in found]
    assert list(zip(groups, [int(row["chargeNanodollars"]) for row in found], strict=True)) == expected
    assert all(row.keys() == {*group_by.split(","), *sums(0, (0, 0), 0, 0)} for row in found)


@pytest.mark.usefixtures("used")
async def test_a_platform_service_sees_what_it_spent_for_whom(api: httpx.AsyncClient) -> None:
    mine = await rows(api, headers=AS_PLATFORM, groupBy="attributedTo")
    assert [(row["attributedTo"], row["chargeNanodollars"]) for row in mine] == [
        ("acme", "70"),
        ("other", "5"),
        (None, "1"),
    ]
    everybody = await rows(api, "/admin/usage", headers=AS_ADMIN, groupBy="tenant,attributedTo")
    assert [(row["tenant"], row["attributedTo"], row["calls"]) for row in everybody] == [
        ("acme", None, 3),
        ("other", None, 1),
        ("platform", "acme", 1),
        ("platform", "other", 1),
        ("platform", None, 1),
    ]


@pytest.mark.usefixtures("used")
async def test_the_operator_can_look_at_one_tenant(api: httpx.AsyncClient) -> None:
    found = await rows(api, "/admin/usage", headers=AS_ADMIN, tenant="other", groupBy="tenant")
    assert found == [{"tenant": "other", **sums(1, (10, 5), 7, 7)}]
    assert await rows(api, "/admin/usage", headers=AS_ADMIN, tenant="nobody") == []


@pytest.mark.usefixtures("used")
async def test_a_tenant_sees_its_own_alone(api: httpx.AsyncClient) -> None:
    own = await a_tenant_with_key(api, "third")
    assert await rows(api, headers=own) == []
    problem(await api.get("/usage", params={"groupBy": "tenant"}, headers=own), 400)
    problem(await api.get("/usage", params={"tenant": "acme"}, headers=acting_for("acme") | own), 403)
    problem(await api.get("/usage"), 401)
    problem(await api.get("/admin/usage", headers=own), 401)


async def test_what_was_charged_is_what_the_ledger_has(api: httpx.AsyncClient, used: Database) -> None:
    charged = sum(
        int(row["chargeNanodollars"])
        for row in await rows(api, "/admin/usage", headers=AS_ADMIN, groupBy="tenant", begins="2026-01-01")
    )
    async with used.transaction() as session:
        posted = await session.scalar(
            text(
                "SELECT sum(amount_nanos) FROM journal_lines JOIN journal_entries e ON e.id = entry_id"
                " WHERE e.type = 'usage' AND side = 'debit'"
            )
        )
    assert charged == posted == 252


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("begins", "ends", "days"),
    [
        ("2026-03-01", "2026-03-01", ["2026-03-01"]),
        ("2026-02-28", "2026-02-28", ["2026-02-28"]),
        ("2026-02-01", "2026-03-31", ["2026-02-28", "2026-03-01"]),
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.000001Z", ["2026-03-01"]),
        ("2026-02-28T12:00:00.001Z", "2026-03-01T12:00:00Z", []),
        ("2026-03-01T14:00:00+02:00", "2026-03-02", ["2026-03-01"]),
        ("2026-01-15", "2026-01-25", ["2026-01-20"]),
    ],
)
async def test_a_date_is_a_whole_day_and_an_instant_ends_before_itself(
    api: httpx.AsyncClient, begins: str, ends: str, days: list[str]
) -> None:
    assert [row["day"] for row in await rows(api, begins=begins, ends=ends)] == days


@pytest.mark.parametrize(
    "query",
    [
        {"groupBy": "colour"},
        {"groupBy": ""},
        {"groupBy": "day,day"},
        {"groupBy": "day,"},
        {"from": "yesterday"},
        {"from": "2026-02-30"},
        {"from": "2026-03-01T12:00:00"},
        {"from": "2026-03-02", "to": "2026-02-28"},
        {"from": "2024-01-01", "to": "2026-01-01"},
        {"from": "0001-01-01"},
        {"to": "9999-12-31"},
        {"to": "0001-01-01"},
        {"to": "0001-01-01T00:00:00+14:00"},
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(api: httpx.AsyncClient, query: dict[str, str]) -> None:
    for path, headers in (("/usage", AS_PLATFORM), ("/admin/usage", AS_ADMIN)):
        refused = problem(await api.get(path, params=query, headers=headers), 400)
        assert refused["errors"][0]["pointer"].startswith("#query/")


async def test_csv_is_given_to_who_asks_for_it(api: httpx.AsyncClient, used: Database) -> None:
    await a_call(used, 3, model='=HYPERLINK("x"),y')
    answer = await api.get("/usage", params={"groupBy": "model"}, headers=ACME | {"accept": "text/csv"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    header, *lines = csv.reader(io.StringIO(answer.text, newline=""))
    assert header == ["model", "calls", "inputTokens", "outputTokens", "costNanodollars", "chargeNanodollars"]
    assert lines == [
        ['\'=HYPERLINK("x"),y', "1", "10", "5", "3", "3"],
        ["m", "1", "10", "5", "100", "130"],
        ["n", "1", "10", "5", "10", "13"],
        ["", "1", "0", "0", "20", "26"],
    ]


@pytest.mark.parametrize(
    ("accept", "csv_wanted"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("text/csv", True),
        ("TEXT/CSV; charset=utf-8", True),
        ("application/json, text/csv", True),
        ("application/json, text/csv;q=0.5", False),
        ("text/csv;q=0", False),
        ("text/csv;q=much", True),
    ],
)
def test_csv_must_be_named_and_not_be_wanted_less_than_json(accept: str | None, csv_wanted: bool) -> None:
    assert wants_csv(accept) is csv_wanted


@pytest.mark.usefixtures("used")
async def test_more_rows_than_anybody_reads_are_refused(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MOST_ROWS", 1)
    problem(await api.get("/usage", headers=ACME), 400, "too_many_rows")


def test_the_answer_is_documented_as_json_and_csv(app: FastAPI) -> None:
    for path in ("/usage", "/admin/usage"):
        assert app.openapi()["paths"][path]["get"]["responses"]["200"]["content"].keys() >= {
            "application/json",
            "text/csv",
        }


async def test_round_sums_are_told_in_digits(api: httpx.AsyncClient, database: Database) -> None:
    await a_tenant(api, "acme")
    await give(database, 10**12)
    await a_call(database, 13 * 10**9, cost=10**10)

    assert await rows(api) == [{"day": "2026-03-01", **sums(1, (10, 5), 10**10, 13 * 10**9)}]
    text = (await api.get("/usage", headers={**ACME, "accept": "text/csv"})).text
    assert "10000000000,13000000000" in text
