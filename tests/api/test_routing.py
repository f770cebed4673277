"""Paths and methods nobody serves, request ids, and what describes the API itself."""

import re

import httpx
from tests.api.support import problem
from tests.builders import AS_ADMIN, AS_PLATFORM

OURS = re.compile(r"req_[0-9a-f]{36}")


async def test_unknown_paths_are_404_problem_documents(api: httpx.AsyncClient) -> None:
    for path in ("/", "/nothing", "/charges/a/b", "/chains/", "/v2/charges", "/admin", "/admin/nothing", "/.env"):
        document = problem(await api.get(path, headers=AS_PLATFORM), 404, "not_found")
        assert document["title"] == "Not Found"


async def test_a_method_that_a_path_has_not_is_405_and_says_which_there_are(api: httpx.AsyncClient) -> None:
    for method, path, allowed in (
        ("PUT", "/charges", {"GET", "POST"}),
        ("DELETE", "/charges/ch_x", {"GET"}),
        ("GET", "/address", {"POST"}),
        ("POST", "/chains", {"GET", "HEAD"}),
        ("OPTIONS", "/charges", {"GET", "POST"}),
        ("TRACE", "/health/live", {"GET"}),
        ("PUT", "/admin/chains", {"GET", "POST"}),
        ("GET", "/admin/chains/LTC", {"PATCH", "DELETE"}),
        ("BREW", "/chains", {"GET", "HEAD"}),
    ):
        answer = await api.request(method, path, headers=AS_ADMIN)
        problem(answer, 405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed, (method, path)


async def test_head_is_answered_without_a_body(api: httpx.AsyncClient) -> None:
    """Some health checks ask so."""
    answer = await api.head("/chains")
    assert (answer.status_code, answer.content) == (200, b"")
    answer = await api.head("/charges")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "GET, POST", b"")


async def test_a_sane_request_id_comes_back(api: httpx.AsyncClient) -> None:
    for sent in ("abc", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "a.b_c:d-1", "x" * 128):
        for path in ("/chains", "/charges", "/nothing"):
            assert (await api.get(path, headers={"x-request-id": sent})).headers["x-request-id"] == sent


async def test_any_other_request_id_is_replaced_by_one_of_ours(api: httpx.AsyncClient) -> None:
    seen = set()
    for sent in (None, "", "x" * 129, "two words", "new\tline", 'quo"te', "{}"):
        headers = {} if sent is None else {"x-request-id": sent}
        answer = await api.get("/chains", headers=headers)
        assert OURS.fullmatch(answer.headers["x-request-id"])
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 7


async def test_every_answer_has_one_request_id_errors_too(api: httpx.AsyncClient) -> None:
    for answer in (
        await api.get("/health/live"),
        await api.get("/nothing"),
        await api.get("/charges"),
        await api.put("/charges", headers=AS_PLATFORM),
        await api.get("/charges?limit=x", headers=AS_PLATFORM),
        await api.get("/chains?x=%00"),
        await api.post("/charges", content=b"x" * (2**20 + 1), headers=AS_PLATFORM),
    ):
        assert len(answer.headers.get_list("x-request-id")) == 1, answer.url


async def test_the_openapi_document_and_its_page_are_there(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    assert {"/chains", "/address", "/charges", "/charges/{charge_id}", "/admin/chains"} <= document["paths"].keys()
    assert (await api.get("/docs")).headers["content-type"].startswith("text/html")


async def test_the_openapi_document_says_who_may_call_and_what_errors_look_like(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            wanted: list[dict[str, list[str]]] = (
                [{"adminToken": []}] if path.startswith("/admin") else [{"serviceKey": []}]
            )
            public = path in {"/chains", "/metrics"} or path.startswith(("/health", "/demo"))
            assert operation.get("security") == (None if public else wanted), (method, path)
            shape = "application/json" if path.startswith("/v1/") else "application/problem+json"
            assert shape in operation["responses"]["default"]["content"]
            assert "422" not in operation["responses"]
