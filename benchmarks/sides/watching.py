"""Changes of a directory that tell themselves when they were made."""

from __future__ import annotations

import time
from collections.abc import Iterable

DIRECTORY = "watched"

_PROGRAM = (
    "import time\n"
    "for _ in range({count}):\n"
    "    time.sleep({pause})\n"
    "    open(f'{directory}/{{time.monotonic_ns()}}', 'w').close()\n"
)


def prepare() -> str:
    """A command that makes the directory, an empty one."""
    return f"rm -rf {DIRECTORY} && mkdir {DIRECTORY}"


def changes(count: int) -> str:
    """A command that is over at once; what it leaves behind makes so many files, named by the clock."""
    program = _PROGRAM.format(count=count, pause=0.05, directory=DIRECTORY)
    return f'nohup python3 -c "{program}" >/dev/null 2>&1 </dev/null &'


class Delays:
    """How long after each change news of it came."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._first: dict[str, float] = {}

    def told(self, name: str) -> bool:
        """Note the news of a file; returns whether all are in. A file's later events are none of a change."""
        if name not in self._first:
            self._first[name] = (time.monotonic_ns() - int(name)) / 1e9
        return len(self._first) == self._count

    def all_told(self, names: Iterable[str]) -> bool:
        """The same for several."""
        return len([name for name in names if self.told(name)]) > 0

    @property
    def seconds(self) -> list[float]:
        return list(self._first.values())
