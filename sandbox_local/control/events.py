"""What happened to a sandbox, kept in memory for the logs of the API."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

KEPT = 1000


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        at: When, in UTC.
        level: "debug", "info", "warn" or "error".
        message: What, in words.
        fields: Details.
    """

    at: datetime
    level: str
    message: str
    fields: dict[str, str] = field(default_factory=dict)


class EventLog:
    """The last events of one sandbox, oldest first; older ones are forgotten."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=KEPT)

    def add(self, message: str, level: str = "info", **fields: str) -> None:
        """Record an event that happens now."""
        self._events.append(Event(datetime.now(timezone.utc), level, message, fields))

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)
