"""A template of Debian's packages: a whole system, with its own sudo."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox_local import LocalServer
from sandbox_sync import Sandbox
from tests.live.rootfs import start_template

_MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")


@pytest.mark.timeout(400)
def test_a_system_is_built_and_has_users_and_its_own_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    reach = ["curl", "-sfm", "10", "-o", "/dev/null", f"{_MIRROR}/dists/stable/Release"]
    if shutil.which("curl") is None or subprocess.run(reach, check=False, timeout=30).returncode:
        pytest.skip("no mirror of Debian can be reached from this machine (DEBIAN_MIRROR names another)")
    with start_template(
        tmp_path / "store", "build", "debian", "--debootstrap", "--mirror", _MIRROR, "--include", "adduser"
    ) as building:
        out, err = building.communicate(timeout=350)
        assert building.returncode == 0, out[-2000:] + err[-2000:]
    with LocalServer(templates=tmp_path / "store") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        with Sandbox.create("debian", timeout=60) as sandbox:
            told = sandbox.commands.run("id -un; sudo -n id -u; sudo -n apt-get --version | head -1")
            assert told.stdout.split()[:3] == ["user", "0", "apt"]
            sandbox.commands.run("adduser --disabled-password --gecos '' another", user="root")
            assert sandbox.commands.run("whoami", user="another").stdout == "another\n"
