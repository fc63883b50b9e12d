"""Control groups of servers that are gone: the end removes them, and after a crash the next start does."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox_local.isolation.base import BoxSpec
from sandbox_local.isolation.limits import hierarchy, leftovers
from tests.live.boxes import a_backend, in_loop

_OWNER = """
import asyncio
from sandbox_local.isolation.base import BoxSpec, Command
from sandbox_local.isolation.namespaces import NamespaceBackend

async def main():
    backend = NamespaceBackend()
    await backend.start()
    for name in ("one", "two"):
        box = await backend.create(BoxSpec(name))
        await box.spawn(Command(["sleep", "1000"], "user"))
    await box.close()
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def _groups_of(pid: int) -> list[Path]:
    """All control groups of a server."""
    return [path for tree in hierarchy.find() for path in tree.own.rglob(f"sandboxes-*-{pid}-*/**/tasks")]


def _need_groups() -> None:
    async def shortfalls() -> dict[str, str]:
        async with a_backend() as backend:
            return {shortfall.resource: shortfall.cause for shortfall in backend.enforcement.shortfalls}

    if missing := in_loop(shortfalls()):
        pytest.skip(f"no control groups: {missing}")


def _start_owner() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    assert select.select([owner.stdout], [], [], 60)[0]
    assert owner.stdout.readline() == b"ready\n"
    return owner


def test_the_next_start_removes_what_a_killed_server_left_and_nothing_of_a_living_one() -> None:
    _need_groups()
    living, killed = _start_owner(), _start_owner()
    try:
        of_living = _groups_of(living.pid)
        assert len(of_living) >= 2
        assert len(_groups_of(killed.pid)) >= 2
        killed.kill()
        killed.wait()

        async def start() -> None:
            async with a_backend():
                deadline = time.monotonic() + 10
                while _groups_of(killed.pid):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)

        in_loop(start())
        assert _groups_of(living.pid) == of_living
    finally:
        for owner in (living, killed):
            owner.kill()
            owner.wait()
            assert owner.stdout is not None
            owner.stdout.close()
    _need_groups()  # starts another, which removes those of the other


def test_the_end_of_a_box_and_of_a_server_leaves_no_group() -> None:
    _need_groups()

    async def work() -> None:
        before = set(_groups_of(os.getpid()))
        async with a_backend() as backend:
            empty = set(_groups_of(os.getpid()))
            assert empty > before
            box = await backend.create(BoxSpec("box"))
            await backend.create(BoxSpec("other"))
            assert set(_groups_of(os.getpid())) > empty
            await box.close()
        assert set(_groups_of(os.getpid())) == before

    in_loop(work())


def test_a_number_that_another_process_has_now_is_no_living_server(tmp_path: Path) -> None:
    own = leftovers.own_name()
    head, number = own.rsplit("-", 1)
    before, started = head.rsplit("-", 1)
    elsewhere = own.replace(before.split("-")[1], "1")
    reused = f"{before}-{int(started) + 1}-{number}"
    names = (own, elsewhere, reused, f"{reused}.server", "sandboxes", "sandboxes-of-another-program")
    for name in (*names, f"sandboxes/of/{reused}"):
        (tmp_path / name / "0").mkdir(parents=True)
    assert not leftovers.remove(tmp_path)
    assert list((tmp_path / "sandboxes" / "of").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        own,
        elsewhere,
        "sandboxes",
        "sandboxes-of-another-program",
    }
