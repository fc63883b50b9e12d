"""Running a program as a user who is nobody on this machine, on a copy of the project for everybody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import sandbox_local

_SPARE_ID = 54321
_IS_ROOT = os.geteuid() == 0

# Not by options of subprocess: these make it fork, which has gRPC start its threads anew, in whatever network
# namespace this thread may be.
_BECOME = f"""
import os, sys
os.setgroups([])
os.setresgid({_SPARE_ID}, {_SPARE_ID}, {_SPARE_ID})
os.setresuid({_SPARE_ID}, {_SPARE_ID}, {_SPARE_ID})
os.execv(sys.argv[1], sys.argv[1:])
"""


def run_unprivileged(program: str) -> str:
    """Run a Python program as a user without privileges; returns what it wrote.

    Raises:
        AssertionError: It failed, or did not end within a minute.
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        package = Path(sandbox_local.__file__).parent
        shutil.copytree(package, Path(directory, package.name), ignore=shutil.ignore_patterns("__pycache__"))
        return _run(_python(), program, directory)


def _python() -> str:
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            if "yes" in _run(
                python, "import sys; print('yes' if sys.version_info >= (3, 10) else 'no')", "/"
            ):
                return python
        except (OSError, AssertionError):
            continue
    pytest.skip("no Python of this machine is for everybody")


def _run(python: str, program: str, import_root: str) -> str:
    argv = [python, "-c", program]
    done = subprocess.run(
        [sys.executable, "-c", _BECOME, *argv] if _IS_ROOT else argv,
        env={"PYTHONPATH": import_root, "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
