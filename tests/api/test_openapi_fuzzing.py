"""schemathesis: whatever the OpenAPI document allows or forbids, nothing is a 500 and every answer has its shape."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import structlog
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from tests.builders import AS_ADMIN, AS_PLATFORM, MASTER_KEY, ManualClock, litecoin
from tests.ports import free_port

from keyserver.app import create_app
from keyserver.kit.secrets import MasterKey
from keyserver.settings import Settings

EXAMPLES = 8
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


@pytest.fixture
def url(settings: Settings, database_url: str) -> Iterator[str]:
    """The app of this process on a loopback port, in a thread of its own, with one payment method and its price."""
    app = create_app(
        settings.model_copy(update={"demo": False}),  # its simulated chains are not in this database
        database_url=database_url,
        master=MasterKey(MASTER_KEY),
        clock=ManualClock(),
        cache_lifetime=0.0,
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    at = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=at, headers=AS_ADMIN, trust_env=False) as admin:
        assert admin.post("/admin/chains", json=litecoin()).status_code == 201
        assert admin.put("/admin/prices/LTC", json={"price_usd": 100}).status_code == 200
    yield at
    server.should_exit = True
    thread.join(20)


def check_operation(operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: GenerationMode) -> None:
    headers = AS_ADMIN if operation.path.startswith("/admin") else AS_PLATFORM

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def holds(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=20)

    holds()


def test_no_request_that_schemathesis_makes_up_is_a_500_and_every_answer_has_its_shape(url: str) -> None:
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    with structlog.testing.capture_logs() as logged:
        for result in document.get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            check_operation(operation, GenerationMode.POSITIVE)
            with contextlib.suppress(Unsatisfiable):  # nothing about a route without parameters can be wrong
                check_operation(operation, GenerationMode.NEGATIVE)
    assert not [line for line in logged if line["event"] == "unhandled_error"]
