"""README says what the code does: its settings, its commands, its scripts."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from keyserver.cli import app
from keyserver.cli.admin import DEFAULT_URL
from keyserver.cli.failures import variable_of
from keyserver.client.exchange import KEY_VARIABLE, TENANT_VARIABLE, URL_VARIABLE
from keyserver.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) ?\| .+ \|$", README, flags=re.MULTILINE))
OTHERS = {"KEYSERVER_URL": DEFAULT_URL, URL_VARIABLE: "", KEY_VARIABLE: "", TENANT_VARIABLE: ""}


def default_of(name: str) -> str:
    """A setting's default as the table writes it."""
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return "number of cores, at most 4"
    value: Any = field.default
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case float() if value == int(value):
            return str(int(value))
        case _:
            return str(value)


def test_the_table_of_settings_is_the_code_s() -> None:
    assert {variable_of(name): default_of(name) for name in Settings.model_fields} | OTHERS == ROWS


def test_every_command_the_documents_name_exists() -> None:
    group = typer.main.get_command(app)
    named = set()
    for document in (README, *(path.read_text() for path in (ROOT / "docs").rglob("*.md"))):
        named |= set(re.findall(r"(?:^|`)keyserver ((?:[a-z-]+ ?){1,2})", document, flags=re.MULTILINE))
    assert named
    for words in named:
        command: Any = group
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"keyserver {words}"
            command = command.commands[word]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", README))))
def test_what_the_readme_links_to_is_there(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("script", sorted(set(re.findall(r"\bscripts/[a-z]+", README))))
def test_every_script_the_readme_names_can_be_run(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
