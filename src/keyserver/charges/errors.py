"""What a charge is refused for."""

from keyserver.kit.problems import BadRequest, NotFound


class ChargeNotFound(NotFound):
    code = "charge_not_found"
    error = "Charge not found"


class InvalidAmount(BadRequest):
    code = "invalid_amount"


class InvalidCallback(BadRequest):
    code = "invalid_callback_url"


class InvalidMetadata(BadRequest):
    code = "invalid_metadata"
