"""What is known of sandboxes, and what can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any


class SandboxState(str, Enum):
    """What a sandbox is doing."""

    RUNNING = "running"
    PAUSED = "paused"


@dataclass(frozen=True)
class SandboxInfo:
    """A sandbox as the service knows it.

    Attributes:
        sandbox_id: Its id.
        template_id: The template it was made from.
        name: The template's name, if it has one.
        metadata: What was given as `metadata` when it was created.
        started_at: When it started.
        end_at: When its lifetime ends; of a paused one, when it was paused.
        state: What it is doing; a state that this SDK does not know is handed on as the service's word.
        cpu_count: Number of CPUs.
        memory_mb: Memory in MiB.
        envd_version: Version of the agent inside.
        sandbox_domain: Domain under which its ports are reached, if it differs from the service's.
        allow_internet_access: Whether it may reach the internet; None if the service does not say.
        network: Its network rules, if any.
        lifecycle: What happens at the end of its lifetime, if the service says.
        volume_mounts: Volumes mounted in it, each with `name` and `path`.
        envd_unresponsive_at_pause: Whether the agent inside did not answer when it was paused.
    """

    sandbox_id: str
    template_id: str
    name: str | None
    metadata: dict[str, str]
    started_at: datetime
    end_at: datetime
    state: SandboxState | str
    cpu_count: int
    memory_mb: int
    envd_version: str
    sandbox_domain: str | None = None
    allow_internet_access: bool | None = None
    network: dict[str, Any] | None = field(default=None, repr=False)  # may hold headers that are secret
    lifecycle: dict[str, Any] | None = None
    volume_mounts: list[dict[str, str]] = field(default_factory=list)
    envd_unresponsive_at_pause: bool | None = None


ListedSandbox = SandboxInfo


@dataclass(frozen=True)
class SandboxMetrics:
    """What a sandbox used at one time.

    Attributes:
        cpu_count: Number of its CPUs.
        cpu_used_pct: Their use, in percent.
        disk_total: Size of its disk in bytes.
        disk_used: Bytes of it that are in use.
        mem_total: Its memory in bytes.
        mem_used: Bytes of it that are in use.
        mem_cache: Bytes of it that are used for caches.
        timestamp: When this was measured.
    """

    cpu_count: int
    cpu_used_pct: float
    disk_total: int
    disk_used: int
    mem_total: int
    mem_used: int
    mem_cache: int
    timestamp: datetime


@dataclass(frozen=True)
class SnapshotInfo:
    """What was saved of a sandbox while it ran.

    Attributes:
        snapshot_id: Its id, which `Sandbox.create()` takes for a template.
        names: Its names.
    """

    snapshot_id: str
    names: list[str]


@dataclass(frozen=True)
class SandboxQuery:
    """Which sandboxes to list; all conditions have to hold.

    Attributes:
        metadata: Keys and values that a sandbox's metadata must contain.
        state: States to list; running ones only when left out.
        started_after: List only those that started at this time or later.
        template: List only those made from this template, by name or id.
    """

    metadata: dict[str, str] | None = None
    state: list[SandboxState] | None = None
    started_after: datetime | None = None
    template: str | None = None
