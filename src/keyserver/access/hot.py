"""Routes that are asked hundreds of times a second, with what FastAPI does for them done by hand.

The signature is fixed, `(request, caller, body, now)`, and still what documents the route. Resolving it through
FastAPI's dependencies costs as much as a fifth of such a request (see bench/).
"""

from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from keyserver.access.deps import caller_of
from keyserver.kit.deps import clock_of
from keyserver.kit.http import StrictRequest, StrictRoute, json_of


class HotRoute(StrictRoute):
    """As any other route to its caller: 401 before 400, the same problem documents."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        model: type[BaseModel] = get_type_hints(endpoint)["body"]

        async def hot(request: Request) -> Response:
            read = StrictRequest(request.scope, request.receive)
            caller = await caller_of(read)
            document = await json_of(read)
            try:
                body = model.model_validate(document)
            except ValidationError as error:
                located = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
                raise RequestValidationError(located) from None
            answer: Response = await endpoint(read, caller, body, clock_of(read))
            return answer

        return hot
