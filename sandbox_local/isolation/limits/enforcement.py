"""What is bounded, by what, and what would have to change for more: for people, in plain data."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Shortfall:
    """A bound that a whole sandbox does not have on this machine.

    Attributes:
        resource: "memory", "pids" or "cpu".
        instead: What there is in its place.
        cause: Why.
        remedy: What to install or set.
    """

    resource: str
    instead: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Enforcement:
    """How the limits of sandboxes are enforced on this machine.

    Attributes:
        mechanism: In a word or two, such as "control groups (version 2)".
        bounded: What is bounded for each sandbox as a whole ("memory", "pids", "cpu"), and by what.
        shortfalls: What is not.
    """

    mechanism: str
    bounded: dict[str, str]
    shortfalls: list[Shortfall]

    def shortfall(self, resource: str) -> Shortfall | None:
        """Why a resource is not bounded for each sandbox as a whole; None if it is."""
        return next((shortfall for shortfall in self.shortfalls if shortfall.resource == resource), None)


_INSTEAD = {
    "memory": "each process may have as much data as a sandbox may have memory (RLIMIT_DATA), so many "
    "processes together may have more",
    "pids": "each user of a sandbox may have as many processes (RLIMIT_NPROC), so root may have "
    "more as several users",
    "cpu": "sandboxes share the processors with everything else as equals",
}


def describe(versions: dict[str, int], causes: dict[str, str]) -> Enforcement:
    """Put into words.

    Args:
        versions: The version of the control groups that bound each resource.
        causes: Why other resources have none.
    """
    used = sorted(set(versions.values()))
    mechanism = f"control groups (version {' and '.join(map(str, used))})" if used else "limits of processes"
    bounded = {resource: f"control group, version {version}" for resource, version in versions.items()}
    shortfalls = [
        Shortfall(resource, _INSTEAD[resource], cause, _remedy()) for resource, cause in causes.items()
    ]
    return Enforcement(mechanism, bounded, shortfalls)


def _remedy() -> str:
    if os.path.isdir("/run/systemd/system"):
        whose = "" if os.geteuid() == 0 else "--user "
        return f"start the server with `systemd-run {whose}--scope -p Delegate=yes COMMAND`"
    if os.geteuid() == 0:
        return (
            "mount control groups with the controllers memory, pids and cpu at /sys/fs/cgroup, writable; in "
            "a container that takes `--privileged`, or `--cgroupns=private` with a writable /sys/fs/cgroup"
        )
    return "run the server as root, or give its user a control group of its own with memory, pids and cpu"
