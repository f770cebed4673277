"""`GET /chains`: what can be paid with, and the container's health check."""

from typing import cast

from fastapi import APIRouter, Request, Response
from starlette.routing import Route

from keyserver.chains.registry import Registry
from keyserver.chains.schemas import ChainView

router = APIRouter(tags=["chains"])


@router.get("/chains", response_model=list[ChainView], responses={503: {"description": "The database does not answer"}})
async def list_chains(request: Request) -> Response:
    """The enabled payment methods in display order."""
    request.scope["route"] = plain_route
    methods = await cast(Registry, request.app.state.registry).methods()
    return Response(methods.listing, media_type="application/json")


#: What serves the path: it is asked most of all, and resolving no dependencies would cost more than the answer.
#: The router's own route stands behind it and documents it.
plain_route = Route("/chains", list_chains, methods=["GET"])
