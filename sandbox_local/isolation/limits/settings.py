"""What is written to a control group so that it bounds what a box may use."""

from __future__ import annotations

from typing import NamedTuple

from sandbox_local.isolation.base import Limits

CONTROLLERS = ("memory", "pids", "cpu")

_PERIOD = 100_000  # microseconds; the kernel's own default
_LEAST_QUOTA = 1_000
_RESERVE = 32
"""Processes beyond what commands may have: a box that is full of them still does what the server asks."""


class Setting(NamedTuple):
    """One file of a group.

    Attributes:
        file: Its name.
        value: What to write.
        required: Whether the bound holds only if this can be written.
    """

    file: str
    value: str
    required: bool = True


def of_box(controller: str, version: int, limits: Limits) -> list[Setting]:
    """The settings of a box's group."""
    memory = str(limits.memory_bytes)
    if controller == "pids":
        return [Setting("pids.max", str(limits.processes + _RESERVE))]
    if controller == "memory":
        if version == 2:
            return [Setting("memory.max", memory), Setting("memory.swap.max", "0", required=False)]
        # The second is of memory and swap space together, and not there if the kernel does not count that.
        return [
            Setting("memory.limit_in_bytes", memory),
            Setting("memory.memsw.limit_in_bytes", memory, required=False),
        ]
    if limits.cpus is None:
        return []
    quota = max(int(limits.cpus * _PERIOD), _LEAST_QUOTA)
    if version == 2:
        return [Setting("cpu.max", f"{quota} {_PERIOD}")]
    return [Setting("cpu.cfs_period_us", str(_PERIOD)), Setting("cpu.cfs_quota_us", str(quota))]


def of_all(controller: str, version: int) -> list[Setting]:
    """The settings of the group that holds the groups of all boxes of a server: all of them together weigh
    a little less than the server alone when there is not enough processor time for everybody."""
    if controller != "cpu":
        return []
    return [Setting("cpu.weight", "80") if version == 2 else Setting("cpu.shares", "820")]
