"""The oldest releases that the project declares are enough for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USE_BOTH_TRANSPORTS = """
import os, sys
from importlib.metadata import version
from sandbox_local import LocalServer
from sandbox_sync import Sandbox
with LocalServer() as server:
    os.environ.update(server.env)
    for transport in ("connect", "grpc"):
        with Sandbox.create(transport=transport) as sandbox:
            sandbox.files.write("a.txt", "text")
            assert sandbox.files.read("a.txt") == "text"
            assert [entry.name for entry in sandbox.files.list(".")].count("a.txt") == 1
            assert sandbox.commands.run("echo out; echo err >&2").stderr == "err\\n"
            assert [item.sandbox_id for item in Sandbox.list()] == [sandbox.sandbox_id]
print(*(f"{name}=={version(name)}" for name in sys.argv[1:]))
"""


def declared_floors() -> dict[str, str]:
    """Name and oldest release of each dependency of client and server, from the project's metadata."""
    metadata = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|local) = \[\n(.*?)^\]", metadata, re.M | re.S)
    assert len(lists) == 2
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)"', "".join(lists)))


@pytest.fixture(scope="session")
def oldest_releases() -> Path:
    """A directory with exactly the declared floors, installed once per environment and set of floors."""
    pins = [f"{name}=={floor}" for name, floor in sorted(declared_floors().items())]
    target = Path(sys.prefix, "other-releases", "floor-" + "-".join(pins).replace("==", "-"))
    if not target.exists():
        scratch = target.with_name(f"floor.{os.getpid()}")
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", scratch, *pins],
            check=True,
            timeout=170,
        )
        try:
            scratch.rename(target)
        except OSError:  # Another worker was quicker.
            assert target.exists()
    return target


@pytest.mark.timeout(240)
def test_client_and_server_work_on_exactly_the_declared_floors(oldest_releases: Path) -> None:
    """G43: with the oldest declared releases installed, both transports create, run, read and list."""
    floors = declared_floors()
    done = subprocess.run(
        [sys.executable, "-c", USE_BOTH_TRANSPORTS, *floors],
        env={**os.environ, "PYTHONPATH": str(oldest_releases)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{name}=={floor}" for name, floor in floors.items()]
