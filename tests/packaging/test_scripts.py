"""The scripts, and what `.ci/run` makes of steps that fail; its steps are stood in for, the script is the real one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.packaging.checkout import ROOT

SCRIPTS = sorted(path for path in (*(ROOT / "scripts").iterdir(), ROOT / ".ci/run") if path.is_file())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_can_be_run_as_it_stands(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", str(script)], check=True)


class Checkout:
    """The real `.ci/run` and, in place of all that it calls, scripts that leave their names in `ran`."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "checkout"
        for name in ("apt-get", "scripts/install", "scripts/nodes", "scripts/check", ".venv/bin/zizmor"):
            self.step(name, "")
        self.tests("= 5 passed in 1.20s =")
        (self.root / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/run", self.root / ".ci/run")

    def step(self, name: str, then: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho {name} >>"{self.root}/ran"\n{then}\n')
        path.chmod(0o755)

    def tests(self, closing: str, *, code: int = 0) -> None:
        self.step("scripts/test", f"echo '{closing}'\nexit {code}")

    def run(self) -> tuple[int, list[str]]:
        """Exit code and lines."""
        ran = subprocess.run(
            [self.root / ".ci/run"],
            env=os.environ | {"PATH": f"{self.root}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout.splitlines()

    @property
    def ran(self) -> list[str]:
        return (self.root / "ran").read_text().split()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_ci_runs_every_step_and_ends_with_the_count(checkout: Checkout) -> None:
    code, lines = checkout.run()

    assert code == 0
    assert lines[-1] == "5 passed, 0 failed"
    assert checkout.ran == [
        "apt-get",
        "scripts/install",
        "scripts/nodes",
        "scripts/test",
        "scripts/check",
        ".venv/bin/zizmor",
    ]


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("apt-get", "packages"),
        ("scripts/install", "install"),
        ("scripts/nodes", "nodes"),
        ("scripts/check", "checks"),
        (".venv/bin/zizmor", "workflows"),
    ],
)
def test_a_step_that_fails_is_named_and_stops_none_of_the_others(checkout: Checkout, step: str, name: str) -> None:
    checkout.step(step, "exit 3")
    code, lines = checkout.run()

    assert code == 1
    assert f"failed: {name}" in lines
    assert lines[-1] == "5 passed, 0 failed"
    assert len(checkout.ran) == 6


@pytest.mark.parametrize(
    ("closing", "count"),
    [
        ("= 1 failed, 4 passed in 61.02s (0:01:01) =", "4 passed, 1 failed"),
        ("= 2 failed, 4 passed, 3 xfailed, 1 error in 1.20s =", "4 passed, 3 failed"),
        ("= 7 errors in 1.20s =", "0 passed, 7 failed"),
        ("= 5 passed in 1.20s =", "5 passed, 0 failed"),  # as when too little is covered
        ("Killed", "0 passed, 0 failed"),
    ],
)
def test_tests_that_fail_fail_the_run(checkout: Checkout, closing: str, count: str) -> None:
    checkout.tests(closing, code=1)
    code, lines = checkout.run()

    assert code == 1
    assert "failed: tests" in lines
    assert lines[-1] == count
