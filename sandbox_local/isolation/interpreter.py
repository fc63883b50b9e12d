"""Which Python a box has: the host's own from /usr, or else the one that the server itself runs on."""

from __future__ import annotations

import glob
import os
import sys
from typing import NamedTuple

PREFIX = "opt/python"
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

    def links(self) -> dict[str, str]:
        """Links by which a box finds it, by their paths in a box."""
        if not self.program:
            return {}
        names = ("python", "python3", os.path.basename(self.path))
        found = {f"usr/local/bin/{name}": self.path for name in names}
        # A program that looks for its shared libpython where the host has it finds it here.
        for library in map(os.path.basename, glob.glob(f"{self.library}/libpython*.so*")):
            for directory in ("usr/lib", "usr/lib64"):
                if os.path.isdir(f"/{directory}"):
                    found[f"{directory}/{library}"] = f"/{PREFIX}/lib/{library}"
        return found


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
