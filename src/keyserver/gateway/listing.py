"""`GET /v1/models`: what the upstreams list and serve here, as far as it has a price."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import structlog

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.errors import GatewayError
from keyserver.gateway.forwarding import Forwarder, Outgoing, read_whole
from keyserver.gateway.tariffs import Tariffs
from keyserver.gateway.upstreams import Upstream, Upstreams
from keyserver.kit.cache import Snapshot
from keyserver.kit.ids import new_id
from keyserver.kit.problems import Problem

_log = structlog.get_logger("keyserver.gateway")
#: Lists change by the week; an upstream is asked at most this often by each process.
_LIFETIME_SECONDS = 60.0
_LONGEST_LIST = 16 * 1024 * 1024
Model = Mapping[str, Any]


class ListedModels:
    """The models by id, in order. Of two upstreams that list the same, the one that is asked first."""

    def __init__(
        self, upstreams: Upstreams, tariffs: Tariffs, forwarder: Forwarder, *, lifetime: float = _LIFETIME_SECONDS
    ) -> None:
        self._upstreams = upstreams
        self._tariffs = tariffs
        self._forwarder = forwarder
        self._snapshot = Snapshot(self._load, lifetime=lifetime)

    async def get(self) -> Mapping[str, Model]:
        return await self._snapshot.get()

    async def _load(self) -> Mapping[str, Model]:
        upstreams = await self._upstreams.all()
        lists = await asyncio.gather(*(self._of(upstream) for upstream in upstreams))
        found: dict[str, Model] = {}
        for upstream, models in zip(upstreams, lists, strict=True):
            for model in models:
                if model["id"] not in found and await self._is_priced(model["id"], upstream):
                    found[model["id"]] = model
        return dict(sorted(found.items()))

    async def _of(self, upstream: Upstream) -> list[Model]:
        """What an upstream lists of what it serves here; what it is registered for, where it lists nothing."""
        named = [_model(pattern, {}) for pattern in upstream.models if not set(pattern) & set("*?")]
        try:
            listed = _listed(await self._ask(upstream))
        except (GatewayError, ValueError) as error:
            _log.warning("models_not_listed", upstream=upstream.id, error=f"{type(error).__name__}: {error}"[:300])
            return named
        ids = {model["id"] for model in listed}
        return [
            *(model for model in listed if upstream.pattern_for(model["id"]) is not None),
            *(model for model in named if model["id"] not in ids),
        ]

    async def _ask(self, upstream: Upstream) -> bytes:
        outgoing = Outgoing("GET", "/models", "", headers=[], body=None, key="", request_id=new_id("req"))
        _, response = await self._forwarder.open([upstream], outgoing)
        body = await read_whole(response, limit=_LONGEST_LIST)
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        return body

    async def _is_priced(self, model: str, upstream: Upstream) -> bool:
        for capability in Capability:
            try:
                await self._tariffs.quote(capability, model, upstream=upstream)
            except Problem:
                continue
            return True
        return False


def _listed(body: bytes) -> list[Model]:
    document = orjson.loads(body)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        raise ValueError("no list of models")
    return [_model(each["id"], each) for each in data if isinstance(each, dict) and isinstance(each.get("id"), str)]


def _model(model: str, said: Mapping[str, Any]) -> Model:
    """OpenAI's members, and whatever else the upstream says of the model."""
    return {"created": 0, "owned_by": "upstream", **said, "id": model, "object": "model"}
