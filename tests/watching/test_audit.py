"""The three books side by side: what was planted in each of them is found, and nothing is found where all is right."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from structlog.testing import capture_logs
from tests.watching.again import ask, audit, by_hand, claim, everything, kinds, reach_node, rescan, runner
from tests.watching.chain_in_memory import transfer
from tests.watching.world import UNIT_NANOS, World

from keyserver.kit import metrics
from keyserver.watching import cursor as cursors
from keyserver.watching import jobs
from keyserver.watching.models import JobKind, WatchJob
from keyserver.watching.reports import audit_gauges
from keyserver.watching.rereading import _ANCHOR_DEPTH

DAY = timedelta(days=1)


async def paid(world: World, units: int = 10, *, asset: str = "native") -> str:
    """A payment in a block, credited; returns the transaction's hash."""
    arrival = transfer(await world.address(), units, asset=asset)
    world.chain.mine(arrival, at=world.clock(), blocks=3)
    await world.step()
    return arrival.tx_hash


def only(job: WatchJob) -> dict[str, Any]:
    assert job.report is not None
    (difference,) = job.report["differences"]
    return dict(difference)


async def test_books_that_agree_are_summed_by_token_in_units_and_dollars(world: World) -> None:
    await paid(world, 10)
    await paid(world, 4)
    world.chain.mine(transfer(await world.address(), 7, asset="0xtok"), blocks=3)  # confirmed, but without a price
    await world.step()
    job = await audit(world)
    assert kinds(job) == []
    credited = str(14 * UNIT_NANOS // 2)
    assert job.report is not None
    assert job.report["tokens"] == {
        "COIN": {
            "decimals": 2,
            "node_units": "14",
            "payments_units": "14",
            "credited_nanos": credited,
            "ledger_nanos": credited,
        },
        "TOK": {"decimals": 2, "node_units": "7", "payments_units": "7", "credited_nanos": "0", "ledger_nanos": "0"},
    }


async def test_books_agree_after_a_transaction_brought_something_else_in_a_rival_block(world: World) -> None:
    first, second = await world.address(tenant_id="acme"), await world.address(tenant_id="other")
    for shift in (0, 1):
        both = [
            transfer(address, 10 + shift + number, tx_hash="swap", index=number - shift + 1)
            for number, address in enumerate((first, second))
        ]
        world.chain.fork(2 * shift)
        world.chain.mine(*both, blocks=2 + shift)
        await world.step()
    assert kinds(await audit(world)) == []
    assert await world.balance("acme") == 11 * UNIT_NANOS // 2
    assert await world.balance("other") == 12 * UNIT_NANOS // 2


async def test_a_payment_whose_row_is_gone_is_named_with_what_stands_in_the_ledger(world: World) -> None:
    tx_hash = await paid(world)
    await by_hand(world, "DELETE FROM payments")
    job = await audit(world)
    assert kinds(job) == ["credit_without_payment", "payment_missing"]
    assert job.report is not None
    missing, _ = sorted(job.report["differences"], key=lambda each: str(each["kind"]), reverse=True)
    assert (missing["tx_hash"], missing["output_index"], missing["height"]) == (tx_hash, 0, 1)
    assert (missing["node"], missing["payments"], missing["ledger"]) == ("0.1 COIN in block 1", None, "$5.000000000")
    assert "rescan" in missing["advice"]
    await rescan(world)
    assert kinds(await audit(world)) == []


async def test_an_amount_changed_in_the_payments_is_found_against_node_and_ledger(world: World) -> None:
    await paid(world)
    await by_hand(world, "UPDATE payments SET amount_units = 11")
    assert kinds(await audit(world)) == ["amount_differs", "value_differs"]


async def test_a_missing_ledger_entry_is_found(world: World) -> None:
    await paid(world)
    await by_hand(world, "DELETE FROM journal_lines", "DELETE FROM journal_entries")
    difference = only(await audit(world))
    assert (difference["kind"], difference["ledger"]) == ("ledger_entry_missing", None)
    assert difference["payments"] == "0.1 COIN confirmed in block 1, credited $5.000000000"


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("UPDATE payments SET block_height = 2", ["block_differs"]),
        ("UPDATE payments SET block_hash = 'another'", ["block_differs"]),
        ("UPDATE payments SET tx_hash = 'nobody knows'", ["payment_missing", "payment_unknown_to_node"]),
        (
            "UPDATE payments SET status = 'orphaned', block_height = NULL",
            ["credited_unconfirmed", "payment_not_counted"],
        ),
        (
            "UPDATE payments SET status = 'orphaned', block_height = NULL, credited_nanos = NULL",
            ["ledger_credit_left", "payment_not_counted"],
        ),
        ("UPDATE payments SET credited_nanos = credited_nanos + 1", ["ledger_amount_differs", "value_differs"]),
        ("UPDATE payments SET price_usd = 51", ["value_differs"]),
        ("UPDATE payments SET credited_nanos = NULL", ["ledger_credit_left", "not_credited"]),
        ("UPDATE payments SET token = 'TOK'", ["ledger_accounts_differ"]),
        ("UPDATE payments SET tenant_id = 'platform'", ["ledger_accounts_differ"]),
        ("UPDATE journal_lines SET amount_nanos = 1", ["ledger_amount_differs"]),
        ("UPDATE journal_lines SET amount_nanos = 1 WHERE side = 'debit'", ["ledger_accounts_differ"]),
        ("DELETE FROM journal_lines WHERE side = 'credit'", ["ledger_accounts_differ"]),
    ],
)
async def test_whatever_is_changed_in_one_book_is_found(world: World, planted: str, found: list[str]) -> None:
    await paid(world)
    await by_hand(world, planted)
    before = await everything(world)
    assert kinds(await audit(world)) == found
    assert await everything(world) == before


async def test_a_credit_posted_twice_is_found(world: World) -> None:
    await paid(world)
    await by_hand(
        world,
        "INSERT INTO journal_entries SELECT 'je_x', posted_at, type, tenant_id, source,"
        " replace(reference_id, 'credit:1', 'credit:2'), description, metadata FROM journal_entries",
        "INSERT INTO journal_lines SELECT 'je_x', line, account_code, stripe, side, amount_nanos, NULL, NULL"
        " FROM journal_lines",
    )
    difference = only(await audit(world))
    assert (difference["kind"], difference["ledger"]) == ("ledger_amount_differs", "$10.000000000")


async def test_a_credit_left_behind_by_a_fork_is_found_though_no_block_has_the_payment(world: World) -> None:
    await paid(world)
    world.chain.fork(3)
    world.chain.mine(at=world.clock(), blocks=4)
    await world.step()
    assert kinds(await audit(world)) == []
    await by_hand(
        world,
        "DELETE FROM journal_lines WHERE entry_id IN (SELECT id FROM journal_entries WHERE type = 'correction')",
        "DELETE FROM journal_entries WHERE type = 'correction'",
    )
    difference = only(await audit(world))
    assert (difference["kind"], difference["node"]) == ("ledger_credit_left", None)


async def test_a_payment_that_waits_for_confirmations_or_a_price_is_no_difference(world: World) -> None:
    world.market.prices.clear()
    await paid(world)
    world.chain.mine(transfer(await world.address(), 10), at=world.clock())
    await world.step()
    assert kinds(await audit(world)) == []


async def test_one_that_has_waited_for_a_day_is(world: World) -> None:
    world.chain.mine(transfer(await world.address(), 10), at=world.clock())
    await world.step()
    world.clock.advance(hours=25)
    assert kinds(await audit(world)) == ["not_confirmed"]


async def test_coin_that_the_node_s_blocks_do_not_show_is_not_called_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await paid(world)
    show = world.chain.block

    async def hide(height: int, *, contracts: frozenset[str]) -> Any:
        return replace(await show(height, contracts=contracts), transfers=(), shows_internal_calls=False)

    monkeypatch.setattr(world.chain, "block", hide)
    assert kinds(await audit(world)) == []


async def test_only_the_blocks_asked_for_are_compared(world: World) -> None:
    await paid(world)
    await paid(world)
    await by_hand(world, "UPDATE payments SET amount_units = 11")
    assert (await audit(world, 2, 3)).found == 0
    assert (await audit(world, 1, 1)).found == 2
    assert (await audit(world)).found == 4


async def test_books_that_are_being_written_are_compared_as_of_one_moment(world: World) -> None:
    for _ in range(3):
        await paid(world)
    job = await ask(world, JobKind.AUDIT)
    claimed = await claim(world)
    assert claimed is not None and claimed.id == job.id
    keys = [await world.address() for _ in range(20)]
    for key in keys:
        world.chain.mine(transfer(key, 10), at=world.clock())
    follower = world.follower()

    async def follow() -> None:
        while (await follower.step(most=1)).behind:
            pass

    async with asyncio.timeout(30):
        await asyncio.gather(follow(), runner(world).work(claimed, asyncio.Event()))
    async with world.database.transaction() as session:
        done, _ = await jobs.get_job(session, job.id)
    assert kinds(done) == []
    assert kinds(await audit(world)) == []


async def test_without_a_first_block_the_last_day_s_are_compared(world: World) -> None:
    await paid(world)
    world.clock.advance(days=3)
    await paid(world)
    world.clock.advance(hours=20)
    await by_hand(world, "UPDATE payments SET amount_units = 11")
    job = await audit(world, None)
    assert (job.from_height, job.to_height, job.found) == (4, 6, 2)


# --- every night ------------------------------------------------------------------------------------------------


async def plan(world: World) -> int:
    async with world.database.transaction() as session:
        return await jobs.plan_nightly(session, every=DAY, now=world.clock())


async def work_all(world: World) -> None:
    while (job := await claim(world)) is not None:
        await runner(world).work(job, asyncio.Event())


async def gauges(world: World) -> dict[str, float]:
    async with world.database.transaction() as session:
        shown = metrics.render(database_gauges=await audit_gauges(session)).decode()
    labels = {"chain": "coin", "network": "regtest"}
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
        if sample.name.startswith("keyserver_audit") and sample.labels == labels
    }


async def test_every_night_the_last_blocks_are_compared_once_by_whichever_worker_is_first(world: World) -> None:
    assert await plan(world) == 0  # nothing is followed yet
    await paid(world)
    assert await plan(world) == 0  # and nothing is a day old
    world.clock.advance(days=1)
    assert sum(await asyncio.gather(plan(world), plan(world))) == 1
    assert await gauges(world) == {}
    await reach_node(world)
    with capture_logs() as logged:
        await work_all(world)
    assert [line["log_level"] for line in logged if line["event"].startswith("audit")] == ["info"]
    done_at = world.clock().timestamp()
    assert await gauges(world) == {"keyserver_audit_differences": 0, "keyserver_audit_timestamp_seconds": done_at}
    world.clock.advance(hours=23)
    assert await plan(world) == 0
    world.clock.advance(hours=1)
    assert await plan(world) == 1


async def test_differences_of_the_night_are_a_metric_and_an_error_and_what_was_missed_is_back_filled(
    world: World,
) -> None:
    await paid(world)
    await paid(world)
    await reach_node(world)
    await by_hand(world, "DELETE FROM payments WHERE block_height = 1")
    world.clock.advance(days=1)
    await plan(world)
    with capture_logs() as logged:
        await work_all(world)
    (line,) = [line for line in logged if line["event"] == "audit_differences"]
    assert (line["log_level"], line["differences"], line["chain"]) == ("error", 2, "coin")
    assert (await gauges(world))["keyserver_audit_differences"] == 2
    assert len(await world.payments()) == 2  # found again, by a rescan that followed
    world.clock.advance(days=1)
    await plan(world)
    await work_all(world)
    assert (await gauges(world))["keyserver_audit_differences"] == 0


async def test_a_night_reads_what_was_young_in_the_night_before_and_nothing_before_following_began(
    world: World,
) -> None:
    world.chain.mine(at=world.clock() - timedelta(days=9), blocks=5)
    for _ in range(3):
        world.chain.mine(at=world.clock(), blocks=2)
        world.clock.advance(days=1)
    async with world.database.transaction() as session:
        await session.execute(text("UPDATE blockchains SET start_height = 8"))
    await world.step()
    await reach_node(world)
    await plan(world)
    await work_all(world)
    assert (await _nights(world))[-1] == (10, 11)
    world.chain.mine(at=world.clock(), blocks=2)
    await world.step()
    world.clock.advance(days=1)
    await plan(world)
    await work_all(world)
    assert (await _nights(world))[-1] == (10, 13)


async def _nights(world: World) -> list[tuple[int | None, int]]:
    async with world.database.transaction() as session:
        found = await jobs.list_jobs(session, before_id=None, limit=50)
    return [(job.from_height, job.to_height) for job, _ in reversed(found)]


async def test_an_audit_of_other_blocks_leaves_the_metric_alone(world: World) -> None:
    await paid(world)
    await by_hand(world, "UPDATE payments SET amount_units = 11")
    assert (await audit(world, None)).found == 2
    assert (await audit(world, 2)).found == 0
    assert (await gauges(world))["keyserver_audit_differences"] == 2


async def test_old_jobs_are_forgotten_and_open_ones_are_not(world: World) -> None:
    await paid(world)
    await audit(world)
    open_ = await ask(world, JobKind.AUDIT)
    world.clock.advance(days=91)
    async with world.database.transaction() as session:
        await jobs.forget_old_jobs(session, now=world.clock())
        assert [job.id for job, _ in await jobs.list_jobs(session, before_id=None, limit=9)] == [open_.id]


def test_a_fork_never_reaches_the_block_by_which_a_node_proves_its_branch() -> None:
    assert _ANCHOR_DEPTH < cursors.REMEMBERED
