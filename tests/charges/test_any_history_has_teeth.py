"""A bug planted in the service makes a history end badly that ends well without it: the checks would find it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from tests.charges.history import History
from tests.charges.history_bounds import template

from keyserver.chains.models import Finality
from keyserver.charges import recording, settlement
from keyserver.charges.crediting import post_entries
from keyserver.charges.models import Payment
from keyserver.watching import cursor, scanner
from keyserver.watching.arrivals import arrivals_of
from keyserver.watching.models import Scanner
from keyserver.watching.ports import Block


def paid_and_orphaned(history: History) -> None:
    history.pay(0, 10)
    history.fork(depth=2, more=0, fates=["gone"])


def paid(history: History) -> None:
    history.pay(0, 10)


def paid_twice_in_one_transaction(history: History) -> None:
    history.pay(0, 10, outputs=2)


def mined_for_us(history: History) -> None:
    history.reward(0, 10)


def paid_by_a_contract(history: History) -> None:
    history.pay_by_contract(0, 10)


def found_by_balance_then_shown_by_a_trace(history: History) -> None:
    history.pay_by_contract(0, 10)
    history.follow(0)
    history.chain.traces = True
    history.rescan(0.0, concurrently=False)
    history.chain.traces = False


def both_nodes_gone(history: History) -> None:
    for node in (0, 1):
        history.trouble(node, failures=2, lag=0, stuck=False, seconds=1)
    for _ in range(5):
        history.follow(0)


def two_followers_with_the_same_block_in_hand(history: History) -> None:
    history.pay(0, 10, mined=False)
    history.mine(2)
    node = history.views.nodes[0]
    both, give = asyncio.Barrier(2), node.block

    async def block(height: int, *, contracts: frozenset[str]) -> Block:
        if height == 1:
            async with asyncio.timeout(10):
                await both.wait()
        return await give(height, contracts=contracts)

    node.block = block  # type: ignore[method-assign]
    try:
        history.race(0, dismissed=False)
    finally:
        del node.block


async def _move_whatever_was_before(session: Any, blockchain_id: str, before: Any, after: Any, *, now: Any) -> None:
    where = Scanner.blockchain_id == blockchain_id
    await session.execute(update(Scanner).where(where).values(height=after.height, block_hash=after.hash))


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _answering(value: Any) -> Callable[..., Awaitable[Any]]:
    async def answer(*_: Any, **__: Any) -> Any:
        return value

    return answer


async def _post_twice(session: Any, entries: Any) -> None:
    entries = [each for each in entries if each is not None]
    await post_entries(session, [*entries, *(replace(each, reference_id=f"{each.reference_id}0") for each in entries)])


@dataclass(frozen=True)
class Bug:
    """`patches` are (module, name, what stands there instead)."""

    name: str
    history: Callable[[History], None]
    patches: tuple[tuple[Any, str, Any], ...]
    finality: Finality = Finality.DEPTH
    error: type[Exception] = AssertionError


BUGS = [
    Bug("a credit is not reversed", paid_and_orphaned, ((settlement, "reverse", _nothing),)),
    Bug("a credit is posted twice", paid, ((settlement, "post_entries", _post_twice),)),
    Bug(
        "the cursor moves without being compared",
        two_followers_with_the_same_block_in_hand,
        ((cursor, "move_cursor", _move_whatever_was_before),),
        error=IntegrityError,  # the second line of defence: a block is remembered once
    ),
    Bug(
        "a payment is known by its transaction alone",
        paid_twice_in_one_transaction,
        (
            (
                recording,
                "_identity",
                lambda blockchain, arrival: (
                    Payment.blockchain_id == blockchain.id,
                    Payment.tx_hash == arrival.tx_hash,
                ),
            ),
        ),
    ),
    Bug(
        "a block reward does not mature",
        mined_for_us,
        (
            (
                scanner,
                "arrivals_of",
                lambda found: [replace(each, least_confirmations=0) for each in arrivals_of(found)],
            ),
        ),
    ),
    Bug(
        "depth is enough where finality is asked for",
        paid,
        ((settlement, "_may_be_final", lambda *_: True),),
        finality=Finality.FINALIZED,
    ),
    Bug("balances are not compared", paid_by_a_contract, ((scanner, "compare_balances", _answering(False)),)),
    Bug(
        "what a balance showed is credited again",
        found_by_balance_then_shown_by_a_trace,
        ((recording, "_found_by_balance", _answering(set())),),
    ),
    Bug(
        "nobody asks a node who it is",
        both_nodes_gone,
        ((scanner, "pin_identity", _answering(None)), ("tests.watching.views", "pin_identity", _answering(None))),
    ),
]


def play(bug: Bug) -> None:
    """Its history from the first block to the last check."""
    history = History()
    try:
        history.begin(first=False, second=False, finality=bug.finality)
        bug.history(history)
    finally:
        history.teardown()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    History.server_url, History.template = server_url, template()
    play(bug)
    for where, name, instead in bug.patches:
        if isinstance(where, str):
            monkeypatch.setattr(f"{where}.{name}", instead)
        else:
            monkeypatch.setattr(where, name, instead)
    with pytest.raises(bug.error):
        play(bug)
