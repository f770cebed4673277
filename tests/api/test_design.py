"""Rules of the design that no type checker holds."""

import ast
from pathlib import Path

import httpx
from sqlalchemy import text
from structlog.testing import capture_logs
from tests.api.support import count
from tests.builders import AS_ADMIN, AS_PLATFORM, charge, litecoin, register

from keyserver.kit.db import Database

SOURCE = Path(__file__).resolve().parents[2] / "src" / "keyserver"
#: The edges: whoever else changes something does it in a transaction it was given.
COMMITS = {"kit/db.py"}


def calls_of(tree: ast.AST, names: set[str]) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names
    ]


def test_services_flush_and_never_commit() -> None:
    found = {
        f"{path.relative_to(SOURCE)}:{line}"
        for path in SOURCE.rglob("*.py")
        if str(path.relative_to(SOURCE)) not in COMMITS
        for line in calls_of(ast.parse(path.read_text()), {"commit", "rollback", "begin_nested"})
    }
    assert found == set()


async def _fail_at_commit(database: Database, table: str) -> None:
    async with database.transaction() as session:
        await session.execute(
            text("""
            CREATE FUNCTION refuse_at_commit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'refused at commit' USING ERRCODE = 'check_violation'; END $$
            """)
        )
        await session.execute(
            text(f"""
            CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE OR DELETE ON {table}
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_at_commit()
            """)
        )


async def test_the_answer_goes_out_after_the_commit(api: httpx.AsyncClient, database: Database) -> None:
    """What fails at the commit is never answered with success, on the way with a session and on the hot one."""
    await register(api, litecoin())
    tables = {
        "price_pins": ("PUT", "/admin/prices/LTC", {"price_usd": 5}, AS_ADMIN),
        "payment_methods": ("DELETE", "/admin/chains/LTC", None, AS_ADMIN),
        "service_keys": ("POST", "/admin/tenants/platform/keys", {}, AS_ADMIN),
        "addresses": ("POST", "/address", {"chain": "LTC"}, AS_PLATFORM),
        "charges": ("POST", "/charges", {"chain": "LTC", "amountUsd": 5}, {**AS_PLATFORM, "idempotency-key": "k"}),
    }
    for table, (method, path, body, headers) in tables.items():
        before = await count(database, table)
        await _fail_at_commit(database, table)
        with capture_logs() as logged:
            answer = await api.request(method, path, json=body, headers=headers)
        assert "unhandled_error" in {line["event"] for line in logged}
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error"), table
        assert "refused at commit" not in answer.text
        assert await count(database, table) == before
        async with database.transaction() as session:
            await session.execute(text("DROP FUNCTION refuse_at_commit() CASCADE"))
    assert await count(database, "idempotent_answers") == 0
    assert (await api.get("/chains")).json() != []
    assert (await charge(api))["priceUsd"] == "100"
