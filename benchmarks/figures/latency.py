"""How long a sandbox and a command take, through the SDK."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

from figures.figure import Figure, milliseconds
from sandbox_sync import Sandbox

_CROWD = 100


def measure(options: dict[str, Any], rounds: int) -> Iterator[Figure]:
    """Create, run and kill; the floors are a program in new namespaces, and the same shell on the host."""
    names = ("create", "run", "kill", "namespaces", "shell")
    took: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds * 4):
        start = time.perf_counter()
        sandbox = Sandbox.create(timeout=600, **options)
        took["create"].append((time.perf_counter() - start) * 1000)
        sandbox.commands.run("true")  # the first has to find its pages
        took["run"].append(milliseconds(lambda: sandbox.commands.run("true")))  # noqa: B023
        took["kill"].append(milliseconds(sandbox.kill))
        took["namespaces"].append(milliseconds(_namespaces))
        took["shell"].append(milliseconds(_shell))
    create, run, kill, namespaces, shell = took.values()
    yield Figure("create", "ms", create, 20, floor=namespaces, note="floor: unshare and true")
    yield Figure('run("true")', "ms", run, 8, floor=shell, note="floor: bash -l -c true")
    yield Figure("kill", "ms", kill, 10, floor=namespaces, note="floor: unshare and true")
    many: list[float] = []
    for _ in range(max(1, rounds // 2)):
        made: list[Sandbox] = []
        start = time.perf_counter()
        for _ in range(_CROWD):
            made.append(Sandbox.create(timeout=600, **options))
        many.append((time.perf_counter() - start) * 1000)
        for sandbox in made:
            sandbox.kill()
    yield Figure(f"{_CROWD} creates in a row", "ms", many, 1500)


def _namespaces() -> None:
    subprocess.run(["unshare", "-Urpfmniu", "--mount-proc", "true"], check=True)


def _shell() -> None:
    subprocess.run(["/bin/bash", "-l", "-c", "true"], env={"HOME": "/nonexistent"}, check=True)
