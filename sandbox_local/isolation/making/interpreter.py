"""Which Python a box has: the host's own from /usr, or else the one that the server itself runs on."""

from __future__ import annotations

import glob
import os
import sys
from typing import NamedTuple

PREFIX = "opt/py"
"""Where the server's interpreter lies in a box that is given it."""

_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/bin")


class Python(NamedTuple):
    """A Python for boxes.

    Attributes:
        path: The program's path in a box.
        program: The host's file that is shown there, or "" if the box sees it in the host's /usr anyway.
        library: The host's directory that is shown as `PREFIX/lib`, or "" likewise.
    """

    path: str
    program: str = ""
    library: str = ""

    def masks(self) -> list[str]:
        """Directories of a box to be hidden: packages that are installed on the host."""
        installed = [
            path[len(self.library) :]
            for pattern in ("site-packages", "dist-packages")
            for path in glob.glob(f"{self.library}/python3*/{pattern}")
        ]
        return [f"{PREFIX}/lib{path}" for path in installed] if self.library else []

    def starters(self) -> dict[str, bytes]:
        """Programs by which a box finds it, by their paths below /usr/local.

        They are no links, since venvs that CPython 3.13.0 makes of a linked Python do not find their library.
        """
        names = ("python", "python3", os.path.basename(self.path))
        starter = f'#!/bin/sh\nexec {self.path} "$@"\n'.encode()
        return {f"bin/{name}": starter for name in names} if self.program else {}

    def relocated(self) -> bytes | None:
        """The program, changed to find its shared library in a box; None if it does that as it is."""
        there = f"/{PREFIX}/lib".encode()
        here = os.fsencode(self.library)
        with open(self.program, "rb") as file:
            content = file.read()
        if here + b"\0" not in content or len(there) > len(here):
            return None
        return content.replace(here + b"\0", there.ljust(len(here) + 1, b"\0"))


def choose(*, expose: bool) -> Python:
    """The Python of the boxes.

    Args:
        expose: Give them the server's even if the host has one in /usr.
    """
    if not expose:
        for path in (f"{directory}/python3" for directory in _DIRECTORIES):
            if os.access(path, os.X_OK) and os.path.realpath(path).startswith(("/usr/", "/bin/")):
                return Python(path)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    program = os.path.realpath(f"{sys.base_prefix}/bin/{name}")
    return Python(f"/{PREFIX}/bin/{name}", program, f"{sys.base_prefix}/lib")
