"""Any rescan at any time in any history: what was right stays, what was missing is added, exactly once.

The histories are those of tests/charges/test_any_history.py, with adapters that leave transactions out, rows that are
lost, and rescans in between, alone or while followers work.
"""

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from tests.charges.test_any_history import History
from tests.watching import again

from keyserver.watching.models import JobKind, JobStatus


class RescannedHistory(History):
    @rule(data=st.data())
    def conceal(self, data: st.DataObject) -> None:
        """From here on the adapter leaves a transaction out, wherever it is or will be mined."""
        known = sorted({each.tx_hash for block in self.chain.branch for each in block.transfers})
        known += sorted({each.tx_hash for each in self.chain.waiting})
        if known:
            self.chain.concealed.add(data.draw(st.sampled_from(known)))

    @rule(concurrently=st.booleans(), share=st.floats(0, 1))
    def rescan(self, concurrently: bool, share: float) -> None:
        self.chain.concealed.clear()
        self.run(self._rescan(share, concurrently=concurrently))

    @precondition(lambda self: not self.chain.failures and not self.chain.lag)
    @rule()
    def lose_rows(self) -> None:
        """All payments are lost once everything was followed, and found again before anything else happens."""
        self.run(self._lose_rows())

    async def _lose_rows(self) -> None:
        self.chain.concealed.clear()
        await self.world.step()
        await self._rescan(0.0, concurrently=False)
        before = await again.everything(self.world)
        await again.by_hand(self.world, "DELETE FROM payments WHERE status IN ('confirming', 'confirmed')")
        await self._rescan(0.0, concurrently=False)
        after = await again.everything(self.world)
        for table in ("journal_entries", "journal_lines", "account_balances"):
            assert after[table] == before[table]

    async def _rescan(self, share: float, *, concurrently: bool) -> None:
        """A rescan from some height up to the cursor, which may have to wait for the node and is then given up."""
        self.chain.failures.clear()
        await self._step(self.followers[0], 100)
        tip = (await self.world.cursor())[0]
        job = await again.ask(self.world, JobKind.RESCAN, int(share * tip))
        others = [lambda: self._step(self.followers[1], 100), self._credit] if concurrently else []

        async def work() -> None:
            done = await again.work_off(self.world, job, give_up_after=3)
            assert done.status in {JobStatus.DONE, JobStatus.FAILED}

        await self._together(work, *others)

    async def _end(self) -> None:
        self.chain.concealed.clear()
        self.chain.failures.clear()
        self.chain.lag = 0
        await self.world.step()
        await self._rescan(0.0, concurrently=False)
        await super()._end()
        before = await again.everything(self.world)
        await self._rescan(0.0, concurrently=True)
        assert await again.everything(self.world) == before
        job = await again.audit(self.world)
        assert again.kinds(job) in ([], ["not_confirmed"] * job.found)


@pytest.mark.timeout(300)
def test_every_history_with_rescans_ends_with_right_books(server_url: str) -> None:
    RescannedHistory.server_url = server_url
    RescannedHistory.template = os.environ["KEYSERVER_TEST_TEMPLATE"]
    bounds = settings(max_examples=10, stateful_step_count=15, deadline=None, database=None)
    run_state_machine_as_test(RescannedHistory, settings=bounds)
