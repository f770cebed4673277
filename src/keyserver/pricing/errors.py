"""What goes wrong with prices."""

from keyserver.kit.problems import NotFound, Unavailable


class PriceUnavailable(Unavailable):
    """No source qualifies now. Nothing has been spent or changed; the same request can succeed later."""

    code = "price_unavailable"

    def __init__(self, reason: str, *, token: str, retry_after: int = 10) -> None:
        super().__init__(f"No usable price: {reason}", retry_after=retry_after, token=token)


class PinNotFound(NotFound):
    code = "price_not_pinned"
    error = "No price is pinned for this token"
