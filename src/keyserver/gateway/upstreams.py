"""Where calls are forwarded to: the upstreams an operator registered, and the one of the environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import structlog

from keyserver.gateway.tariff import matches, specificity
from keyserver.kit.cache import LIFETIME, Snapshot
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey, NotDecryptable

#: The id of the upstream of KEYSERVER_UPSTREAM_URL.
CONFIGURED = "environment"
CONNECT_SECONDS, IDLE_SECONDS = 5.0, 120.0
_UPSTREAMS = """
    SELECT id, base_url, api_key_encrypted, models, margin, priority, connect_timeout_seconds, idle_timeout_seconds
      FROM upstreams WHERE enabled ORDER BY priority, id
"""
_log = structlog.get_logger("keyserver.gateway")


@dataclass(frozen=True, slots=True)
class Upstream:
    """`base_url` is what the paths of OpenAI's API are added to (`…/v1` + `/chat/completions`), without a slash."""

    id: str
    base_url: str
    api_key: str | None = field(repr=False)
    models: tuple[str, ...]
    margin: Decimal | None = None
    priority: int = 100
    connect_seconds: float = CONNECT_SECONDS
    idle_seconds: float = IDLE_SECONDS

    def pattern_for(self, model: str) -> str | None:
        """The most specific of its patterns that match the model; None when it does not serve it."""
        return min((each for each in self.models if matches(each, model)), key=specificity, default=None)


class Upstreams:
    """Upstreams as hot requests read them, cached as kit/cache.py allows."""

    def __init__(
        self,
        database: Database,
        *,
        master: MasterKey,
        configured: Upstream | None = None,
        cache_lifetime: float = LIFETIME,
    ) -> None:
        self.configured = configured
        self._database = database
        self._master = master
        self._snapshot = Snapshot(self._load, lifetime=cache_lifetime)

    async def candidates(self, model: str) -> Sequence[Upstream]:
        """Who serves a model, in the order they are tried: the lowest priority first, then the most specific pattern,
        then the id; the environment's upstream last. Empty when nobody does."""
        serving = [
            (each.priority, specificity(pattern), each.id, each)
            for each in await self._snapshot.get()
            if (pattern := each.pattern_for(model)) is not None
        ]
        return [*(each for *_, each in sorted(serving, key=lambda entry: entry[:3])), *self._last()]

    async def all(self) -> Sequence[Upstream]:
        """Every enabled one, in the same order."""
        return [*await self._snapshot.get(), *self._last()]

    def _last(self) -> list[Upstream]:
        return [] if self.configured is None else [self.configured]

    async def _load(self) -> list[Upstream]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_UPSTREAMS)
        return [upstream for row in rows if (upstream := self._upstream(row)) is not None]

    def _upstream(self, row: Mapping[str, Any]) -> Upstream | None:
        encrypted = row["api_key_encrypted"]
        try:
            api_key = None if encrypted is None else self._master.decrypt(encrypted).decode()
        except NotDecryptable as error:
            _log.error("upstream_key_unreadable", upstream=row["id"], error=str(error))
            return None
        return Upstream(
            id=row["id"],
            base_url=row["base_url"],
            api_key=api_key,
            models=tuple(row["models"]),
            margin=row["margin"],
            priority=row["priority"],
            connect_seconds=row["connect_timeout_seconds"],
            idle_seconds=row["idle_timeout_seconds"],
        )
