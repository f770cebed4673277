"""What goes wrong at the door."""

from keyserver.kit.problems import Conflict, Forbidden, NotFound, TooManyRequests, Unprocessable


class AdminDisabled(Forbidden):
    code = "admin_api_disabled"
    error = "Admin API disabled"


class OtherTenant(Forbidden):
    code = "tenant_not_allowed"
    error = "X-Tenant-Id names another tenant than this key's"


class TenantNotFound(NotFound):
    code = "tenant_not_found"
    error = "Tenant not found"


class KeyNotFound(NotFound):
    code = "key_not_found"
    error = "Key not found"


class KeyEnded(Conflict):
    code = "key_ended"
    error = "This key has expired or was revoked; create a new one instead of rotating it"


class TooManyFailures(TooManyRequests):
    code = "too_many_failed_attempts"
    error = "Too many wrong keys came from this address; try again later"


class TenantExists(Conflict):
    code = "tenant_exists"
    error = "A tenant with this id or slug exists already"


class IdempotencyKeyReused(Unprocessable):
    code = "idempotency_key_reused"
    error = "This Idempotency-Key was used with another request; take a new key for a new request"


class TwinInProgress(Conflict):
    code = "request_in_progress"
    error = "A request with this Idempotency-Key is still running; try again shortly"
