"""What is known of pools."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PoolStats:
    """What the sandboxes of a pool are doing, and what it has done since this process began to use it.

    Attributes:
        min: How many it keeps ready.
        max: How many there may be at once.
        idle: Sandboxes that are ready.
        in_use: Sandboxes that are handed out.
        making: Sandboxes that are being made.
        ending: Sandboxes that were given back and are being cleaned or killed.
        waiting: Threads that wait for a sandbox.
        made: How many were made.
        lent: How many times one was handed out.
        failed: How many could not be made.
        timed_out: How many waits ended without a sandbox.
        unhealthy: How many were replaced because they did not answer when they were to be handed out.
        dropped: How many were never given back, and were taken back when nothing referred to them any more.
    """

    min: int
    max: int
    idle: int = 0
    in_use: int = 0
    making: int = 0
    ending: int = 0
    waiting: int = 0
    made: int = 0
    lent: int = 0
    failed: int = 0
    timed_out: int = 0
    unhealthy: int = 0
    dropped: int = 0
