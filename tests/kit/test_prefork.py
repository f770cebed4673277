"""Several processes: one that fails comes back, one told to end ends them all, none outlives the parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

_SOURCE = Path(__file__).resolve().parents[2] / "src"
_PROGRAM = """
import os, signal, sys
from pathlib import Path
from keyserver.kit.prefork import run_processes

directory = Path(sys.argv[1])

def role(name):
    def until_told():
        signal.signal(signal.SIGTERM, lambda *_: (directory / f"told {name}").touch() or sys.exit(0))
        (directory / f"{name} {os.getpid()}").touch()
        while True:
            signal.pause()
    return lambda: ended_in_order(until_told)

def ended_in_order(work):
    try:
        work()
    except SystemExit:
        return 0

sys.exit(run_processes({name: role(name) for name in ("one", "two")}, grace=10.0))
"""


class Family:
    """A parent with the children `one` and `two`, which leave their ids in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parent = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(directory)], env=os.environ | {"PYTHONPATH": str(_SOURCE)}
        )

    def children(self, name: str) -> set[int]:
        """Ids of every process that has had this role so far."""
        return {int(entry.name.split()[1]) for entry in self.directory.glob(f"{name} *")}

    def told(self) -> set[str]:
        return {entry.name.split()[1] for entry in self.directory.glob("told *")}


def until(condition: Callable[[], object], *, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Nobody may be there to bury an orphan: a zombie has ended, too.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    try:
        until(lambda: family.children("one") and family.children("two"))
        yield family
    finally:
        family.parent.kill()
        family.parent.wait(10)


def test_sigterm_to_the_parent_ends_every_process_in_order(family: Family) -> None:
    family.parent.terminate()

    assert family.parent.wait(20) == 0
    assert family.told() == {"one", "two"}


@pytest.mark.parametrize("name", ["one", "two"])
def test_sigterm_to_any_process_ends_them_all_in_order(family: Family, name: str) -> None:
    (child,) = family.children(name)
    os.kill(child, signal.SIGTERM)

    assert family.parent.wait(20) == 0
    assert family.told() == {"one", "two"}


def test_a_process_that_dies_is_started_again_and_the_others_stay(family: Family) -> None:
    (dead,) = family.children("one")
    os.kill(dead, signal.SIGKILL)

    until(lambda: len(family.children("one")) == 2)
    assert family.parent.poll() is None
    assert len(family.children("two")) == 1 and family.told() == set()


def test_no_process_outlives_a_parent_that_was_killed(family: Family) -> None:
    children = family.children("one") | family.children("two")
    family.parent.kill()

    until(lambda: all(is_gone(child) for child in children))
