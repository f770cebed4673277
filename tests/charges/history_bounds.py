"""How many histories are played, and how long ones: a few in the suite, as many as one likes beside it.

KEYSERVER_TEST_HISTORIES=2000 plays so many, of fifty steps, for as long as that takes.
"""

import os

from hypothesis import Phase, settings

ASKED = int(os.environ.get("KEYSERVER_TEST_HISTORIES", "0"))
#: Seconds; 0 is no limit.
WITHIN = 0 if ASKED else 300


def bounds(histories: int) -> settings:
    """For so many histories. In the suite a bad one is shown as it was found: to make it shorter takes minutes."""
    return settings(
        max_examples=ASKED or histories,
        stateful_step_count=50 if ASKED else 20,
        phases=list(Phase) if ASKED else [Phase.generate],
        deadline=None,
        database=None,
    )


def template() -> str:
    """The database that every history begins with."""
    return os.environ["KEYSERVER_TEST_TEMPLATE"]
