"""What goes wrong with rates and upstreams."""

from keyserver.kit.problems import BadRequest, Conflict, NotFound


class ModelNotPriced(BadRequest):
    """No call goes out whose cost nobody knows."""

    code = "model_not_priced"

    def __init__(self, capability: str, model: str) -> None:
        super().__init__(
            f"The model `{model}` has no price for {capability}: set one with PUT /admin/rates "
            f'(capability "{capability}", model "{model}" or a pattern that matches it), or a fallback rate'
        )


class RateNotFound(NotFound):
    code = "rate_not_found"
    error = "There is no rate with this id; GET /admin/rates lists them"


class UpstreamNotFound(NotFound):
    code = "upstream_not_found"
    error = "There is no upstream with this id; GET /admin/upstreams lists them"


class UpstreamExists(Conflict):
    code = "upstream_exists"
    error = "An upstream with this id exists already; change it with PATCH"
