"""Composition root of the API: settings in, an ASGI application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from keyserver import health
from keyserver.access import routes as access
from keyserver.access.attempts import FailedAttempts
from keyserver.access.keys import KeyRing
from keyserver.access.tenants import KnownTenants
from keyserver.addresses import routes as addresses
from keyserver.addresses.indexes import Indexes
from keyserver.addresses.issuing import Rings
from keyserver.assembly import configured_upstream, estimate_policy, open_database, price_policy
from keyserver.chains import routes as chains
from keyserver.chains.registry import Registry
from keyserver.charges import routes as charges
from keyserver.demo import routes as demo
from keyserver.gateway import hold_routes, limit_routes, tariff_routes, usage_routes
from keyserver.gateway import routes as gateway
from keyserver.gateway.limits import TenantMargins
from keyserver.gateway.proxy import Limits
from keyserver.gateway.running import running_gateway
from keyserver.gateway.streams import Patience
from keyserver.gateway.tariffs import Tariffs
from keyserver.gateway.upstreams import Upstreams
from keyserver.kit.cache import LIFETIME
from keyserver.kit.clock import Clock, utc_now
from keyserver.kit.egress import EgressPolicy
from keyserver.kit.http import RequestContext, install_problem_handlers
from keyserver.kit.secrets import MasterKey
from keyserver.ledger import routes as ledger
from keyserver.pricing import routes as pricing
from keyserver.pricing.service import PriceBook
from keyserver.settings import Settings
from keyserver.watching import job_routes as watching_jobs
from keyserver.watching import routes as watching
from keyserver.webhooks import routes as webhooks

_PUBLIC = {"/chains", "/health/live", "/health/ready", "/metrics", "/demo/pay", "/demo/mine", "/demo/reorg"}


def create_app(
    settings: Settings,
    *,
    database_url: str,
    master: MasterKey,
    clock: Clock = utc_now,
    cache_lifetime: float = LIFETIME,
) -> FastAPI:
    """The API over a migrated database. Connections are opened when it starts, and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = open_database(settings, database_url)
        state = app.state
        state.database = database
        state.clock = clock
        state.cache_lifetime = cache_lifetime
        state.master_key = master
        state.admin_token = settings.admin_token.get_secret_value() if settings.admin_token else None
        service_key = settings.service_key.get_secret_value() if settings.service_key else None
        state.keys = KeyRing(database, service_key=service_key, clock=clock, cache_lifetime=cache_lifetime)
        state.failed_attempts = FailedAttempts(settings.failed_keys_per_minute)
        state.known_tenants = KnownTenants(database)
        state.registry = Registry(database, cache_lifetime=cache_lifetime)
        state.rings = Rings()
        state.indexes = Indexes(database)
        state.lookahead = settings.lookahead
        state.prices = PriceBook(database, policy=price_policy(settings), lifetime=cache_lifetime)
        state.upstreams = Upstreams(
            database, master=master, configured=configured_upstream(settings), cache_lifetime=cache_lifetime
        )
        state.tariffs = Tariffs(database, clock=clock, default_margin=settings.margin, cache_lifetime=cache_lifetime)
        state.estimate_policy = estimate_policy(settings)
        state.egress = EgressPolicy(settings.webhook_allow)
        state.charge_lifetime_seconds = settings.charge_lifetime_seconds
        patience = Patience(settings.call_seconds, settings.call_linger_seconds)
        state.tenant_margins = TenantMargins(database, cache_lifetime=cache_lifetime)
        state.default_margin = settings.margin
        state.top_up_url = settings.top_up_url
        try:
            async with running_gateway(
                database,
                upstreams=state.upstreams,
                tariffs=state.tariffs,
                margins=state.tenant_margins,
                clock=clock,
                limits=Limits(patience, state.estimate_policy, settings.top_up_url),
                master=master,
                connections=settings.upstream_connections,
                directory=settings.data_dir.expanduser() / "unsettled",
            ) as state.gateway:
                yield
        finally:
            await database.dispose()

    app = FastAPI(title="keyserver", version="0.1.0", lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(RequestContext, self_limited=gateway.PREFIX + "/")
    install_problem_handlers(app)
    app.router.routes += [chains.plain_route, *gateway.routes]
    for router in (
        chains.router,
        addresses.router,
        charges.hot_router,
        charges.router,
        gateway.router,
        hold_routes.router,
        ledger.router,
        health.router,
        addresses.admin_router,
        pricing.router,
        access.router,
        webhooks.router,
        ledger.admin_router,
        charges.admin_router,
        watching.router,
        watching_jobs.router,
        limit_routes.router,
        hold_routes.admin_router,
        tariff_routes.router,
        usage_routes.router,
        usage_routes.admin_router,
    ):
        app.include_router(router)
    if settings.demo:
        app.include_router(demo.router)
    app.router.routes.append(gateway.unknown_route)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document with the two bearer schemes, and problem documents as what errors look like."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "serviceKey": {"type": "http", "scheme": "bearer", "description": "A service key, `ks_…`"},
        "adminToken": {"type": "http", "scheme": "bearer", "description": "ADMIN_TOKEN"},
    }
    components.setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path not in _PUBLIC:
                operation["security"] = [{"adminToken" if path.startswith("/admin") else "serviceKey": []}]
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = gateway.ERROR if path.startswith(gateway.PREFIX) else _PROBLEM
    app.openapi_schema = document
    return document


_PROBLEM = {
    "description": "A problem document (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "error", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string", "description": "One sentence"},
        "code": {"type": "string", "description": "A stable word for programs"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
