"""The rule that decides between skipping and failing, and that no node outlives its test."""

import os
from pathlib import Path

import pytest
from tests.nodes.litecoin import LitecoinNode
from tests.nodes.required import REQUIRED, require


def test_a_missing_node_is_a_skip_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)

    with pytest.raises(pytest.skip.Exception, match="no-such-node is not installed: run scripts/nodes"):
        require("no-such-node")


def test_a_missing_node_is_a_failure_where_nodes_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "1")

    with pytest.raises(pytest.fail.Exception, match="scripts/nodes"):
        require("no-such-node", "/nowhere/no-such-node")


def test_a_given_path_goes_before_the_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in ("searched", "given"):
        program = tmp_path / directory / "anode"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "searched"))

    assert require("anode", str(tmp_path / "given" / "anode")) == str(tmp_path / "given" / "anode")
    assert require("anode", str(tmp_path / "missing" / "anode")) == str(tmp_path / "searched" / "anode")


@pytest.mark.node
async def test_a_node_is_gone_with_the_test_that_failed() -> None:
    seen: dict[int, Path] = {}

    async def failing() -> None:
        async with LitecoinNode() as node:
            assert node._process is not None
            assert node.directory.is_dir()
            seen[node._process.pid] = node.directory
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()

    ((pid, directory),) = seen.items()
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
