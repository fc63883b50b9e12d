"""Which processes belong to a command, as /proc tells it.

gVisor gives all processes the same cgroup namespace, so that can't tell them apart. It keeps a score for the
killer of processes when memory is short, has no such killer, and hands the score on from parents to children,
whatever becomes of these: each command has one of its own. A program that sets its own score on purpose
leaves its command; what descends from others that have not is found all the same.
"""

from __future__ import annotations

import os

MARKS = range(1, 1001)
"""All scores that mark a command."""


def put_on(mark: int) -> None:
    """Mark this process, and what it forks from now on."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(mark))


def marks() -> dict[int, int]:
    """The mark of every process but this; 0 if it has none."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/oom_score_adj", "rb") as file:
                    found[int(name)] = int(file.read())
            except (OSError, ValueError):
                pass  # it has ended
    return found


def members(mark: int) -> set[int]:
    """The processes with a mark, and all that descend from them."""
    children: dict[int, list[int]] = {}
    found = set()
    todo = []
    for pid, its_mark in marks().items():
        children.setdefault(_parent(pid), []).append(pid)
        if its_mark == mark:
            todo.append(pid)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return found


def mark_of(pid: int) -> int:
    """The mark of a process, or of the next of its forebears that has one; 0 if none has."""
    found = marks()
    while pid in found and found[pid] not in MARKS:
        pid = _parent(pid)
    return found.get(pid, 0)


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
