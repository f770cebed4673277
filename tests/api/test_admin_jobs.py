"""Rescans and audits over the admin API: asked for, looked at, listed, cancelled."""

import httpx
import pytest
from sqlalchemy import text
from tests.api.support import problem
from tests.builders import AS_ADMIN, AS_PLATFORM, litecoin, register

from keyserver.kit.db import Database

LITECOIN = "/admin/scanners/litecoin/regtest"


@pytest.fixture
async def followed(api: httpx.AsyncClient, database: Database) -> None:
    """Litecoin regtest, followed up to block 100."""
    await register(api, litecoin())
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO scanners VALUES ('litecoin:regtest', 100, 'ab', now())"))


async def asked(api: httpx.AsyncClient, kind: str, body: dict[str, object], **headers: str) -> httpx.Response:
    return await api.post(f"{LITECOIN}/{kind}", json=body, headers=AS_ADMIN | headers)


@pytest.mark.usefixtures("followed")
async def test_a_rescan_is_accepted_with_an_id_that_tells_its_progress(api: httpx.AsyncClient) -> None:
    answer = await asked(api, "rescan", {"from_height": 7})
    assert answer.status_code == 202
    job = answer.json()
    assert (job["kind"], job["chain"], job["network"], job["status"]) == ("rescan", "litecoin", "regtest", "waiting")
    assert (job["from_height"], job["to_height"], job["next_height"], job["found"]) == (7, 100, None, 0)
    assert (await api.get(f"/admin/jobs/{job['id']}", headers=AS_ADMIN)).json() == job


@pytest.mark.usefixtures("followed")
async def test_an_audit_needs_no_height_and_goes_no_further_than_was_followed(api: httpx.AsyncClient) -> None:
    job = (await asked(api, "audit", {})).json()
    assert (job["kind"], job["from_height"], job["to_height"]) == ("audit", None, 100)
    assert (job["tokens"], job["differences"], job["nightly"]) == ({}, [], False)
    assert (await asked(api, "audit", {"from_height": 3, "to_height": 500})).json()["to_height"] == 100


@pytest.mark.usefixtures("followed")
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/from_height"),
        ({"from_height": -1}, "/from_height"),
        ({"from_height": "x"}, "/from_height"),
        ({"from_height": 101}, "/from_height"),
        ({"from_height": 5, "to_height": 4}, "/to_height"),
        ({"from_height": 2**70}, "/from_height"),
    ],
)
async def test_blocks_that_cannot_be_read_are_named(
    api: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    document = problem(await asked(api, "rescan", body), 400)
    assert [error["pointer"] for error in document["errors"]] == [pointer]


async def test_only_what_is_registered_and_followed_can_be_read_again(api: httpx.AsyncClient) -> None:
    problem(await asked(api, "rescan", {"from_height": 1}), 404, "blockchain_not_found")
    await register(api, litecoin())
    problem(await asked(api, "rescan", {"from_height": 1}), 409, "not_followed_yet")
    problem(await api.get("/admin/jobs/job_nobody", headers=AS_ADMIN), 404, "job_not_found")
    problem(await api.delete("/admin/jobs/job_nobody", headers=AS_ADMIN), 404, "job_not_found")
    problem(await api.post(f"{LITECOIN}/rescan", json={"from_height": 1}, headers=AS_PLATFORM), 401)


@pytest.mark.usefixtures("followed")
async def test_asked_again_with_the_same_idempotency_key_it_is_the_same_job(api: httpx.AsyncClient) -> None:
    first, again = [await asked(api, "rescan", {"from_height": 1}, **{"idempotency-key": "k"}) for _ in range(2)]
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.usefixtures("followed")
async def test_jobs_are_listed_newest_first_and_paged(api: httpx.AsyncClient) -> None:
    made = [(await asked(api, "rescan", {"from_height": height})).json()["id"] for height in range(3)]
    first = (await api.get("/admin/jobs?limit=2", headers=AS_ADMIN)).json()
    assert {each["id"] for each in first["jobs"]} < set(made) and len(first["jobs"]) == 2
    rest = (await api.get(f"/admin/jobs?limit=2&cursor={first['next_cursor']}", headers=AS_ADMIN)).json()
    listed = [each["id"] for each in first["jobs"] + rest["jobs"]]
    assert listed == sorted(made, reverse=True)
    assert rest["next_cursor"] is None


@pytest.mark.usefixtures("followed")
async def test_a_cancelled_job_is_over(api: httpx.AsyncClient) -> None:
    job_id = (await asked(api, "rescan", {"from_height": 1})).json()["id"]
    for _ in range(2):
        assert (await api.delete(f"/admin/jobs/{job_id}", headers=AS_ADMIN)).status_code == 204
    job = (await api.get(f"/admin/jobs/{job_id}", headers=AS_ADMIN)).json()
    assert job["status"] == "cancelled"
    assert job["finished_at"] is not None
