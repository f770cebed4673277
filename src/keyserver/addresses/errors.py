"""What goes wrong with keys and addresses."""

from keyserver.kit.problems import BadRequest, Conflict, Unavailable


class PrivateKeyRefused(BadRequest):
    code = "private_key_refused"
    error = "That is, or holds, a private key or a recovery phrase. Give an account-level extended public key only"


class InvalidXpub(BadRequest):
    code = "invalid_xpub"


class UnexpectedAddress(BadRequest):
    code = "unexpected_address"


class PathTaken(Conflict):
    code = "path_taken"


class NothingToDerive(Unavailable):
    code = "no_address_available"
    error = "There is no address left to hand out for this payment method"
