"""sudo for boxes in which the host's own can't work."""

from __future__ import annotations

from sandbox_local.isolation.ids import Ids


def install(local: str, python: str, ids: Ids) -> dict[str, str]:
    return {}
