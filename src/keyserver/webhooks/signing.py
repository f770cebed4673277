"""Standard Webhooks signatures (https://www.standardwebhooks.com): symmetric, version `v1`."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin, not one of them
_PURPOSE = "webhook secret"


def derive_secret(master: bytes, tenant_id: str, version: int) -> str:
    """The tenant's secret of this version: `whsec_` and base64 of 32 bytes.

    `master` is a uniformly random key kept for this purpose; what is done with it here is the expand step of HKDF
    (RFC 5869, 2.3) with SHA-256, the tenant and the version as its context.
    """
    context = "\x1f".join((_PURPOSE, tenant_id, str(version))).encode()
    key = hmac.digest(master, context + b"\x01", hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(key).decode()


def sign(secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Value of `webhook-signature`: one `v1,…` for each secret, in the order given (newest first).

    `timestamp` is in seconds since 1970. A receiver needs only one of the signatures to be right, which is how both
    secrets work while a rotation takes effect.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(_mac(secret, signed)).decode()}" for secret in secrets)


def _mac(secret: str, signed: bytes) -> bytes:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return hmac.digest(key, signed, hashlib.sha256)
