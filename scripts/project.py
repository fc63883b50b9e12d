"""What the scripts share: where the project is, its Python, its tests, and documents that scripts write."""

from __future__ import annotations

import ast
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def enter_venv() -> None:
    """Start over with the interpreter of the project's .venv, unless it runs already or there is none."""
    venv = ROOT / ".venv"
    python = venv / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != venv.resolve():
        os.execv(python, [str(python), *sys.argv])


def tests() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every test of the project, with the path of its file below tests/."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield str(path.relative_to(ROOT / "tests")), node


def table_cell(tests_of: Counter[str]) -> str:
    """The files of tests, each with their number if there are several."""
    return ", ".join(
        f"`{file}`" + (f" ({count})" if count > 1 else "") for file, count in sorted(tests_of.items())
    )


def write_or_check(documents: Mapping[Path, str]) -> None:
    """Write documents; or, with --check on the command line, exit if one has another text."""
    for path, text in documents.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif path.read_text() != text:
            script = Path(sys.argv[0]).name
            raise SystemExit(f"{path.relative_to(ROOT)} is out of date: run scripts/{script}")
