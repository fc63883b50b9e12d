"""Machines that refuse isolation: one error that names cause and remedy, and never a box without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live.denial import NO_MORE_NAMESPACES

_START = """
import asyncio
from sandbox_local.isolation.base import BoxSpec, IsolationError
from sandbox_local.isolation.namespaces import NamespaceBackend

async def main():
    backend = NamespaceBackend()
    try:
        await backend.start()
        print("STARTED")
    except IsolationError as error:
        print(error)
    try:
        await backend.create(BoxSpec("box"))
        print("CREATED")
    except IsolationError:
        print("refused")
    await backend.close()

asyncio.run(main())
"""

_UNSHARE = """
from sandbox_local.isolation import syscalls
syscalls.unshare(syscalls.CLONE_NEWUSER)
"""

_A_FILTER = """
from sandbox_local.isolation import syscalls
from sandbox_local.isolation.inside import seccomp
syscalls.load_seccomp(seccomp.command_filter())
"""


def _start(before: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", before + _START], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("denial", "cause", "remedy"),
    [
        (
            NO_MORE_NAMESPACES,
            "the kernel may make no user namespaces",
            "sysctl -w user.max_user_namespaces=",
        ),
        (_A_FILTER, "seccomp", "--security-opt seccomp=unconfined"),
    ],
)
def test_a_refusal_is_told_with_its_cause_and_remedy(denial: str, cause: str, remedy: str) -> None:
    """G27: where namespaces are denied, one error says why and what to do; nothing runs without isolation."""
    if subprocess.run([sys.executable, "-c", _UNSHARE], check=False, timeout=60).returncode:
        pytest.skip("this machine denies it without our doing")
    message, refused = _start(denial)
    assert message.startswith("This machine cannot make isolated sandboxes: ")
    assert cause in message
    assert remedy in message
    assert "Nothing is ever run without isolation." in message
    assert refused == "refused"
