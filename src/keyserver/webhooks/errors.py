"""What goes wrong when an operator asks about webhooks."""

from keyserver.kit.problems import NotFound


class DeliveryNotFound(NotFound):
    code = "delivery_not_found"
    error = "Delivery not found"
