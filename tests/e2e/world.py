"""The server as a process over a database of its own, a receiver of its webhooks, and ways to wait for what it does."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
from tests.builders import AS_ADMIN, AS_PLATFORM, charge
from tests.e2e.coins import Coin
from tests.e2e.receiver import Receiver, Told, a_receiver
from tests.server import ServerProcess, running_server

T = TypeVar("T")
Document = dict[str, Any]

#: A price that leaves a remainder wherever it is multiplied or divided by.
PRICE = "87.13"
PATIENCE = 25.0


def worth(coin: Coin, units: int, price_usd: str = PRICE) -> int:
    """Nanodollars of an amount, rounded down: the test's own arithmetic, in fractions."""
    nanos: int = math.floor(Fraction(price_usd) * units * 10**9 / 10**coin.decimals)
    return nanos


@dataclass(frozen=True, slots=True)
class Made:
    """A charge as it was answered: where to pay, and how much."""

    id: str
    address: str
    units: int


@dataclass
class World:
    server: ServerProcess
    api: httpx.AsyncClient
    receiver: Receiver
    database_url: str

    # --- asking -----------------------------------------------------------------------------------------------------

    async def charge(self, coin: Coin, amount_usd: float = 25, **members: Any) -> Made:
        made = await charge(self.api, coin.id, amount_usd, callbackUrl=self.receiver.url, **members)
        return Made(made["chargeId"], made["address"], int(made["expectedAmount"]))

    async def address(self, coin: Coin) -> str:
        answer = await self.api.post("/address", json={"chain": coin.id}, headers=AS_PLATFORM)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["address"])

    async def reprice(self, coin: Coin, price_usd: str) -> None:
        answer = await self.api.put(f"/admin/prices/{coin.token}", json={"price_usd": price_usd}, headers=AS_ADMIN)
        assert answer.status_code == 200, answer.text

    async def found(self, made: Made) -> Document:
        return await self._get(f"/charges/{made.id}", AS_PLATFORM)

    async def balance(self) -> int:
        """Nanodollars of the platform's tenant."""
        return int((await self._get("/ledger/balance", AS_PLATFORM))["balanceNanodollars"])

    async def entries(self) -> list[tuple[str, int]]:
        """(type, nanodollars with their sign) of every ledger entry, oldest first."""
        entries = (await self._get("/ledger/entries?limit=200", AS_PLATFORM))["entries"]
        return [
            (each["type"], int(each["amountNanodollars"]) * (1 if each["side"] == "credit" else -1))
            for each in reversed(entries)
        ]

    async def payments(self) -> list[Document]:
        """Every payment the server knows, with or without a charge, newest first."""
        listed: list[Document] = (await self._get("/admin/payments?limit=200", AS_ADMIN))["payments"]
        return listed

    async def unmatched(self) -> list[Document]:
        """Confirmed payments that nobody is credited for yet, newest first."""
        listed: list[Document] = (await self._get("/admin/payments?unmatched=true", AS_ADMIN))["payments"]
        return listed

    async def scanner(self) -> Document:
        """What an operator is shown of the only blockchain followed."""
        (scanner,) = (await self._get("/admin/scanners", AS_ADMIN))["scanners"]
        return dict(scanner)

    async def assert_books_are_right(self) -> None:
        trial = await self._get("/admin/ledger/trial-balance", AS_ADMIN)
        assert (trial["balanced"], trial["difference"]) == (True, "0"), trial
        check = await self._get("/admin/ledger/check", AS_ADMIN)
        assert check == {"ok": True, "discrepancies": [], "held_discrepancies": []}

    async def _get(self, path: str, headers: dict[str, str]) -> Document:
        answer = await self.api.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        document: Document = answer.json()
        return document

    async def stop_server(self, *, within: float = 20.0) -> None:
        """SIGTERM; meanwhile receivers and wires of the test go on."""
        assert await asyncio.to_thread(self.server.stop, within=within) == 0, self.log_tail()

    # --- waiting ----------------------------------------------------------------------------------------------------

    async def until(
        self, look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, within: float = PATIENCE
    ) -> T:
        """What `look` finds once it `holds`. Fails with the last find and the end of the server's log."""
        deadline = time.monotonic() + within
        while True:
            found = await look()
            if holds(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {within} s; the last look found\n{found}\n{self.log_tail()}")
            await asyncio.sleep(0.05)

    def log_tail(self) -> str:
        """What the server said last, but for the requests it answered: those are the test's own questions."""
        lines = [line for line in self.server.log.read_text().splitlines() if '"event":"request"' not in line]
        return "\n".join([f"exit code {self.server.exit_code}; the server's log ended with", *lines[-25:]])

    async def until_charge(self, made: Made, *, within: float = PATIENCE, **members: Any) -> Document:
        """The charge once all these members have these values."""
        return await self.until(
            lambda: self.found(made),
            lambda found: all(found[name] == value for name, value in members.items()),
            within=within,
        )

    async def until_scanned(self, height: int, *, within: float = PATIENCE) -> Document:
        """Once every block up to this height has been applied."""
        return await self.until(
            self.scanner, lambda each: each["height"] is not None and each["height"] >= height, within=within
        )

    async def until_told(self, made: Made, **members: Any) -> list[Told]:
        """The verified webhooks about a charge, once the newest has these members; none is missing in between."""

        async def told() -> list[Told]:
            return self.receiver.told_of(made.id)

        def is_complete(told: list[Told]) -> bool:
            return (
                bool(told)
                and all(told[-1][name] == value for name, value in members.items())
                and [each["sequence"] for each in told] == list(range(1, len(told) + 1))
            )

        found = await self.until(told, is_complete)
        assert self.receiver.refused == 0
        return found

    # --- time -------------------------------------------------------------------------------------------------------

    async def let_it_expire(self, made: Made, *, at: datetime | None = None) -> None:
        """Moves the charge's expiry to `at`, or to a minute before it was created, as if its lifetime had passed.

        The shortest lifetime is a minute: nobody wants to wait for it. Not to the moment it was created: a block's time
        is in whole seconds, and one mined within that very second would be in time.
        """
        connection = await asyncpg.connect(self.database_url)
        try:
            moved = await connection.execute(
                "UPDATE charges SET (expires_at, deadline_at) = (moment, moment)"
                " FROM coalesce($2, (SELECT created_at - interval '1 minute' FROM charges WHERE id = $1)) AS moment"
                " WHERE id = $1",
                made.id,
                at,
            )
        finally:
            await connection.close()
        assert moved == "UPDATE 1"


@asynccontextmanager
async def a_world(database_url: str, directory: Path, **env: str) -> AsyncIterator[World]:
    """A running server with fast polls. Keyword arguments are further environment variables."""
    env = {"KEYSERVER_POLL_SECONDS": "0.1", "KEYSERVER_WEBHOOK_TIMEOUT_SECONDS": "2"} | env
    async with (
        a_receiver() as receiver,
        running_server(database_url, directory, **env) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=10.0) as api,
    ):
        world = World(server, api, receiver, database_url)
        try:
            yield world
        finally:
            if server.exit_code is not None:  # shown with the failure that comes of it
                print(world.log_tail())
