"""Every table, for Alembic and for tests that compare the models with the migrations."""

from keyserver.access import models as access
from keyserver.addresses import models as addresses
from keyserver.chains import models as chains
from keyserver.charges import models as charges
from keyserver.demo import models as demo
from keyserver.gateway import models as gateway
from keyserver.gateway import tariff_models as tariffs
from keyserver.kit.orm import Base
from keyserver.ledger import models as ledger
from keyserver.pricing import models as pricing
from keyserver.watching import models as watching
from keyserver.webhooks import models as webhooks

__all__ = [
    "access",
    "addresses",
    "chains",
    "charges",
    "demo",
    "gateway",
    "ledger",
    "metadata",
    "pricing",
    "tariffs",
    "watching",
    "webhooks",
]

metadata = Base.metadata
