"""Every block of Python in the documents runs, in a real sandbox, and prints what it says it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import Program, programs
from tests.strictness import WATCHFUL

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = [program for page in PAGES for program in programs(ROOT, page)]

SECONDS = 60
MARK = "\0end of block"

# What readers have that a new sandbox has not: their own files, and a network.
PREPARED = {
    "README.md, Commands": """
mkdir project
echo 'make() { echo "$@ passed"; }; pip() { echo "Successfully installed $2"; }' >> ~/.bash_profile
""",
    "README.md, Files": "head -c 3000000 /dev/urandom > big.bin",
}


@pytest.fixture
def environment(server_env: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """Leads to the shared server; one that a program starts for itself goes with the test."""
    yield {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    state = tmp_path / "sandbox-sync" / "server.json"
    if state.exists():
        os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)


@pytest.mark.parametrize("program", [pytest.param(p, id=f"{p.page}, {p.section}") for p in PROGRAMS])
def test_what_the_documents_show_is_so(program: Program, environment: dict[str, str], tmp_path: Path) -> None:
    prepare = PREPARED.get(f"{program.page}, {program.section}", "true") if program.needs_a_sandbox else None
    order = {"page": program.page, "blocks": program.blocks, "prepare": prepare, "mark": MARK}
    ended = subprocess.run(
        [sys.executable, *WATCHFUL, str(Path(__file__).with_name("run_program.py"))],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    printed = ended.stdout.split(MARK + "\n")
    for block, output in zip(program.blocks, printed[:-1], strict=True):
        if block.shown:
            assert output.splitlines() == block.shown, f"{program.page}, line {block.line}"


def test_the_programs_of_the_documents_are_found() -> None:
    assert {program.page for program in PROGRAMS} >= {"README.md", "docs/reference.md"}


def test_what_is_prepared_is_for_a_program() -> None:
    named = {f"{program.page}, {program.section}" for program in PROGRAMS if program.needs_a_sandbox}
    assert named >= {*PREPARED}
