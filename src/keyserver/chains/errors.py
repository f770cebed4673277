"""What the registry refuses."""

from keyserver.kit.problems import Conflict, NotFound


class MethodNotFound(NotFound):
    code = "chain_not_found"
    error = "Unknown or disabled payment method; GET /chains lists what there is"


class MethodExists(Conflict):
    code = "chain_exists"
    error = "A payment method with this id exists already"


class FinalityTaken(Conflict):
    code = "finality_taken"
    error = "This blockchain is followed with another finality"
