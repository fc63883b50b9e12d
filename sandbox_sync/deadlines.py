"""The point in time by which something has to be done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from sandbox_sync.errors import InvalidArgumentException


def seconds(value: float | None, name: str) -> float | None:
    """A duration as callers give it: None and 0 both mean that there is no limit.

    Args:
        value: Seconds.
        name: The argument's name, for the error.

    Returns:
        The seconds, or None for no limit.

    Raises:
        InvalidArgumentException: It is negative, infinite, or no number.
    """
    if value is None:
        return None
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise InvalidArgumentException(f"{name} has to be seconds, or 0 for no limit; got {value!r}")
    return float(value) or None


class Deadline:
    """A point on a monotonic clock, or none at all. Immutable; shared freely between threads.

    Args:
        at: Reading of the clock at which it expires; None for never.
        clock: The clock; another one in tests.
        block: Seconds of the `with deadline(...)` that ends then; None where it is another clock's end.

    Attributes:
        block: The same.
    """

    __slots__ = ("_at", "_clock", "block")

    def __init__(
        self, at: float | None, clock: Callable[[], float] = time.monotonic, block: float | None = None
    ) -> None:
        self._at = at
        self._clock = clock
        self.block = block

    @classmethod
    def after(cls, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """The deadline so many seconds from now; None means that there is none."""
        return cls(None if seconds is None else clock() + seconds, clock)

    @classmethod
    def of_block(cls, seconds: float) -> Deadline:
        """The end of a `with deadline(seconds)` that begins now."""
        return cls(time.monotonic() + seconds, block=seconds)

    def comes_before(self, other: Deadline) -> bool:
        """Whether this one ends no later than another of the same clock."""
        return self._at is not None and (other._at is None or self._at <= other._at)

    def remaining(self) -> float | None:
        """Seconds left, never below zero; None when there is no deadline."""
        return None if self._at is None else max(0.0, self._at - self._clock())

    @property
    def is_never(self) -> bool:
        """Whether there is no deadline."""
        return self._at is None

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return self._at is not None and self._clock() >= self._at

    def sooner(self, seconds: float | None) -> Deadline:
        """This deadline or the one `seconds` from now, whichever comes first; None changes nothing."""
        if seconds is None:
            return self
        at = self._clock() + seconds
        return self if self._at is not None and self._at <= at else Deadline(at, self._clock)
