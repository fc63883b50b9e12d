"""scripts/surface writes what it says, and refuses what it cannot place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script reads and writes, with its documents up to date."""
    for name in ("scripts", "docs", "sandbox_sync", "tests/contract"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    ended = surface(tmp_path)
    assert ended.returncode == 0, ended.stderr
    return tmp_path


def surface(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "surface"), *options],
        capture_output=True,
        text=True,
        timeout=60,
    )


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_test_that_names_an_entry_stands_in_the_table(checkout: Path) -> None:
    test = '@pytest.mark.documented("Pty.kill", "Pty.resize")\ndef test_it(): ...\n'
    (checkout / "tests" / "test_more.py").write_text(test)
    checked = surface(checkout, "--check")
    assert checked.returncode == 1
    assert "docs/surface.md is out of date: run scripts/surface" in checked.stderr
    assert surface(checkout).returncode == 0
    table = (checkout / "docs" / "surface.md").read_text().splitlines()
    for name in ("Pty.kill", "Pty.resize"):
        (row,) = [line for line in table if line.startswith(f"| {name} |")]
        assert "`test_more.py`" in row
    assert surface(checkout, "--check").returncode == 0


def test_an_entry_that_is_not_documented_is_refused(checkout: Path) -> None:
    test = '@pytest.mark.documented("Pty.explode")\ndef test_it(): ...\n'
    (checkout / "tests" / "test_more.py").write_text(test)
    ended = surface(checkout, "--check")
    assert ended.returncode == 1
    assert "no such entry of the documented surface: Pty.explode" in ended.stderr


def test_a_description_that_was_changed_by_hand_is_found(checkout: Path) -> None:
    replace(checkout / "docs" / "reference.md", "Make a sandbox.", "Make a castle.")
    ended = surface(checkout, "--check")
    assert ended.returncode == 1
    assert "docs/reference.md is out of date" in ended.stderr


@pytest.mark.parametrize(
    ("new", "problem"),
    [("", "Sandbox.kill is not there"), ("<!-- api: Sandbox.melt -->", "Sandbox.melt is not public")],
)
def test_a_public_name_has_one_place_in_the_reference(checkout: Path, new: str, problem: str) -> None:
    replace(checkout / "docs" / "reference.md", "<!-- api: Sandbox.kill -->", new)
    ended = surface(checkout, "--check")
    assert ended.returncode == 1
    assert problem in ended.stderr
