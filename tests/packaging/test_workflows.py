"""GitHub's workflows: every action pinned, no credential lying about, the image published under its names."""

import re
from itertools import chain
from typing import Any

import pytest
from tests.packaging.checkout import ROOT, document, project, sent_to_the_build

WORKFLOWS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / ".github/workflows").glob("*.yml"))
IMAGE = ".github/workflows/key-server-image.yml"
CI = ".github/workflows/ci.yml"
_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def steps(workflow: str) -> list[dict[str, Any]]:
    return list(chain.from_iterable(job["steps"] for job in document(workflow)["jobs"].values()))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_action_is_pinned_by_commit_and_says_its_version(workflow: str) -> None:
    used = re.findall(r"uses: (.*)", (ROOT / workflow).read_text())

    assert used
    assert [each for each in used if not _PINNED.fullmatch(each)] == []


def test_an_action_has_one_version_everywhere() -> None:
    used = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", (ROOT / path).read_text())}

    assert len({line.split("@")[0] for line in used}) == len(used)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_checkout_leaves_no_credentials(workflow: str) -> None:
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]

    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_command_holds_no_expression(workflow: str) -> None:
    assert [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_job_has_only_the_rights_that_it_names(workflow: str) -> None:
    contents = document(workflow)
    rights = {name: job["permissions"] for name, job in contents["jobs"].items()}

    assert contents["permissions"] == {}
    assert {name for name, right in rights.items() if right != {"contents": "read"}} <= {"publish"}
    if workflow == IMAGE:
        assert rights["publish"] == {"contents": "read", "packages": "write"}


def test_the_image_is_published_when_what_goes_into_it_changes_on_main() -> None:
    pushed = document(IMAGE)[True]["push"]
    copied = {f"{path}/**" if (ROOT / path).is_dir() else path for path in sent_to_the_build()}

    assert pushed["branches"] == ["main"]
    assert set(pushed["paths"]) == copied | {"Dockerfile", ".dockerignore", IMAGE}


def test_the_image_has_the_tags_latest_and_the_commit() -> None:
    (build,) = (step["with"] for step in steps(IMAGE) if step.get("uses", "").startswith("docker/build-push-action@"))
    (name,) = (step for step in steps(IMAGE) if step.get("id") == "name")

    assert build["push"] is True
    assert build["tags"].splitlines() == [
        "${{ steps.name.outputs.image }}:latest",
        "${{ steps.name.outputs.image }}:${{ github.sha }}",
    ]
    assert "ghcr.io/${GITHUB_REPOSITORY_OWNER,,}/crypto-key-server" in name["run"]


def test_ci_runs_every_python_that_the_package_says_it_supports() -> None:
    matrix = document(CI)["jobs"]["test"]["strategy"]["matrix"]
    versions = {*matrix["python"], *(each["python"] for each in matrix["include"])}
    classified = {each.rpartition(" ")[2] for each in project()["project"]["classifiers"] if ":: 3." in each}

    assert versions == classified
