"""How long a sandbox lives: counted by a clock that nobody sets, told by the one on the wall."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

_DRIFT = timedelta(seconds=1)
"""What the clock on the wall may be corrected by before ends that were told by it are told anew."""


class Lease:
    """The time of one sandbox; none yet, or stopped, until it is renewed."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._end_at = datetime.now(timezone.utc)

    @property
    def left(self) -> float:
        """Seconds until its end; none while it is stopped."""
        return 0.0 if self._until is None else max(0.0, self._until - time.monotonic())

    @property
    def end_at(self) -> datetime:
        """Its end, UTC; while it is stopped, when it was stopped. The same each time it is asked for, unless
        somebody has set the clock."""
        if self._until is not None:
            expected = datetime.now(timezone.utc) + timedelta(seconds=self._until - time.monotonic())
            if abs(expected - self._end_at) > _DRIFT:
                self._end_at = expected
        return self._end_at

    def renew(self, seconds: float) -> None:
        """End so many seconds from now."""
        self._until = time.monotonic() + seconds
        self._end_at = datetime.now(timezone.utc) + timedelta(seconds=seconds)

    def stop(self) -> None:
        """Count no more."""
        self._until = None
        self._end_at = datetime.now(timezone.utc)
