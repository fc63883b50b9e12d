"""gVisor's program `runsc` on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NamedTuple

from sandbox_local.isolation.errors import IsolationError

_SECONDS = 30.0
_FLAGS = (
    "--network=host",  # of the box's own network namespace, which has loopback only
    "--ignore-cgroups",
    "--file-access=shared",  # the file worker changes the same files
)
_IF_KNOWN = ("--overlay2=none",)
"""What builds may lack. Later ones would keep what commands write to themselves."""


class Runsc(NamedTuple):
    """The program, as the zygote is told of it.

    Attributes:
        path: Where it is.
        flags: What every call of it takes.
    """

    path: str
    flags: list[str]


def find() -> Runsc:
    """Look for it.

    Raises:
        IsolationError: There is none, or it does not run.
    """
    path = shutil.which("runsc")
    if path is None:
        raise IsolationError(
            "gVisor was asked for, but its program `runsc` is not on PATH. Remedy: install it (Debian: "
            "`apt install runsc`; others: https://gvisor.dev/docs/user_guide/install/), or ask for namespaces"
        )
    path = os.path.realpath(path)
    try:
        known = subprocess.run(
            [path, "flags"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            timeout=_SECONDS,
            check=False,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IsolationError(f"gVisor was asked for, but `{path}` does not run: {error}") from None
    extra = [flag for flag in _IF_KNOWN if f"-{flag.strip('-').partition('=')[0]} " in known]
    return Runsc(path, [*_FLAGS, *extra])
