"""Whatever a chain, its nodes, the market, operators and our processes do: every confirmed payment is credited once.

Hypothesis plays forks, mempools, replacements, internal calls, block rewards, finality, stray payments, failing nodes,
restarts, races, rescans and late prices on a chain in memory; at the end of each history chain, books, charges and
webhooks must tell the same story, and an audit must find no difference.

KEYSERVER_TEST_HISTORIES=2000 plays so many, and longer ones than the suite has time for.
"""

import pytest
from hypothesis.stateful import run_state_machine_as_test
from tests.charges.history import History
from tests.charges.history_bounds import WITHIN, bounds, template


@pytest.mark.timeout(WITHIN)
def test_every_history_ends_with_right_books(server_url: str) -> None:
    History.server_url, History.template = server_url, template()
    run_state_machine_as_test(History, settings=bounds(12))
