"""The client for code without an event loop."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Client:
    """A platform service's way to the key server. Safe to share between threads; close it, or use it in a `with`.

    `url`, `key` and `tenant_id` default to CRYPTO_SERVICE_URL, CRYPTO_SERVICE_KEY and TENANT_ID. `timeout` in seconds
    for each try; `retries` after a lost connection or a 503. Every method may raise ApiError, NotReached and
    NotUnderstood (see client/errors.py).
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        tenant_id: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._access = read_access(url, key, tenant_id)
        self._retries = retries
        self._sleep = sleep
        self._http = httpx.Client(transport=transport, **options(self._access, timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def chains(self) -> list[Chain]:
        """What can be paid with, in display order."""
        return self._run(calls.chains())

    def create_address(self, chain: str, *, idempotency_key: str | None = None) -> Address:
        """A new deposit address of the tenant's; whatever arrives there at any time is credited to it."""
        return self._run(calls.create_address(chain, idempotency_key=idempotency_key))

    def create_charge(
        self,
        chain: str,
        amount_usd: Decimal | int | str,
        *,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_in: int | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedCharge:
        """An amount in dollars to be paid in one asset. `expires_in` in seconds.

        Give an `idempotency_key` of your own (an order's id) to be safe against a restart of yours as well: within
        48 h the same key gives the same charge. Without one, each call of this method makes one charge.
        """
        return self._run(
            calls.create_charge(
                chain,
                amount_usd,
                callback_url=callback_url,
                metadata=metadata,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
            )
        )

    def charge(self, charge_id: str) -> Charge:
        """NotFound for an id of another tenant's."""
        return self._run(calls.charge(charge_id))

    def charges(
        self,
        *,
        status: str | None = None,
        chain: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 50,
    ) -> Iterator[Charge]:
        """The tenant's charges, newest first, fetched page by page. `chain` is a payment method's id."""
        cursor: str | None = None
        while True:
            page = self._run(
                calls.charge_page(
                    status=status,
                    chain=chain,
                    created_after=created_after,
                    created_before=created_before,
                    limit=page_size,
                    cursor=cursor,
                )
            )
            yield from page.charges
            cursor = page.next_cursor
            if cursor is None:
                return

    def balance(self) -> Balance:
        """The tenant's credit."""
        return self._run(calls.balance())

    def ledger_entries(self, *, page_size: int = 50) -> Iterator[LedgerEntry]:
        """The tenant's postings, newest first, fetched page by page."""
        cursor: str | None = None
        while True:
            page = self._run(calls.entry_page(limit=page_size, cursor=cursor))
            yield from page.entries
            cursor = page.next_cursor
            if cursor is None:
                return

    def place_hold(
        self,
        capability: str,
        estimate_usd: Decimal | int | str,
        *,
        ttl_seconds: int | None = None,
        attribute_to: str | None = None,
        idempotency_key: str | None = None,
    ) -> PlacedHold:
        """Sets credit aside for a call that you make yourself; PaymentRequired and TooManyRequests refuse it.

        `attribute_to`, with a platform service's key: on whose behalf it pays.
        """
        return self._run(
            calls.place_hold(
                capability,
                estimate_usd,
                ttl_seconds=ttl_seconds,
                attribute_to=attribute_to,
                idempotency_key=idempotency_key,
            )
        )

    def settle_hold(
        self,
        hold_id: str,
        cost_usd: Decimal | int | str,
        *,
        request_id: str,
        provider: str | None = None,
        units: Decimal | int | None = None,
        unit_type: str | None = None,
    ) -> SettledHold:
        """Charges the cost times margin, once by `request_id`. Conflict when the hold is closed otherwise."""
        return self._run(
            calls.settle_hold(
                hold_id, cost_usd, request_id=request_id, provider=provider, units=units, unit_type=unit_type
            )
        )

    def void_hold(self, hold_id: str) -> None:
        """Gives the credit back: nothing is charged."""
        self._run(calls.void_hold(hold_id))

    def usage(
        self,
        group_by: Sequence[str] = ("day",),
        *,
        begins: date | datetime | None = None,
        ends: date | datetime | None = None,
    ) -> tuple[UsageRow, ...]:
        """The tenant's calls, added up by any of day, capability, model, instance and attributedTo.

        The last 30 days, unless said else; a date is a whole UTC day, and `ends` is included when it is one.
        """
        return self._run(calls.usage(group_by=group_by, begins=begins, ends=ends)).rows

    def _run(self, call: Call[T]) -> T:
        steps = conduct(self._access, call, retries=self._retries)
        told: Reply | Lost | None = None
        try:
            step = next(steps)
            while True:
                match step:
                    case Send():
                        told = self._send(step)
                    case Pause():
                        self._sleep(step.seconds)
                        told = None
                step = steps.send(told)
        except StopIteration as done:
            result: T = done.value
            return result

    def _send(self, step: Send) -> Reply | Lost:
        try:
            return reply_of(
                self._http.request(
                    step.method, step.url, params=step.query, headers=dict(step.headers), content=step.body
                )
            )
        except httpx.RequestError as error:
            return lost(error)
