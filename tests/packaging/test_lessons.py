"""The table of what happened to others names tests that there are."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.packaging.checkout import ROOT

LESSONS = ROOT / "docs" / "lessons.md"


def named() -> list[tuple[str, str]]:
    """(path, test) of every test the page names; comments are no part of it."""
    page = re.sub(r"<!--.*?-->", "", LESSONS.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)


@cache
def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_the_lessons_name_is_there() -> None:
    assert len(named()) > 100
    missing = [f"{path}::{name}" for path, name in named() if name not in functions_in(ROOT / path)]
    assert missing == []


def test_every_row_has_its_source_and_its_test() -> None:
    rows = [line for line in LESSONS.read_text(encoding="utf-8").splitlines() if line.startswith("| [")]
    assert len(rows) > 60
    for row in rows:
        where, _, _, tests = (cell.strip() for cell in row.strip("|").split(" | "))
        assert "](https://" in where and "`tests/" in tests, row
