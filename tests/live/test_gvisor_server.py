"""A server whose sandboxes run on gVisor's kernel, by way of the SDK."""

from __future__ import annotations

import os
import shutil

import pytest

from sandbox_local import LocalServer
from sandbox_sync import Sandbox
from tests.live.unprivileged import run_unprivileged

_START = """
import asyncio
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.gvisor import runsc
from sandbox_local.isolation.namespaces import NamespaceBackend

async def main():
    backend = NamespaceBackend(runsc=runsc.find())
    try:
        await backend.start()
        print("STARTED")
    except IsolationError as error:
        print(error)
    await backend.close()

asyncio.run(main())
"""


@pytest.mark.skipif(
    shutil.which("runsc") is None or os.geteuid() != 0, reason="needs the program `runsc` of gVisor, and root"
)
def test_a_sandbox_lives_and_is_killed() -> None:
    with LocalServer(isolation="gvisor") as server:
        key, url = server.api_key, server.url
        with Sandbox.create(api_key=key, api_url=url, sandbox_url=url) as sandbox:
            assert sandbox.commands.run("cat /proc/version && exit 0").stdout.startswith("Linux version")
            sandbox.files.write("/home/user/a", "from outside")
            assert sandbox.commands.run("cat a").stdout == "from outside"
            assert sandbox.kill()
            assert not sandbox.is_running()


@pytest.mark.skipif(shutil.which("runsc") is None, reason="needs the program `runsc` of gVisor")
def test_a_user_with_one_id_is_told_what_it_takes() -> None:
    """G27: what was asked for and can't be had is an error with its remedy, and no other isolation."""
    said = run_unprivileged(_START)
    assert said.startswith(
        "gVisor needs a range of user ids. Remedy: run the server as root, or install newuidmap"
    )
