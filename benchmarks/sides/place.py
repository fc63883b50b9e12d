"""Where a side finds the server, and how much it is to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """The servers of a run.

    Attributes:
        url: The embedded server.
        api_key: The key that it wants.
        events_url: The stand-in that sends many small events.
    """

    url: str
    api_key: str
    events_url: str = ""

    def options(self) -> dict[str, Any]:
        """How both SDKs are pointed at the embedded server."""
        return {"api_key": self.api_key, "api_url": self.url, "sandbox_url": self.url}


@dataclass(frozen=True)
class Sizes:
    """How much each row does.

    Attributes:
        events: Small events of one stream.
        output_mib: Length of a long output.
        file_mib: Length of a large file.
        file_kib: The same of a small one, in place of the large one.
        files: Small files of one call.
        crowd: Background commands at once.
        calls: Repetitions of a small call within a round.
        sandboxes: Sandboxes that are listed.
        changes: Changes of a watched directory within a round.
    """

    events: int = 100_000
    output_mib: int = 200
    file_mib: int = 256
    file_kib: int = 0
    files: int = 1000
    crowd: int = 500
    calls: int = 10
    sandboxes: int = 0
    changes: int = 10

    @property
    def file_bytes(self) -> int:
        """Length of the file that is moved."""
        return self.file_kib << 10 or self.file_mib << 20

    def as_json(self) -> dict[str, int]:
        return asdict(self)


TINY = Sizes(events=300, output_mib=1, file_mib=1, files=10, crowd=3, calls=2, changes=2)
"""Enough to see that everything works, and for nothing else."""
