"""Whose a control group is, and doing away with those of servers that are dead.

The name of a server's group tells the process and when it started, so that a number that has passed on to
another process is no living server's; and the PID namespace that the number is of.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

_NAME = re.compile(r"sandboxes-(\d+)-(\d+)-(\d+)-\d+(?:\.server)?")
_numbers = itertools.count()


def own_name() -> str:
    """A name for a group of this process's, another each time."""
    return f"sandboxes-{_namespace()}-{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}"


def remove(parent: Path) -> bool:
    """Remove the groups of dead servers in a group; True if something of them lives yet."""
    living = False
    for directory in parent.glob("sandboxes-*"):
        match = _NAME.fullmatch(directory.name)
        if match and int(match[1]) == _namespace() and _started(int(match[2])) != int(match[3]):
            living |= not remove_tree(directory)
    return living


def remove_tree(directory: Path) -> bool:
    """Remove a group with the groups in it; False if one of them is in use."""
    try:
        inner = [entry for entry in directory.iterdir() if entry.is_dir()]
        removed = sum(map(remove_tree, inner)) == len(inner)
        if removed:
            directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return removed


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
