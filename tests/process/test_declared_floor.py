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
import google.protobuf, grpc, pydantic, requests, urllib3
from importlib.metadata import distribution
from sandbox_sync import Sandbox
for transport in ("connect", "grpc"):
    with Sandbox.create(transport=transport) as sandbox:
        sandbox.files.write("a.txt", "text")
        assert sandbox.files.read("a.txt") == "text"
        assert [entry.name for entry in sandbox.files.list(".")].count("a.txt") == 1
        assert sandbox.commands.run("echo out; echo err >&2").stderr == "err\\n"
        assert [item.sandbox_id for item in Sandbox.list()] == [sandbox.sandbox_id]
for module in (google.protobuf, grpc, pydantic, requests, urllib3):
    print(module.__name__, module.__version__)
"""


def declared_floors() -> dict[str, str]:
    """Name and oldest release of each dependency of the client, from the project's metadata."""
    section = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert section is not None
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)"', section.group(1)))


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
def test_client_works_on_exactly_the_declared_floors(
    oldest_releases: Path, server_env: dict[str, str]
) -> None:
    """G43: with the oldest declared releases installed, both transports create, run, read and list."""
    done = subprocess.run(
        [sys.executable, "-c", USE_BOTH_TRANSPORTS],
        env={**os.environ, **server_env, "PYTHONPATH": str(oldest_releases)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used = dict(line.split() for line in done.stdout.splitlines())
    floors = declared_floors()
    for module, name in (("grpc", "grpcio"), ("google.protobuf", "protobuf"), ("urllib3", "urllib3")):
        assert used[module] == floors[name]
