"""The comparison with the official client works, at sizes that say nothing of speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("e2b")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ROWS = {
    *("import", "import-used", "cold", "run", "list", "exists", "events", "output", "file-up", "file-down"),
    *("files-write", "files-list", "crowd", "rest", "watch"),
}


def ran(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCHMARKS / f"{program}.py", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )


def told(file: Path, ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert file.exists(), ran.stderr
    value: dict[str, Any] = json.loads(file.read_text())
    return value


@pytest.mark.timeout(330)
def test_every_row_has_figures_of_each_side_and_a_verdict_on_each_bound(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    run = told(file, ran("compare", "--tiny", "--rounds", "1", "--json", file))

    assert {row["key"] for row in run["rows"]} == ROWS
    for row in run["rows"]:
        assert {"connect", "official"} <= row["sides"].keys()
        assert all(side["median_s"] > 0 and side["peak_mib"] > 0 for side in row["sides"].values())
        assert row["bounds"]
        for bound in row["bounds"]:
            value = bound["values"]["connect"]
            assert bound["holds"] == (
                value >= bound["limit"] if "rate" in bound["bound"] else value <= bound["limit"]
            )

    document = tmp_path / "performance.md"
    document.write_text((BENCHMARKS.parent / "docs" / "performance.md").read_text())
    assert ran("report", file, file, "--document", document).returncode == 0
    tables = document.read_text()
    assert all(f"| {row['title']} | " in tables for row in run["rows"])


@pytest.mark.timeout(330)
def test_growth_is_measured_point_by_point(tmp_path: Path) -> None:
    file = tmp_path / "growth.json"
    run = told(file, ran("growth", "--tiny", "--rounds", "1", "sandboxes", "--json", file))

    (axis,) = run["axes"]
    assert {line["side"] for line in axis["lines"]} == {"connect", "grpc", "official"}
    assert all([point["count"] for point in line["points"]] == [4, 5] for line in axis["lines"])


@pytest.mark.timeout(330)
def test_profiles_tell_what_each_process_and_function_takes(tmp_path: Path) -> None:
    file = tmp_path / "profiles.json"
    run = told(file, ran("profiles", "--tiny", "--rounds", "1", "files-list", "file-up", "--json", file))

    found = {(one["key"], one["side"]): one for one in run["profiles"]}
    assert found.keys() == {
        (key, side) for key in ("files-list", "file-up") for side in ("connect", "official", "floor")
    }
    assert all(one["wall"] > 0 for one in found.values())
    assert found["files-list", "connect"]["functions"]

    document = tmp_path / "performance.md"
    document.write_text((BENCHMARKS.parent / "docs" / "performance.md").read_text())
    assert ran("report", file, "--document", document).returncode == 0
    assert f"| {run['profiles'][0]['title']} | " in document.read_text()
