"""The rate of calls: exact in every span of 60 seconds, whoever counts."""

import asyncio
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.books import NOW, USD, give, hold, payer
from tests.watching.world import add_tenant

from keyserver.gateway.capabilities import Group
from keyserver.gateway.errors import InsufficientCredits, RateLimited, SpendingCapReached
from keyserver.gateway.limits import set_limits
from keyserver.gateway.rate import rate_state
from keyserver.kit.db import Database


async def limit(database: Database, tenant_id: str = "acme", **per_minute: int | None) -> None:
    async with database.transaction() as session:
        rates = {Group(group): number for group, number in per_minute.items()}
        await set_limits(session, tenant_id=tenant_id, terms={}, per_minute=rates)


async def admitted(database: Database, *, at: datetime, capability: str = "chat", tenant_id: str = "acme") -> bool:
    try:
        await hold(database, 0, by=payer(tenant_id), capability=capability, now=at)
    except RateLimited:
        return False
    return True


async def test_the_window_slides_and_a_refusal_says_when_the_next_call_is_free(database: Database) -> None:
    await give(database, USD)
    await limit(database, llm=3)
    times = [NOW + timedelta(seconds=seconds) for seconds in (0, 20.4, 20.9)]
    states = [(await hold(database, 1, capability="chat", now=at)).rate for at in times]
    assert [(each.limit, each.remaining) for each in states if each] == [(3, 2), (3, 1), (3, 0)]
    with pytest.raises(RateLimited) as refused:
        await hold(database, 1, capability="completions", now=NOW + timedelta(seconds=59.9))
    assert refused.value.headers == {
        "x-ratelimit-limit": "3",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1",
        "retry-after": "1",
    }
    assert await admitted(database, at=NOW + timedelta(seconds=60))
    assert not await admitted(database, at=NOW + timedelta(seconds=80.8))
    assert await admitted(database, at=NOW + timedelta(seconds=80.9)), "both of second 20 leave with the later of them"


async def test_groups_and_tenants_are_counted_apart_and_other_words_not_at_all(database: Database) -> None:
    await give(database, USD)
    await give(database, USD, tenant_id="other")
    await limit(database, llm=1, image=1)
    assert await admitted(database, at=NOW) and not await admitted(database, at=NOW)
    assert not await admitted(database, at=NOW, capability="embeddings")
    assert await admitted(database, at=NOW, capability="images")
    assert await admitted(database, at=NOW, tenant_id="other")
    for _ in range(3):
        assert (await hold(database, 0, capability="lookup")).rate is None


async def test_a_call_refused_for_credit_counts_and_one_refused_for_its_rate_or_cap_does_not(
    database: Database,
) -> None:
    await add_tenant(database, "acme")
    await limit(database, llm=2)
    for _ in range(2):
        with pytest.raises(InsufficientCredits):
            await hold(database, 1, capability="chat")
    for _ in range(5):
        assert not await admitted(database, at=NOW + timedelta(seconds=30))
    assert await admitted(database, at=NOW + timedelta(seconds=60))

    async with database.transaction() as session:
        await set_limits(session, tenant_id="acme", terms={"daily_cap_nanos": 5}, per_minute={Group.LLM: 1})
    later = NOW + timedelta(seconds=300)
    for _ in range(3):
        with pytest.raises(SpendingCapReached):
            await hold(database, 6, capability="chat", now=later)
    assert await admitted(database, at=later)


async def test_a_limit_of_none_at_all_and_the_default_put_back(database: Database) -> None:
    await give(database, USD)
    await limit(database, image=0)
    with pytest.raises(RateLimited) as refused:
        await hold(database, 0, capability="images")
    assert refused.value.headers["retry-after"] == "60"
    await limit(database, image=None)
    assert [await admitted(database, at=NOW, capability="images") for _ in range(11)] == [True] * 10 + [False]


async def test_two_processes_count_together_exactly(database: Database, database_url: str) -> None:
    await give(database, USD)
    await limit(database, llm=25)
    other = Database(database_url, pool_size=8)
    tried = await asyncio.gather(*(admitted((database, other)[number % 2], at=NOW) for number in range(80)))
    await other.dispose()
    assert sum(tried) == 25


#: Milliseconds between calls, now and then backwards, as the clocks of two processes.
PAUSES = st.lists(st.one_of(st.integers(0, 3_000), st.integers(-900, 30_000)), min_size=1, max_size=60)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pauses=PAUSES, most=st.integers(1, 5))
async def test_no_sixty_seconds_ever_hold_more_calls_than_the_limit(
    database: Database, pauses: list[int], most: int
) -> None:
    await give(database, USD, reference=f"{datetime.now().timestamp()}")  # noqa: DTZ005 - only a new name
    async with database.connection() as connection:
        await connection.execute("DELETE FROM rate_windows")
    await limit(database, llm=most)
    at, calls, refused_alone = NOW, [], 0
    for pause in pauses:
        at += timedelta(milliseconds=pause)
        if await admitted(database, at=at):
            calls.append(at)
        elif len([each for each in calls if each > at - timedelta(seconds=61)]) < most and pause >= 0:
            refused_alone += 1
    for begin in calls:
        inside = [each for each in calls if begin <= each < begin + timedelta(seconds=60)]
        assert len(inside) <= most
    if min(pauses) >= 0:
        assert refused_alone == 0


@pytest.mark.parametrize(
    ("buckets", "after", "expected"),
    [
        ([2000], 0.0, (5, 3, 60)),
        ([2000], 60.0, (5, 5, 0)),
        ([5000, 0, 1500], 0.0, (5, 0, 60)),
        ([4000, 0, 1500], 0.0, (5, 0, 59)),
        ([7000], 1.0, (5, 0, 59)),
        ([], 0.0, (5, 5, 0)),
    ],
)
def test_a_row_of_the_window_read(buckets: list[int], after: float, expected: tuple[int, int, int]) -> None:
    head = int(NOW.timestamp())
    state = rate_state(limit=5, head_second=head, buckets=buckets, now=NOW + timedelta(seconds=after))
    assert (state.limit, state.remaining, state.reset_seconds) == expected
