"""The doctor on a real machine, as whoever runs the tests and as a user without privileges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox_local.server import EXIT_NO_ISOLATION
from tests.live.denial import NO_MORE_NAMESPACES
from tests.live.unprivileged import run_unprivileged

_REPORTS = Path(__file__).parents[2] / "docs" / "doctor.md"
_PROGRAM = "from sandbox_local.__main__ import main; main(['doctor', '--json'])"
_DOCTOR = """
import sys
from sandbox_local.__main__ import main
sys.exit(main(["doctor"]))
"""


def test_everything_that_is_looked_at_holds() -> None:
    """G27: the start-up's findings can be asked for."""
    done = doctor("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    check(json.loads(done.stdout))


def test_it_holds_for_a_user_without_privileges() -> None:
    report = json.loads(run_unprivileged(_PROGRAM))
    check(report)
    assert report["machine"]["Server runs as"] == "a user without privileges"


def test_a_machine_that_refuses_is_told_with_cause_and_remedy() -> None:
    """G27: where namespaces are denied, the report says why and what to do."""
    done = subprocess.run(
        [sys.executable, "-c", NO_MORE_NAMESPACES + _DOCTOR],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip("this machine denies user namespaces without our doing")
    assert done.returncode == EXIT_NO_ISOLATION
    text = " ".join(done.stdout.split())
    assert "the kernel may make no user namespaces" in text
    assert "sysctl -w user.max_user_namespaces=" in text


def test_the_reports_in_the_documentation_have_the_findings_of_today() -> None:
    text = _REPORTS.read_text()
    for section, findings in json.loads(doctor("--json").stdout)["sections"].items():
        assert text.count(f"\n{section}\n") == 2, section
        for finding in findings:
            assert text.count(f" {finding['title']} ") >= 2, finding


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandbox_local", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def check(report: dict[str, Any]) -> None:
    assert report["sound"]
    found = [finding for section in report["sections"].values() for finding in section]
    assert len(found) >= 14
    for finding in found:
        assert finding["state"] != "FAILED"
        assert finding["detail"]
