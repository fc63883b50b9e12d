"""Whether sandboxes can be given a network."""

from __future__ import annotations

from sandbox_local.doctor.report import Finding, State
from sandbox_local.egress.gateway import Egress
from sandbox_local.isolation.base import Backend
from sandbox_local.isolation.errors import IsolationError

_TITLE = "outgoing network"


async def examine(backend: Backend) -> Finding:
    """Give a sandbox a network, and take it away again."""
    try:
        await Egress(own_port=0).prove(backend)
    except IsolationError as error:
        return Finding(_TITLE, State.OFF, str(error))
    return Finding(_TITLE, State.ON, "none, as long as `serve --internet` does not give it; then by rules")
