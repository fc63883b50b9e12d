"""Whether commands can run on gVisor's kernel."""

from __future__ import annotations

from sandbox_local.doctor.report import Finding, State
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.gvisor import runsc
from sandbox_local.isolation.namespaces import NamespaceBackend

_TITLE = "gVisor"


async def examine() -> Finding:
    """Make a sandbox with it, if it is there."""
    try:
        found = runsc.find()
    except IsolationError as error:
        return Finding(_TITLE, State.OFF, str(error))
    backend = NamespaceBackend(runsc=found)
    try:
        await backend.start()
    except IsolationError as error:
        return Finding(_TITLE, State.OFF, str(error))
    finally:
        await backend.close()
    return Finding(_TITLE, State.ON, "commands run on its kernel with `serve --isolation gvisor`")
