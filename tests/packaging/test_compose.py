"""compose.yaml and its environment file: no secret has a default, nothing is misspelt."""

import re

from tests.packaging.checkout import ROOT, document, logical_lines

from keyserver.settings import unknown_variables

SECRETS = {"POSTGRES_PASSWORD", "KEYSERVER_SECRET_KEY", "SERVICE_KEY", "ADMIN_TOKEN"}
COMPOSE = (ROOT / "compose.yaml").read_text()


def example() -> dict[str, str]:
    """The variables of .env.example, those that are commented out included."""
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    return dict(lines)


def test_no_secret_has_a_default() -> None:
    assert {name: example()[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")
    defaults = re.findall(r"\$\{([A-Z_]+)(:?-[^}]+)\}", COMPOSE)
    assert {name for name, _ in defaults} & SECRETS == set()


def test_nothing_starts_without_the_secrets_that_it_needs() -> None:
    assert set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE)) == SECRETS - {"ADMIN_TOKEN"}  # without one, no admin API


def test_the_environment_file_and_compose_name_the_same_variables() -> None:
    assert set(re.findall(r"\$\{([A-Z_]+)", COMPOSE)) == set(example())


def test_git_never_sees_the_environment_file() -> None:
    assert ".env" in logical_lines(".gitignore")


def test_every_variable_that_is_passed_on_is_a_setting() -> None:
    services = document("compose.yaml")["services"]
    passed = {name: "" for service in ("api", "worker") for name in services[service]["environment"]}

    assert "KEYSERVER_SECRET_KEY" in passed
    assert unknown_variables(passed) == []


def test_the_database_is_healthy_before_it_is_used_and_outlives_its_container() -> None:
    services = document("compose.yaml")["services"]

    assert services["database"]["healthcheck"]["test"]
    assert services["database"]["volumes"] == ["database:/var/lib/postgresql"]
    for service in ("api", "worker"):
        assert services[service]["depends_on"] == {"database": {"condition": "service_healthy"}}


def test_calls_that_are_not_settled_yet_outlive_the_container() -> None:
    assert document("compose.yaml")["services"]["api"]["volumes"] == ["unsettled:/var/lib/keyserver"]


def test_every_container_has_only_what_it_needs() -> None:
    for name in ("api", "worker"):
        service = document("compose.yaml")["services"][name]
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
