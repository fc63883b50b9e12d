"""Deadlines, measured on a clock of the test's own."""

from __future__ import annotations

import pytest

from sandbox_sync.deadlines import Deadline, seconds
from sandbox_sync.errors import InvalidArgumentException


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_runs_down_and_stays_expired() -> None:
    clock = Clock()
    deadline = Deadline.after(2.0, clock)
    assert (deadline.remaining(), deadline.expired) == (2.0, False)
    clock.now += 1.5
    assert deadline.remaining() == 0.5
    clock.now += 1.5
    assert (deadline.remaining(), deadline.expired) == (0.0, True)


def test_no_deadline_never_expires() -> None:
    clock = Clock()
    deadline = Deadline.after(None, clock)
    clock.now += 1e9
    assert (deadline.remaining(), deadline.expired) == (None, False)


def test_the_sooner_of_two_bounds_counts() -> None:
    clock = Clock()
    deadline = Deadline.after(5.0, clock)
    assert deadline.sooner(2.0).remaining() == 2.0
    assert deadline.sooner(9.0).remaining() == 5.0
    assert deadline.sooner(None).remaining() == 5.0
    assert Deadline.after(None, clock).sooner(3.0).remaining() == 3.0


@pytest.mark.parametrize(("value", "expected"), [(None, None), (0, None), (0.0, None), (3, 3.0), (0.5, 0.5)])
def test_zero_and_none_are_no_limit(value: float | None, expected: float | None) -> None:
    assert seconds(value, "timeout") == expected


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5", object()])
def test_what_is_no_duration_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidArgumentException, match="request_timeout"):
        seconds(value, "request_timeout")  # type: ignore[arg-type]
