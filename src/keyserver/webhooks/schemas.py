"""Wire shapes of tenants' webhook secrets and of deliveries."""

from typing import Any

from pydantic import Field, computed_field

from keyserver.access.schemas import TenantView
from keyserver.kit.wire import Instant, View
from keyserver.webhooks.models import DeliveryStatus


class CreatedTenant(TenantView):
    """`webhook_secret` is shown here and never again; rotating makes a new one."""

    webhook_secret: str


class RotatedSecret(View):
    """Both secrets sign until `previous_valid_until`."""

    tenant_id: str
    webhook_secret: str
    previous_valid_until: Instant


class AttemptView(View):
    attempt: int
    attempted_at: Instant
    duration_ms: int
    status_code: int | None
    error: str | None


class DeliveryView(View):
    """`id` is the `webhook-id` the receiver sees. `attempts` counts since the last redelivery."""

    id: str
    tenant_id: str
    subject_id: str = Field(description="What it is about: a charge's id, or `credits:` and a tenant's")
    sequence: int
    type: str
    url: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: Instant | None = Field(description="null once it is delivered or given up")
    last_status_code: int | None
    last_error: str | None
    created_at: Instant
    finished_at: Instant | None

    @computed_field(description="null when it is not about a charge")  # type: ignore[prop-decorator]
    @property
    def charge_id(self) -> str | None:
        return None if ":" in self.subject_id else self.subject_id


class DeliveryDetail(DeliveryView):
    payload: dict[str, Any]
    attempt_log: list[AttemptView] = Field(description="Every attempt ever made, the first one first")


class DeliveryPage(View):
    deliveries: list[DeliveryView]
    next_cursor: str | None
