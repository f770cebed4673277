"""What the routes need of the composition root: `app.state.prices` is the process's PriceBook."""

from typing import Annotated, cast

from fastapi import Depends, Request

from keyserver.pricing.service import PriceBook


async def price_book_of(request: Request) -> PriceBook:
    return cast(PriceBook, request.app.state.prices)


Prices = Annotated[PriceBook, Depends(price_book_of)]
