"""The client for asyncio: the same methods as `Client`, awaited."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from keyserver.client import calls
from keyserver.client.calls import Call
from keyserver.client.exchange import Lost, Pause, Reply, Send, conduct, read_access
from keyserver.client.models import (
    Address,
    Balance,
    Chain,
    Charge,
    CreatedCharge,
    LedgerEntry,
    PlacedHold,
    SettledHold,
    UsageRow,
)
from keyserver.client.transport import DEFAULT_RETRIES, DEFAULT_TIMEOUT, lost, options, reply_of

T = TypeVar("T")


class AsyncClient:
    """A platform service's way to the key server, for one event loop; use it in an `async with`, or `aclose` it.

    Arguments and errors as `Client`'s.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        tenant_id: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._access = read_access(url, key, tenant_id)
        self._retries = retries
        self._sleep = sleep
        self._http = httpx.AsyncClient(transport=transport, **options(self._access, timeout=timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def chains(self) -> list[Chain]:
        """As `Client.chains`."""
        return await self._run(calls.chains())

    async def create_address(self, chain: str, *, idempotency_key: str | None = None) -> Address:
        """As `Client.create_address`."""
        return await self._run(calls.create_address(chain, idempotency_key=idempotency_key))

    async def create_charge(
        self,
        chain: str,
        amount_usd: Decimal | int | str,
        *,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_in: int | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedCharge:
        """As `Client.create_charge`."""
        return await self._run(
            calls.create_charge(
                chain,
                amount_usd,
                callback_url=callback_url,
                metadata=metadata,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
            )
        )

    async def charge(self, charge_id: str) -> Charge:
        """As `Client.charge`."""
        return await self._run(calls.charge(charge_id))

    async def charges(
        self,
        *,
        status: str | None = None,
        chain: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 50,
    ) -> AsyncIterator[Charge]:
        """As `Client.charges`, in an `async for`."""
        cursor: str | None = None
        while True:
            page = await self._run(
                calls.charge_page(
                    status=status,
                    chain=chain,
                    created_after=created_after,
                    created_before=created_before,
                    limit=page_size,
                    cursor=cursor,
                )
            )
            for each in page.charges:
                yield each
            cursor = page.next_cursor
            if cursor is None:
                return

    async def balance(self) -> Balance:
        """As `Client.balance`."""
        return await self._run(calls.balance())

    async def ledger_entries(self, *, page_size: int = 50) -> AsyncIterator[LedgerEntry]:
        """As `Client.ledger_entries`, in an `async for`."""
        cursor: str | None = None
        while True:
            page = await self._run(calls.entry_page(limit=page_size, cursor=cursor))
            for each in page.entries:
                yield each
            cursor = page.next_cursor
            if cursor is None:
                return

    async def place_hold(
        self,
        capability: str,
        estimate_usd: Decimal | int | str,
        *,
        ttl_seconds: int | None = None,
        attribute_to: str | None = None,
        idempotency_key: str | None = None,
    ) -> PlacedHold:
        """As `Client.place_hold`."""
        return await self._run(
            calls.place_hold(
                capability,
                estimate_usd,
                ttl_seconds=ttl_seconds,
                attribute_to=attribute_to,
                idempotency_key=idempotency_key,
            )
        )

    async def settle_hold(
        self,
        hold_id: str,
        cost_usd: Decimal | int | str,
        *,
        request_id: str,
        provider: str | None = None,
        units: Decimal | int | None = None,
        unit_type: str | None = None,
    ) -> SettledHold:
        """As `Client.settle_hold`."""
        return await self._run(
            calls.settle_hold(
                hold_id, cost_usd, request_id=request_id, provider=provider, units=units, unit_type=unit_type
            )
        )

    async def void_hold(self, hold_id: str) -> None:
        """As `Client.void_hold`."""
        await self._run(calls.void_hold(hold_id))

    async def usage(
        self,
        group_by: Sequence[str] = ("day",),
        *,
        begins: date | datetime | None = None,
        ends: date | datetime | None = None,
    ) -> tuple[UsageRow, ...]:
        """As `Client.usage`."""
        return (await self._run(calls.usage(group_by=group_by, begins=begins, ends=ends))).rows

    async def _run(self, call: Call[T]) -> T:
        steps = conduct(self._access, call, retries=self._retries)
        told: Reply | Lost | None = None
        step = next(steps)
        while True:
            match step:
                case Send():
                    told = await self._send(step)
                case Pause():
                    await self._sleep(step.seconds)
                    told = None
            try:
                step = steps.send(told)
            except StopIteration as done:
                result: T = done.value
                return result

    async def _send(self, step: Send) -> Reply | Lost:
        try:
            return reply_of(
                await self._http.request(
                    step.method, step.url, params=step.query, headers=dict(step.headers), content=step.body
                )
            )
        except httpx.RequestError as error:
            return lost(error)
