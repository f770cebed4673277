"""Calls that were answered while the database could not be told: one small file each, until it can.

A file is written whole, synced, and named after its hold, under which a call is charged at most once: any number of
processes may replay the same file at the same time.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from keyserver.gateway.billing import Metered
from keyserver.gateway.once import KeptAnswer
from keyserver.gateway.payer import Payer
from keyserver.kit import metrics
from keyserver.kit.db import Connect
from keyserver.kit.ids import new_id

_log = structlog.get_logger("keyserver.gateway")
_HOLD_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """All that settling takes; `answer` is kept for an `Idempotency-Key` with the debit."""

    hold_id: str
    payer: Payer
    metered: Metered
    answer: KeptAnswer | None = None


async def database_id(connect: Connect) -> str:
    """A name of this database's own, made on first use: another one's calls must never be settled in it."""
    async with connect() as connection:
        await connection.execute(_MAKE_ID, new_id("db"))
        return str(await connection.fetchval("SELECT value FROM system_secrets WHERE name = 'database_id'"))


_MAKE_ID = "INSERT INTO system_secrets (name, value) VALUES ('database_id', $1) ON CONFLICT (name) DO NOTHING"


class Journal:
    """A directory on a local disk, one for all processes of a machine that serve one database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def keep(self, call: FinishedCall) -> None:
        """The call is on disk when this returns. OSError when it cannot be."""
        await asyncio.to_thread(self._write, call)

    async def forget(self, hold_id: str) -> None:
        await asyncio.to_thread(self._path(hold_id).unlink, missing_ok=True)

    async def waiting(self) -> list[FinishedCall]:
        """Every call that is kept, oldest first; a file that cannot be read stays, and is logged."""
        calls = await asyncio.to_thread(lambda: list(self._read()))
        metrics.UNSETTLED_CALLS.set(len(calls))
        return calls

    def _path(self, hold_id: str) -> Path:
        if not _HOLD_ID.fullmatch(hold_id):
            raise ValueError("not a hold's id")
        return self._directory / f"{hold_id}{_SUFFIX}"

    def _write(self, call: FinishedCall) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        final = self._path(call.hold_id)
        partial = final.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            file.write(orjson.dumps(_to_json(call), option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self) -> Iterator[FinishedCall]:
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                yield _from_json(orjson.loads(path.read_bytes()))
            except FileNotFoundError:  # settled by another process meanwhile
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.error("unsettled_call_unreadable", file=path.name, error=f"{type(error).__name__}: {error}"[:300])


def _to_json(call: FinishedCall) -> dict[str, Any]:
    return {
        "hold_id": call.hold_id,
        "payer": asdict(call.payer),
        "metered": call.metered.to_json(),
        "answer": None if call.answer is None else call.answer.to_json(),
    }


def _from_json(document: dict[str, Any]) -> FinishedCall:
    return FinishedCall(
        hold_id=str(document["hold_id"]),
        payer=Payer(**document["payer"]),
        metered=Metered.from_json(document["metered"]),
        answer=KeptAnswer.from_json(document["answer"]) if document.get("answer") else None,
    )
