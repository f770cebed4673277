"""What a charge is refused for, and what cannot be done about a payment."""

from keyserver.kit.problems import BadRequest, Conflict, NotFound


class ChargeNotFound(NotFound):
    code = "charge_not_found"
    error = "Charge not found"


class InvalidAmount(BadRequest):
    code = "invalid_amount"


class InvalidCallback(BadRequest):
    code = "invalid_callback_url"


class InvalidMetadata(BadRequest):
    code = "invalid_metadata"


class InvalidCredit(BadRequest):
    code = "invalid_credit"


class PaymentNotFound(NotFound):
    code = "payment_not_found"
    error = "Payment not found"


class PaymentNotConfirmed(Conflict):
    code = "payment_not_confirmed"
    error = "This payment is not confirmed: wait until it is, or until it no longer counts"


class PaymentCredited(Conflict):
    code = "payment_already_credited"
    error = "This payment is credited already"


class PaymentDismissed(Conflict):
    code = "payment_already_dismissed"
    error = "This payment is dismissed already, for another reason"


class PaymentHasTenant(Conflict):
    code = "payment_has_tenant"
    error = "The address of this payment belongs to another tenant: credit that one, and move it by ledger entries"
