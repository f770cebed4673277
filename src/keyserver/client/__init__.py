"""The Python client for platform services. It needs nothing of the server's code.

from keyserver.client import Client, verify_webhook

with Client() as keyserver:  # CRYPTO_SERVICE_URL, CRYPTO_SERVICE_KEY, TENANT_ID
    charge = keyserver.create_charge("BTC", "25.00", callback_url="https://shop.example/paid")
"""

from keyserver.client.asynchronous import AsyncClient
from keyserver.client.blocking import Client
from keyserver.client.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Detail,
    Forbidden,
    KeyserverError,
    NotConfigured,
    NotFound,
    NotReached,
    NotUnderstood,
    PaymentRequired,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
    WebhookNotVerified,
)
from keyserver.client.models import (
    AdditionalStatus,
    Address,
    Balance,
    Chain,
    Charge,
    ChargeStatus,
    CreatedCharge,
    LedgerEntry,
    Payment,
    PlacedHold,
    SettledHold,
    Side,
    UsageRow,
    WebhookEvent,
)
from keyserver.client.webhooks import verify_webhook

__all__ = [
    "AdditionalStatus",
    "Address",
    "ApiError",
    "AsyncClient",
    "BadRequest",
    "Balance",
    "Chain",
    "Charge",
    "ChargeStatus",
    "Client",
    "Conflict",
    "CreatedCharge",
    "Detail",
    "Forbidden",
    "KeyserverError",
    "LedgerEntry",
    "NotConfigured",
    "NotFound",
    "NotReached",
    "NotUnderstood",
    "Payment",
    "PaymentRequired",
    "PlacedHold",
    "SettledHold",
    "Side",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UsageRow",
    "WebhookEvent",
    "WebhookNotVerified",
    "verify_webhook",
]
