"""Believing a webhook only when the key server signed it (https://www.standardwebhooks.com)."""

import json
from collections.abc import Mapping

from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook

from keyserver.client.errors import NotUnderstood, WebhookNotVerified
from keyserver.client.models import WebhookEvent


def verify_webhook(headers: Mapping[str, str], body: bytes | str, secret: str) -> WebhookEvent:
    """The event in a webhook, once its signature and its time are right.

    `body` is the request's body exactly as it came, before any JSON parsing; `secret` is `whsec_…` as the operator gave
    it, and goes on fitting for 24 h after a rotation. Header names in any case. Raises WebhookNotVerified when it was
    not signed with this secret or is more than five minutes old (answer 400), NotUnderstood for a signed body of
    another shape.
    """
    try:
        verifier = Webhook(secret)
    except Exception as error:
        raise WebhookNotVerified("The webhook secret is not one: it must be `whsec_` and base64") from error
    named = {name.lower(): value for name, value in headers.items()}
    try:
        verifier.verify(body, dict(named), json_parse=False)
    except Exception as error:  # the library lets what a forger's oddities raise in parsing pass through
        raise WebhookNotVerified("The webhook was not signed with this secret, or is too old") from error
    try:
        document = json.loads(body)
        return WebhookEvent.model_validate({**document, "id": named["webhook-id"]})
    except (ValueError, TypeError, ValidationError):
        raise NotUnderstood("The webhook is signed, but is no event of a charge that this client knows") from None
