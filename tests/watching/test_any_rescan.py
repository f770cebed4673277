"""Any rescan at any time in any history: what was right stays, what was missing is added, exactly once.

The histories are those of tests/charges/history.py, with adapters that leave transactions out and rows that are lost.
"""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from tests.charges.history import History
from tests.charges.history_bounds import WITHIN, bounds, template
from tests.watching import again

from keyserver.chains.models import Finality

LOSE = """
    DELETE FROM payments WHERE status IN ('confirming', 'confirmed')
                           AND id NOT IN (SELECT payment_id FROM payment_actions)
"""


class RescannedHistory(History):
    @initialize(finality=st.sampled_from(Finality))
    def begin(self, finality: Finality, first: bool = True, second: bool = True) -> None:
        """Nodes show internal calls: else balances would find what is concealed, as payments of their own."""
        super().begin(first=first, second=second, finality=finality)

    @rule(data=st.data())
    def conceal(self, data: st.DataObject) -> None:
        """From here on the adapters leave a transaction out, wherever it is or will be mined."""
        known = sorted({each.tx_hash for block in self.chain.branch for each in block.transfers})
        known += sorted({each.tx_hash for each in self.chain.waiting})
        if known:
            self.chain.concealed.add(data.draw(st.sampled_from(known)))

    @rule()
    def lose_rows(self) -> None:
        """Payments that no operator touched are lost once all was followed, and found again before anything else."""
        self.run(self._lose_rows())

    async def _lose_rows(self) -> None:
        self.chain.concealed.clear()
        await self.world.step()
        await self._rescan(0.0, concurrently=False)
        before = await again.everything(self.world)
        await again.by_hand(self.world, LOSE)
        await self._rescan(0.0, concurrently=False)
        after = await again.everything(self.world)
        for table in ("journal_entries", "journal_lines", "account_balances"):
            assert after[table] == before[table]

    async def _end(self) -> None:
        self.chain.concealed.clear()
        self.views.heal()
        await self.world.step()
        await self._rescan(0.0, concurrently=False)
        await super()._end()
        before = await again.everything(self.world)
        await self._rescan(0.0, concurrently=True)
        assert await again.everything(self.world) == before


@pytest.mark.timeout(WITHIN)
def test_every_history_with_rescans_ends_with_right_books(server_url: str) -> None:
    RescannedHistory.server_url = server_url
    RescannedHistory.template = template()
    run_state_machine_as_test(RescannedHistory, settings=bounds(6))
