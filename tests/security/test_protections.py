"""No test passes by chance: each fails when what it is there for is taken away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import sandbox_local
from tests.security.protections import PROTECTIONS, Protection
from tests.security.servers import KINDS

_PROJECT = Path(__file__).parents[2]

_RUN = """
import sys, sandbox_local
assert sandbox_local.__file__.startswith(sys.argv[1]), sandbox_local.__file__
import pytest
pytest.main(sys.argv[2:])
"""
_BY_ASSERTION = ("AssertionError", "assert ", "Failed: DID NOT RAISE")


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda one: one.name)
def test_a_test_fails_without_its_protection(protection: Protection, tmp_path: Path) -> None:
    if "root" not in KINDS:
        pytest.skip("the server is not root's here, so not all protections can be seen at work")
    package = Path(sandbox_local.__file__).parent
    shutil.copytree(package, tmp_path / package.name)
    shutil.copytree(_PROJECT / "tests", tmp_path / "tests")
    shutil.copy(_PROJECT / "pyproject.toml", tmp_path)
    weakened = tmp_path / package.name / protection.file
    text = weakened.read_text()
    for old, new in protection.edits:
        assert text.count(old) == 1, f"{old!r} does not stand there exactly once"
        text = text.replace(old, new)
    weakened.write_text(text)
    report = tmp_path / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}", "--timeout=60"]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(tmp_path), *options, protection.test],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    failures = [failure.get("message", "") for failure in ElementTree.parse(report).iter("failure")]
    assert failures, done.stdout
    assert any(message.startswith(_BY_ASSERTION) for message in failures), failures
