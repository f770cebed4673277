"""`keyserver …` as a process of its own, the way an operator's shell runs it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
_OURS = ("KEYSERVER_", "COV_")


def environment(**env: str) -> dict[str, str]:
    """This process's environment without a setting of ours, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {"PYTHONPATH": str(SOURCE), "COLUMNS": "80"} | env


async def keyserver(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "keyserver", *arguments],
        input=stdin,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a command that failed as it should."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("keyserver: ")
    return line
