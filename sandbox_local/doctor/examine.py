"""The examination: start what the server would start, look, and end it."""

from __future__ import annotations

import asyncio
import os

from sandbox_local.config import Config
from sandbox_local.doctor import bounds, gvisor, inside, machine, network
from sandbox_local.doctor.report import Report, Section
from sandbox_local.isolation.base import BoxSpec
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.namespaces import NamespaceBackend

_SECONDS = 60.0


async def examine() -> Report:
    """Examine this machine, as this user.

    Raises:
        OSError: Sandboxes can be made, but nothing can be run in them.
    """
    report = Report(machine.facts())
    os.environ[inside.CANARY] = "to be found in no sandbox"
    backend = NamespaceBackend()
    try:
        await backend.start()
    except IsolationError as error:
        report.refusal = str(error)
        return report
    try:
        report.sections = await asyncio.wait_for(_sections(backend), _SECONDS)
    finally:
        await backend.close()
    return report


async def _sections(backend: NamespaceBackend) -> list[Section]:
    limits = Config().limits
    one, two = [await backend.create(BoxSpec(name, limits=limits)) for name in ("doctor1", "doctor2")]
    small = await backend.create(BoxSpec("doctor3", limits=bounds.SMALL))
    return [
        *await inside.examine(one, two),
        await bounds.examine(small, backend.enforcement, limits),
        Section("More", [await network.examine(backend), await gvisor.examine(), machine.debootstrap()]),
    ]
