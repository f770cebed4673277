"""`docs/ledger.md` says what the code does: its accounts, its postings, and its ten questions, as they stand."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.books import charge, hold, payer
from tests.watching.world import add_tenant

from keyserver.gateway.tariff import CostSource
from keyserver.kit.db import Database
from keyserver.ledger.chart import MANUAL, AccountSpec, holdings_account, tenant_account
from keyserver.ledger.holds import expire_due
from keyserver.ledger.journal import Entry, post, transfer
from keyserver.ledger.manual import post_manual
from keyserver.ledger.models import EntryType

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "ledger.md").read_text()
QUESTIONS = {
    int(number): query
    for number, query in re.findall(r"^### (\d+)\. [^\n]+\n.*?^```sql\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
}
POSTINGS = re.findall(r"^\| [^|]+ \| `(\w+)` \| `admin` \| `([^`]+)` \| `([^`]+)` \|$", DOCUMENT, re.MULTILINE)
ACCOUNTS = dict(re.findall(r"^\| `([^`]+)` \| [^|]+ \| \w+ \| (debit|credit) \|$", DOCUMENT, re.MULTILINE))

MARCH = datetime(2026, 3, 10, 12, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 10, 12, tzinfo=UTC)
CENT = 10_000_000
BITCOIN = holdings_account(chain="bitcoin", network="mainnet", token="BTC")


async def manual(database: Database, tenant_id: str, kind: EntryType, cents: int, at: datetime) -> None:
    async with database.transaction() as session:
        await post_manual(
            session,
            tenant_id=tenant_id,
            type=kind,
            amount_nanos=cents * CENT,
            reference_id=f"{tenant_id} {kind} {at}",
            description=None,
            now=at,
        )


async def paid(database: Database, kind: EntryType, debit: AccountSpec, credit: AccountSpec, cents: int) -> None:
    """What charges/crediting.py posts for acme's payment in March, or for its block's being orphaned."""
    lines = transfer(debit=debit, credit=credit, amount_nanos=cents * CENT)
    async with database.connection() as connection:
        await post(connection, Entry(kind, "acme", "payment", f"pay_1:{kind}:{cents}", lines, MARCH))


async def called(database: Database, tenant_id: str, *, cost: int, at: datetime = MARCH, **members: Any) -> None:
    """A call that cost us so many cents and was charged twice as many."""
    by = payer(tenant_id, unlimited=True, attributed_tenant_id=members.pop("attributed_tenant_id", None))
    placed = await hold(database, CENT, by=by, now=at)
    fields = {"capability": "chat", "model": "m", **members}
    await charge(database, placed, 2 * cost * CENT, by=by, now=at, cost_nanos=cost * CENT, **fields)


@pytest.fixture
async def world(database: Database) -> Database:
    """Two months of two tenants and the platform, small enough to be added up by hand."""
    await add_tenant(database, "acme")
    await add_tenant(database, "other")
    await manual(database, "acme", EntryType.PURCHASE, 1000, FEBRUARY)
    await manual(database, "other", EntryType.GRANT, 50, FEBRUARY)
    await called(database, "acme", cost=100, at=FEBRUARY)
    acme = tenant_account("acme")
    await paid(database, EntryType.PURCHASE, BITCOIN, acme, 500)
    await paid(database, EntryType.CORRECTION, acme, BITCOIN, 200)
    await manual(database, "acme", EntryType.REFUND, 30, MARCH)
    await manual(database, "acme", EntryType.EXPIRY, 10, MARCH)
    await called(database, "acme", cost=20)
    await called(database, "acme", cost=5, capability="images", model="i", cost_source=CostSource.ESTIMATE)
    await called(database, "acme", cost=0)
    await called(database, "platform", cost=7)
    await called(database, "platform", cost=2, capability="images", model="i")
    await called(database, "platform", cost=3, attributed_tenant_id="acme", cost_source=CostSource.UPSTREAM)
    await called(database, "platform", cost=1, attributed_tenant_id="other", cost_source=CostSource.UPSTREAM)
    await hold(database, 40 * CENT, by=payer("other", unlimited=True), capability="speech", now=MARCH)
    async with database.connection() as connection:
        await expire_due(connection, now=MARCH + timedelta(hours=1))
    await hold(database, 15 * CENT, by=payer("other"), now=MARCH)
    return database


def usd(text: str) -> Decimal:
    return Decimal(text)


ANSWERS: dict[int, list[tuple[Any, ...]]] = {
    1: [("platform", "chat", 1, usd("0.07")), ("platform", "images", 1, usd("0.02"))],
    2: [("platform", "acme", 1, usd("0.03"), usd("0.06")), ("platform", "other", 1, usd("0.01"), usd("0.02"))],
    3: [
        ("2026-02", "chat", usd("2")),
        ("2026-03", "chat", usd("0.62")),
        ("2026-03", "images", usd("0.14")),
    ],
    4: [
        ("chat", "m", "up", 5, usd("0.31"), usd("0.62"), usd("2")),
        ("images", "i", "up", 2, usd("0.07"), usd("0.14"), usd("2")),
    ],
    5: [("other", usd("0.5"), usd("0.15"), usd("0.35"))],
    6: [
        ("opening", 2, usd("8")),
        ("correction", 1, usd("-2")),
        ("expiry", 1, usd("-0.1")),
        ("purchase", 1, usd("5")),
        ("refund", 1, usd("0.3")),
        ("usage", 2, usd("-0.5")),
        ("closing", 8, usd("10.7")),
        ("stored", 8, usd("10.7")),
    ],
    7: [],
    8: [
        ("usage", 4, usd("0.58"), usd("76.3")),
        ("estimate", 1, usd("0.1"), usd("13.2")),
        ("upstream", 2, usd("0.08"), usd("10.5")),
    ],
    9: [("other", "speech", 1, usd("0.4"))],
    10: [
        ("2026-02", "1000", usd("10")),
        ("2026-02", "5000:grant", usd("0.5")),
        ("2026-03", "1200:bitcoin:mainnet:BTC", usd("3")),
        ("2026-03", "4090", usd("0.3")),
    ],
}


def test_there_are_ten_questions_and_each_has_its_answer_here() -> None:
    assert list(QUESTIONS) == list(ANSWERS) == list(range(1, 11))


async def test_every_question_gives_the_answer_that_was_added_up_by_hand(world: Database) -> None:
    async with world.connection() as connection:
        for number, query in QUESTIONS.items():
            answer = [tuple(row) for row in await connection.fetch(query)]
            assert answer == ANSWERS[number], f"question {number}"


async def test_a_record_that_differs_from_its_entry_is_found(world: Database) -> None:
    async with world.connection() as connection:
        await connection.execute("UPDATE usage_records SET charge_nanos = 1 WHERE cost_source = 'estimate'")
        ((_, record, entry),) = await connection.fetch(QUESTIONS[7])
        assert (record, entry) == (1, 10 * CENT)
        await connection.execute("DELETE FROM usage_records WHERE cost_source = 'estimate'")
        ((_, record, entry),) = await connection.fetch(QUESTIONS[7])
        assert (record, entry) == (None, 10 * CENT)


def test_what_the_document_says_an_operator_posts_is_what_is_posted() -> None:
    tenant = "2000:<tenant>"
    expected = {
        str(kind): (account.code, tenant) if gives else (tenant, account.code)
        for kind, (account, gives) in MANUAL.items()
    }
    assert {kind: (debit, credit) for kind, debit, credit in POSTINGS} == expected


def test_every_account_that_is_posted_to_is_in_the_chart() -> None:
    for spec in (*(account for account, _ in MANUAL.values()), BITCOIN, tenant_account("acme")):
        named = [code for code in ACCOUNTS if code.partition(":<")[0] == spec.code[: len(code.partition(":<")[0])]]
        assert [ACCOUNTS[code] for code in named] == [spec.normal_side], spec.code
