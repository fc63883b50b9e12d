"""A server whose sandboxes run on gVisor's kernel, by way of the SDK."""

from __future__ import annotations

import os
import shutil

import pytest

from sandbox_local import LocalServer
from sandbox_sync import Sandbox


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
