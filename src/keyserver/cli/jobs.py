"""Following rescans and audits, which a running service does in the background, to their end."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from keyserver.cli.admin import AdminApi, segment
from keyserver.cli.output import fail

Job = Mapping[str, Any]
_POLL_SECONDS = 0.5
#: After this, a job that nobody has begun may be waiting for nobody.
_PATIENCE_SECONDS = 15.0
_OVER = ("done", "failed", "cancelled")


def blockchains(api: AdminApi, chain: str | None, network: str | None) -> list[tuple[str, str]]:
    """The (chain, network) pairs that are meant; ends the command when there are none."""
    scanners = api.get("/admin/scanners")["scanners"]
    followed = [(each["chain"], each["network"]) for each in scanners if each["height"] is not None]
    found = [pair for pair in followed if chain in {None, pair[0]} and network in {None, pair[1]}]
    if not found:
        wanted = " ".join(each for each in (chain, network) if each is not None)
        known = ", ".join(" ".join(pair) for pair in followed) or "none"
        fail(f"No blockchain {wanted} is followed; there is: {known}" if wanted else "No blockchain is followed yet")
    return found


def one_blockchain(api: AdminApi, chain: str, network: str | None) -> tuple[str, str]:
    found = blockchains(api, chain, network)
    if len(found) > 1:
        fail(f"--network is needed: {chain} is followed on {', '.join(each for _, each in found)}")
    return found[0]


def ask(api: AdminApi, kind: str, pair: tuple[str, str], **heights: int | None) -> Job:
    """Asks for a job; returns it as it was queued."""
    body = {name: height for name, height in heights.items() if height is not None}
    made: Job = api.post(f"/admin/scanners/{segment(pair[0])}/{segment(pair[1])}/{kind}", body)
    return made


def follow(api: AdminApi, jobs: Sequence[Job]) -> list[Job]:
    """The jobs as they ended, with a progress bar for each on stderr while they run.

    Ctrl-C leaves them running: they are the service's.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    begun_at = time.monotonic()
    current = list(jobs)
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bars = [progress.add_task(_name(job), total=None) for job in current]
            while True:
                for place, bar in enumerate(bars):
                    waited = time.monotonic() - begun_at
                    progress.update(bar, **_progress(current[place], waited=waited))
                if all(job["status"] in _OVER for job in current):
                    return current
                time.sleep(_POLL_SECONDS)
                current = [
                    job if job["status"] in _OVER else api.get(f"/admin/jobs/{segment(job['id'])}") for job in current
                ]
    except KeyboardInterrupt:
        left = " ".join(job["id"] for job in current if job["status"] not in _OVER)
        typer.echo(
            f"It goes on in the background: `keyserver scan jobs` shows it, `keyserver scan cancel {left}` ends it."
        )
        raise typer.Exit(130) from None


def _name(job: Job) -> str:
    return f"{job['kind']} {job['chain']} {job['network']}"


def _progress(job: Job, *, waited: float) -> dict[str, Any]:
    what = _name(job)
    if job["error"] is not None and job["status"] not in _OVER:
        what = f"{what}, trying again: {job['error']}"
    elif job["status"] == "waiting" and waited > _PATIENCE_SECONDS:
        what = f"{what}, waiting: is a `keyserver work` running, or another job before it?"
    first, following = job["from_height"], job["next_height"]
    if first is None or following is None:
        return {"description": what, "total": None}
    return {"description": what, "total": max(0, job["to_height"] - first + 1), "completed": following - first}


def unfinished(jobs: Sequence[Job]) -> list[str]:
    """One line for each job that could not be done."""
    return [
        f"{_name(job)} {job['status']}: {job['error'] or 'ended by an operator'}"
        for job in jobs
        if job["status"] != "done"
    ]
