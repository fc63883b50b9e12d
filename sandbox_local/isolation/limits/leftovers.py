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


def remove(top: Path) -> bool:
    """Remove the groups of dead servers in a tree, wherever these were in it; True if some are in use yet."""
    in_use = False
    for parent, names, _ in os.walk(top):
        groups = [name for name in names if _NAME.fullmatch(name)]
        names[:] = set(names).difference(groups)
        if groups and os.access(parent, os.W_OK):
            dead = [Path(parent, name) for name in groups if _is_dead(name)]
            in_use |= sum(map(remove_tree, dead)) < len(dead)
    return in_use


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


def _is_dead(name: str) -> bool:
    match = _NAME.fullmatch(name)
    assert match
    return int(match[1]) == _namespace() and _started(int(match[2])) != int(match[3])


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
