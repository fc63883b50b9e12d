"""The table of rows and the tests belong together."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.interop.rows import ROWS

HERE = Path(__file__).parent


def names_of_tests() -> set[str]:
    """The names of the tests in this package."""
    return {
        node.name
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_test_or_a_reason(row: str) -> None:
    entry = ROWS[row]
    assert bool(entry.tests) != bool(entry.reason)
    assert set(entry.tests) <= names_of_tests()


def test_every_section_has_rows() -> None:
    assert {row.split()[0] for row in ROWS} == {*"123456789", "11"}


def test_every_test_of_rows_is_in_the_table() -> None:
    of_rows = {
        node.name
        for path in HERE.glob("test_rows_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }
    assert of_rows == of_rows & {name for entry in ROWS.values() for name in entry.tests}
