"""Whether a test that needs a node may be skipped: on a developer's machine, yes; where nodes are required, never."""

import os
import shutil

import pytest

REQUIRED = "KEYSERVER_REQUIRE_NODES"


def require(program: str, path: str | None = None) -> str:
    """Where `program` is: `path` when that can be run, else wherever PATH has it.

    Missing, the test is skipped with a hint; with KEYSERVER_REQUIRE_NODES=1 it fails.
    """
    found = shutil.which(path or program) or shutil.which(program)
    if found is not None:
        return found
    hint = f"{program} is not installed: run scripts/nodes"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{hint} ({REQUIRED}=1 forbids skipping)", pytrace=False)
    pytest.skip(hint)
