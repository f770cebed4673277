"""What an operator can ask wrongly of the followers."""

from keyserver.kit.problems import Conflict, NotFound


class BlockchainNotFound(NotFound):
    code = "blockchain_not_found"
    error = "No payment method is registered on this chain and network"


class NotFollowedYet(Conflict):
    code = "not_followed_yet"
    error = "This blockchain has not been followed yet: its node was never reached"


class JobNotFound(NotFound):
    code = "job_not_found"
    error = "Job not found"
