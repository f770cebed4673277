"""The checkout's own files, for tests of what is shipped and how."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def document(path: str) -> dict[Any, Any]:
    """A YAML file. PyYAML follows YAML 1.1, to which the key `on` is the boolean."""
    loaded: dict[Any, Any] = yaml.safe_load((ROOT / path).read_text())
    return loaded


def logical_lines(path: str) -> list[str]:
    """A file's lines without comments, those that end in a backslash joined with what follows."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / path).read_text(), flags=re.MULTILINE)
    return [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]


def pins(path: str) -> dict[str, list[Requirement]]:
    """The requirements of a lock file by name; a name has several where markers tell them apart."""
    found: dict[str, list[Requirement]] = {}
    for line in logical_lines(path):
        requirement = Requirement(line.split(" --hash=")[0].strip())
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile: (FROM, COPY, …) and the rest of the line."""
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in logical_lines("Dockerfile"))
    ]


def last_stage() -> dict[str, str]:
    """The last stage's instructions; of those given twice, the one that counts."""
    every = instructions()
    start = max(at for at, (word, _) in enumerate(every) if word == "FROM")
    return dict(every[start:])


def exec_form(text: str) -> list[str]:
    """The words of an exec form (JSON); ValueError for the shell form, which would run under a shell."""
    words: list[str] = json.loads(text)
    return words


def sent_to_the_build() -> set[str]:
    """What .dockerignore lets into the image's build; it shuts out everything else first."""
    lines = logical_lines(".dockerignore")
    assert lines[0] == "*"
    return {line.removeprefix("!") for line in lines if line.startswith("!")}
