"""What type checkers make of the SDK."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONSUMER = Path(__file__).with_name("facade_consumer.py")

# Each line is a mistake that a type checker has to find.
MISTAKES = """
from sandbox_sync import Sandbox
Sandbox.kill()
Sandbox.kill(7)
Sandbox.kill("id", no_such_option=1)
Sandbox.create().kill("id")
Sandbox.create().set_timeout()
Sandbox.connect()
Sandbox.create(transport=5)
Sandbox.create().commands.run("x", background=True).exit_code.bit_length()
Sandbox.create().files.read("x", format="bytes").encode()
Sandbox.create().files.write("x")
"""


def check(path: Path, tmp_path: Path) -> list[str]:
    """What mypy --strict objects to."""
    pytest.importorskip("mypy", reason="mypy is a tool of scripts/lint")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path).stdout
    return [line for line in said.splitlines() if ": error:" in line]


def test_a_typed_program_is_clean(tmp_path: Path) -> None:
    """G32: mypy --strict is clean on a program that uses every method."""
    assert check(CONSUMER, tmp_path) == []


def test_mistakes_are_found(tmp_path: Path) -> None:
    """G32: and it is so because types are known, not because they are Any."""
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)
    found = {int(line.split(":")[1]) for line in check(program, tmp_path)}
    assert found == set(range(3, MISTAKES.count("\n") + 1))
