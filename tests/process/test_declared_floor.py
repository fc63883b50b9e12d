"""The oldest releases that the project declares are enough for it, and the newest there are not too new."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RESOLVE_SECONDS = 50

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


def declared_runtime() -> list[str]:
    """The dependencies of the client, as declared."""
    metadata = (ROOT / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", metadata, re.M | re.S)
    return re.findall(r'"([^"]+)"', listed)


def installed_apart(label: str, pins: dict[str, str]) -> Path:
    """A directory with exactly these releases, made once per environment."""
    wanted = [f"{name}=={release}" for name, release in sorted(pins.items())]
    target = Path(sys.prefix, "other-releases", f"{label}-" + "-".join(wanted).replace("==", "-"))
    if not target.exists():
        scratch = target.with_name(f"{label}.{os.getpid()}")
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", scratch, *wanted],
            check=True,
            timeout=170,
        )
        try:
            scratch.rename(target)
        except OSError:  # Another worker was quicker.
            assert target.exists()
    return target


def require_that_it_works_with(releases: dict[str, str], directory: Path) -> None:
    """Use both transports with the releases of a directory."""
    done = subprocess.run(
        [sys.executable, "-c", USE_BOTH_TRANSPORTS, *releases],
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{name}=={release}" for name, release in releases.items()]


def resolve(*requirements: str) -> dict[str, str]:
    """What pip would install for these together, by name, from nothing but metadata.

    Raises:
        AssertionError: They cannot be installed together.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--no-input", "--disable-pip-version-check", "--only-binary", ":all:", "--report", "-"]
    try:
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, timeout=RESOLVE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the index took longer than {RESOLVE_SECONDS} s")
    assert done.returncode == 0, done.stderr
    packages = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {_canonical(package["name"]): package["version"] for package in packages}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="session")
def newest() -> dict[str, str]:
    """The releases that pip installs today."""
    floors = declared_floors()
    try:
        found = resolve(*(f"{name}>={floor}" for name, floor in floors.items()))
    except AssertionError as error:
        pytest.skip(f"no index can be reached: {error}")
    return {name: found[_canonical(name)] for name in floors}


@pytest.mark.timeout(240)
def test_client_and_server_work_on_exactly_the_declared_floors() -> None:
    """G31, G43: with the oldest declared releases installed, both transports create, run, read and list."""
    floors = declared_floors()
    require_that_it_works_with(floors, installed_apart("floor", floors))


def test_no_release_is_declared_to_be_too_new() -> None:
    """G31: an upper bound would stand in the way of what else a program needs."""
    for requirement in declared_runtime():
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), requirement


@pytest.mark.timeout(300)
def test_client_and_server_work_on_the_newest_releases(newest: dict[str, str]) -> None:
    """G31: as a rule all of this suite runs on them; where it does not, they are put apart and tried."""
    if newest != {name: version(name) for name in newest}:
        require_that_it_works_with(newest, installed_apart("newest", newest))


BESIDE = {
    "today's": [
        *("protobuf>=6.31.1,<8", "grpcio<2", "requests<3"),  # as tensorflow 2.21 has them
        *("google-cloud-pubsub", "google-cloud-storage", "grpcio-status"),
        *("opentelemetry-exporter-otlp-proto-grpc", "boto3"),
    ],
    # As tensorflow 2.12 to 2.17 and google-cloud of their time have them.
    "those of 2024": ["protobuf>=3.20.3,<5", "grpcio>=1.24.3,<2", "requests>=2.21,<3", "urllib3<2.3"],
}


@pytest.mark.parametrize("others", BESIDE.values(), ids=BESIDE.keys())
def test_it_can_be_installed_beside_what_programs_use(newest: dict[str, str], others: list[str]) -> None:
    """G31: protobuf, grpcio and urllib3 are what others bind to ranges of their own."""
    found = resolve(*declared_runtime(), *others)
    assert {_canonical(re.split("[<>=]", one)[0]) for one in [*declared_runtime(), *others]} <= found.keys()
