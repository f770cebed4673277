"""Where calls are forwarded to: the upstreams an operator registered, and the one of the environment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from keyserver.kit.cache import LIFETIME
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey


@dataclass(frozen=True, slots=True)
class Upstream:
    """`base_url` is what the paths of OpenAI's API are added to (`…/v1` + `/chat/completions`), without a slash."""

    id: str
    base_url: str
    api_key: str | None = field(repr=False)
    models: tuple[str, ...]
    margin: Decimal | None = None
    priority: int = 100
    connect_seconds: float = 5.0
    idle_seconds: float = 120.0

    def serves(self, model: str) -> bool:
        raise NotImplementedError


class Upstreams:
    """Upstreams as hot requests read them, cached as kit/cache.py allows."""

    def __init__(
        self,
        database: Database,
        *,
        master: MasterKey,
        configured: Upstream | None = None,
        cache_lifetime: float = LIFETIME,
    ) -> None: ...

    async def candidates(self, model: str) -> Sequence[Upstream]:
        """Who serves a model, in the order they are tried: by priority (lower first), then by how specific the
        pattern is that matches, then by id; the environment's upstream last. Empty when nobody does."""
        raise NotImplementedError

    async def all(self) -> Sequence[Upstream]:
        """Every enabled one, in the same order."""
        raise NotImplementedError
